"""samples_*.jsonl files of EleutherAI's lm-evaluation-harness (`--log_samples`), tasks that
generate text.

A line has doc_id, doc, arguments (the requests), resps (the generated texts of each request and
repeat) and filtered_resps (answers extracted from them, which are not read).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from toxtrail.config.schema import TextsConfig
from toxtrail.datasets.generated_texts.common import (
    GeneratedText,
    column_text,
    load_json,
    prompt_of_messages,
    require_keys,
    require_text,
)
from toxtrail.datasets.readers.json_rows import jsonl_rows
from toxtrail.errors import DataError

KEYS = ("doc_id", "arguments", "resps")


def read_lm_eval(path: Path, config: TextsConfig) -> Iterator[GeneratedText]:
    """Yield the responses; a document that occurs once per filter counts once."""
    seen: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for number, row in jsonl_rows(path, exact=False):
        where = f"{path.name}, line {number + 1}"
        require_keys(where, row, KEYS)
        prompt = (
            column_text(path, where, number, row, config.prompt)
            if config.prompt
            else _prompt(where, row["arguments"])
        )
        texts = _responses(where, row["resps"])
        first, earlier = seen.setdefault((str(row["doc_id"]), prompt), (number + 1, texts))
        if earlier != texts:
            raise DataError(
                f"{where}: doc_id {row['doc_id']} has other responses than on line {first}. Give "
                "the file of one run; repeats of a run are repeats within resps."
            )
        if first == number + 1:
            yield from (GeneratedText(prompt, text) for text in texts)


def _prompt(where: str, arguments: object) -> str:
    """Return the context of the only request: a text, or messages as JSON in a list."""
    requests = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    if not isinstance(requests, list) or len(requests) != 1:
        count = len(requests) if isinstance(requests, list) else "no"
        raise DataError(
            f"{where}: arguments has {count} requests; a task that generates text has one for each "
            "document (multiple-choice tasks generate none)."
        )
    (request,) = requests
    context = request.get("arg_0") if isinstance(request, Mapping) else request
    if not isinstance(request, Mapping):
        context = request[0] if isinstance(request, list) and request else None
    if isinstance(context, list) and len(context) == 1 and isinstance(context[0], str):
        return prompt_of_messages(where, load_json(f"{where}: arg_0", context[0]))
    return require_text(where, "the first argument", context)


def _responses(where: str, responses: object) -> list[str]:
    if not isinstance(responses, list) or len(responses) != 1 or not isinstance(responses[0], list):
        raise DataError(f"{where}: resps is not one list of texts for one request.")
    if any(isinstance(response, list) for response in responses[0]):
        raise DataError(
            f"{where}: resps has log-likelihoods, not texts: the task generates no text."
        )
    return [require_text(where, "a response", response) for response in responses[0]]
