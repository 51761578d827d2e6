"""Inputs of the measurement: prompts, model, and the command line that selects them."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.assets import AssetStore, default_cache
from toxtrail.backends.protocols import NoProgress
from toxtrail.config.load import load_config
from toxtrail.config.schema import Config
from toxtrail.datasets.readers import read_texts

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".toxtrail" / "bench"
"""Rows made one by one, and the harness's environment: kept between runs, removed by `make
clean`."""
PROMPTS, NEW_TOKENS, ROUNDS = 128, 50, 3
QUICK_PROMPTS, QUICK_TOKENS = 6, 6


class Given(NamedTuple):
    """Options of the command line."""

    prompts: Path | None
    model: Path | None
    detoxify: Path | None
    rounds: int
    threads: int | None
    quick: bool

    @property
    def prompt_count(self) -> int:
        return QUICK_PROMPTS if self.quick else PROMPTS

    @property
    def new_tokens(self) -> int:
        return QUICK_TOKENS if self.quick else NEW_TOKENS


def given(asked: argparse.Namespace) -> Given:
    rounds = 1 if asked.quick else asked.rounds
    return Given(asked.prompts, asked.model, asked.detoxify, rounds, asked.threads, asked.quick)


def config() -> Config:
    """Return the default experiment's config."""
    return load_config(ROOT / "params.yaml")


def assets() -> AssetStore:
    """Return the asset store for files at any path: paths are given on the command line."""
    return AssetStore(default_cache(), ROOT, NoProgress(), ["/"])


def lines(path: Path | None) -> list[str]:
    """Return distinct prompts: of a file, else of the RealToxicityPrompts files of params.yaml."""
    if path is not None:
        paths = [path]
    else:
        subsets = config().prompts.subsets.values()
        wanted = [one for one in subsets if "realtoxicityprompts" in one.uri]
        paths = [assets().fetch(one.uri, one.sha256).path for one in wanted]
    texts = dict.fromkeys(text for file in paths for _, text, _ in read_texts(file, None) if text)
    return list(texts)


def drawn(texts: list[str], count: int) -> list[str]:
    """Return the requested number of prompts, in a reproducible order."""
    return random.Random(20241021).sample(texts, min(count, len(texts)))


def model_folder(path: Path | None) -> tuple[str, Path]:
    """Return (name, folder with safetensors): from the command line, else the first model of
    params.yaml, fetched, verified and converted as in the pipeline."""
    if path is not None:
        return path.resolve().name, path.resolve()
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights

    key, source = next(iter(config().models.items()))
    weights = HuggingFaceWeights(assets(), default_cache(), NoProgress())
    return key, weights.folder(weights.describe(source.uri, source.sha256))


def tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
