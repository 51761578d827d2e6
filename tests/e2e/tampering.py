"""Single tamperings with a finished experiment: each changes one thing and tells what it was.

Sizes, modes and time stamps are kept where a forger would keep them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import yaml


class Tampering(NamedTuple):
    """One change."""

    name: str
    apply: Callable[[Path], None]
    """Given the experiment's root."""
    located: str
    """A text that the name or the detail of a broken link must hold."""


def flip(path: Path, seed: int) -> None:
    """Another bit somewhere; size, mode and time stamps stay."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flips(root: Path, cache: Path) -> list[Tampering]:
    """One in every file that an experiment holds, is made from or shows."""
    found = []
    groups = [
        *("data/prompts.parquet", "data/generations", "data/scores", "models", "results", "report"),
        *("mlruns/receipts", "mlruns/artifacts", ".dvc/cache/files", "assets", "dvc.lock"),
        "data/records",
        *("requirements.txt", "src/toxtrail/stats/rates.py"),
    ]
    files = [f for group in groups for f in below(root / group)]
    for number, path in enumerate(sorted(files)):
        name = path.relative_to(root).as_posix()
        found.append(Tampering(f"a bit of {name}", flipper(name, number), located(name)))
    return found


def alone_and_together(
    flips: list[Tampering],
) -> tuple[list[Tampering], list[list[Tampering]]]:
    """Flips to be made one at a time, and groups to be made at once: files of different runs, and
    objects of DVC's cache. Nothing is computed from these, and each is named by itself alone."""
    kinds: dict[str, list[Tampering]] = {}
    alone, cached = [], []
    for flip in flips:
        name = flip.name.removeprefix("a bit of ")
        if name.startswith("mlruns/artifacts/") and flip.located != "models":
            kinds.setdefault(flip.located, []).append(flip)
        elif name.startswith(".dvc/cache/files/") and not name.endswith(".dir"):
            cached.append(flip)
        else:
            alone.append(flip)
    columns = zip_longest(*kinds.values(), cached[::2], cached[1::2])
    return alone, [[flip for flip in column if flip] for column in columns]


def below(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return [p for p in files if p.name != ".gitignore" and "__pycache__" not in p.parts]


def flipper(name: str, seed: int) -> Callable[[Path], None]:
    return lambda root: flip(root / name, seed)


def located_in(name: str, said: str) -> bool:
    """Whether a broken link names an output; a weight file is named beside its folder."""
    return name in said or (name.endswith(".safetensors") and Path(name).name in said)


def located(name: str) -> str:
    """How a report names the file."""
    if name.startswith("mlruns/artifacts/"):
        return name.split("/")[2][:8]
    if name.startswith("assets/"):
        return name.split("/")[1]
    if name.startswith(".dvc/cache"):
        return name
    return name if not name.startswith("dvc.lock") else ""


def sql(statement: str, *values: object) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        with closing(sqlite3.connect(root / "mlruns/mlflow.db")) as db:
            changed = db.execute(statement, values).rowcount
            assert changed > 0, statement
            db.commit()

    return apply


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / name
        before = path.read_text("utf-8")
        assert old in before, (name, old)
        path.chmod(0o644)
        path.write_text(before.replace(old, new, 1), "utf-8")

    return apply


def frozen(stage: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "dvc.yaml"
        values = yaml.safe_load(path.read_text("utf-8"))
        entry = values["stages"][stage]
        entry.get("do", entry)["frozen"] = True
        path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")

    return apply


def kinder_score(root: Path) -> None:
    """A toxic row made clean, in a file that is whole otherwise, its manifest kept."""
    path = root / "data/scores/tiny/tuned.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["toxicity"] = 0.0 if rows[0]["toxicity"] else 0.1
    path.chmod(0o644)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path, compression="zstd")


def same_cache_object(root: Path) -> Path:
    lock = yaml.safe_load((root / "dvc.lock").read_text("utf-8"))
    md5 = lock["stages"]["score@tuned"]["outs"][0]["md5"]
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def second_run(root: Path) -> None:
    """A run of the same key, sealed as well."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("toxtrail").experiment_id
    (run,) = client.search_runs([experiment], "attributes.run_name = 'tuned'")
    other = client.create_run(experiment, run_name="tuned", tags=dict(run.data.tags))
    client.set_terminated(other.info.run_id)


def deleted_run(root: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("toxtrail").experiment_id
    (run,) = client.search_runs([experiment], "attributes.run_name = 'tuned'")
    client.delete_run(run.info.run_id)


def stale_entry(root: Path) -> None:
    """A variant taken out of params.yaml, as its owner would."""
    path = root / "params.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    del values["variants"]["tuned"]
    values["families"]["tiny"]["variants"] = ["base"]
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


OF_RUN = "run_uuid in (select run_uuid from runs where name = 'tuned')"
ADAPTER = "models/tuned/adapters/tuned"
RECEIPT = "mlruns/receipts/variants/tiny/tuned.json"
SUMMARY = "results/posteriors/tiny/tuned/summary.json"
CARD = "models/base/model.json"
RECORD = "data/records/generate/tuned"
ODD_STAGES = "stages: {score: 3}\n"
COMPARISON = "results/comparisons/tiny/summary.json"


def metric(key: str, value: str) -> Callable[[Path], None]:
    return sql(f"update latest_metrics set value = {value} where key = ? and {OF_RUN}", key)


def param(key: str, value: str) -> Callable[[Path], None]:
    return sql(f"update params set value = ? where key = ? and {OF_RUN}", value, key)


def tag(key: str, value: str) -> Callable[[Path], None]:
    return sql(f"update tags set value = ? where key = ? and {OF_RUN}", value, key)


def gone(table: str, key: str) -> Callable[[Path], None]:
    return sql(f"delete from {table} where key = ? and {OF_RUN}", key)


def purged_run(root: Path) -> None:
    for table in ("latest_metrics", "metrics", "params", "tags"):
        sql(f"delete from {table} where {OF_RUN}")(root)
    sql("delete from runs where name = 'tuned'")(root)


def artifact(root: Path, name: str = "") -> Path:
    """A file of some run that has it."""
    return next((root / "mlruns/artifacts").glob(f"*/artifacts/{name}"))


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda stages: stages.pop(name)


def no_files(root: Path) -> str:
    value = json.loads((root / CARD).read_text("utf-8"))
    value["base"]["files"] = []
    return json.dumps(value)


def other_hash(root: Path) -> None:
    lock = yaml.safe_load((root / "dvc.lock").read_text("utf-8"))
    text("dvc.lock", lock["stages"]["score@tuned"]["outs"][0]["md5"], "0" * 32)(root)


def in_mlflow() -> list[Tampering]:
    """Edits that MLflow lets anybody make."""
    new = "insert into params (key, value, run_uuid) select 'extra', '1', run_uuid from runs"
    point = "update metrics set value = 0 where key = 'train/loss' and step = 2"
    more_points = (
        "insert into metrics (key, value, timestamp, run_uuid, step, is_nan) select key, 0.9, "
        f"timestamp, run_uuid, 5, 0 from metrics where key = 'judge/all/rate_pct' and {OF_RUN}"
    )
    new_tag = (
        "insert into tags (key, value, run_uuid) "
        "select 'mismatch', 'x', run_uuid from runs where name = 'base'"
    )
    model = "update logged_model_tags set tag_value = 'aa' where tag_key = 'sha256'"
    return [
        Tampering("a metric", metric("judge/all/rate_pct", "0"), "judge/all/rate_pct"),
        Tampering("a count", metric("judge/one/n_toxic", "value + 1"), "n_toxic"),
        Tampering("a lost metric", gone("latest_metrics", "judge/all/rate_hi_pct"), "rate_hi"),
        Tampering("a cost", metric("stages/generate_seconds", "1"), "stages/generate_seconds"),
        Tampering("a loss curve", sql(point), "train/loss"),
        Tampering(
            "a difference",
            sql("update latest_metrics set value = 0 where key like '%diff_pp'"),
            "diff_pp",
        ),
        Tampering("a param", param("generation.seed", "99"), "generation.seed"),
        Tampering("a lost param", gone("params", "generation.dtype"), "generation.dtype"),
        Tampering("a new param", sql(f"{new} where name = 'tuned'"), "extra"),
        Tampering("a tag", tag("family", "aa"), "family"),
        Tampering("the commit tag", tag("mlflow.source.git.commit", "f"), "git.commit"),
        Tampering("a verdict", tag("verdict", "fine"), "verdict"),
        Tampering("a verdict's source", tag("compared_in", "aa"), "compared_in"),
        Tampering("the description", tag("mlflow.note.content", "fine"), "mlflow.note.content"),
        Tampering(
            "a new name", sql("update runs set name = 'nicer' where name = 'tuned'"), "tuned"
        ),
        Tampering("another seal", tag("toxtrail.seal", "aa"), "seal"),
        Tampering("an unsealed run", gone("tags", "toxtrail.seal"), "not sealed"),
        Tampering(
            "a failed run",
            sql("update runs set status = 'FAILED' where name = 'tuned'"),
            "not sealed",
        ),
        Tampering("a payload tag", tag("toxtrail.files", "aa"), "payload.json"),
        Tampering("a lost key", gone("tags", "toxtrail.key"), "run of tuned"),
        Tampering(
            "a data set",
            sql("update input_tags set value = 'aa' where name = 'sha256'"),
            "data sets",
        ),
        Tampering("a logged model", sql(model), "tag sha256 of its logged model"),
        Tampering(
            "a logged model's rate",
            sql(
                "update logged_model_metrics set metric_value = 0 "
                "where metric_name = 'judge/all/rate_pct'"
            ),
            "of its logged model",
        ),
        Tampering(
            "a logged model's difference",
            sql(
                "update logged_model_metrics set metric_value = 0 where metric_name like '%diff_pp'"
            ),
            "diff_pp of its logged model",
        ),
        Tampering(
            "a logged model's verdict",
            sql("update logged_model_tags set tag_value = 'lower' where tag_key = 'verdict'"),
            "tag verdict",
        ),
        Tampering("a difference's tag", tag("difference", "0"), "tag difference"),
        Tampering("a rate's tag", tag("rate", "0 %"), "tag rate"),
        Tampering(
            "a logged model's name", sql("update logged_models set name = 'nicer'"), "was renamed"
        ),
        Tampering(
            "a chart",
            sql(f"update metrics set value = 0 where key = 'judge/all/rate_pct' and {OF_RUN}"),
            "history of metric judge/all/rate_pct",
        ),
        Tampering("a point more", sql(more_points), "history of metric judge/all/rate_pct"),
        Tampering(
            "the end of a curve",
            sql(f"update latest_metrics set value = 0 where key = 'train/loss' and {OF_RUN}"),
            "metric train/loss",
        ),
        Tampering("a tag of ours on another run", sql(new_tag), "mismatch was added"),
        Tampering(
            "a data set's source", sql("update datasets set dataset_source = '{}'"), "data sets"
        ),
        Tampering(
            "a metric's time",
            sql(f"update metrics set timestamp = 1 where key = 'judge/all/rate_pct' and {OF_RUN}"),
            "the time of 1 metrics",
        ),
        Tampering(
            "a run's start",
            sql("update runs set start_time = 1 where name = 'tuned'"),
            "time of its start",
        ),
        Tampering(
            "a run's end",
            sql("update runs set end_time = 1 where name = 'tuned'"),
            "time of its end",
        ),
        Tampering(
            "a file beside a logged model",
            lambda r: write(next(r.glob("mlruns/artifacts/models/*/artifacts")) / "x.bin"),
            "x.bin was added to",
        ),
        Tampering("a data set's digest", sql("update datasets set digest = 'aa'"), "data sets"),
        Tampering(
            "other files in the UI",
            sql("update runs set artifact_uri = 'file:///else' where name = 'tuned'"),
            "UI shows the files",
        ),
        Tampering(
            "a renamed experiment",
            sql("update experiments set name = 'old' where name = 'toxtrail'"),
            "has no experiment",
        ),
        Tampering(
            "a moved run", sql("update runs set experiment_id = 0 where name = 'tuned'"), "tuned"
        ),
        *(
            Tampering(f"{name} that is {content!r}", of_every_run(name, content), name)
            for name in ("record.json", "payload.json", "manifest.json", "executions.json")
            for content in ("{}", "[]", "")
        ),
        Tampering("a deleted run", deleted_run, "was deleted"),
        Tampering("a purged run", purged_run, "run of tuned"),
        Tampering("two runs of one key", second_run, "one content key"),
        Tampering("lost files", lambda r: shutil.rmtree(r / "mlruns/artifacts"), "files are gone"),
        Tampering("an extra file", lambda r: write(artifact(r) / "x.txt"), "x.txt"),
        Tampering(
            "a missing file", lambda r: artifact(r, "scores.parquet").unlink(), "scores.parquet"
        ),
    ]


def write(path: Path, content: str = "x") -> None:
    if path.is_file():
        path.chmod(0o644)
    path.write_text(content, "utf-8")


def of_every_run(name: str, content: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        for path in (root / "mlruns/artifacts").glob(f"*/artifacts/{name}"):
            write(path, content)

    return apply


def swapped(left: str, right: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / left).rename(root / "x")
        (root / right).rename(root / left)
        (root / "x").rename(root / right)

    return apply


def in_lock(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "dvc.lock"
        values = yaml.safe_load(path.read_text("utf-8"))
        change(values["stages"])
        path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")

    return apply


def more_files(stages: dict[str, Any]) -> None:
    """A folder that was read is said to have held more."""
    deps = stages["generate@tuned"]["deps"]
    next(dep for dep in deps if "nfiles" in dep)["nfiles"] += 1


def weaker_adapter(root: Path) -> None:
    """Another alpha, and a card that agrees with it."""
    from toxtrail.provenance.identity import FileHash, sha256_file, tree_sha256

    path, card = root / ADAPTER / "adapter_config.json", root / "models/tuned/model.json"
    write(path, path.read_text("utf-8").replace('"lora_alpha": 8', '"lora_alpha": 1'))
    value = json.loads(card.read_text("utf-8"))
    adapter = value["adapters"][-1]
    for file in adapter["files"]:
        if file["path"] == path.name:
            file |= {"sha256": sha256_file(path), "size": path.stat().st_size}
    adapter["sha256"] = tree_sha256([FileHash(**file) for file in adapter["files"]])
    write(card, json.dumps(value, indent=2) + "\n")


def working_folder(root: Path) -> None:
    """A stage that would run elsewhere."""
    path = root / "dvc.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    values["stages"]["score"]["do"]["wdir"] = "src"
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def values_of(root: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((root / name).read_text("utf-8"))


def save_values(root: Path, name: str, values: dict[str, Any]) -> None:
    (root / name).write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def set_at(values: Any, place: str, value: object) -> None:
    *above, last = place.split(".")
    for name in above:
        values = values[name]
    values[last] = value


def in_both(place: str, value: object) -> Callable[[Path], None]:
    """A value in params.yaml, and in every entry of dvc.lock that records it."""

    def apply(root: Path) -> None:
        params, lock = values_of(root, "params.yaml"), values_of(root, "dvc.lock")
        set_at(params, place, value)
        for entry in lock["stages"].values():
            recorded = entry.get("params", {}).get("params.yaml", {})
            for name in recorded:
                if place == name or place.startswith(f"{name}."):
                    recorded[name] = params_at(params, name)
        save_values(root, "params.yaml", params)
        save_values(root, "dvc.lock", lock)

    return apply


def params_at(values: Any, place: str) -> Any:
    for name in place.split("."):
        values = values[name]
    return values


def relocked(root: Path) -> None:
    """dvc.lock, and DVC's cache, say what the outputs are now."""
    from toxtrail.auditing.verify.hash_cache import HashCache
    from toxtrail.backends.protocols import NoProgress

    digests, lock = HashCache(NoProgress()), values_of(root, "dvc.lock")
    for entry in lock["stages"].values():
        for row in (*entry.get("deps", ()), *entry.get("outs", ())):
            path = root / row["path"]
            folder, file = digests.folder(path), digests.of(path)
            if folder:
                row |= folder._asdict()
            elif file:
                row |= {"md5": file.md5, "size": file.size}
    save_values(root, "dvc.lock", lock)
    shutil.rmtree(root / ".dvc/cache/files")


def relocked_after(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        change(root)
        relocked(root)

    return apply


def kinder_table(root: Path) -> None:
    path = root / "results/comparisons/tiny/pairs.parquet"
    table = pq.read_table(path)
    rows = [{**row, "diff": 0.0} for row in table.to_pylist()]
    path.chmod(0o644)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path, compression="zstd")


def edited_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A record whose seal is made again, as if nothing had happened."""
    from toxtrail.provenance.identity import execution_record_hash

    def apply(root: Path) -> None:
        (path,) = (root / RECORD).iterdir()
        value = json.loads(path.read_text("utf-8"))
        change(value)
        write(path, json.dumps({**value, "seal": execution_record_hash(value)}))

    return apply


def unsealed(root: Path) -> None:
    (path,) = (root / RECORD).iterdir()
    value = json.loads(path.read_text("utf-8"))
    del value["seal"]
    write(path, json.dumps(value))


def of_record(tamper: Callable[[str], Callable[[Path], None]]) -> Callable[[Path], None]:
    """A change of the only record of this stage run, whose name is its hash."""

    def apply(root: Path) -> None:
        (path,) = (root / RECORD).iterdir()
        tamper(path.relative_to(root).as_posix())(root)

    return apply


def in_pipeline(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """In dvc.yaml as a whole."""

    def apply(root: Path) -> None:
        values = values_of(root, "dvc.yaml")
        change(values)
        save_values(root, "dvc.yaml", values)

    return apply


def own_stage(**entry: object) -> Callable[[Path], None]:
    return in_pipeline(lambda values: values["stages"].update(polish=entry))


def uncached(values: dict[str, Any]) -> None:
    body = values["stages"]["score"]["do"]
    body["outs"] = [{body["outs"][0]: {"cache": False}}]


def marked(stages: dict[str, Any]) -> None:
    stages["score@tuned"]["outs"][0]["isexec"] = True


def led_out(stages: dict[str, Any]) -> None:
    stages["score@tuned"]["outs"][0]["path"] = "../../../../etc/passwd"


def twice(root: Path) -> None:
    """An entry again, of which YAML keeps the last."""
    path = root / "dvc.lock"
    lock = path.read_text("utf-8")
    entry = lock[lock.index("  report:") :].split("\n  ", 1)[0].rstrip() + "\n"
    path.write_text(lock.rstrip() + "\n" + entry, "utf-8")


def linked(name: str, keep: bool = True) -> Callable[[Path], None]:
    """A file or folder moved elsewhere, with a link in its place; or a link that was not there."""

    def apply(root: Path) -> None:
        away = root.parent / "away" / Path(name).name
        away.parent.mkdir(exist_ok=True)
        if keep:
            (root / name).rename(away)
        (root / name).symlink_to(away if keep else "/etc")

    return apply


def in_place_of(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        make(root / name)

    return apply


def holes(path: Path) -> None:
    """A terabyte of nothing."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


SCORES = "data/scores/tiny/tuned.parquet"
GENERATIONS = "data/generations/tiny/tuned.parquet"


def with_the_lock() -> list[Tampering]:
    """Values and files that were changed together with what dvc.lock says of them."""
    places = {
        "generation.temperature": 0.7,
        "generation.max_new_tokens": 7,
        "prompts.seed": 2,
        "posterior.rope_pp": 2.0,
        "scoring.scorers.judge.golden_tolerance": 0.1,
        "variants.tuned.role": "base",
        "models.base.uri": "file:assets/judge",
        "finetunes.tuned.max_steps": 7,
    }
    files = {
        "report/index.html": (">", "> "),
        "results/metrics/tiny.json": ('_pct": ', '_pct": 1'),
        "results/plots/tiny.csv": (",", ",1"),
        "results/comparisons/tiny/pairs.csv": (",", ",1"),
        SUMMARY: ('"rate": ', '"rate": 1'),
    }
    return [
        *(
            Tampering(f"{p} and the lock", in_both(p, v), p.rsplit(".", 1)[-1])
            for p, v in places.items()
        ),
        *(
            Tampering(
                f"{name} and the lock", relocked_after(text(name, *change)), name.split(".")[0]
            )
            for name, change in files.items()
        ),
        Tampering("a table and the lock", relocked_after(kinder_table), "pairs.parquet"),
    ]


def of_records() -> list[Tampering]:
    """Records of executions, which no lock and no signature holds."""
    other = RECORD.replace("tuned", "base")
    return [
        Tampering("a record without its seal", unsealed, RECORD),
        Tampering("two records swapped", swapped(RECORD, other), RECORD),
        Tampering(
            "a record of another variant", edited_record(lambda v: v.update(key="base")), RECORD
        ),
        Tampering("a pipe for a record", of_record(lambda n: in_place_of(n, os.mkfifo)), RECORD),
    ]


def of_declarations() -> list[Tampering]:
    """dvc.yaml and dvc.lock."""
    none = {"cmd": "echo", "outs": []}
    return [
        Tampering("vars", in_pipeline(lambda v: v.update(vars=[{"models": {}}])), "vars"),
        Tampering("an uncached output", in_pipeline(uncached), "cache"),
        Tampering("a stage that makes ours", own_stage(cmd="echo", outs=[SCORES]), "polish"),
        Tampering("a stage around ours", own_stage(cmd="echo", outs=["data/scores"]), "polish"),
        Tampering("ours by another name", own_stage(cmd="toxtrail stage score tuned"), "polish"),
        Tampering("an entry of no stage", in_lock(lambda s: s.update(polish=none)), "polish"),
        Tampering("a mark as executable", in_lock(marked), "isexec"),
        Tampering("a path that leads out", in_lock(led_out), "etc/passwd"),
        Tampering("an entry twice", twice, "report"),
    ]


def of_places() -> list[Tampering]:
    """What is no file of a stage, or is none at all."""
    return [
        Tampering("a linked adapter", linked(ADAPTER), ADAPTER),
        Tampering("a link in an adapter", linked(f"{ADAPTER}/more", keep=False), f"{ADAPTER}/more"),
        Tampering(
            "a linked folder of results", linked("results/posteriors/tiny/tuned"), "tiny/tuned"
        ),
        Tampering("linked scores", linked(SCORES), SCORES),
        Tampering("a pipe for scores", in_place_of(SCORES, os.mkfifo), SCORES),
        Tampering("a pipe for generations", in_place_of(GENERATIONS, os.mkfifo), GENERATIONS),
        Tampering("a pipe for a summary", in_place_of(SUMMARY, os.mkfifo), SUMMARY),
        Tampering("a pipe for a card", in_place_of(CARD, os.mkfifo), CARD),
        Tampering("a pipe for a receipt", in_place_of(RECEIPT, os.mkfifo), RECEIPT),
        Tampering("a pipe for the report", in_place_of("report/index.html", os.mkfifo), "report"),
        Tampering(
            "a pipe in an adapter", in_place_of(f"{ADAPTER}/more", os.mkfifo), f"{ADAPTER}/more"
        ),
        Tampering("a pipe for dvc.yaml", in_place_of("dvc.yaml", os.mkfifo), "dvc.yaml"),
        Tampering(
            "a pipe for a dependency", in_place_of("requirements.txt", os.mkfifo), "requirements"
        ),
        Tampering("a folder for scores", in_place_of(SCORES, Path.mkdir), SCORES),
        Tampering("holes for scores", in_place_of(SCORES, holes), SCORES),
        Tampering("holes for a summary", in_place_of(SUMMARY, holes), SUMMARY),
    ]


def named() -> list[Tampering]:
    """What people and programs do by hand."""
    return [
        *in_mlflow(),
        *with_the_lock(),
        *of_records(),
        *of_declarations(),
        *of_places(),
        Tampering("a frozen stage", frozen("generate"), "generate"),
        Tampering("another frozen stage", frozen("report"), "report"),
        Tampering(
            "a dropped dependency",
            text("dvc.yaml", "        - src/toxtrail/stats/rates.py\n", ""),
            "posterior",
        ),
        Tampering(
            "a changed command",
            text("dvc.yaml", "toxtrail stage score ${key}", "toxtrail stage score ${key} || true"),
            "score",
        ),
        Tampering("a lock's hash", other_hash, "data/scores/tiny/tuned.parquet"),
        Tampering(
            "a lock's value",
            text("dvc.lock", "max_new_tokens: 6", "max_new_tokens: 7"),
            "max_new_tokens",
        ),
        Tampering(
            "a lock's type", text("dvc.lock", "temperature: 0.0", "temperature: 0"), "temperature"
        ),
        Tampering(
            "a lock's command",
            text("dvc.lock", "cmd: toxtrail stage score tuned", "cmd: toxtrail stage score base"),
            "score@tuned",
        ),
        Tampering("a lock's comment", text("dvc.lock", "stages:\n", "stages: # ok\n"), "dvc.lock"),
        Tampering(
            "a value in params.yaml",
            text("params.yaml", "judge: 0.5", "judge: 0.6"),
            "threshold",
        ),
        Tampering("a dropped variant's lock entry", stale_entry, "generate@tuned"),
        Tampering(
            "a receipt's key", text(RECEIPT, '"content_key": "', '"content_key": "0'), RECEIPT
        ),
        Tampering("an extra adapter file", lambda r: write(r / ADAPTER / "notes.txt"), "notes.txt"),
        Tampering(
            "a missing adapter file",
            lambda r: (r / ADAPTER / "adapter_config.json").unlink(),
            "adapter_config.json",
        ),
        Tampering("another alpha and its card", weaker_adapter, "adapter_config.json"),
        Tampering(
            "the commit of a record",
            of_record(lambda n: text(n, '"commit": "', '"commit": "f')),
            RECORD,
        ),
        Tampering(
            "the batches of a record",
            of_record(lambda n: text(n, '"batch_tokens": 64', '"batch_tokens": 1')),
            RECORD,
        ),
        *(
            Tampering(f"two {what} swapped", swapped(one, one.replace("tuned", "base")), one)
            for what, one in {
                "scores": "data/scores/tiny/tuned.parquet",
                "generations": "data/generations/tiny/tuned.parquet",
                "cards": "models/tuned/model.json",
                "receipts": RECEIPT,
                "posteriors": "results/posteriors/tiny/tuned",
            }.items()
        ),
        *(
            Tampering(f"a lock without {name}", in_lock(without(name)), name)
            for name in ("score@tuned", "track@tuned", "report")
        ),
        Tampering("a lock's number of files", in_lock(more_files), "generate@tuned"),
        Tampering("a stage that runs elsewhere", working_folder, "wdir"),
        Tampering("a stage that is none", lambda r: write(r / "dvc.yaml", ODD_STAGES), "dvc.yaml"),
        Tampering("a receipt that is a list", lambda r: write(r / RECEIPT, "[]"), RECEIPT),
        Tampering("an empty summary", lambda r: write(r / SUMMARY, ""), SUMMARY),
        Tampering("a card of nothing", lambda r: write(r / CARD, "{}"), CARD),
        Tampering("a card without weights", lambda r: write(r / CARD, no_files(r)), CARD),
        Tampering("an emptied store", lambda r: write(r / "mlruns/mlflow.db", ""), "empty file"),
        Tampering("a kinder score", kinder_score, "data/scores/tiny/tuned.parquet"),
        Tampering("a cached object", lambda r: flip(same_cache_object(r), 5), ".dvc/cache"),
        Tampering("a kinder rate", text(SUMMARY, '"rate": ', '"rate": 1'), SUMMARY),
        Tampering(
            "a kinder verdict", text(COMPARISON, '"verdict": "', '"verdict": "not '), COMPARISON
        ),
        Tampering(
            "another recipe on the card",
            text("models/tuned/model.json", '"max_steps": 6', '"max_steps": 9'),
            "models/tuned/model.json",
        ),
    ]
