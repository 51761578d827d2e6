"""Connect to a server, find its request format, and check that it serves the weights on the card.

Nothing proves which weights a server has loaded. The checks are its own metadata, and the most
likely next token at every position of the probe sentences, which must match the variant's card and,
where the two differ, not that of its parent.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.generation.generator import context_length, ends_of
from toxtrail.backends.huggingface.weights.load import VerifiedFiles, verify_files
from toxtrail.backends.huggingface.weights.logit_probe import MIN_TOP_TOKEN_AGREEMENT
from toxtrail.backends.huggingface.weights.pretrained import CONFIG_CURE, read_config, read_json
from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.completions import RequestFormat
from toxtrail.backends.openai_api.connection import find_format, read_listing, server_environment
from toxtrail.backends.openai_api.model import ServedModel
from toxtrail.backends.protocols import Decoding, EncodedPrompt
from toxtrail.errors import BackendError
from toxtrail.pipeline import installed_versions
from toxtrail.provenance.identity import LogitProbe, ModelIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ONE_GREEDY = Decoding(1, 0.0, 1.0, "none")


class LocalTokenizer(NamedTuple):
    """The parts of a variant that are loaded locally: everything but its weights."""

    tokenizer: PreTrainedTokenizerBase
    stops: tuple[int, ...]
    window: int | None
    embeddings: int | None = None
    """Number of embeddings of the model."""


class ServedVariant(NamedTuple):
    """A connected and checked server."""

    model: ServedModel
    environment: dict[str, str]
    """The server's metadata and the request format, for manifests."""
    agreement: str
    """Description of its agreement with the probe."""
    unlike_parent: bool
    """Whether the probe distinguishes it from its parent."""
    listing: str
    """Whether its list of models has the name, as text."""


def local_parts(card: ModelIdentity, folder: Path, weights: HuggingFaceWeights) -> LocalTokenizer:
    """Hash every file of the card again, and load its tokenizer and settings.

    Raises:
        BackendError: a file differs from the card.
    """
    return local_parts_of(card, verify_files(card, folder, weights))


def local_parts_of(card: ModelIdentity, files: VerifiedFiles) -> LocalTokenizer:
    """Load the tokenizer and settings of verified files."""
    tokenizer, config = files.tokenizer(), read_config(files.base, files.name)
    embeddings = None if card.adapters else config.get_text_config().vocab_size  # may add some
    return LocalTokenizer(
        tokenizer, _stops(files.base, config, tokenizer), context_length(config), embeddings
    )


def connect(
    client: Client,
    name: str,
    card: ModelIdentity,
    parent: LogitProbe | None,
    local: LocalTokenizer,
    decoding: Decoding,
    concurrency: int,
    make: Callable[..., ServedModel] = ServedModel,
) -> ServedVariant:
    """Find the server's request format, and refuse it if it serves another model.

    Args:
        name: of the model on the server.
        parent: probe of the variant's parent.
        make: creates the model.

    Raises:
        ConfigError: the server has no model of this name.
        BackendError: no request format works, or its outputs do not match the card.
    """
    if card.probe is None:
        raise BackendError(f"models/{card.key}/model.json has no probe. Run its stage again.")
    listed = read_listing(client, name)
    longest = listed.entry.get("max_model_len")
    limits = [n for n in (local.window, longest) if isinstance(n, int) and n > 0]
    limit = min(limits, default=None)

    def model(decoding: Decoding, terms: RequestFormat, answers_as: str | None) -> ServedModel:
        return make(
            client, name, local.tokenizer, local.stops, limit, decoding, terms, concurrency,
            answers_as, local.embeddings,
        )  # fmt: skip

    ids = local.tokenizer(card.probe.texts[0])["input_ids"]
    options = [RequestFormat(tokens, more) for tokens in (True, False) for more in (True, False)]
    asking = [(t, model(ONE_GREEDY, t, None)) for t in options]
    terms, first = find_format(client, asking, ids, name, listed)
    probing = model(ONE_GREEDY, terms, first.model)
    agreement, unlike_parent = _refuse_stranger(
        client.url, probing, local.tokenizer, card, card.probe, parent
    )
    environment = {
        **server_environment(client, name, listed, terms, first),
        "token_ids_from": "the server" if first.token_ids is not None else "the text, re-encoded",
        "python": platform.python_version(),
        **installed_versions("transformers", "tokenizers"),
    }
    served = model(decoding, terms, first.model)
    listing = client.masked(listed.says_of(name))
    return ServedVariant(served, environment, agreement, unlike_parent, listing)


def _stops(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """List the end-of-sequence tokens of the published settings and of the tokenizer."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return ends_of(getattr(config.get_text_config(), "eos_token_id", None), tokenizer)
    read_json(folder / "generation_config.json", str(folder))
    with library_errors(f"{folder}: cannot read generation_config.json", CONFIG_CURE):
        settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return ends_of(settings.eos_token_id, tokenizer)


def _refuse_stranger(
    url: str,
    model: ServedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: ModelIdentity,
    variant_probe: LogitProbe,
    parent: LogitProbe | None,
) -> tuple[str, bool]:
    """Request the most likely next token at every position of the probe.

    Returns:
        A description of the agreement, and whether the probe distinguishes variant and parent.

    Raises:
        BackendError: too few match the card, or its parent's match better.
    """
    texts = [tokenizer(text)["input_ids"] for text in variant_probe.texts]
    prefixes = [tuple(ids[: end + 1]) for ids in texts for end in range(len(ids))]
    if len(prefixes) != len(variant_probe.top_tokens):
        raise BackendError(
            f"The probe of {card.key} does not match its tokenizer. Run its stage again."
        )
    requests = [EncodedPrompt(ids, fits=True) for ids in prefixes]
    completions = {n: c for n, c in model.complete(requests, [0] * len(requests)) if not c.error}

    def hits(probe: LogitProbe, among: Sequence[int]) -> int:
        return sum(_is_token(tokenizer, probe.top_tokens[n], completions[n]) for n in among)

    answered = sorted(completions)
    matching = hits(variant_probe, answered)
    agreement = f"{matching} of {len(answered)} most likely tokens match the card"
    if not answered or matching < MIN_TOP_TOKEN_AGREEMENT * len(answered):
        raise BackendError(
            f"{card.key}: the outputs of the server at {url} do not match the weights in "
            f"models/{card.key}: "
            f"{agreement} ({MIN_TOP_TOKEN_AGREEMENT:.0%} are required). It serves another model, "
            "or reads prompts differently. Serve the intended weights."
        )
    differing = [n for n in answered if parent and _differ(variant_probe, parent, n)]
    if parent and differing and hits(parent, differing) > hits(variant_probe, differing):
        raise BackendError(
            f"{card.key}: where the variant and its parent differ ({len(differing)} positions of "
            f"the probe), the server at {url} matches the parent {hits(parent, differing)} times, "
            f"and the "
            f"variant {hits(variant_probe, differing)} times. It may serve the parent, or not "
            "apply the adapter."
        )
    if differing:
        agreement += (
            f", {hits(variant_probe, differing)} of the {len(differing)} where its parent differs"
        )
    return agreement, bool(differing) or parent is None


def _differ(probe: LogitProbe, parent: LogitProbe, index: int) -> bool:
    """Return whether two models differ at a position; not with a parent of another tokenizer."""
    same_places = probe.texts == parent.texts and len(probe.top_tokens) == len(parent.top_tokens)
    return same_places and probe.top_tokens[index] != parent.top_tokens[index]


def _is_token(tokenizer: PreTrainedTokenizerBase, token: int, completion: Any) -> bool:
    """Return whether a continuation is this one token: by its id, or by its text."""
    if completion.token_ids == (token,):
        return True
    text = str(tokenizer.decode([token], skip_special_tokens=True))
    return bool(completion.text.strip() == text.strip())
