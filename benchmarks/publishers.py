"""Publish equal content to one MLflow server from several clones at the same moment.

    python benchmarks/publishers.py [--rounds 20] [--publishers 6] [--workers 1] [--kill 0]

Starts PostgreSQL, an object store and `mlflow server` on loopback, runs a tiny experiment once, and
copies it. Each round publishes it from all copies to a new MLflow experiment. Afterwards, one
sealed run must be FINISHED, all receipts must name it, no publisher may have failed, and nobody may
have deleted a run of another one. In the last `--kill` rounds, one publisher is killed (SIGKILL)
during a random request; it publishes again after the round. Needs requirements-dev.txt and
PostgreSQL.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

E2E = Path(__file__).resolve().parents[1] / "tests" / "e2e"
sys.path.insert(0, str(E2E))

import conftest  # noqa: E402
import racing_publishers as race  # noqa: E402
import team_servers  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--publishers", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1, help="processes of the MLflow server")
    parser.add_argument("--kill", type=int, default=0, help="rounds in which a publisher is killed")
    parser.add_argument("--seed", type=int, default=1, help="of the requests of these rounds")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers are stopped then
    with tempfile.TemporaryDirectory(prefix="toxtrail-publishers-") as folder:
        return publish(asked, Path(folder))


def publish(asked: argparse.Namespace, folder: Path) -> int:
    """Run the rounds; the exit code."""
    lab = finished_experiment(folder)
    rng = random.Random(asked.seed)
    rounds = []
    with (
        team_servers.team(folder, asked.workers, forms=("proxied",)) as team,
        race.clones(
            lab.root, lab.env, team.servers["proxied"].url, folder, asked.publishers
        ) as clones,
    ):
        for number in range(1, asked.rounds + 1):
            kills = number > asked.rounds - asked.kill
            done = race.publish_at_once(clones, team.database, number, rng if kills else None)
            rounds.append(done)
            print(line(done), flush=True)
            if done.killed is not None and race.publish_again(clones[done.killed]) != 0:
                done.faults.append("the killed publisher cannot publish again")
    faults = [f"round {done.number}: {fault}" for done in rounds for fault in done.faults]
    created = [len(done.runs) for done in rounds]
    print(
        f"{len(rounds)} rounds of {asked.publishers} publishers: "
        f"{sum(not done.faults for done in rounds)} without a fault; "
        f"{sum(created)} runs created, {sum(run.stands for d in rounds for run in d.runs)} stand; "
        f"median {statistics.median(done.seconds for done in rounds):.1f} s a round"
    )
    for fault in faults:
        print(fault)
    return int(bool(faults))


def line(done: race.Round) -> str:
    """One round as a line."""
    words = [f"round {done.number}: {done.seconds:.1f} s, exit codes {done.codes},"]
    words += [f"{len(done.runs)} runs created, {sum(run.stands for run in done.runs)} sealed stand"]
    if done.killed is not None:
        words += [f"(publisher {done.killed} killed at request {done.killed_at})"]
    return " ".join([*words, *(f"FAULT: {fault}" for fault in done.faults)])


def finished_experiment(folder: Path) -> conftest.Lab:
    """A tiny experiment with results, not yet published to a server."""
    assets = folder / "assets"
    assets.mkdir()
    subprocess.run([sys.executable, str(E2E / "make_assets.py"), str(assets)], check=True)
    lab = conftest.make_lab(assets, folder / "experiment" / "lab")
    lab.toxtrail("pin")
    lab.toxtrail("run")
    return lab


if __name__ == "__main__":
    sys.exit(main())
