"""Methods of continuing the same prompts with the same loaded model, from texts to token ids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from speed.written import Written, until_stop
from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel, stop_ids
from toxtrail.backends.huggingface.weights.pretrained import load_base, load_tokenizer
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.silence import silence_libraries

if TYPE_CHECKING:
    from transformers import GenerationConfig

BATCH = 16
"""Of the reference loop: PAPER, "batches of 16 in prompt order"."""


class Loaded:
    """Loaded model with the decoding rules of every method: greedy, up to `new_tokens`, ended only
    by the model's end-of-sequence tokens."""

    def __init__(self, folder: Path, dtype: str, new_tokens: int) -> None:
        self.folder = folder
        self.dtype = dtype
        self.new_tokens = new_tokens
        self.model = load_base(folder, folder.name, dtype, "cpu")
        self.tokenizer = load_tokenizer(folder, folder.name)
        self.stops = stop_ids(self.model, self.tokenizer)
        self._published = self.model.generation_config

    def left_padding(self) -> Any:
        """A tokenizer of its own, as the reference loop sets it up: padding left, pad = EOS."""
        tokenizer = load_tokenizer(self.folder, self.folder.name, padding_side="left")
        if tokenizer.eos_token is None:
            raise SystemExit(f"{self.folder.name} has no EOS token to pad the reference loop with.")
        tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def settings(self) -> GenerationConfig:
        """For transformers' generate."""
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=self.new_tokens,
            eos_token_id=list(self.stops) or None,
            pad_token_id=self.tokenizer.eos_token_id,
        )

    def toxtrail(
        self,
        engine: Literal["auto", "packed", "plain"],
        batch_tokens: int,
        tell: Callable[[str], Any],
    ) -> HuggingFaceModel:
        """toxtrail's own way; it takes the stop tokens out of the published settings, so they are
        put back first."""
        self.model.generation_config = self._published
        decoding = Decoding(self.new_tokens, 0.0, 1.0, "none")
        return HuggingFaceModel(self.model, self.tokenizer, decoding, batch_tokens, engine, tell)


def batched(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Return batches of `size` values, in order; the last may be shorter."""
    return (values[first : first + size] for first in range(0, len(values), size))


def reference_loop(loaded: Loaded, tokenizer: Any, prompts: Sequence[str]) -> list[Written]:
    """Generate as in Hawkins et al. 2024 (arXiv:2410.15821), a typical notebook."""
    settings, written = loaded.settings(), []
    for batch in batched(prompts, BATCH):
        inputs = tokenizer(list(batch), return_tensors="pt", padding=True)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with silence_libraries():
            produced = loaded.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=settings
            )
        tokenizer.batch_decode(produced, skip_special_tokens=True)
        written += [until_stop(row, loaded.stops) for row in produced[:, ids.shape[1] :].tolist()]
    return written


def pipeline(loaded: Loaded, tokenizer: Any) -> Callable[[Sequence[str]], list[Written]]:
    """Generate with transformers' text-generation pipeline in batches of 16."""
    from transformers import TextGenerationPipeline

    pipe = TextGenerationPipeline(model=loaded.model, tokenizer=tokenizer, batch_size=BATCH)

    def run(prompts: Sequence[str]) -> list[Written]:
        with silence_libraries():
            rows = pipe(list(prompts), return_tensors=True, generation_config=loaded.settings())
        lengths = [len(ids) for ids in tokenizer(list(prompts))["input_ids"]]
        widths = [max(batch) for batch in batched(lengths, BATCH) for _ in batch]
        tokens = [row[0]["generated_token_ids"][w:] for row, w in zip(rows, widths, strict=True)]
        return [until_stop(row, loaded.stops) for row in tokens]

    return run


def toxtrail(model: HuggingFaceModel, prompts: Sequence[str]) -> list[Written]:
    """Generate as in the stage `generate`."""
    encoded = [model.encode(text) for text in prompts]
    done = dict(model.complete(encoded, [0] * len(encoded)))
    if failed := [row.error for row in done.values() if row.error]:
        raise SystemExit(f"{len(failed)} prompts were not continued, the first: {failed[0]}.")
    rows = (done[number] for number in range(len(encoded)))
    return [Written(row.token_ids, row.finish_reason != "length") for row in rows]


def one_by_one(
    loaded: Loaded, prompts: Sequence[Sequence[int]], journal: Path, tell: Callable[[str], None]
) -> tuple[list[Written], float]:
    """Generate with plain `generate`, one prompt at a time: the reference for every other method.

    Args:
        prompts: token ids.
        journal: rows generated before, one per line; missing rows are added.

    Returns:
        The rows, and the seconds that their generation took.
    """
    known = _journal(journal)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        for number, ids in enumerate(prompts):
            if number not in known:
                known[number] = _generated(loaded, ids)
                file.write(json.dumps([number, *known[number]]) + "\n")
                file.flush()
            if number % 32 == 31:
                tell(f"one prompt at a time: {number + 1} of {len(prompts)}")
    rows = [known[number] for number in range(len(prompts))]
    written = [Written(tuple(tokens), ended) for tokens, ended, _ in rows]
    return written, sum(seconds for _, _, seconds in rows)


def _generated(loaded: Loaded, ids: Sequence[int]) -> tuple[list[int], bool, float]:
    import torch

    start = time.perf_counter()
    row = torch.tensor([list(ids)])
    with silence_libraries():
        produced = loaded.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            generation_config=loaded.settings(),
        )
    written = until_stop(produced[0, len(ids) :].tolist(), loaded.stops)
    return list(written.tokens), written.ended, time.perf_counter() - start


def _journal(path: Path) -> dict[int, tuple[list[int], bool, float]]:
    """Read the rows of an earlier run; an incomplete last line is dropped."""
    if not path.exists():
        return {}
    whole = path.read_text("utf-8").rpartition("\n")[0]
    path.write_text(whole + "\n" if whole else "", "utf-8")
    rows = (json.loads(line) for line in whole.splitlines())
    return {number: (tokens, ended, seconds) for number, tokens, ended, seconds in rows}
