"""Connect to a server, find its request format, and check that it serves the weights on the card.

Nothing proves which weights a server has loaded. The checks are its own metadata, and the most
likely next token at every position of the probe sentences, which must match the variant's card and,
where the two differ, not that of its parent.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.generation.generator import context_length, ends_of
from toxtrail.backends.huggingface.weights.load import verify_files
from toxtrail.backends.huggingface.weights.logit_probe import MIN_TOP_TOKEN_AGREEMENT
from toxtrail.backends.huggingface.weights.pretrained import CONFIG_CURE, read_config, read_json
from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.openai_api.client import Client, RefusedError, UnansweredError
from toxtrail.backends.openai_api.model import CompletionResponse, RequestFormat, ServedModel
from toxtrail.backends.protocols import Decoding, EncodedPrompt
from toxtrail.errors import BackendError, ConfigError, did_you_mean
from toxtrail.pipeline import installed_versions
from toxtrail.provenance.identity import LogitProbe, ModelIdentity

if TYPE_CHECKING:
    from requests import Response
    from transformers import PreTrainedTokenizerBase

BACKEND = "openai-api"

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


class ModelListing(NamedTuple):
    """A server's list of models."""

    names: tuple[str, ...]
    entry: Mapping[str, Any]
    """Entry of the requested model; empty if it is not listed."""
    software: str
    """The `Server` header; empty if there is none."""

    def says_of(self, name: str) -> str:
        """Describe whether the name is listed."""
        if name in self.names:
            return "which lists this name"
        if self.names:
            return f"which does not list this name (it lists {', '.join(self.names[:LISTED])})"
        return "which lists no models"


LISTED = 8
"""Largest number of model names in a message."""
LIST_TRIES = 2
"""Attempts to read the list of models, which is optional."""


def local_parts(card: ModelIdentity, folder: Path, weights: HuggingFaceWeights) -> LocalTokenizer:
    """Hash every file of the card again, and load its tokenizer and settings.

    Raises:
        BackendError: a file differs from the card.
    """
    files = verify_files(card, folder, weights)
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
) -> ServedVariant:
    """Find the server's request format, and refuse it if it serves another model.

    Args:
        name: of the model on the server.
        parent: probe of the variant's parent.

    Raises:
        ConfigError: the server has no model of this name.
        BackendError: no request format works, or its outputs do not match the card.
    """
    if card.probe is None:
        raise BackendError(f"models/{card.key}/model.json has no probe. Run its stage again.")
    listed = _read_listing(client, name)
    longest = listed.entry.get("max_model_len")
    limits = [n for n in (local.window, longest) if isinstance(n, int) and n > 0]
    limit = min(limits, default=None)

    def model(decoding: Decoding, terms: RequestFormat, answers_as: str | None) -> ServedModel:
        return ServedModel(
            client, name, local.tokenizer, local.stops, limit, decoding, terms, concurrency,
            answers_as, local.embeddings,
        )  # fmt: skip

    ids = local.tokenizer(card.probe.texts[0])["input_ids"]
    options = [RequestFormat(tokens, more) for tokens in (True, False) for more in (True, False)]
    asking = [(t, model(ONE_GREEDY, t, None)) for t in options]
    terms, first = _find_format(client, asking, ids, name, listed)
    probing = model(ONE_GREEDY, terms, first.model)
    agreement, unlike_parent = _refuse_stranger(probing, local.tokenizer, card, card.probe, parent)
    metadata = {
        "server_software": listed.software,
        "server_version": _read_version(client),
        "server_answers_as": first.model,
        "server_fingerprint": first.fingerprint,
        **{f"server_{key}": listed.entry.get(key) for key in ("owned_by", "root", "parent")},
    }
    if listed.names and name not in listed.names:
        metadata["server_lists"] = ", ".join(listed.names[:LISTED])
    environment = {
        "backend": BACKEND,
        "served_model_name": name,
        **{k: client.masked(v) for k, v in metadata.items() if isinstance(v, str) and v},
        "prompts_sent_as": "token ids" if terms.as_tokens else "text",
        "token_ids_from": "the server" if first.token_ids is not None else "the text, re-encoded",
        "unasked_penalties": "off" if terms.beyond_openai else "as the server has them",
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


def _read_listing(client: Client, name: str) -> ModelListing:
    """Read GET /v1/models, without `created`, which vLLM changes each time."""

    def read(response: Response) -> ModelListing:
        body = response.json()
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise ValueError("it lists no models")
        entries = {e["id"]: e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str)}
        software = response.headers.get("Server", "")
        return ModelListing(tuple(entries), entries.get(name, {}), software)

    try:
        return client.get(f"{client.url}/models", read, LIST_TRIES)
    except RefusedError as error:
        if error.status in (401, 403):
            raise
        return ModelListing((), {}, "")  # some gateways list nothing
    except UnansweredError as error:
        if error.status is None:
            raise
        return ModelListing((), {}, "")


def _read_version(client: Client) -> str | None:
    """Read vLLM's /version; None for other servers."""

    def read(response: Response) -> str | None:
        try:
            body = response.json()
        except ValueError:
            return None
        return str(body["version"]) if isinstance(body, dict) and "version" in body else None

    try:
        return client.get(f"{client.url.removesuffix('/v1')}/version", read)
    except (RefusedError, UnansweredError):
        return None


def _find_format(
    client: Client,
    options: Sequence[tuple[RequestFormat, ServedModel]],
    ids: list[int],
    name: str,
    listed: ModelListing,
) -> tuple[RequestFormat, CompletionResponse]:
    """Return the first format in which the server reads a probe sentence as the right tokens."""
    problem = ""
    for terms, model in options:
        sent = model.sent(ids)
        if sent is None:
            continue
        try:
            reply = model.request(sent, 0)
        except RefusedError as error:
            if error.status in (404, 405):
                raise _not_found(client, name, listed, error) from None
            if error.status in (401, 403):
                raise
            problem = str(error)
            continue
        except UnansweredError as error:
            _refuse_other_address(client, error)
            raise
        problem = model.misread(ids, reply)
        if not problem:
            return terms, reply
    raise BackendError(
        f'The server accepted none of {len(options)} request formats for "{name}", neither token '
        f"ids nor text. The last error: {problem}."
    )


def _not_found(
    client: Client, name: str, listed: ModelListing, error: RefusedError
) -> ConfigError | BackendError:
    """Return an error that tells which is missing: the address, the API, or the model."""
    _refuse_other_address(client, error)
    if listed.names and name not in listed.names:
        return ConfigError(
            f'The server has no model "{name}" ({error}).{did_you_mean(name, listed.names)} '
            "Set its name at variants.<variant>.served_model_name."
        )
    reason = f'It lists the model "{name}", so' if listed.names else f'If it has "{name}",'
    return BackendError(
        f"{error}. {reason} it does not offer OpenAI's completions API, which toxtrail needs (POST "
        "/v1/completions): prompts are continued as they are, without a chat template. A server "
        "with only the chat API (/v1/chat/completions) cannot be used; vLLM, SGLang and "
        "llama.cpp's server offer both."
    )


def _refuse_other_address(client: Client, error: BackendError) -> None:
    """Raise ConfigError if the API is below /v1 and the URL does not include it."""
    if client.url.endswith("/v1"):
        return

    def lists(response: Response) -> bool:
        body = response.json()
        return isinstance(body, dict) and isinstance(body.get("data"), list)

    try:
        lists_models = client.get(f"{client.url}/v1/models", lists, 1)
    except (RefusedError, UnansweredError):
        return
    if lists_models:
        raise ConfigError(
            f"The server's API is below /v1. Set url: {client.url}/v1 at runtime.servers. ({error})"
        ) from None


def _refuse_stranger(
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
            f"{card.key}: the server's outputs do not match the weights in models/{card.key}: "
            f"{agreement} ({MIN_TOP_TOKEN_AGREEMENT:.0%} are required). It serves another model, "
            "or reads prompts differently. Serve the intended weights."
        )
    differing = [n for n in answered if parent and _differ(variant_probe, parent, n)]
    if parent and differing and hits(parent, differing) > hits(variant_probe, differing):
        raise BackendError(
            f"{card.key}: where the variant and its parent differ ({len(differing)} positions of "
            f"the probe), the server matches the parent {hits(parent, differing)} times, and the "
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
