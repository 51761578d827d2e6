"""Compare the speed of generation and scoring with common tools, at the same tokens and scores.

    python benchmarks/generation.py [--part cpu|scoring|harness|gpu] [--prompts FILE]
        [--model FOLDER] [--detoxify FOLDER] [--rounds 3] [--threads N] [--quick] [--out FILE]

Without --part, all parts run, each in a separate process. Each finished part is written at once to
benchmarks/results/latest.json and RESULTS.md, so an interrupted run continues with the missing
parts. --quick tests everything with tiny sizes: its numbers are meaningless and are only printed
(and written to --out, if given). Use an idle machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from speed import results
from speed.given import ROOT, ROUNDS, given, tell

from toxtrail.errors import ToxtrailError

PARTS = {
    "cpu": "generation_cpu",
    "scoring": "scoring_cpu",
    "harness": "generation_harness",
    "gpu": "generation_gpu",
}
"""Part, which is a module of speed/, and its name in the results."""
LATEST = ROOT / "benchmarks/results/latest.json"
PAGE = ROOT / "benchmarks/RESULTS.md"
BUSY = 0.1
"""Share of the cores used by others from which ratios are doubtful. Our choice."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument(
        "--prompts", type=existing, help="one a line (default: those of params.yaml)"
    )
    parser.add_argument(
        "--model", type=existing, help="folder with safetensors (that of params.yaml)"
    )
    parser.add_argument(
        "--detoxify",
        type=existing,
        help="folder with one .ckpt, which is unpickled (random weights)",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, help="of torch (one for each core)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="the JSON file (results/latest.json)")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error(f"--rounds: got {asked.rounds}; at least 1 is needed")
    try:
        if asked.part:
            one(asked)
        else:
            every(sys.argv[1:])
    except ToxtrailError as error:
        sys.exit(f"Error: {error}")


def existing(text: str) -> Path:
    """Return an existing file or folder."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no file or folder {text}")
    return Path(text)


def every(arguments: list[str]) -> None:
    """Run every part; a failing part does not stop the others."""
    command = [sys.executable, __file__, *arguments, "--part"]
    failed = [part for part in PARTS if subprocess.run([*command, part], check=False).returncode]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def one(asked: argparse.Namespace) -> None:
    """Measure one part, write it, print it."""
    name, wanted, on = PARTS[asked.part], given(asked), results.machine()
    if on["busy_before"] > BUSY:
        tell(f"others use {on['busy_before']:.0%} of this machine: the ratios will be noisy")
    start = time.perf_counter()
    section = import_module(f"speed.{asked.part}").measure(wanted)
    section |= {
        "rounds": wanted.rounds,
        "quick": wanted.quick,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "machine": on,
        "versions": results.versions(),
        **results.stamp(ROOT),
    }
    print(results.render({name: section}), flush=True)
    tell(f"part {asked.part}: {section['wall_seconds']} s")
    path = asked.out or (None if wanted.quick else LATEST)
    if path is None:
        return
    known = results.with_section(results.read(path), name, section)
    results.write(path, known)
    if path == LATEST:
        results.replace(PAGE, results.put_into(PAGE.read_text("utf-8"), results.render(known)))


if __name__ == "__main__":
    main()
