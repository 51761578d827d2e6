"""Types for the sections of params.yaml: names, counts, hashes, pinned assets."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from toxtrail.config.asset_uris import API_FORM, api_model_name, is_pinned, parse_uri
from toxtrail.errors import ConfigError


def form(pattern: str, means: str) -> AfterValidator:
    """Return a string type with this pattern; `means` describes it in messages."""
    expression = re.compile(pattern)

    def checked(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(f"Allowed: {means}")
        return text

    return AfterValidator(checked)


Key = Annotated[
    str,
    form(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, _ and -, a letter or digit first"),
]
"""Name of an entry; dots are not allowed because DVC uses them in parameter paths."""

Language = Annotated[
    str,
    form(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", "a tag of BCP 47 such as en, de or zh-Hans"),
]

PROJECT_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,54}-[0-9a-f]{8}"
PROJECT_ID_FORM = (
    "letters, digits, _, . and -, and at the end - and 8 hexadecimal digits; at most 64 characters"
)
ProjectId = Annotated[str, form(PROJECT_ID, PROJECT_ID_FORM)]
"""Id of a project: readable, and unique by its last 8 characters, which are random."""

Sha256 = Annotated[str, form(r"[0-9a-f]{64}", "the 64 hexadecimal digits of a SHA-256")]

ServedModelName = Annotated[str, StringConstraints(min_length=1)]
"""Name of a model on a server."""

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _valid_uri(text: str) -> str:
    try:
        parse_uri(text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


def _valid_model_uri(text: str) -> str:
    if api_model_name(text) is not None:
        return text
    try:
        return _valid_uri(text)
    except ValueError as error:
        raise ValueError(f"{error} A model on a server is {API_FORM}") from error


Uri = Annotated[str, AfterValidator(_valid_uri)]
"""`hf:org/name@<commit>`, `pypi:package==version/path`, `file:path` or `detoxify:NAME`."""

ModelUri = Annotated[str, AfterValidator(_valid_model_uri)]
"""Another `Uri`, or `api:NAME` for a model that is known by its name on a server only."""


RESERVED_ARGUMENTS = frozenset(
    {
        "messages", "tools", "documents", "conversations", "chat_template",
        "add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask",
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
        "mask_token", "additional_special_tokens", "raise_exception", "strftime_now",
    }
)  # fmt: skip
"""Variables of a chat template that are set from the conversation and the tokenizer."""


def _valid_arguments(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in arguments:
        if not name.isidentifier():
            raise ValueError(f'"{name}" is not a variable name')
        if name in RESERVED_ARGUMENTS:
            raise ValueError(f"{name} is set from the conversation and the tokenizer. Remove it")
    return arguments


TemplateArguments = Annotated[dict[str, JsonValue], AfterValidator(_valid_arguments)]
"""Further variables of a chat template: name -> JSON value."""


class ConfigSection(BaseModel):
    """Part of params.yaml. Unknown names and wrong types are errors; instances are immutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @classmethod
    def class_for(cls, values: object) -> type[Self]:
        """Return the class for these values: this one, or one of its kinds."""
        return cls

    def plain(self) -> dict[str, Any]:
        """Return the values as JSON types without absent options, as recorded in manifests."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


class PinnedAsset(ConfigSection):
    """Asset with its pin."""

    uri: Uri
    sha256: Sha256 | None = None
    """SHA-256 of the file, or of the tree of files. Not needed for an hf: URI with a 40-hex
    commit."""

    @property
    def pinned(self) -> bool:
        return is_pinned(self.uri, self.sha256)
