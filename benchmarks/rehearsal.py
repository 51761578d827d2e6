"""`make rehearsal`: a preset's complete graph, with tiny random models and synthetic data.

Runs every variant of the preset, every stage, every MLflow run, every comparison and the report, to
find errors in minutes that would otherwise occur after hours on a GPU. Measures the time outside
the models: starting, loading, statistics, tracking.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rehearse.derived import rehearsed

from toxtrail.scaffold import PRESETS, preset_path

SEAL = "toxtrail.seal"


class Took(NamedTuple):
    """Duration of one stage run."""

    name: str
    seconds: float


class Rehearsal(NamedTuple):
    """Result of a rehearsal."""

    took: list[Took]
    """In the order in which DVC ran them."""
    wall: float
    missing: list[str]
    """Variants and comparisons without a sealed MLflow run."""


def rehearse(folder: Path, preset: str, families: tuple[str, ...] = (), jobs: int = 1) -> Rehearsal:
    """Create the experiment in a new folder, run it, and check its runs.

    Raises:
        subprocess.CalledProcessError: a stage failed; its message is on the screen.
    """
    _toxtrail(folder.parent, "init", str(folder), "--preset", preset)
    values = rehearsed(yaml.safe_load(preset_path(preset).read_text("utf-8")), folder, families)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    _toxtrail(folder, "check")
    start = time.monotonic()
    options = ["--jobs", str(jobs)] if jobs > 1 else []
    took = list(_timed(folder, ["run", *options]))
    wall = time.monotonic() - start
    runs = json.loads(_toxtrail(folder, "runs", "--json"))
    sealed = {run["name"] for run in runs if SEAL in run["tags"]}
    wanted = [*values["variants"], *(f"{family} comparison" for family in values["families"])]
    return Rehearsal(took, wall, [name for name in wanted if name not in sealed])


def _timed(folder: Path, arguments: Sequence[str]) -> Iterator[Took]:
    """Yield each stage run as DVC starts it; the time until the next start is attributed to it."""
    process = subprocess.Popen(
        [*_command(), *arguments], cwd=folder, env=_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    name, since = "(DVC's start)", time.monotonic()
    for line in process.stdout:
        print(line, end="", flush=True)
        if match := re.match(r"Running stage '([^']+)'", line):
            now = time.monotonic()
            yield Took(name, now - since)
            name, since = match[1], now
    yield Took(name, time.monotonic() - since)
    if code := process.wait():
        raise subprocess.CalledProcessError(code, list(arguments))


def _command() -> list[str]:
    return [str(Path(sys.executable).with_name("toxtrail"))]


def _environment() -> dict[str, str]:
    """Return an offline environment without the user's settings of MLflow and DVC."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "DVC_ROOT")}
    identity = {f"GIT_{who}_NAME": "rehearsal" for who in ("AUTHOR", "COMMITTER")}
    mail = {f"GIT_{who}_EMAIL": "rehearsal@localhost" for who in ("AUTHOR", "COMMITTER")}
    return {**kept, **identity, **mail, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _toxtrail(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*_command(), *arguments], cwd=folder, env=_environment(), text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n")
        raise subprocess.CalledProcessError(done.returncode, list(arguments))
    return done.stdout


def table(found: Rehearsal) -> str:
    """Format wall time by stage."""
    stages: dict[str, list[float]] = {}
    for one in found.took:
        stages.setdefault(one.name.partition("@")[0], []).append(one.seconds)
    lines = [f"{'stage':18} {'runs':>5} {'seconds':>8} {'each':>6}"]
    for stage, seconds in stages.items():
        total = sum(seconds)
        lines.append(f"{stage:18} {len(seconds):5} {total:8.1f} {total / len(seconds):6.1f}")
    runs = sum(map(len, stages.values())) - 1
    return "\n".join([*lines, f"{'all':18} {runs:5} {found.wall:8.1f} {found.wall / runs:6.1f}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=[p for p in PRESETS if p != "demo"], default="paper")
    parser.add_argument("--families", nargs="*", default=[], help="only these")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="make it in this new folder and leave it there")
    parser.add_argument("--json", type=Path, help="write the times here too")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        folder = given.keep or scratch / "rehearsal"
        found = rehearse(folder.resolve(), given.preset, tuple(given.families), given.jobs)
    except subprocess.CalledProcessError as error:
        print(
            f"The rehearsal failed: toxtrail {' '.join(error.cmd)} (exit code {error.returncode})."
        )
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\n{table(found)}")
    if given.json:
        facts: dict[str, Any] = {
            "wall": found.wall,
            "stages": [one._asdict() for one in found.took],
        }
        given.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if found.missing:
        print(f"Without a sealed MLflow run: {', '.join(found.missing)}.")
        return 1
    print("Every variant and every comparison has its sealed MLflow run.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
