"""Measure the time of an audit, compared with `sha256sum`, and with many runs and commits.

Needs a finished experiment (`make demo`); works on a copy:

    python benchmarks/audit.py PATH [--runs 300] [--commits 200] [--rounds 7] [--gigabytes 2]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

TOXTRAIL = str(Path(sys.executable).with_name("toxtrail"))
IDENTITY = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toxtrail-bench-") as folder:
        root = Path(folder) / "experiment"
        shutil.copytree(asked.experiment, root, symlinks=True)
        references(root, asked.rounds, "4 runs, its own commits")
        grow(root, asked.runs, asked.commits)
        references(root, asked.rounds, f"{asked.runs} runs, {asked.commits} commits more")
    with tempfile.TemporaryDirectory(prefix="toxtrail-bench-") as folder:
        hashing(Path(folder), asked.gigabytes, asked.rounds)
    verification(asked.experiment, asked.rounds)


def references(root: Path, rounds: int, label: str) -> None:
    """Return one reference of each kind."""
    params = json.loads(output(root, "variants", "--json"))
    variant, family = params[-1]["variant"], params[-1]["family"]
    prompt = output(root, "audit", f"{family}/{variant}/all/diff", "--json")
    key = json.loads(prompt)["made_from"][0]["facts"]["content key"]
    scores = root / "data/scores" / family / f"{variant}.parquet"
    outside = root.parent / "found.parquet"
    shutil.copy(scores, outside)
    adapter = next(iter(sorted((root / "models").rglob("adapter_model.safetensors"))))
    print(f"\naudit without --verify ({label})")
    for what, reference in {
        "a variant": [variant],
        "a number": [f"{family}/{variant}/all/diff"],
        "a content key": [key[:8]],
        "a run's name": [f"{family} comparison"],
        "a file from elsewhere": [str(outside)],
        "--adapter": ["--adapter", str(adapter)],
        "toxtrail --version": [],
    }.items():
        arguments = ["audit", *reference] if reference else ["--version"]
        show(what, timed(lambda a=arguments: output(root, *a), rounds))


def grow(root: Path, runs: int, commits: int) -> None:
    """Add runs (copies with their own names, keys and ids) and versions of dvc.lock."""
    store = root / "mlruns/artifacts"
    known = [path.parent for path in sorted(store.glob("*/artifacts/record.json"))]
    for number in range(runs):
        target = store / uuid.uuid4().hex / "artifacts"
        shutil.copytree(known[number % len(known)], target)
        record = json.loads((target / "record.json").read_text("utf-8"))
        record["name"] = f"{record['name']} {number}"
        record["tags"]["toxtrail.key"] = f"{random.Random(number).getrandbits(256):064x}"
        (target / "record.json").write_text(json.dumps(record), "utf-8")
    text = (root / "dvc.lock").read_text("utf-8")
    for number in range(commits):
        lines = [  # another state of the same pipeline: the same shape, other hashes
            f"{line[:-3]}{number:03x}" if line.strip().startswith("md5: ") else line
            for line in text.splitlines()
        ]
        (root / "dvc.lock").write_text("\n".join(lines) + "\n", "utf-8")
        git(root, "commit", "-qam", f"experiment {number}")
    (root / "dvc.lock").write_text(text, "utf-8")
    git(root, "commit", "-qam", "as it is now")


def hashing(folder: Path, gigabytes: float, rounds: int) -> None:
    """Compare toxtrail's hashing (SHA-256 and MD5 in one read, files in parallel) with
    coreutils."""
    from toxtrail.auditing.verify.hash_cache import HashCache
    from toxtrail.backends.protocols import NoProgress

    size, count = int(gigabytes * 2**30), 8
    files = [folder / f"{number}.bin" for number in range(count)]
    for path in files:
        path.write_bytes(os.urandom(size // count))
    names = [str(path) for path in files]
    spread = f"printf '%s\\n' {' '.join(names)} | xargs -P {os.cpu_count()} -n 1 sha256sum"
    ways: dict[str, Callable[[], object]] = {
        "toxtrail, SHA-256 and MD5": lambda: HashCache(NoProgress()).prepare(files),
        "sha256sum, one after another": lambda: shell(["sha256sum", *names]),
        "sha256sum, side by side": lambda: shell(["sh", "-c", spread]),
        "sha256sum and md5sum, side by side": lambda: shell(
            ["sh", "-c", f"{spread}; {spread.replace('sha256sum', 'md5sum')}"]
        ),
    }
    print(f"\nhashing {gigabytes:g} GiB in {count} files, page cache warm, {os.cpu_count()} cores")
    found = paired(ways, rounds)
    first = found["toxtrail, SHA-256 and MD5"]
    for what, seconds in found.items():
        ratios = [own / other for own, other in zip(first, seconds, strict=True)]
        print(
            f"  {what:36} {gigabytes / statistics.median(seconds):5.2f} GiB/s   toxtrail takes "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of its time"
        )


def verification(root: Path, rounds: int) -> None:
    """Compare the verification of the complete experiment with hashing its files only."""
    checks = json.loads(output(root, "verify", "--json"))["checks"]
    print(f"\ntoxtrail verify of the whole experiment: {len(checks)} links")
    show("toxtrail verify", timed(lambda: output(root, "verify"), rounds))


def timed(action: Callable[[], object], rounds: int) -> list[float]:
    return next(iter(paired({"": action}, rounds).values()))


def paired(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return seconds; the methods alternate, so that a busy host affects all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, action in ways.items():
            start = time.perf_counter()
            action()
            if number:  # the first round warms the caches
                found[name].append(time.perf_counter() - start)
    return found


def show(what: str, seconds: Sequence[float]) -> None:
    middle = statistics.median(seconds)
    print(f"  {what:36} {middle:6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


def output(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [TOXTRAIL, *arguments], cwd=root, check=False, capture_output=True, text=True
    )
    if done.returncode not in (0, 3):  # 3: the copy's runs are at no place that MLflow knows
        sys.exit(done.stderr)
    return done.stdout


def git(root: Path, *arguments: str) -> None:
    shell(["git", "-C", str(root), *IDENTITY, *arguments])


def shell(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
