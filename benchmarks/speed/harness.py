"""Part `harness`: lm-evaluation-harness's hf backend on the same model and prompts.

It is installed in a separate environment, so that it cannot change toxtrail's pinned packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from speed import ways
from speed.given import SCRATCH, Given, config, drawn, lines, model_folder, tell
from speed.rounds import Way, ratio, spread, take_turns
from speed.written import Written, share_equal, until_stop
from toxtrail.backends.compute.devices import set_num_threads

VERSION = "0.4.13"
SHARED = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors")
"""Packages that are the same in both environments, so that only the harness differs."""
PROMPTS = 64
ROUNDS = 2
THEIRS, OURS = "lm-evaluation-harness", "toxtrail"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def measure(given: Given) -> dict[str, Any]:
    """Return the section `generation_harness` of the results."""
    python = installed()
    if python is None:
        return {"not_measured": f"pip could not install lm_eval {VERSION} on this machine."}
    threads = set_num_threads(given.threads or "auto")
    name, folder = model_folder(given.model)
    prompts = drawn(lines(given.prompts), min(PROMPTS, given.prompt_count))
    loaded = ways.Loaded(folder, "float32", given.new_tokens)
    ours = loaded.toxtrail("auto", config().runtime.batch_tokens, tell)
    tokens = loaded.tokenizer(list(prompts))["input_ids"]
    asked = {
        "folder": str(folder), "dtype": "float32", "threads": threads, "batch": ways.BATCH,
        "new_tokens": given.new_tokens, "prompts": prompts,
    }  # fmt: skip
    with running(python, asked) as ask:
        rounds = min(ROUNDS, given.rounds)
        ways.toxtrail(ours, prompts[:2])
        turns = take_turns(
            [
                Way(THEIRS, lambda: in_order(ask(), tokens, loaded.stops), rounds),
                Way(OURS, partial(ways.toxtrail, ours, prompts), rounds),
            ],
            tell,
        )
    rates = {
        way: [sum(row.drawn for row in turn.made) / turn.seconds for turn in own]
        for way, own in turns.items()
    }
    faster = ratio(rates[OURS], rates[THEIRS])
    return {
        "model": name,
        "lm_eval": VERSION,
        "batch": ways.BATCH,
        "prompts": len(prompts),
        "max_new_tokens": given.new_tokens,
        "threads": threads,
        "ratio_vs_harness": faster.median,
        "spread": {"ratio_vs_harness": faster.plain()},
        "tokens_per_second": {way: spread(own).plain() for way, own in rates.items()},
        "equal_rows": share_equal(turns[OURS][0].made, turns[THEIRS][0].made),
    }


def in_order(
    answers: Sequence[Sequence[list[int]]], prompts: Sequence[Sequence[int]], stops: Sequence[int]
) -> list[Written]:
    """Return the harness's rows, which it sorts by length, in the order of the prompts.

    Raises:
        SystemExit: it encoded other tokens than toxtrail.
    """
    found = {tuple(prompt): new for prompt, new in answers}
    if missing := sum(tuple(ids) not in found for ids in prompts):
        raise SystemExit(f"The harness read {missing} of {len(prompts)} prompts as other tokens.")
    return [until_stop(found[tuple(ids)], stops) for ids in prompts]


def installed() -> Path | None:
    """Return the Python of an environment with the harness, created once; None if pip fails."""
    folder = SCRATCH / f"lm-eval-{VERSION}"
    python, done = folder / "bin/python", folder / "complete"
    if done.exists():
        return python
    tell(f"installing lm_eval {VERSION} into an environment of its own (minutes)")
    make = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=False)
    install = [str(python), "-m", "pip", "install", "--quiet", f"lm_eval=={VERSION}", *_shared()]
    if make.returncode or subprocess.run(install, check=False, stdout=sys.stderr).returncode:
        return None
    done.touch()
    return python


@contextmanager
def running(python: Path, asked: dict[str, Any]) -> Iterator[Any]:
    """Start the harness with the model loaded; calling the yielded function continues every prompt
    once."""
    script = Path(__file__).with_name("harness_process.py")
    with subprocess.Popen(
        [str(python), str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **OFFLINE},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _said(process.stdin, process.stdout, json.dumps(asked))
            yield lambda: _said(process.stdin, process.stdout, "again")
        finally:
            process.stdin.close()


def _said(stdin: IO[str] | None, stdout: IO[str] | None, line: str) -> Any:
    assert stdin is not None
    assert stdout is not None
    stdin.write(line + "\n")
    stdin.flush()
    answer = stdout.readline()
    if not answer:
        raise SystemExit("The harness stopped; what it said stands above.")
    return json.loads(answer)


def _shared() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in SHARED]
