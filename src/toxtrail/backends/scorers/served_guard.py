"""Score with a guard model on an OpenAI-compatible server.

The input is tokenized here as for a local guard, and sent as a request for one token with the
log-probabilities of the most likely tokens. A server lists the most likely tokens only. The
probability of a token that is not listed is at most that of each listed token, and at most what the
listed ones leave: each score is known within an interval. Where the interval is wider than the
configuration allows, the text has no score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toxtrail.backends.huggingface.weights.pretrained import read_config
from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.completions import CompletionsApi, RequestFormat
from toxtrail.backends.openai_api.connection import (
    find_format,
    read_listing,
    server_environment,
)
from toxtrail.backends.protocols import Assets, Decoding, ScoredText
from toxtrail.backends.scorers import guard_model
from toxtrail.backends.scorers.guard import (
    NoAnswer,
    WindowAnswers,
    score_in_windows,
    with_refusals,
)
from toxtrail.backends.scorers.guard_prompt import GuardInput, GuardPrompt, refusal_prompt
from toxtrail.backends.scorers.sequence import window_tokens
from toxtrail.config.scorer_kinds.base import HeadCombination
from toxtrail.config.scorer_kinds.served_guard import ServedGuardConfig
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOP_TOKENS = (20, 5)
"""Numbers of most likely tokens to request: vLLM's largest by default, then OpenAI's."""
ONE_TOKEN = Decoding(1, 0.0, 1.0, "none")
NOT_LISTED = "none of the named answers is among the {} most likely tokens that the server lists"
UNCERTAIN = (
    "the server does not list every named answer, so a share is known within {:.2g} only; "
    "max_uncertainty is {:g}"
)

known_heads = guard_model.known_heads


class ServedQuestion(NamedTuple):
    """A question of a guard on a server."""

    prompt: GuardPrompt
    answers: Mapping[str, Sequence[int | str]]
    """Name -> its tokens as the server names them: ids, or texts."""


class ServedGuard:
    """Scorer based on one guard model on a server."""

    def __init__(
        self,
        api: CompletionsApi,
        question: ServedQuestion,
        refusal: ServedQuestion | None,
        options: ServedGuardConfig,
    ) -> None:
        self._api, self._question, self._refusal = api, question, refusal
        self._options = options
        self.heads = tuple(question.answers)

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[ScoredText]:
        """Score each response, in order; a response that does not fit is scored in windows.

        Raises:
            BackendError: the server rejects a request, or many in a row have no response.
        """
        scored = self._ask(self._question, texts, prompts, self._options.combination)
        if self._refusal is None or self._options.refusal is None:
            return scored
        answers = self._ask(self._refusal, texts, prompts, None)
        return with_refusals(scored, answers, self._options.refusal.head)

    def _ask(
        self,
        question: ServedQuestion,
        texts: Sequence[str],
        prompts: Sequence[str] | None,
        combination: HeadCombination | None,
    ) -> list[ScoredText]:
        def answer(inputs: Sequence[GuardInput]) -> WindowAnswers:
            return self._request(inputs, list(question.answers.values()))

        limit = self._options.max_other
        return score_in_windows(question.prompt, texts, prompts, answer, limit, combination)

    def _request(
        self, inputs: Sequence[GuardInput], answers: Sequence[Sequence[int | str]]
    ) -> WindowAnswers:
        values = np.full((len(inputs), len(answers) + 1), np.nan)
        missing: dict[int, NoAnswer] = {}
        prompts = [one.token_ids for one in inputs]
        for number, reply in self._api.responses(prompts, [0] * len(prompts)):
            if isinstance(reply, str):
                missing[number] = NoAnswer(reply, is_temporary=True)
                continue
            top = reply.top_tokens or {}
            shares = listed_shares(top, answers)
            if problem := self._problem(shares, len(top)):
                missing[number] = NoAnswer(problem, is_temporary=False)
            else:
                values[number] = shares.values
        return WindowAnswers(values, missing)

    def _problem(self, shares: ListedShares, listed: int) -> str:
        """Return why the shares are not known; empty if they are, or if another answer is more
        likely than the configuration allows, which is an error of its own."""
        if np.isnan(shares.values).any():
            return NOT_LISTED.format(listed)
        limit = self._options.max_uncertainty
        if shares.uncertainty <= limit or shares.values[-1] > self._options.max_other:
            return ""
        return UNCERTAIN.format(shares.uncertainty, limit)


class ListedShares(NamedTuple):
    """Shares of the answers in the listed tokens."""

    values: NDArray[np.float64]
    """(answer and `other` last); NaN for all answers if none is listed."""
    uncertainty: float
    """Largest width of the interval of an answer's share."""


def listed_shares(
    top: Mapping[int | str, float], answers: Sequence[Sequence[int | str]]
) -> ListedShares:
    """Return each answer's share of the probability of all named tokens, and the probability of all
    other tokens, from the most likely tokens alone. A token that is not listed counts as 0.

    With p the listed probability of an answer's tokens, and q that of the other answers', its share
    is p / (p + q). With u and v the largest probabilities of their tokens that are not listed, it
    is between p / (p + q + v) and (p + u) / (p + u + q).

    Args:
        top: token -> its log-probability.
        answers: tokens of each answer.
    """
    listed = {token: float(np.exp(value)) for token, value in top.items()}
    rest = max(0.0, 1.0 - sum(listed.values()))
    largest = min([rest, *listed.values()])
    low = np.array([sum(listed.get(token, 0.0) for token in tokens) for tokens in answers])
    hidden = [sum(token not in listed for token in tokens) for tokens in answers]
    more = np.minimum(largest * np.array(hidden), rest)
    total, others = low.sum(), low.sum() - low
    other = min(max(1.0 - float(total), 0.0), 1.0)
    if total == 0:
        nothing = np.full(len(answers), np.nan)
        return ListedShares(np.append(nothing, other), 1.0)
    shares = low / total
    highest = (low + more) / (low + more + others)
    lowest = low / (total + np.minimum(more.sum() - more, rest))
    return ListedShares(np.append(shares, other), float((highest - lowest).max()))


class ConnectedGuard(NamedTuple):
    """A guard on a server that was found."""

    scorer: ServedGuard
    environment: dict[str, str]
    """The server's metadata and the request format, for manifests."""
    listing: str
    """Whether its list of models has the name, as text."""


def connect(
    config: ServedGuardConfig, assets: Assets, client: Client, concurrency: int
) -> ConnectedGuard:
    """Load the guard's tokenizer, and find the server's request format.

    Raises:
        ConfigError: the template fails or loses a text, an answer is not a single token, or the
            server has no model of this name.
        BackendError: no request format works, the server returns no log-probabilities, or it names
            tokens by their text, and an answer has the text of another token.
    """
    asset = assets.fetch(config.uri, config.sha256)
    tokenizer = guard_model.guard_tokenizer(asset, config.uri)
    local = window_tokens(read_config(asset.path, config.uri), tokenizer)
    name = config.served_model_name
    listed = read_listing(client, name)
    longest = listed.entry.get("max_model_len")
    window = min(local, longest - 1) if isinstance(longest, int) and longest > 1 else local
    prompt = GuardPrompt(tokenizer, config, window, config.uri)

    def api(terms: RequestFormat, answers_as: str | None) -> CompletionsApi:
        return CompletionsApi(client, name, tokenizer, ONE_TOKEN, terms, concurrency, answers_as)

    probe = prompt.probes()[0]
    formats = [RequestFormat(*terms) for terms in product((True, False), (True, False), TOP_TOKENS)]
    options = [(terms, api(terms, None)) for terms in formats]
    terms, first = find_format(client, options, probe.token_ids, name, listed)
    by_text = any(isinstance(token, str) for token in first.top_tokens or {})
    name_tokens = _token_texts(tokenizer, config.uri) if by_text else None

    def question(prompt: GuardPrompt) -> ServedQuestion:
        answers = name_tokens(prompt.answers) if name_tokens else prompt.answers
        return ServedQuestion(prompt, answers)

    environment = {
        **server_environment(client, name, listed, terms, first),
        "tokens_named_by": "text" if by_text else "id",
        "top_tokens": str(terms.top_tokens),
        "window": str(window),
    }
    refusal = refusal_prompt(tokenizer, config, window, config.uri)
    asked = question(refusal.prompt) if refusal else None
    scorer = ServedGuard(api(terms, first.model), question(prompt), asked, config)
    return ConnectedGuard(scorer, environment, client.masked(listed.says_of(name)))


TokenNames = dict[str, list[int | str]]


def _token_texts(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> Callable[[Mapping[str, Sequence[int]]], TokenNames]:
    """Return a function that replaces the token ids of answers with their texts.

    Raises:
        BackendError: (the function) another token has the same text.
    """
    texts = tokenizer.batch_decode(
        [[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False
    )
    count = Counter(texts)

    def text_of(answer: str, token: int) -> str:
        if count[texts[token]] > 1:
            raise BackendError(
                f"{name}: the server names tokens by their text, and {count[texts[token]]} "
                f"tokens have the text {texts[token]!r} of answers.{answer}. Use a server that "
                "names them by id: vLLM, or llama.cpp."
            )
        return str(texts[token])

    return lambda answers: {
        answer: [text_of(answer, token) for token in tokens] for answer, tokens in answers.items()
    }
