"""Several clones publish the same content to one MLflow server at the same moment."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import forks
import yaml
from recording_proxy import Proxy, proxy
from team_servers import Database

SEAL = "toxtrail.seal"
VARIANT = "base"
WAIT_SECONDS = 300
"""For the slowest publisher to start."""
LAST_REQUEST = 36
"""A publication takes at least so many requests: it may be killed before any of them."""
RUNS = """
SELECT r.run_uuid, r.status, r.lifecycle_stage, s.value FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id
LEFT JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = %s
WHERE e.name = %s ORDER BY r.run_uuid
"""


class Clone(NamedTuple):
    """A copy of an experiment, with a way to the server of its own."""

    root: Path
    env: dict[str, str]
    way: Proxy


class StoredRun(NamedTuple):
    """A run in the database, deleted or not."""

    run_id: str
    status: str
    lifecycle: str
    seal: str | None

    @property
    def stands(self) -> bool:
        return self.lifecycle == "active" and self.seal is not None


class Round(NamedTuple):
    """What one round did, and what is wrong with it."""

    number: int
    codes: list[int]
    killed: int | None
    """Index of the killed publisher."""
    killed_at: int | None
    """Number of the request during which it was killed."""
    runs: list[StoredRun]
    seconds: float
    remarks: list[str]
    """Lines of the publishers' standard error."""
    faults: list[str]


@contextmanager
def clones(
    root: Path, env: dict[str, str], url: str, folder: Path, n: int
) -> Iterator[list[Clone]]:
    """Copies of an experiment: their proxies tell who created and deleted what."""
    with ExitStack() as stack:
        made = []
        for number in range(n):
            place = folder / f"clone{number}"
            subprocess.run(["cp", "-r", str(root), str(place)], check=True)
            way = stack.enter_context(proxy(url))
            patient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(2 * WAIT_SECONDS)}
            made.append(Clone(place, env | patient | {"MLFLOW_TRACKING_URI": way.url}, way))
        yield made


def publish_at_once(
    publishers: Sequence[Clone], database: Database, number: int, kill: random.Random | None = None
) -> Round:
    """Publish one content from all clones, in a new MLflow experiment, and check the outcome.

    Args:
        kill: if given, one publisher is killed while one of its requests is answered.
    """
    name = f"round {number}"
    together = threading.Barrier(len(publishers))
    for clone in publishers:
        _set_experiment(clone.root, name)
        _receipt(clone).unlink(missing_ok=True)
        clone.way.count, clone.way.before = 0, _first_request(together)
    victim = None if kill is None else kill.randrange(len(publishers))
    last = None if kill is None else kill.randint(1, LAST_REQUEST)
    started = time.monotonic()
    with ThreadPoolExecutor(len(publishers)) as pool:
        work = [
            pool.submit(_publish_and_die, clone, last)
            if last is not None and index == victim
            else pool.submit(_publish, clone)
            for index, clone in enumerate(publishers)
        ]
        done = [process.result() for process in work]
    seconds = time.monotonic() - started
    codes = [process.returncode for process in done]
    runs = [StoredRun(*row) for row in database.rows("proxied", RUNS, SEAL, name)]
    faults = list(_faults(publishers, codes, victim, runs))
    remarks = [line for process in done for line in process.stderr.splitlines() if line.strip()]
    return Round(number, codes, victim, last, runs, seconds, remarks, faults)


def publish_again(clone: Clone) -> int:
    """Publish the same content from a clone whose publisher was killed; the exit code."""
    clone.way.before = _nothing
    return _publish(clone).returncode


def _publish(clone: Clone) -> subprocess.CompletedProcess[str]:
    return forks.run("toxtrail", ["stage", "track", VARIANT], clone.root, clone.env)


def _publish_and_die(clone: Clone, last: int) -> subprocess.CompletedProcess[str]:
    """Publish by the installed command, which is killed at its request of this number."""
    command = [*forks.PROGRAMS["toxtrail"], "stage", "track", VARIANT]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=clone.root, env=clone.env, text=True, stdout=pipe, stderr=pipe
    )
    together = clone.way.before

    def before(number: int, method: str, path: str) -> None:
        together(number, method, path)
        if number == last:
            process.kill()

    clone.way.before = before
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _first_request(together: threading.Barrier) -> Callable[[int, str, str], None]:
    """Holds the first request of each publisher until all have sent theirs."""

    def before(number: int, method: str, path: str) -> None:
        if number == 1:
            together.wait(WAIT_SECONDS)

    return before


def _nothing(number: int, method: str, path: str) -> None:
    """What a proxy does before a request otherwise."""


def _set_experiment(root: Path, name: str) -> None:
    path = root / "params.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    values["tracking"]["experiment"] = name
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def _faults(
    publishers: Sequence[Clone],
    codes: list[int],
    victim: int | None,
    runs: list[StoredRun],
) -> Iterator[str]:
    for number, code in enumerate(codes):
        if code != 0 and not (number == victim and code == -signal.SIGKILL):
            yield f"publisher {number} ended with exit code {code}"
    yield from _wrong_runs(runs, dead=victim is not None and codes[victim] != 0)
    yield from _deletions(publishers, runs)
    survivors = [clone for number, clone in enumerate(publishers) if number != victim]
    seals = {json.loads(_receipt(c).read_text("utf-8"))["seal"] for c in survivors}
    if seals != {run.seal for run in runs if run.stands}:
        yield "the receipts do not all name the sealed run"


def _wrong_runs(runs: list[StoredRun], dead: bool) -> Iterator[str]:
    standing = [run for run in runs if run.stands]
    finished = [run for run in standing if run.status == "FINISHED"]
    if len(finished) != 1:
        yield f"{len(finished)} sealed runs are FINISHED"
    if len(standing) > 1 + dead:  # a killed publisher's may be RUNNING until it publishes again
        yield f"{len(standing)} sealed runs"


def _deletions(publishers: Sequence[Clone], runs: list[StoredRun]) -> Iterator[str]:
    requested = set()
    for number, clone in enumerate(publishers):
        created, deleted = (set(clone.way.run_ids(action)) for action in ("create", "delete"))
        requested |= deleted
        if foreign := deleted - created:
            yield f"publisher {number} deleted runs of others: {sorted(foreign)}"
    gone = {run.run_id for run in runs if run.lifecycle == "deleted"}
    if unknown := gone - requested:
        yield f"runs were deleted by no publisher: {sorted(unknown)}"


def _receipt(clone: Clone) -> Path:
    return clone.root / f"mlruns/receipts/variants/tiny/{VARIANT}.json"
