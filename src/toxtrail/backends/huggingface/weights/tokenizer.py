"""Which tokenizer and chat template does a variant read with? An adapter may bring its own.

Most adapters are published with the tokenizer that they were trained with, and answer as trained
only behind its chat template. Most of these are copies of the base's: then nothing is said.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.weights.pretrained import (
    chat_template_sha256,
    load_tokenizer,
    read_config,
    read_json,
    tokenizer_sha256,
)
from toxtrail.errors import BackendError
from toxtrail.text_escaping import clipped, visible

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "tiktoken.model", "tekken.json", "vocab.json", "vocab.txt",
)  # fmt: skip
"""Files any of which is a whole vocabulary (`merges.txt` goes with `vocab.json`)."""
SETTINGS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
)  # fmt: skip
CONFIG = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Files, and a folder, of chat templates; else they stand in tokenizer_config.json."""


class Named(NamedTuple):
    """A folder, and what error messages call what is in it."""

    name: str
    folder: Path


class Own(NamedTuple):
    """What an adapter brings that differs from what it is put on; None where it does not."""

    tokenizer_sha256: str | None
    chat_template_sha256: str | None


def tokenizer_of(base: Named, adapters: Sequence[Named]) -> PreTrainedTokenizerBase:
    """The tokenizer of the base, or of the last adapter that brings another one.

    Raises:
        BackendError: one cannot be loaded.
    """
    tokenizer, sources = load_tokenizer(base.folder, base.name), [base.folder]
    for adapter in adapters:
        if not brings_tokenizer(path.name for path in adapter.folder.iterdir()):
            continue
        whole = any((adapter.folder / name).is_file() for name in VOCABULARY)
        sources = [adapter.folder] if whole else [*sources, adapter.folder]
        found = _loaded(base, sources, adapter.name)
        if found.chat_template is None:
            found.chat_template = tokenizer.chat_template
        if any(own_parts(found, tokenizer)):
            tokenizer = found
    return tokenizer


def own_parts(tokenizer: PreTrainedTokenizerBase, before: PreTrainedTokenizerBase) -> Own:
    """The hashes of what differs between an adapter's tokenizer and that of its base."""
    hashes, others = (
        (tokenizer_sha256(one), chat_template_sha256(one)) for one in (tokenizer, before)
    )
    return Own(*(a if a != b else None for a, b in zip(hashes, others, strict=True)))


def brings_tokenizer(files: Iterable[str]) -> bool:
    """Whether any of an adapter's files belongs to a tokenizer or is a chat template."""
    return any(name in (*VOCABULARY, *SETTINGS, *TEMPLATES) for name in files)


def refuse_unknown_tokens(
    tokenizer: PreTrainedTokenizerBase,
    before: PreTrainedTokenizerBase,
    embeddings: int,
    name: str,
) -> None:
    """Raise if an adapter's tokenizer makes tokens that its base has no embedding for.

    Padding is masked, and what the base's own tokenizer has as well is no fault of the adapter.

    Args:
        embeddings: rows of the base's embedding.
        name: of the adapter.
    """
    known = before.get_vocab()
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= embeddings and known.get(token) != number and number != tokenizer.pad_token_id
    }
    if beyond:
        first = min(beyond, key=lambda token: beyond[token])
        shown = clipped(visible(first), 50)
        raise BackendError(
            f"{name} brings a tokenizer of its own with {len(beyond)} token(s) that the base has "
            f'no embedding for (it has {embeddings:,}), the first is "{shown}" ({beyond[first]}). '
            "It was trained on a base with a larger vocabulary, and its files "
            "hold no embeddings for these tokens. Merge it into that base and name the merged "
            "model, or take an adapter that keeps the base's vocabulary."
        )


def _loaded(base: Named, sources: Sequence[Path], name: str) -> PreTrainedTokenizerBase:
    """From the files of these folders, the later ones in place of the earlier ones.

    The base's config.json takes part in the choice of the class, so a copy is equal to the
    original.
    """
    config = read_config(base.folder, base.name)
    if len(sources) == 1:
        return load_tokenizer(sources[0], name, config=config)
    with TemporaryDirectory() as place:
        for path in _files_of(sources, name).values():
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, Path(place) / path.name)
        return load_tokenizer(Path(place), name, config=config)


def _files_of(sources: Sequence[Path], name: str) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for folder in sources:
        here = {
            one: folder / one
            for one in (*VOCABULARY, *SETTINGS, *TEMPLATES)
            if (folder / one).exists()
        }
        if _has_template(here, name):
            files = {one: path for one, path in files.items() if one not in TEMPLATES}
        files |= here
    return files


def _has_template(files: Mapping[str, Path], name: str) -> bool:
    settings: dict[str, Any] = read_json(files[CONFIG], name) if CONFIG in files else {}
    return bool(settings.get("chat_template")) or any(one in files for one in TEMPLATES)
