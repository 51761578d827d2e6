"""Load params.yaml into a Config; all problems of the file are reported at once.

Each problem is reported with its key, its value, what is allowed, and the most similar valid name.
This module imports no large libraries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from toxtrail.config.cross_checks import config_problems
from toxtrail.config.schema import Config
from toxtrail.config.sections import ConfigSection
from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.redaction import redacted
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import escape_control_chars

S = TypeVar("S", bound=ConfigSection)
KeyPath = tuple[int | str, ...]
"""Keys and list indices from the root of a file."""

MAX_VALUE_CHARS = 60
"""Maximum number of characters of a value in a message."""
PLAIN = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false", re.IGNORECASE)
ALLOWED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number without a decimal point",
    "float_type": "a number",
    "finite_number": "a number that is not infinite",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "names with values (NAME: VALUE)",
    "model_type": "names with values (NAME: VALUE)",
    "invalid_key": "a name that is text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "string_too_short": "text that is not empty",
    "literal_error": "{expected}",
    "decimal_type": "a number",
    "is_instance_of": "a number",
    "int_parsing_size": "a smaller number",
}
"""pydantic's error type -> description of what is allowed."""
MISSING_HINTS: dict[KeyPath, str] = {
    ("tracking", "project"): " `toxtrail upgrade` adds it. In a checkout of toxtrail's source, "
    "add it by hand: a name, - and 8 random hexadecimal digits."
}
"""Key path -> how to add what is missing."""


def load_config(path: Path) -> Config:
    """Load params.yaml.

    Raises:
        ConfigError: with every problem of the file.
    """
    return parse_config(read_yaml(path), path.name)


def read_yaml(path: Path, exact: bool = False) -> Any:
    """Read the file's plain values.

    Args:
        exact: read a number with a fraction as a Decimal, with the written digits.

    Raises:
        ConfigError: the file is missing, not UTF-8, or not unambiguous YAML.
    """
    try:
        return parse_yaml(read_text(path).removeprefix("\ufeff"), exact)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist. Run toxtrail in an experiment's folder, or name one with -C."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from error
    except YamlError as error:
        raise ConfigError(f"{path.name}, {error}.") from None


def parse_config(values: Any, name: str) -> Config:
    """Validate plain values, individually and then against each other; `name` is the file's
    name."""
    config = validate_section(Config, values, name)
    if broken := list(config_problems(config)):
        raise config_error(name, broken)
    return config


def validate_section(kind: type[S], values: Any, name: str) -> S:
    """Convert plain values to a toxtrail type; `name` is the file's name.

    Raises:
        ConfigError: with every problem and its key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise config_error(name, list(_described(kind, values, details))) from None


def config_error(name: str, lines: list[str]) -> ConfigError:
    """Return one error for all problems of a file."""
    noun = "problem" if len(lines) == 1 else "problems"
    return ConfigError("\n  ".join([f"{name} has {len(lines)} {noun}:", *lines]))


def _described(
    kind: type[ConfigSection], values: Any, details: list[ErrorDetails]
) -> Iterator[str]:
    """Return one line per key.

    If several types are allowed, pydantic reports an error for each; a problem inside a value is
    more informative than a mismatch of its type.
    """
    places: dict[KeyPath, list[ErrorDetails]] = {}
    of_union: set[KeyPath] = set()
    for detail in details:
        key_path = _key_path(values, detail)
        places.setdefault(key_path, []).append(detail)
        if len(key_path) < len([part for part in detail["loc"] if part != "[key]"]):
            of_union.add(key_path)
    outer = {key_path[:i] for key_path in places for i in range(len(key_path))}
    for key_path, details_here in places.items():
        if key_path not in outer & of_union:
            yield f"{_format_key_path(key_path)}: {_problem(kind, values, key_path, details_here)}"


def _key_path(values: Any, detail: ErrorDetails) -> KeyPath:
    """Return the key path in the file, without the type names that pydantic inserts."""
    inside: Any = values
    key_path: list[int | str] = []
    *above, last = detail["loc"] or ("[key]",)
    for part in (*above, *([] if detail["type"] == "missing" else [last])):
        if _has(inside, part):
            inside = inside[part]
            key_path.append(part)
    return (*key_path, last) if detail["type"] == "missing" else tuple(key_path)


def _has(values: Any, part: int | str) -> bool:
    if isinstance(values, list):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, Mapping) and part in values


def _format_key_path(key_path: KeyPath) -> str:
    return escape_control_chars(".".join(str(part) for part in key_path)) or "(top level)"


def _problem(
    kind: type[ConfigSection], values: Any, key_path: KeyPath, details: list[ErrorDetails]
) -> str:
    first = details[0]
    if first["type"] == "missing":
        return f"missing. It must be given.{MISSING_HINTS.get(key_path, '')}"
    if first["type"] == "extra_forbidden":
        return (
            "unknown name."
            f"{did_you_mean(str(key_path[-1]), _fields_at(kind, values, key_path[:-1]))}"
        )
    messages = [
        str(detail["ctx"]["error"]) for detail in details if detail["type"] == "value_error"
    ]
    allowed = dict.fromkeys(
        _allowed(detail) for detail in details if detail["type"] != "value_error"
    )
    sentences = [line.rstrip(".") for line in messages] or [f"Allowed: {', or '.join(allowed)}"]
    hint = _hint(first["input"], {detail["type"] for detail in details})
    return f"got {shown(first['input'])}. {'. '.join(sentences)}.{hint}"


def _allowed(detail: ErrorDetails) -> str:
    form = ALLOWED.get(detail["type"], "another value")
    return form.format(**{name: _plain(value) for name, value in detail.get("ctx", {}).items()})


def _plain(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else value


def _hint(value: Any, types: set[str]) -> str:
    """Return a likely cause of a value of the wrong type, if there is one."""
    if "string_type" in types and isinstance(value, bool | int | float):
        return " Put it in quotes if it is text."
    if types & {"int_type", "float_type", "bool_type"} and isinstance(value, str):
        return " Without quotes, if it is in quotes." if PLAIN.fullmatch(value.strip()) else ""
    return ""


def shown(value: Any) -> str:
    """Format a value for a message: shortened, and without passwords in addresses."""
    text = redacted(json.dumps(value, ensure_ascii=False, default=str))
    return escape_control_chars(
        text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."
    )


def _fields_at(kind: type[ConfigSection], values: Any, location: KeyPath) -> list[str]:
    """Return the names allowed at a key path, from the annotations of the models."""
    current: Any = kind
    for part in location:
        model = _section(current, values)
        if model is not None and part in model.model_fields:
            current = model.model_fields[str(part)].annotation
        else:
            current = next((c for c in _unwrapped(current) if _is_section(c)), current)
        values = values[part]
    model = _section(current, values)
    fields = model.model_fields if model is not None else {}
    return [field.alias or name for name, field in fields.items()]


def _section(annotation: Any, values: Any) -> type[ConfigSection] | None:
    """Return the section type for values of this annotation; None if there is none."""
    candidates = (annotation, *_unwrapped(annotation))
    section = next((c for c in candidates if _is_section(c)), None)
    return section.class_for(values) if section is not None else None


def _unwrapped(annotation: Any) -> list[Any]:
    inner: list[Any] = []
    for argument in get_args(annotation):
        inner += [argument, *_unwrapped(argument)]
    return inner


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, ConfigSection)
