"""Who answers there, how can it be asked, and does it answer like the weights on the card?

Nothing proves which weights a server holds. What can be done is done: it is asked for what it says
of itself, and for the likeliest next token at every place of the probe sentences, which must be
those on the variant's card and, where the two differ, not those of its parent.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.generation.generator import ends_of, window
from toxtrail.backends.huggingface.weights.load import verified
from toxtrail.backends.huggingface.weights.logit_probe import SAME_MODEL
from toxtrail.backends.huggingface.weights.pretrained import CONFIG_CURE, read_config, read_json
from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.openai_api.client import Client, RefusedError, UnansweredError
from toxtrail.backends.openai_api.model import Reply, ServedModel, Terms
from toxtrail.backends.protocols import Decoding, EncodedPrompt
from toxtrail.errors import BackendError, ConfigError, nearest
from toxtrail.pipeline import versions
from toxtrail.provenance.identity import ModelCard, Probe

if TYPE_CHECKING:
    from requests import Response
    from transformers import PreTrainedTokenizerBase

BACKEND = "openai-api"

ONE_GREEDY = Decoding(1, 0.0, 1.0, "none")


class Local(NamedTuple):
    """What is loaded here of a variant: everything but its weights."""

    tokenizer: PreTrainedTokenizerBase
    stops: tuple[int, ...]
    window: int | None
    embeddings: int | None = None
    """How many tokens the model knows."""


class Served(NamedTuple):
    """A server that has been met."""

    model: ServedModel
    environment: dict[str, str]
    """For manifests: what the server says of itself, and how it is asked."""
    agreement: str
    """How its answers to the probe agree, in words."""
    unlike_parent: bool
    """Whether the probe could tell it from its parent."""
    listing: str
    """What its list of models says of the name."""


class Listed(NamedTuple):
    """What a server lists."""

    names: tuple[str, ...]
    entry: Mapping[str, Any]
    """Of the model that is asked for; empty if it is not listed."""
    software: str
    """The `Server` header; empty if there is none."""

    def says_of(self, name: str) -> str:
        """Whether the name is listed, in words."""
        if name in self.names:
            return "which lists this name"
        if self.names:
            return f"which does not list this name (it lists {', '.join(self.names[:LISTED])})"
        return "which lists no models"


LISTED = 8
"""Names of models that are shown."""
LIST_TRIES = 2
"""The list is not needed: it is not waited for as for an answer."""


def local_parts(card: ModelCard, folder: Path, weights: HuggingFaceWeights) -> Local:
    """Hash every file of the card again, and load its tokenizer and settings.

    Raises:
        BackendError: a file is not the one on the card.
    """
    files = verified(card, folder, weights)
    tokenizer, config = files.tokenizer(), read_config(files.base, files.name)
    embeddings = None if card.adapters else config.get_text_config().vocab_size  # may hold more
    return Local(tokenizer, _stops(files.base, config, tokenizer), window(config), embeddings)


def meet(
    client: Client,
    name: str,
    card: ModelCard,
    parent: Probe | None,
    local: Local,
    decoding: Decoding,
    concurrency: int,
) -> Served:
    """Find out how a server can be asked, and refuse it if it answers like another model.

    Args:
        name: of the model on the server.
        parent: probe of the variant that this one was tuned from.

    Raises:
        ConfigError: the server has no model of this name.
        BackendError: it cannot be asked, or does not answer as the card says.
    """
    if card.probe is None:
        raise BackendError(f"models/{card.key}/model.json holds no probe. Run its stage again.")
    listed = _listed(client, name)
    longest = listed.entry.get("max_model_len")
    limits = [n for n in (local.window, longest) if isinstance(n, int) and n > 0]
    limit = min(limits, default=None)

    def model(decoding: Decoding, terms: Terms, answers_as: str | None) -> ServedModel:
        return ServedModel(
            client, name, local.tokenizer, local.stops, limit, decoding, terms, concurrency,
            answers_as, local.embeddings,
        )  # fmt: skip

    ids = local.tokenizer(card.probe.texts[0])["input_ids"]
    options = [Terms(tokens, more) for tokens in (True, False) for more in (True, False)]
    asking = [(t, model(ONE_GREEDY, t, None)) for t in options]
    terms, first = _agreed(client, asking, ids, name, listed)
    probing = model(ONE_GREEDY, terms, first.model)
    agreement, unlike_parent = _refuse_stranger(probing, local.tokenizer, card, card.probe, parent)
    said = {
        "server_software": listed.software,
        "server_version": _version(client),
        "server_answers_as": first.model,
        "server_fingerprint": first.fingerprint,
        **{f"server_{key}": listed.entry.get(key) for key in ("owned_by", "root", "parent")},
    }
    if listed.names and name not in listed.names:
        said["server_lists"] = ", ".join(listed.names[:LISTED])
    environment = {
        "backend": BACKEND,
        "served_as": name,
        **{k: client.masked(v) for k, v in said.items() if isinstance(v, str) and v},
        "prompts_sent_as": "token ids" if terms.as_tokens else "text",
        "token_ids_from": "the server" if first.token_ids is not None else "the text, re-encoded",
        "unasked_penalties": "off" if terms.beyond_openai else "as the server has them",
        "python": platform.python_version(),
        **versions("transformers", "tokenizers"),
    }
    served = model(decoding, terms, first.model)
    listing = client.masked(listed.says_of(name))
    return Served(served, environment, agreement, unlike_parent, listing)


def _stops(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a text: of the published settings and of the tokenizer."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return ends_of(getattr(config.get_text_config(), "eos_token_id", None), tokenizer)
    read_json(folder / "generation_config.json", str(folder))
    with library_errors(f"{folder}: generation_config.json is not read", CONFIG_CURE):
        settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return ends_of(settings.eos_token_id, tokenizer)


def _listed(client: Client, name: str) -> Listed:
    """What GET /v1/models says; `created` is left out: vLLM makes it up anew each time."""

    def read(response: Response) -> Listed:
        body = response.json()
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise ValueError("it lists no models")
        entries = {e["id"]: e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str)}
        software = response.headers.get("Server", "")
        return Listed(tuple(entries), entries.get(name, {}), software)

    try:
        return client.get(f"{client.url}/models", read, LIST_TRIES)
    except RefusedError as error:
        if error.status in (401, 403):
            raise
        return Listed((), {}, "")  # some gateways list nothing
    except UnansweredError as error:
        if error.status is None:
            raise
        return Listed((), {}, "")


def _version(client: Client) -> str | None:
    """What vLLM says at /version; None of other servers."""

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


def _agreed(
    client: Client,
    options: Sequence[tuple[Terms, ServedModel]],
    ids: list[int],
    name: str,
    listed: Listed,
) -> tuple[Terms, Reply]:
    """The first terms on which the server reads a probe sentence as the tokens that it is."""
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
        f'The server was asked for "{name}" in {len(options)} ways, with token ids and with text: '
        f"none is understood. The last: {problem}."
    )


def _not_found(
    client: Client, name: str, listed: Listed, error: RefusedError
) -> ConfigError | BackendError:
    """Which of three things is not there: the address, the API, or the model."""
    _refuse_other_address(client, error)
    if listed.names and name not in listed.names:
        return ConfigError(
            f'The server has no model "{name}" ({error}).{nearest(name, listed.names)} '
            "Write its name under variants.<variant>.served_as."
        )
    held = f'It lists the model "{name}", so' if listed.names else f'Unless "{name}" is no model,'
    return BackendError(
        f"{error}. {held} it does not offer OpenAI's completions API, which toxtrail needs (POST "
        "/v1/completions): prompts are continued as they are, without a chat template. A server "
        "for chat alone (/v1/chat/completions) cannot be used; vLLM, SGLang and llama.cpp's server "
        "offer both."
    )


def _refuse_other_address(client: Client, error: BackendError) -> None:
    """ConfigError if the API is below /v1 and the URL does not say so."""
    if client.url.endswith("/v1"):
        return

    def lists(response: Response) -> bool:
        body = response.json()
        return isinstance(body, dict) and isinstance(body.get("data"), list)

    try:
        found = client.get(f"{client.url}/v1/models", lists, 1)
    except (RefusedError, UnansweredError):
        return
    if found:
        raise ConfigError(
            f"The server's API is below /v1. Write url: {client.url}/v1 under runtime.servers. "
            f"({error})"
        ) from None


def _refuse_stranger(
    model: ServedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: ModelCard,
    own: Probe,
    parent: Probe | None,
) -> tuple[str, bool]:
    """Ask for the likeliest next token at every place of the probe.

    Returns:
        In words how many agree, and whether the parent would have answered otherwise somewhere.

    Raises:
        BackendError: too few are those on the card, or its parent's fit better.
    """
    texts = [tokenizer(text)["input_ids"] for text in own.texts]
    places = [tuple(ids[: end + 1]) for ids in texts for end in range(len(ids))]
    if len(places) != len(own.top_tokens):
        raise BackendError(f"The probe of {card.key} has other tokens than its tokenizer makes.")
    asked = [EncodedPrompt(ids, fits=True) for ids in places]
    found = {n: c for n, c in model.complete(asked, [0] * len(asked)) if not c.error}

    def hits(probe: Probe, among: Sequence[int]) -> int:
        return sum(_is(tokenizer, probe.top_tokens[n], found[n]) for n in among)

    answered = sorted(found)
    right = hits(own, answered)
    agreement = f"{right} of {len(answered)} likeliest tokens as on the card"
    if not answered or right < SAME_MODEL * len(answered):
        raise BackendError(
            f"{card.key}: the server does not answer as the weights in models/{card.key} do: "
            f"{agreement} ({SAME_MODEL:.0%} are asked for). It holds another model, or reads "
            "prompts otherwise. Serve the weights that were meant."
        )
    apart = [n for n in answered if parent and _apart(own, parent, n)]
    if parent and apart and hits(parent, apart) > hits(own, apart):
        raise BackendError(
            f"{card.key}: where the variant and its parent would answer otherwise "
            f"({len(apart)} places of the probe), the server answers as the parent "
            f"{hits(parent, apart)} times, as the variant {hits(own, apart)} times. It may serve "
            "the parent, or not apply the adapter."
        )
    if apart:
        agreement += f", {hits(own, apart)} of the {len(apart)} where its parent says another"
    return agreement, bool(apart) or parent is None


def _apart(own: Probe, parent: Probe, place: int) -> bool:
    """Whether two models answer otherwise there; a parent with another tokenizer is not asked."""
    same_places = own.texts == parent.texts and len(own.top_tokens) == len(parent.top_tokens)
    return same_places and own.top_tokens[place] != parent.top_tokens[place]


def _is(tokenizer: PreTrainedTokenizerBase, token: int, found: Any) -> bool:
    """Whether a continuation of one token is this one: by its id, or as it reads."""
    if found.token_ids == (token,):
        return True
    text = str(tokenizer.decode([token], skip_special_tokens=True))
    return bool(found.text.strip() == text.strip())
