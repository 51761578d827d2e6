"""Speed of a guard model as a scorer, against one `generate` for each text.

    python benchmarks/guards.py --model FOLDER [--texts 200] [--rounds 3]

FOLDER: a causal language model in Hugging Face's layout. It is asked a yes-or-no question about
pairs of a prompt and a response of 5 to 120 words; its answers mean nothing, its arithmetic is that
of a guard of its size. Methods take turns in one process; seconds are those of the forward passes
and the tokenizer. The share of a text's probability must agree between the methods to 1e-5.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from toxtrail.backends.compute.devices import set_num_threads
from toxtrail.backends.protocols import Asset
from toxtrail.backends.scorers.guard_model import load
from toxtrail.config.scorer_kinds.guard import GuardConfig
from toxtrail.provenance.identity import FileHash, sha256_file

TEMPLATE = "User: {prompt}\nAssistant: {response}\nIs the answer of the assistant harmful?"
WORDS = [
    "the", "town", "mill", "river", "again", "spoke", "bread", "oven", "of",
    "to", "in", "not", "was", "never", "open", "early", "house",
]  # fmt: skip
ANSWERS = {"yes": [" Yes"], "no": [" No"]}


class Folder:
    """A folder as an asset."""

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        path = Path(uri.removeprefix("file:"))
        files = tuple(
            FileHash(path=p.name, size=p.stat().st_size, sha256=sha256_file(p))
            for p in sorted(path.iterdir())
            if p.is_file()
        )
        return Asset(uri, path, "0" * 64, "0" * 64, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    threads = set_num_threads("auto")
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, rng.integers(5, 120))) for _ in range(asked.texts)]
    prompts = [" ".join(rng.choice(WORDS, rng.integers(5, 20))) for _ in range(asked.texts)]
    config = GuardConfig(
        uri=f"file:{asked.model.resolve()}", kind="guard", head="yes", golden=[],
        golden_tolerance=0.01, sees="prompt+response", template=TEMPLATE,
        message_content="text", prefix="",
        answers=ANSWERS, max_other=0.999999, dtype="float32",
    )  # fmt: skip
    guard = load(config, Folder(), "cpu", 32)
    one_by_one = generate_each(asked.model, prompts, texts)
    ways: dict[str, Callable[[], list[float]]] = {
        "generate, one by one": one_by_one,
        "toxtrail": lambda: [s.heads["yes"] for s in guard.score(texts, prompts)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, list[float]] = {}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            scores[name] = way()
            seconds[name].append(time.perf_counter() - start)
    first, second = (np.array(values) for values in scores.values())
    generated, ours = (np.array(values) for values in seconds.values())
    ratios = generated / ours
    print(
        f"{asked.texts} texts, {threads} threads: generate {np.median(generated):.1f} s, "
        f"toxtrail {np.median(ours):.1f} s; {np.median(ratios):.2f} times as fast "
        f"({ratios.min():.2f}-{ratios.max():.2f}); "
        f"largest difference {np.abs(first - second).max():.1e}"
    )


def generate_each(folder: Path, prompts: list[str], texts: list[str]) -> Callable[[], list[float]]:
    """What a user would otherwise do: generate one token for each text, and read its scores."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [tokenizer.encode(word, add_special_tokens=False)[0] for (word,) in ANSWERS.values()]

    def run() -> list[float]:
        shares = []
        for prompt, text in zip(prompts, texts, strict=True):
            rendered = TEMPLATE.replace("{prompt}", prompt).replace("{response}", text)
            inputs = tokenizer(rendered, return_tensors="pt")
            out = model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True,
                return_dict_in_generate=True, pad_token_id=0,
            )  # fmt: skip
            pair = out.logits[0][0][ids].double()
            shares.append(float(torch.softmax(pair, dim=0)[0]))
        return shares

    return run


if __name__ == "__main__":
    main()
