"""params.yaml -> Config. Read once; every problem of the file is reported at once.

Each problem says its place, what was found, what is allowed, and the nearest valid name. Nothing
heavy is imported here.
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
from toxtrail.config.schema import Config, ConfigSection
from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.redaction import redacted
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import escape_control_chars

S = TypeVar("S", bound=ConfigSection)
KeyPath = tuple[int | str, ...]
"""Names and list positions from the top of a file."""

MAX_VALUE_CHARS = 60
"""Characters of a value that a message shows."""
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
"""pydantic's type of error -> what it would have taken, in words."""


def load_config(path: Path) -> Config:
    """Read params.yaml.

    Raises:
        ConfigError: with every problem of the file.
    """
    return parse_config(read_yaml(path), path.name)


def read_yaml(path: Path, exact: bool = False) -> Any:
    """The file's plain values.

    Args:
        exact: a number with a fraction becomes a Decimal, with the digits that are written.

    Raises:
        ConfigError: it is not there, no UTF-8, or no YAML that has one meaning.
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
    """Plain values, checked one by one and then against each other; `name` is the file's."""
    config = validate_section(Config, values, name)
    if broken := list(config_problems(config)):
        raise config_error(name, broken)
    return config


def validate_section(kind: type[S], values: Any, name: str) -> S:
    """Plain values as one of our types; `name` is the file's.

    Raises:
        ConfigError: with every problem, each with its place.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise config_error(name, list(_described(kind, values, details))) from None


def config_error(name: str, lines: list[str]) -> ConfigError:
    """One error for all that is wrong with a file."""
    noun = "problem" if len(lines) == 1 else "problems"
    return ConfigError("\n  ".join([f"{name} has {len(lines)} {noun}:", *lines]))


def _described(
    kind: type[ConfigSection], values: Any, details: list[ErrorDetails]
) -> Iterator[str]:
    """One line for each place. Where several types are allowed, pydantic has an error for each;
    what is wrong inside of a value says more than that it could have been another type."""
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
            yield f"{_format_key_path(key_path)}: {_problem(kind, key_path, details_here)}"


def _key_path(values: Any, detail: ErrorDetails) -> KeyPath:
    """Where in the file; without the names of types that pydantic puts in between."""
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


def _problem(kind: type[ConfigSection], key_path: KeyPath, details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing. It must be given."
    if first["type"] == "extra_forbidden":
        return (
            f"unknown name.{did_you_mean(str(key_path[-1]), _fields_at(kind, list(key_path[:-1])))}"
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
    """How a value of the wrong type came about, where that is plain."""
    if "string_type" in types and isinstance(value, bool | int | float):
        return " Put it in quotes if it is text."
    if types & {"int_type", "float_type", "bool_type"} and isinstance(value, str):
        return " Without quotes, if it is in quotes." if PLAIN.fullmatch(value.strip()) else ""
    return ""


def shown(value: Any) -> str:
    """A value of a file for a message, shortened, without a password in an address."""
    text = redacted(json.dumps(value, ensure_ascii=False, default=str))
    return escape_control_chars(
        text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."
    )


def _fields_at(kind: type[ConfigSection], location: list[int | str]) -> list[str]:
    """The names allowed at a place of the file, found by walking the models' annotations."""
    current: Any = kind
    for part in location:
        candidates = [current, *_unwrapped(current)]
        model = next((c for c in candidates if _is_section(c)), None)
        if model is not None and part in model.model_fields:
            current = model.model_fields[str(part)].annotation
        else:
            current = next((c for c in _unwrapped(current) if _is_section(c)), current)
    model = next((c for c in [current, *_unwrapped(current)] if _is_section(c)), None)
    fields = model.model_fields if model is not None else {}
    return [field.alias or name for name, field in fields.items()]


def _unwrapped(annotation: Any) -> list[Any]:
    inner: list[Any] = []
    for argument in get_args(annotation):
        inner += [argument, *_unwrapped(argument)]
    return inner


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, ConfigSection)
