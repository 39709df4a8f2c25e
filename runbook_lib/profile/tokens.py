"""What looks like a password or a token, so that none is written to a file or shown by mistake.

A profile, a note and a run's name go into an archive that other people get. They name the file of a secret and never
hold one.
"""

from __future__ import annotations

import re

HIDDEN = "(not shown)"
SHORTEST_SECRET = 4
# The keys of a profile whose value is the path of a file that holds a secret.
SECRET_FILES = ("hf_token", "credentials", "urls")
SECRETS = (
    *SECRET_FILES,
    "password",
    "passphrase",
    "token",
)  # what people write there; only the files are read

_MIXED = r"(?=[\w-]*[A-Z])(?=[\w-]*[a-z])"
_FORMS = (
    rf"hf_{_MIXED}[A-Za-z0-9-]{{20,}}",
    r"api_org_[\w-]{12,}",
    r"gh[pousr]_[A-Za-z0-9]{16,}",
    r"github_pat_\w{16,}",
    r"gl(?:pat|ptt|cbt|dt|rt)-[\w-]{16,}",
    r"xox[abeoprs]-[\w-]{10,}",
    rf"(?:sk|pk|rk|nvapi|pypi|r8|wandb|dop|dckr_pat|npm|gsk|xai|pplx|cohere)[-_](?=[\w-]*\d){_MIXED}[\w-]{{20,}}",
    r"dapi[0-9a-f]{32}",
    r"A(?:KIA|SIA)[0-9A-Z]{16}",
    r"AIza[\w-]{30,}",
    r"eyJ[\w-]{10,}\.[\w-]{4,}(?:\.[\w-]*)?",
)
_PHRASES = (
    r"\b[Bb](?:earer|asic)\s+(?=\S*[A-Z0-9_])[\w.~+/=-]{12,}",
    r"-----BEGIN [A-Z ]+",
    r"://[^\s/:@]*:[^\s/@]+@",  # an address with a password
    # Addresses that take messages from whoever knows them.
    r"hooks\.slack\.com/(?:services|workflows)/[\w/-]{8,}",
    r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{8,}",
    r"[\w.-]+\.webhook\.office\.com/[\w@/.-]{8,}",
    r"\bbot\d{6,}:[\w-]{20,}",  # Telegram's
)
_NAMED = re.compile(r"(?i:\b(?:password|passwd|passphrase|secret|token|api[_-]?key)\b[\"']?\s*[=:]\s*)[^\s,;]{4,}")
_ANYWHERE = re.compile("|".join([rf"(?<![A-Za-z0-9])(?:{'|'.join(_FORMS)})", *_PHRASES]))
# These are secrets only when the text holds nothing else: in a longer text they are part of a name or an address.
_WHOLE = re.compile(r"\s*(?:hf_[\w-]{20,}|[^\s/:@]+:(?!//)[^\s@]+@\S+)\s*")

# Usual names for the file of a secret, where neither the file nor its folder exists yet.
_FILE_NAME = re.compile(
    r".+\.(?:token|credentials?|json|txt|key|pem|secret|urls?|cfg|conf|ya?ml)"
    r"|(?:(?:hf|hub|huggingface|my|ssh)[-_. ]?)?(?:tokens?|credentials?|key|login)",
    re.ASCII | re.IGNORECASE,
)


def looks_secret(text: str) -> bool:
    """Whether a text contains a token or a password in one of the usual forms."""
    return bool(_ANYWHERE.search(text) or _NAMED.search(text) or _WHOLE.fullmatch(text))


def hide(text: str) -> str:
    """Return `text` without tokens. The value after a word such as `password:` stays: messages use such words too."""
    return HIDDEN if _WHOLE.fullmatch(text) else _ANYWHERE.sub(HIDDEN, text)


def names_a_file(text: str) -> bool:
    """Whether a person could give the file of a secret this name; only the last part of a path counts."""
    name = text.rpartition("/")[2]
    return len(text) < SHORTEST_SECRET or bool(_FILE_NAME.fullmatch(name) and not re.search(r"[\s\"'{}=]", name))
