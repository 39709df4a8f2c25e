"""What `--set` puts over a profile: a dotted key, and a value as YAML; a host is given by its name or its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from . import rules, slips
from .rules import InvalidValue
from .yaml_lines import Node, Problems, read, shown


def override(top: Node, overrides: Mapping[str, str], problems: Problems) -> Node:
    """Return `top` with these values at their keys; what cannot be set is noted."""
    for key, value in overrides.items():
        try:
            if not all(key.split(".")):
                raise InvalidValue("expected a dotted key such as model.dim")
            # A relative path of an override starts where the person types it.
            if new := read(value, Path.cwd(), problems, override=key):
                top = _put(top, key, slips.without_secrets(new, problems, key))
        except InvalidValue as why:
            problems.add(0, key, str(why))
    return top


def _put(node: Node, key: str, new: Node) -> Node:
    """Return `node` with `new` at a dotted key: a missing section is added, a host is given by name or number."""
    if isinstance(node.value, list):
        items = list(node.value)
        first, index = _item(items, key)
        rest = key[len(first) + 1 :]
        items[index] = _put(items[index], rest, new) if rest else new
        return replace(node, value=items)
    if not isinstance(node.value, dict | None):
        value = "seen what is not shown" if node.refused else rules.seen_text(node)
        raise InvalidValue(f"{value} where a mapping is needed to set `{shown(key)}` in it")
    first, _, rest = key.partition(".")
    entries = dict(node.value or {})
    entries[first] = _put(entries.get(first, Node(None, 0, node.folder)), rest, new) if rest else new
    return replace(node, value=entries)


def _item(items: list[Node], key: str) -> tuple[str, int]:
    """Return the name or number that `key` begins with, and its position; a name may contain dots."""
    places = {str(index): index for index in range(len(items))}
    places.update({str(name.value): index for index, item in enumerate(items) if (name := name_of(item))})
    for place in sorted(places, key=len, reverse=True):
        if key == place or key.startswith(f"{place}."):
            return place, places[place]
    known = ", ".join(map(shown, places))
    raise InvalidValue(f"expected one of this list: {known}{rules.suggestion(key.rpartition('.')[0] or key, places)}")


def name_of(host: Node) -> Node | None:
    """The name of a host's entry, if it has one."""
    return host.value.get("name") if isinstance(host.value, dict) else None
