"""Shell completion: a script for bash, zsh or fish, made from the verbs themselves; it starts no Python meanwhile.

bash expands what it completes from, so only names that runs can have are offered: another folder's may be a command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")
_BASH = """\
# Completion of `runbook` for bash. In ~/.bashrc: source <(runbook completion bash)
_runbook() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
    return
  fi
  case $word in
    -*)
      case $verb in
{options}
      esac
      return ;;
  esac
  case $verb in
    {of_profile}) compopt -o filenames 2>/dev/null
      COMPREPLY=($(compgen -d -- "$word") $(compgen -f -X '!*.y*ml' -- "$word")) ;;
    {of_run}) COMPREPLY=($(compgen -W "$(ls runs 2>/dev/null | grep -E '^[A-Za-z0-9_.-]+$')" -- "$word")) ;;
    *) compopt -o default 2>/dev/null ;;
  esac
}}
complete -F _runbook runbook
"""
_ZSH = """\
# Completion of `runbook` for zsh. In ~/.zshrc, after compinit: source <(runbook completion zsh)
autoload -U +X bashcompinit && bashcompinit
"""


def script(shell: str, verbs: Mapping[str, tuple[str, str, Sequence[str]]]) -> str:
    """Return the script of a shell. `verbs`: name -> (help, what its first argument is, its options)."""
    profiles = [name for name, (_, first, _) in verbs.items() if first == "profile"]
    runs = [name for name, (_, first, _) in verbs.items() if first == "run"]
    if shell == "fish":
        return _fish(verbs, profiles, runs)
    options = "\n".join(
        f'        {name}) COMPREPLY=($(compgen -W "{" ".join(known)}" -- "$word")) ;;'
        for name, (_, _, known) in verbs.items()
        if known
    )
    bash = _BASH.format(verbs=" ".join(verbs), options=options, of_profile="|".join(profiles), of_run="|".join(runs))
    return bash if shell == "bash" else _ZSH + bash


def _fish(verbs: Mapping[str, tuple[str, str, Sequence[str]]], profiles: Sequence[str], runs: Sequence[str]) -> str:
    lines = ["# Completion of `runbook` for fish: runbook completion fish > ~/.config/fish/completions/runbook.fish"]
    for name, (text, _, options) in verbs.items():
        words = text.replace("'", "")
        lines.append(f"complete -c runbook -f -n __fish_use_subcommand -a {name} -d '{words}'")
        lines += [
            f"complete -c runbook -n '__fish_seen_subcommand_from {name}' -l {o[2:]}" for o in options if o[:2] == "--"
        ]
    lines.append(f"complete -c runbook -F -n '__fish_seen_subcommand_from {' '.join(profiles)}'")
    lines.append(f"complete -c runbook -f -n '__fish_seen_subcommand_from {' '.join(runs)}' -a '(ls runs 2>/dev/null)'")
    return "\n".join(lines) + "\n"
