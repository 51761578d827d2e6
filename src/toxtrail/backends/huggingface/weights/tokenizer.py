"""Choose the tokenizer and chat template of a variant; an adapter may include its own.

Most adapters are published with the tokenizer that they were trained with, and behave as trained
only with its chat template. Most of these are copies of the base's and change nothing.
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
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "tiktoken.model", "tekken.json", "vocab.json", "vocab.txt",
)  # fmt: skip
"""Files each of which is a complete vocabulary (`merges.txt` belongs to `vocab.json`)."""
SETTINGS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
)  # fmt: skip
CONFIG = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Files, and a folder, of chat templates; else they are in tokenizer_config.json."""


class NamedFolder(NamedTuple):
    """A folder, and the name of its content in error messages."""

    name: str
    folder: Path


class TokenizerDifferences(NamedTuple):
    """Hashes of an adapter's tokenizer parts that differ from its base's; None where equal."""

    tokenizer_sha256: str | None
    chat_template_sha256: str | None


def tokenizer_of(base: NamedFolder, adapters: Sequence[NamedFolder]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base, or of the last adapter with a different one.

    Raises:
        BackendError: a tokenizer cannot be loaded.
    """
    tokenizer, sources = load_tokenizer(base.folder, base.name), [base.folder]
    for adapter in adapters:
        if not brings_tokenizer(path.name for path in adapter.folder.iterdir()):
            continue
        is_complete = any((adapter.folder / name).is_file() for name in VOCABULARY)
        sources = [adapter.folder] if is_complete else [*sources, adapter.folder]
        candidate = _load_merged(base, sources, adapter.name)
        if candidate.chat_template is None:
            candidate.chat_template = tokenizer.chat_template
        if any(tokenizer_differences(candidate, tokenizer)):
            tokenizer = candidate
    return tokenizer


def tokenizer_differences(
    tokenizer: PreTrainedTokenizerBase, before: PreTrainedTokenizerBase
) -> TokenizerDifferences:
    """Hash the parts in which an adapter's tokenizer differs from that of its base."""
    hashes, others = (
        (tokenizer_sha256(each), chat_template_sha256(each)) for each in (tokenizer, before)
    )
    return TokenizerDifferences(
        *(a if a != b else None for a, b in zip(hashes, others, strict=True))
    )


def brings_tokenizer(files: Iterable[str]) -> bool:
    """Return whether any of an adapter's files belongs to a tokenizer or is a chat template."""
    return any(name in (*VOCABULARY, *SETTINGS, *TEMPLATES) for name in files)


def refuse_unknown_tokens(
    tokenizer: PreTrainedTokenizerBase,
    before: PreTrainedTokenizerBase,
    embeddings: int,
    name: str,
) -> None:
    """Raise if an adapter's tokenizer has tokens for which its base has no embedding.

    Padding is masked, and tokens that the base's tokenizer also has are not the adapter's fault.

    Args:
        embeddings: rows of the base's embedding.
        name: of the adapter.
    """
    base_vocabulary = before.get_vocab()
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= embeddings
        and base_vocabulary.get(token) != number
        and number != tokenizer.pad_token_id
    }
    if beyond:
        first = min(beyond, key=lambda token: beyond[token])
        text = truncate_text(escape_control_chars(first), 50)
        raise BackendError(
            f"{name} includes a tokenizer with {len(beyond)} token(s) for which the base has "
            f'no embedding (it has {embeddings:,}); the first is "{text}" ({beyond[first]}). '
            "It was trained on a base with a larger vocabulary, and its files have no embeddings "
            "for these tokens. Merge it into that base and use the merged model, or use an "
            "adapter with the base's vocabulary."
        )


def _load_merged(base: NamedFolder, sources: Sequence[Path], name: str) -> PreTrainedTokenizerBase:
    """Load from the files of these folders; later ones replace earlier ones.

    The base's config.json is used to choose the class, so a copy is equal to the original.
    """
    config = read_config(base.folder, base.name)
    if len(sources) == 1:
        return load_tokenizer(sources[0], name, config=config)
    with TemporaryDirectory() as target:
        for path in _files_of(sources, name).values():
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, Path(target) / path.name)
        return load_tokenizer(Path(target), name, config=config)


def _files_of(sources: Sequence[Path], name: str) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for folder in sources:
        present = {
            file: folder / file
            for file in (*VOCABULARY, *SETTINGS, *TEMPLATES)
            if (folder / file).exists()
        }
        if _has_template(present, name):
            files = {file: path for file, path in files.items() if file not in TEMPLATES}
        files |= present
    return files


def _has_template(files: Mapping[str, Path], name: str) -> bool:
    settings: dict[str, Any] = read_json(files[CONFIG], name) if CONFIG in files else {}
    return bool(settings.get("chat_template")) or any(file in files for file in TEMPLATES)
