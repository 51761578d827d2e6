"""params.yaml -> Config. Read once; every problem of the file is reported at once.

Each problem says its place, what was found, what is allowed, and the nearest valid name. Nothing
heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from toxtrail.config import Config, Section
from toxtrail.errors import ConfigError, nearest
from toxtrail.references import broken_references
from toxtrail.regular_files import read_text
from toxtrail.yaml_text import YamlError, parse_yaml

S = TypeVar("S", bound=Section)


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
    config = validated(Config, values, name)
    if broken := list(broken_references(config)):
        raise problems(name, broken)
    return config


def validated(kind: type[S], values: Any, name: str) -> S:
    """Plain values as one of our types; `name` is the file's.

    Raises:
        ConfigError: with every problem, each with its place.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise problems(name, [_described(kind, detail) for detail in error.errors()]) from None


def problems(name: str, lines: list[str]) -> ConfigError:
    """One error for all that is wrong with a file."""
    noun = "problem" if len(lines) == 1 else "problems"
    return ConfigError("\n  ".join([f"{name} has {len(lines)} {noun}:", *lines]))


def _described(kind: type[Section], detail: ErrorDetails) -> str:
    location = [part for part in detail["loc"] if part != "[key]"]
    place = ".".join(str(part) for part in location) or "(top level)"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{place}: missing. It must be given."
    if detail["type"] == "extra_forbidden":
        fields = _fields_at(kind, location[:-1])
        return f"{place}: unknown name.{nearest(str(location[-1]), fields)}"
    found = repr(detail["input"])
    found = found if len(found) <= 60 else found[:57] + "..."
    return f"{place}: got {found}. {message.rstrip('.')}."


def _fields_at(kind: type[Section], location: list[int | str]) -> list[str]:
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
    return isinstance(candidate, type) and issubclass(candidate, Section)
