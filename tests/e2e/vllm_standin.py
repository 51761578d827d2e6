"""A stand-in for `vllm serve`: transformers and peft behind the API, started like vLLM.

python vllm_standin.py serve FOLDER --port PORT [--lora-modules NAME=FOLDER] ...
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

from completions_server import CompletionsServer, RealAnswers

FACTS = {
    "vllm": "0.32.0", "torch": "2.13.0", "transformers": "5.19.0", "python": "3.12.1",
    "platform": "cpu", "device": "cpu", "capability": "0.0", "cpu_capability": "AVX2",
}  # fmt: skip


def install(folder: Path, change: str = "") -> Path:
    """Write the program, and the Python beside it, which prints the versions.

    Args:
        change: `wrong`: other weights; `slow`: an hour for each continuation.
    """
    folder.mkdir(parents=True)
    python, program = folder / "python", folder / "vllm"
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(FACTS)}\nE\n", encoding="utf-8")
    program.write_text(
        f'#!/bin/sh\nSTANDIN={folder} CHANGE={change} exec {sys.executable} {__file__} "$@"\n',
        encoding="utf-8",
    )
    for path in (python, program):
        path.chmod(0o755)
    return program


def pids(folder: Path) -> list[int]:
    """The processes of all starts."""
    return [int(path.name) for path in (folder / "started").glob("*")]


def main(arguments: list[str]) -> None:
    started = Path(os.environ["STANDIN"]) / "started"
    started.mkdir(exist_ok=True)
    (started / str(os.getpid())).touch()

    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, change = arguments[1], os.environ["CHANGE"]
    options = dict(pairwise(arguments))
    model = AutoModelForCausalLM.from_pretrained(folder)
    if change == "wrong":
        model.lm_head.weight.data = model.lm_head.weight.data.flip(0)
    if "--lora-modules" in options:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, options["--lora-modules"].partition("=")[2])
    answers = RealAnswers(model, AutoTokenizer.from_pretrained(folder), stop=-1)

    def answer(body):
        if change == "slow" and body["max_tokens"] > 1:
            time.sleep(3600)
        return answers(body)

    with CompletionsServer(answer, port=int(options["--port"])):
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
