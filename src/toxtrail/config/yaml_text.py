"""YAML as DVC reads it (YAML 1.2), for every file of an experiment.

PyYAML supports YAML 1.1 only, where `no` is false, 1:30 is 90, 010 is 8 and 1e-4 is text; DVC
writes dvc.lock in YAML 1.2. Two parsers of one file must not read different values. Such forms are
rejected in files edited by users, except 1e-4, which is always intended as a number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
UNCLEAR = "tag:toxtrail,2026:unclear"
FORMS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?\.[0-9]+([eE][-+][0-9]+)?|[-+]?(0|[1-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
)
"""Tag, pattern, and first characters of unquoted values that are not text; the first match
applies."""
UNCLEAR_FORMS = (
    (
        r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF",
        "yYnNoO",
        "true or false for some YAML parsers and text for others. Write true or false; for the "
        "text put it in quotes",
    ),
    (
        r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?",
        "-+0123456789",
        "a number in base 60 for some YAML parsers and text for others. Write a plain number; "
        "for the text put it in quotes",
    ),
    (
        r"[-+]?0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?0o[0-7_]+|[-+]?0b[01_]+"
        r"|[-+]?0x[0-9a-fA-F]*_[0-9a-fA-F_]*",
        "-+0",
        "in base 2, 8 or 16 for some YAML parsers and not for others. Write a plain number, "
        "without a zero in front; for the text put it in quotes",
    ),
    (
        r"[-+]?\.[0-9_]+[eE][0-9]+",
        "-+.",
        "text for DVC and a number for others. Write a digit before the point; for the text put it "
        "in quotes",
    ),
    (
        r"[-+]_[0-9_]*|[-+]?\.[0-9]*_[0-9_]*([eE][-+]?[0-9]+)?",
        "-+.",
        "a number, or an error, for DVC and text for others. Write a plain number; for the text "
        "put it in quotes",
    ),
    (
        r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?",
        "0123456789",
        "a date. For the text put it in quotes",
    ),
)
LARGEST = 1_000_000
"""Maximum number of nodes of a file after aliases are expanded."""
CONFLICT = re.compile(r"^(<{7} |={7}\r?$|>{7} )", re.MULTILINE)
"""Git's markers of a merge conflict."""


class YamlError(ValueError):
    """Text that is not unambiguous YAML; the message gives the position and the reason."""


def parse_yaml(text: str, exact: bool = False) -> Any:
    """Parse plain values.

    Args:
        exact: read a number with a fraction as a Decimal, with the written digits.

    Raises:
        YamlError: invalid YAML, a duplicate key, a value that YAML versions interpret differently,
            or
            the markers of a merge conflict.
    """
    if problem := conflict_problem(text):
        raise YamlError(problem)
    try:
        loader = (_ExactLoader if exact else _Loader)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise YamlError(_described(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            f"line {line}: a control character (U+{int(error.character):04X}) is not allowed"
        ) from None
    except RecursionError:
        raise YamlError("it is nested too deep") from None


def conflict_problem(text: str) -> str | None:
    """Return the position of git's conflict markers and how to resolve it; None without markers."""
    if not (match := CONFLICT.search(text)):
        return None
    line = text.count("\n", 0, match.start()) + 1
    return (
        f"line {line}: found the markers of an unresolved merge conflict (<<<<<<<, =======, "
        ">>>>>>>). `toxtrail merge` merges params.yaml and dvc.lock by entries; by hand: keep one "
        "version and delete the markers"
    )


def by_yaml_12(loader: type[Any]) -> type[Any]:
    """Return a PyYAML loader that interprets plain values as DVC does."""
    loader.yaml_implicit_resolvers = {}
    for tag, form, first in FORMS:
        _add(loader, TAG + tag, form, first)
    return loader


def _add(loader: type[Any], tag: str, form: str, first: str) -> None:
    characters = [("" if c == "\0" else c) for c in first]
    loader.add_implicit_resolver(tag, re.compile(f"^(?:{form})$"), characters)


def _described(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    message = " ".join(part for part in (error.context, error.problem) if part)
    hint = ". Indent with spaces, not with tabs" if r"'\t'" in message else ""
    return f"{position}{message}{hint}"


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _size(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """Return the number of nodes with aliases expanded."""
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _refused(node, "the alias of this value is inside the value itself")
        return size
    sizes[id(node)] = None
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    pairs = inner if isinstance(node, yaml.SequenceNode) else [n for pair in inner for n in pair]
    size = 1 + sum(_size(item, sizes) for item in pairs)
    if size > LARGEST:
        raise _refused(node, f"with its aliases it has more than {LARGEST:,} values")
    sizes[id(node)] = size
    return size


def _unclear_colon(text: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    """Return the error for a colon within braces or brackets about which parsers differ: some read
    a key, others a text, and DVC refuses it where ruamel.yaml.clib is installed."""
    return yaml.scanner.ScannerError(
        None,
        None,
        f"the colon in {text} within braces or brackets is a part of a text for some YAML parsers "
        "and not for others. Put the text in quotes; write a space after the colon of a key",
        mark,
    )


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Loader that rejects values which YAML 1.1 and 1.2 interpret differently, and duplicate keys,
    of which PyYAML keeps the last."""

    def scan_plain(self) -> yaml.Token:
        """Read a value without quotes; within braces or brackets, one without a colon."""
        token = super().scan_plain()
        if self.flow_level and ":" in token.value:
            raise _unclear_colon(token.value, token.start_mark)
        return token

    def fetch_value(self) -> None:
        """Read the colon of a key; within braces or brackets, it needs a space or a quoted key."""
        last = self.tokens[-1] if self.tokens else None
        is_quoted = isinstance(last, yaml.ScalarToken) and not last.plain
        if self.flow_level and not is_quoted and self.peek(1) not in "\0 \t\r\n":
            raise _unclear_colon(f":{self.peek(1)}", self.get_mark())
        super().fetch_value()

    def fetch_key(self) -> None:
        """Read the question mark of a key; refused within braces or brackets."""
        if self.flow_level:
            problem = "a key with ? is not supported within braces or brackets"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())
        super().fetch_key()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[object] = set()
        for key_node, _ in node.value:
            merge = key_node.tag == TAG + "merge"
            key = "<<" if merge else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused(key_node, "a key is a list or a mapping, not a name")
            if key in keys:
                raise _refused(key_node, f"the key {key!r} occurs twice")
            keys.add(key)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """Read an integer."""
        try:
            number: int = self.construct_yaml_int(node)
        except ValueError:
            raise _refused(node, "this is not a number that can be read") from None
        return number

    def construct_unclear(self, node: yaml.ScalarNode) -> None:
        """Reject a value with two meanings."""
        meaning = next(
            what for form, _, what in UNCLEAR_FORMS if re.fullmatch(form, node.value, re.DOTALL)
        )
        raise _refused(node, f"{node.value} is {meaning}")


class _ExactLoader(_Loader):
    """Loader that keeps the digits of numbers."""

    def construct_digits(self, node: yaml.ScalarNode) -> Decimal | float:
        """Read a number with a fraction."""
        text = node.value.replace("_", "")
        return float(self.construct_yaml_float(node)) if "n" in text.lower() else Decimal(text)


by_yaml_12(_Loader)
for _form, _first, _ in UNCLEAR_FORMS:
    _add(_Loader, UNCLEAR, _form, _first)
_Loader.add_constructor(TAG + "int", _Loader.construct_whole)
_Loader.add_constructor(UNCLEAR, _Loader.construct_unclear)
_ExactLoader.add_constructor(TAG + "float", _ExactLoader.construct_digits)
