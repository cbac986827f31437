"""What is wrong with a key or a value of an experiment file, and what would be right."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from imgcls.config.key_names import Section, fields_of, known_keys, value_keys
from imgcls.config.synonyms import key_called
from imgcls.config.toml import as_toml
from imgcls.text import did_you_mean, either, nearest, suggestion

_KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
"""Pydantic's types of error for a value of the wrong kind -> the right kind."""

_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
"""Pydantic's types of error for a number beyond a limit -> the limit."""

_RULES = {
    "finite_number": "must be finite",
    "too_short": "must not be empty",
    "too_long": "must have {max_length} items",
    "missing": "is missing",
    "json_invalid": "is nested more deeply than any experiment",
    "value_error": "{error}",
}
"""Pydantic's further types of error -> what would be right."""

Place = tuple[int | str, ...]


def mistakes(error: ValidationError, tree: Any, schema: type[Section]) -> Iterator[str]:
    """The mistakes in a `tree` of an experiment, or in the value of a key: `key = value: what would be right`, each."""
    groups: dict[Place, list[tuple[Place, ErrorDetails]]] = defaultdict(list)
    for details in error.errors():
        place, union = _place(details, tree, schema)
        groups[place if union is None else union].append((place, details))
    for group in groups.values():
        # Every member of a union complains; those that looked furthest into the value are the ones that were meant.
        depth = max(len(place) for place, _ in group)
        meant: dict[Place, list[ErrorDetails]] = defaultdict(list)
        for place, details in group:
            if len(place) == depth:
                meant[place].append(details)
        unknown = [place for place, same in meant.items() if same[0]["type"] == "extra_forbidden"]
        for place in unknown or meant:  # a key that is missing is most likely the unknown one, misspelt
            yield _mistake(place, meant[place], tree, schema)


def _place(details: ErrorDetails, tree: Any, schema: type[Section]) -> tuple[Place, Place | None]:
    """Where in the user's text an error is, and the place of the union that it comes from, if it comes from one."""
    place: Place = ()
    union: Place | None = None
    node = tree
    for part in details["loc"]:
        is_missing = details["type"] == "missing" and part == details["loc"][-1]
        if _is_inside(part, node):
            place, node = (*place, part), node[part]
        elif is_missing or _dotted((*place, part)) in known_keys(schema):
            place, node = (*place, part), None
        elif union is None:  # the part is pydantic's name for a member of the union
            union = place
    return place, union


def _is_inside(part: int | str, node: Any) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, (list, tuple)) and isinstance(part, int) and part < len(node)


def _dotted(place: Place) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _mistake(place: Place, errors: Sequence[ErrorDetails], tree: Any, schema: type[Section]) -> str:
    key, value = _dotted(place), tree
    for part in place:
        if isinstance(part, str):
            value = value.get(part, errors[0]["input"])
    item = f"item {place[-1] + 1} " if place and isinstance(place[-1], int) else ""
    what = _has_lists(key, schema) or item + _remedy(key, value, errors, schema)
    if not key:
        return what
    spelt = key_text(key)
    return f"{spelt}: {what}" if isinstance(value, Mapping) else f"{spelt} = {value_text(value)}: {what}"


def _remedy(key: str, value: Any, errors: Sequence[ErrorDetails], schema: type[Section]) -> str:
    """What would be right, given all that the members of a union have against one value."""
    kinds, words = [], _words(errors)
    for details in errors:
        kind, context = details["type"], details.get("ctx", {})
        if kind == "extra_forbidden":
            return _unknown(key, schema)
        if kind in _LIMITS:
            return " or ".join([_LIMITS[kind].format(**context), *words])
        if kind in _RULES:
            return _RULES[kind].format(**context)
        if kind not in _KINDS and kind != "literal_error":
            return details["msg"]
        kinds.append(_KINDS.get(kind) or context["expected"].replace("'", '"'))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    meant = did_you_mean(value, [word.strip('"') for word in words]) if isinstance(value, str) else ""
    return f"must be {either(kinds)}{meant}"


def _words(errors: Sequence[ErrorDetails]) -> list[str]:
    """The words that a key takes in the place of another value, in quotes."""
    expected = (details["ctx"]["expected"] for details in errors if details["type"] == "literal_error")
    return [f'"{word}"' for words in expected for word in re.findall("'(.*?)'", words)]


def _unknown(key: str, schema: type[Section]) -> str:
    table, _, name = key.rpartition(".")
    if key in known_keys(schema):
        return "write it without quotes, or under its table"
    if table.startswith("search.space."):
        searched = table.removeprefix("search.space.")
        if any(known.startswith(f"{searched}.") for known in known_keys(schema)):
            return f'one key of [search.space], so write it in quotes: "{searched}.{name}" = …'
        return f"unknown key{hint(key, [f'{table}.{field}' for field in ('low', 'high', 'log', 'step')])}"
    return f"unknown key{hint(key, known_keys(schema))}"


def why_not_set(key: str, value: Any, schema: type[Section]) -> str:
    """The mistake in the key of an override that cannot set it to `value`; "" for a key that holds a value."""
    known, with_values = known_keys(schema), value_keys(schema)
    if key not in known:
        return f"unknown key{hint(key, known if isinstance(value, Mapping) else with_values)}"
    if key not in with_values:
        inner = next(other for other in with_values if other.startswith(f"{key}."))
        return f"is a section; name a key of it, such as {inner}"
    return ""


def why_not_a_value(tree: Mapping[str, Any]) -> str:
    """The mistake in a value that no key takes, such as a date; "" if there is none."""
    try:
        leaves = list(_leaves(tree))
    except RecursionError:
        return _RULES["json_invalid"]
    for key, leaf in leaves:
        if not isinstance(leaf, (bool, int, float, str)):
            return f"{key_text(key)} = {leaf}: no key takes a {type(leaf).__name__}; put text in quotes"
        if not _is_text(key) or not _is_text(leaf):
            return f"{key_text(key)} = {leaf!r}: must be valid UTF-8"
    return ""


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of whatever is neither a table nor a list."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _leaves(item, key)
    else:
        yield key, node


def _is_text(leaf: object) -> bool:
    """False for a string with half of a surrogate pair, which a command line that is not UTF-8 gives."""
    return not isinstance(leaf, str) or leaf.encode("utf-8", "replace").decode() == leaf


SEARCHABLE = ("data.image_size", "data.test_views", "model.", "augment.", "train.")
"""How the keys begin whose values can be searched."""


def why_not_searched(key: str, schema: type[Section]) -> str:
    """The mistake of searching a key that cannot be searched, with the remedy; "" if it can be."""
    searchable = [known for known in known_keys(schema) if known.startswith(SEARCHABLE)]
    if key in searchable:
        return _has_lists(f"search.space.{key}", schema)
    if key in known_keys(schema):
        return "cannot be searched; data.image_size, data.test_views and what is in [model], [augment] and [train] can"
    return f"unknown key{hint(key, searchable)}"


def _has_lists(place: str, schema: type[Section]) -> str:
    """What is wrong with a search space, or a part of it, that names a key whose values are lists; "" elsewhere."""
    for key, default, _ in fields_of(schema):
        if key.startswith(SEARCHABLE) and isinstance(default, tuple) and f"{place}.".startswith(f"search.space.{key}."):
            return f"cannot be searched, because each of its values is a list; sweep once for each, with --set {key}=…"
    return ""


def hint(key: str, known: Sequence[str]) -> str:
    """The hint on a mistaken key: the known one that was meant, a synonym, a similar key of its table, or any."""
    table, _, name = key.rpartition(".")
    if (meant := key_called(name)) in known:
        return suggestion(meant)
    names: dict[str, list[str]] = defaultdict(list)
    for candidate in known:
        names[candidate.rpartition(".")[2]].append(candidate)
    siblings = [last for last, keys in names.items() if any(k.rpartition(".")[0] == table for k in keys)]
    if close := nearest(name, siblings):
        return suggestion(f"{table}.{close}" if table else close)
    return suggestion(*names.get(nearest(name, names, cutoff=0.8), []))


def why_given_twice(pairs: Iterable[tuple[str, Any]]) -> str:
    """The mistake of a dotted key among (key, value) that stands there twice; "" where each stands once.

    The search space is one value, so what is in it is looked at as well.
    """
    seen: dict[str, Any] = {}
    for key, value in pairs:
        in_space = key == "search.space" and isinstance(value, Mapping)
        for name, one in ((f"{key}.{part}", each) for part, each in value.items()) if in_space else [(key, value)]:
            if name in seen:
                return (
                    f"{key_text(name)} is given twice, as {value_text(seen[name])} and {value_text(one)}; give it once"
                )
            seen[name] = one
    return ""


def key_text(key: str) -> str:
    """A key in the text of a mistake: on one line, not too long."""
    text = key if key.isprintable() else json.dumps(key)
    return text if len(text) <= 80 else text[:77] + "..."


def value_text(value: object) -> str:
    """A value in the text of a mistake: as in a file, but not too long."""
    try:
        text = repr(value) if value is None else as_toml(value)
    except RecursionError:
        return "..."
    return text if len(text) <= 80 else text[:77] + "..."
