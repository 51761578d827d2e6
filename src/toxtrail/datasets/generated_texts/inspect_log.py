"""Logs of UK AISI's Inspect: .eval (a ZIP archive with one JSON file per sample) and .json."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.config.schema import TextsConfig
from toxtrail.datasets.generated_texts.common import (
    GeneratedText,
    column_text,
    load_json,
    message_text,
    prompt_of_messages,
    require_keys,
    require_text,
    unknown_shape,
)
from toxtrail.datasets.readers.text import read_text
from toxtrail.errors import DataError
from toxtrail.records.rows import FinishReason
from toxtrail.regular_files import read_bytes

KEYS = ("id", "epoch", "input", "output")
FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "max_tokens": "length",
    "model_length": "length",
}
"""Supported values of Inspect's stop_reason."""
ATTACHMENT = "attachment://"
"""Reference that replaces a long text; the text is in the sample's `attachments`."""


def read_inspect(path: Path, config: TextsConfig) -> Iterator[GeneratedText]:
    """Yield the choices of each sample, epoch by epoch."""
    rows: list[tuple[int, int, str, Mapping[str, Any]]] = []
    seen: dict[tuple[str, int], str] = {}
    for number, (where, sample) in enumerate(_samples(path)):
        if not isinstance(sample, Mapping):
            raise DataError(f"{where}: it is not an object.")
        require_keys(where, sample, KEYS)
        epoch = sample["epoch"]
        if not isinstance(epoch, int) or isinstance(epoch, bool):
            raise DataError(f"{where}: epoch {epoch!r} is not a whole number.")
        if twin := seen.get((str(sample["id"]), epoch)):
            raise DataError(f"{where}: it has the id and epoch of {twin}.")
        seen[str(sample["id"]), epoch] = where
        rows.append((epoch, number, where, sample))
    for _, number, where, sample in sorted(rows, key=lambda row: row[:2]):
        prompt = (
            column_text(path, where, number, sample, config.prompt)
            if config.prompt
            else _prompt(where, sample)
        )
        yield from _choices(where, sample, prompt)


def _samples(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".eval":
        yield from _archived_samples(path)
        return
    log = load_json(path.name, read_text(path))
    samples = log.get("samples") if isinstance(log, Mapping) else None
    if not isinstance(samples, list):
        raise unknown_shape(
            path, "it has no list of samples (was the log read or written as its header alone?)"
        )
    yield from ((f"{path.name}, sample {i + 1}", sample) for i, sample in enumerate(samples))


def _archived_samples(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, limit=None))) as archive:
            names = [
                n for n in archive.namelist() if n.startswith("samples/") and n[-5:] == ".json"
            ]
            if not names:
                found = ", ".join(archive.namelist()[:5]) or "nothing"
                raise unknown_shape(path, f"the archive has no samples/*.json; found {found}")
            for name in sorted(names):
                where = f"{path.name}, {name}"
                yield where, load_json(where, archive.read(name))
    except NotImplementedError as error:
        raise DataError(
            f"{path.name} cannot be unpacked here: {error}. Convert it: inspect log convert "
            f"{path.name} --to json --output-dir DIR"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path.name} is not a readable .eval archive: {error}.") from None


def _prompt(where: str, sample: Mapping[str, Any]) -> str:
    value = sample["input"]
    if not isinstance(value, str):
        messages = [
            {**message, "content": _resolved(where, sample, message.get("content"))}
            if isinstance(message, Mapping)
            else message
            for message in (value if isinstance(value, list) else [value])
        ]
        return prompt_of_messages(where, messages)
    return require_text(where, "input", _resolved(where, sample, value))


def _choices(where: str, sample: Mapping[str, Any], prompt: str) -> Iterator[GeneratedText]:
    output = sample["output"]
    choices = output.get("choices") if isinstance(output, Mapping) else None
    if choices is None or choices == []:
        yield GeneratedText(prompt, None)
        return
    if not isinstance(choices, list):
        raise DataError(f"{where}: output.choices is not a list.")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(message, Mapping) or "content" not in message:
            raise DataError(f"{where}: a choice of output has no message with content.")
        content = _resolved(where, sample, message["content"])
        reason = FINISH_REASONS.get(str(choice.get("stop_reason")), "unknown")
        yield GeneratedText(prompt, message_text(where, content), finish_reason=reason)


def _resolved(where: str, sample: Mapping[str, Any], content: object) -> object:
    """Return a content with its attachment in place of the reference."""
    if not isinstance(content, str) or not content.startswith(ATTACHMENT):
        return content
    attachments = sample.get("attachments")
    name = content.removeprefix(ATTACHMENT)
    if not isinstance(attachments, Mapping) or name not in attachments:
        raise DataError(f"{where}: the attachment {name} that a text refers to is missing.")
    return attachments[name]
