"""What a run will take: the tables and the JSON of `toxtrail plan`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from toxtrail.cli._output import print_json, print_table, size_text
from toxtrail.console import echo
from toxtrail.errors import BackendError, ConfigError, DataError, nearest
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.config.schema import Config
    from toxtrail.preflight.device_speed import Speed
    from toxtrail.preflight.model_sizes import Weighed
    from toxtrail.preflight.resources import Known, Need, Room, Work

PRESETS = Path(__file__).parents[1] / "presets"


class Asked(NamedTuple):
    """What the user wants planned."""

    family: str | None
    preset: str | None
    params: Path | None
    offline: bool
    no_probe: bool
    device: str | None
    """Of DATASHEETS; None for this machine's own."""


class Plan(NamedTuple):
    """Everything found."""

    name: str
    known: Known
    work: list[Work]
    needs: list[Need]
    disk: dict[str, tuple[Path, Room, float]]
    """Place -> folder, what is wanted, bytes free."""
    problems: list[str]
    notes: list[str]


def show(experiment: Experiment, asked: Asked, as_json: bool) -> bool:
    """Print the plan; whether something would stop the run."""
    plan = _planned(experiment, asked)
    if as_json:
        print_json(_as_json(plan))
    else:
        _print(plan)
    return bool(plan.problems)


# --- finding out ----------------------------------------------------------------------------------


def _planned(experiment: Experiment, asked: Asked) -> Plan:
    from toxtrail.preflight import resources

    name, config, root, made = _what(experiment, asked)
    if asked.family is not None and asked.family not in config.families:
        raise ConfigError(f'"{asked.family}" is no family.{nearest(asked.family, config.families)}')
    notes: list[str] = []
    speed, problems = _speed(config, asked)
    changed = _changed(root, notes) if made else None
    known = resources.Known(
        config=config,
        weighed=_weighed(config, root, asked),
        speed=speed,
        changed=changed,
        **_drawn(root if made and changed is not None and "prompts" not in changed else None),
        training_rows=_training_rows(config, root),
        records=_records(root) if made and asked.device is None else {},
    )
    chosen = (asked.family,) if asked.family else ()
    work = resources.work(known, chosen)
    needs = resources.needs(known, work)
    disk = _disk(resources.disk(known, work), root)
    wanted = {place: (room.size, free) for place, (_, room, free) in disk.items()}
    problems += resources.problems(known, needs, wanted)
    return Plan(name, known, work, needs, disk, problems, [*notes, *_licences(known)])


def _what(experiment: Experiment, asked: Asked) -> tuple[str, Config, Path, bool]:
    """(name, config, folder, whether it is an experiment that is made)."""
    from toxtrail.config.load import load_config

    if asked.preset and asked.params:
        raise click.UsageError("--preset and --params: one of them.")
    if asked.params:
        return str(asked.params), load_config(asked.params), asked.params.resolve().parent, False
    if asked.preset:
        known = sorted(p.stem for p in PRESETS.glob("*.yaml") if not p.stem.endswith("_published"))
        if asked.preset not in known:
            raise ConfigError(f'There is no preset "{asked.preset}".{nearest(asked.preset, known)}')
        path = PRESETS / f"{asked.preset}.yaml"
        return f"the preset {asked.preset}", load_config(path), path.parent, False
    return "params.yaml", experiment.config, experiment.root, True


def _speed(config: Config, asked: Asked) -> tuple[Speed | None, list[str]]:
    from toxtrail.backends.compute.devices import pick_device, use_threads
    from toxtrail.preflight.device_speed import announced, measured

    if asked.device is not None:
        return announced(asked.device, config.generation.dtype), []
    if asked.no_probe:
        return None, []
    try:
        device = pick_device(config.runtime.device)
    except BackendError as error:
        return None, [str(error)]
    threads = use_threads(config.runtime.threads, config.runtime.processes)
    return measured(device, config.generation.dtype, threads), []


def _changed(root: Path, notes: list[str]) -> frozenset[str] | None:
    """Stage runs that DVC calls out of date; None: nothing was ever run."""
    from toxtrail.audit.status.outdated_stages import staleness

    if not (root / "dvc.lock").is_file():
        return None
    try:
        return frozenset(staleness(root).stages)
    except DataError as error:
        notes.append(f"What is done already is not known ({error}): everything is counted.")
        return None


def _weighed(config: Config, root: Path, asked: Asked) -> dict[str, Weighed]:
    from toxtrail.backends.assets import AssetStore, default_cache
    from toxtrail.backends.assets.hub_info import Hub
    from toxtrail.backends.protocols import Silent
    from toxtrail.preflight.model_sizes import Scales

    hub = None if asked.offline else Hub()
    assets = AssetStore(default_cache(), root, Silent(), config.outside)
    scales = Scales(assets, hub, asked.preset is None)
    return {place: scales.weigh(place, source) for place, source in config.sources()}


def _drawn(root: Path | None) -> dict[str, Any]:
    """Prompts and their mean length, if they are drawn."""
    from toxtrail.preflight.resources import CHARACTERS_PER_TOKEN
    from toxtrail.storage.artifacts import Store

    store = Store(root) if root else None
    if store is None or not store.prompts.is_file():
        return {"prompts": None, "prompt_tokens": None}
    lengths = [len(prompt.text) for prompt in store.read_prompts()]
    mean = sum(lengths) / len(lengths) / CHARACTERS_PER_TOKEN if lengths else None
    return {"prompts": len(lengths), "prompt_tokens": mean}


def _training_rows(config: Config, root: Path) -> dict[str, int]:
    """Of the data that is here."""
    from toxtrail.backends.assets import AssetStore, default_cache
    from toxtrail.backends.protocols import Silent
    from toxtrail.datasets.readers import read_rows

    assets, found = AssetStore(default_cache(), root, Silent(), config.outside), {}
    for key, recipe in config.finetunes.items():
        here = assets.present(recipe.data.uri, None)
        if here is not None and len(here.files) == 1:
            try:
                found[key] = sum(1 for _ in read_rows(here.files[0]))
            except DataError:
                continue  # its own stage says what is wrong with it
    return found


def _records(root: Path) -> dict[str, float]:
    """Stage run -> seconds that it took on this machine."""
    from toxtrail.storage.artifacts import read_json

    found = {}
    for path in (root / "data" / "records").glob("*/*.json"):
        try:
            record = read_json(path)
            if record["host"] == platform.node():
                found[f"{path.parent.name}@{path.stem}"] = float(record["cost"]["seconds"])
        except (DataError, KeyError, TypeError, ValueError):
            continue  # an audit says what is wrong with it
    return found


def _disk(wanted: Mapping[str, Room], root: Path) -> dict[str, tuple[Path, Room, float]]:
    """Places on one disk are one place: they take its space together."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from toxtrail.backends.assets import default_cache
    from toxtrail.preflight.resources import Room

    folders = {"hub": Path(HF_HUB_CACHE), "cache": default_cache(), "root": root}
    found: dict[int, tuple[str, Path, Room]] = {}
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        disk, own = there.stat().st_dev, wanted[name]
        if disk in found:
            names, first, other = found[disk]
            both = Room(own.size + other.size, own.more or other.more)
            found[disk] = (f"{names}, {_PLACES[name]}", first, both)
        else:
            found[disk] = (_PLACES[name], there, own)
    return {
        names: (path, room, float(shutil.disk_usage(path).free))
        for names, path, room in found.values()
    }


_PLACES = {"hub": "the hub's cache", "cache": "toxtrail's cache", "root": "the experiment"}


def _licences(known: Known) -> Iterator[str]:
    from toxtrail.audit.lineage.parent_claims import license_warning

    for one in known.weighed.values():
        if one.license and (warning := license_warning(one.license)):
            yield f"licence of {one.uri}: {warning}"


# --- showing --------------------------------------------------------------------------------------


def _print(plan: Plan) -> None:
    from toxtrail.preflight import resources

    rows = resources.as_rows(plan.work)
    title = f"What a run of {plan.name} takes"
    columns = ["stage", "to run>", "done>", "tokens, at most>", "time>"]
    print_table(title, columns, [_stage_cells(row, plan.known.speed is not None) for row in rows])
    _print_downloads(plan)
    _print_needs(plan)
    cells = [
        (names, str(path), _and_more(size_text(room.size), room.more), size_text(free))
        for names, (path, room, free) in plan.disk.items()
    ]
    print_table("Disk", ["what for", "where", "needed>", "free>"], cells)
    for line in _sentences(plan):
        echo(line)
    for line in plan.problems:
        echo("problem: ", fg="red", nl=False)
        echo(line)
    echo(_total(plan, rows), bold=True)


def _stage_cells(row: Mapping[str, Any], timed: bool) -> tuple[object, ...]:
    tokens = "-" if row["tokens"] is None else f"{row['tokens']:,}"
    unknown = row["seconds_unknown"]
    time = _time(row["seconds"]) if row["seconds"] else "-"
    if unknown and timed:
        time = f"{time} and {unknown} unknown" if row["seconds"] else f"{unknown} unknown"
    tokens = _and_more(tokens, row["tokens_unknown"] and row["tokens"] is not None)
    return row["stage"], row["to_run"], row["done"], tokens, time if timed else "-"


def _print_downloads(plan: Plan) -> None:
    from toxtrail.preflight.resources import downloads

    found = downloads(plan.known)
    away = [one for one in found if one.state != "here" and not one.uri.startswith("file:")]
    if away:
        common = _common([one.said for one in away])
        rows = [
            (
                one.uri,
                one.state,
                f"{'about ' if one.guessed else ''}{size_text(one.missing)}",
                "(below)" if one.said == common else one.said or "-",
            )
            for one in away
        ]
        print_table("To download", ["address", "state", "size>", "what to know"], rows)
        if common:
            echo(f"(below): {common}.")
        if any(one.guessed for one in away):
            echo('"about": nobody says how large it is; guessed by the 7b or 2b in its name.')
    here = [one for one in found if one.state == "here"]
    if here:
        size = sum(one.size or 0 for one in here)
        echo(f"{len(here)} asset(s) are here already ({size_text(size)}).")


def _common(said: Sequence[str]) -> str | None:
    """What is to be said of three and more."""
    often = max((line for line in said if line), key=said.count, default=None)
    return often if often and said.count(often) > 2 else None


def _print_needs(plan: Plan) -> None:
    if not plan.needs:
        return
    rows = [
        (
            one.key,
            one.what,
            "unknown" if one.parameters is None else f"{one.parameters / 1e6:,.4g} M",
            size_text(one.weights),
            size_text(one.whole),
            {True: "yes", False: "NO", None: "unknown"}[one.fits],
        )
        for one in plan.needs
    ]
    speed = plan.known.speed
    where = f" ({speed.device} has {size_text(speed.memory_total)})" if speed else ""
    columns = ["model", "to", "parameters>", "weights alone>", "with the batch>", "fits"]
    print_table(f"Memory{where}", columns, rows)


def _sentences(plan: Plan) -> list[str]:
    from toxtrail.preflight.resources import ASSUMED_PROMPT_TOKENS, scales

    lines = [*plan.notes]
    if plan.known.prompt_tokens is None:
        lines.append(f"Prompts are not drawn yet: {ASSUMED_PROMPT_TOKENS} tokens each are assumed.")
    speed = plan.known.speed
    if speed is not None:
        lines.append(
            f"Speed of {speed.name} ({speed.device}, {speed.dtype}): "
            f"{speed.flops / 1e9:,.0f} GFLOP/s, {size_text(speed.memory_bytes)}/s of memory, "
            f"{size_text(speed.hashed_bytes)}/s hashed."
        )
        if found := scales(plan.known):
            said = ", ".join(f"{stage} x {ratio:.1f}" for stage, ratio in found.items())
            lines.append(f"Times follow what earlier runs took here ({said}).")
        else:
            lines.append(
                "No earlier run corrects them, so times come from that alone: read them as right "
                "to a factor of three (docs/plan.md). Downloads are not in them."
            )
    return lines


def _total(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> str:
    from toxtrail.preflight.resources import downloads

    todo = sum(row["to_run"] for row in rows)
    if not todo:
        return "Everything is up to date: nothing would run."
    missing = [one.missing for one in downloads(plan.known)]
    known = sum(size or 0 for size in missing)
    unknown = sum(size is None for size in missing)
    size = f"{size_text(known)}" if known else "nothing"
    size += f" and {unknown} asset(s) of unknown size" if unknown else ""
    seconds = sum(row["seconds"] for row in rows)
    time = f"about {_time(seconds)}" if plan.known.speed else "for a time that was not measured"
    return f"{todo} stage run(s), {time}; {size} to download; {len(plan.problems)} problem(s)."


def _as_json(plan: Plan) -> dict[str, Any]:
    from toxtrail.preflight import resources

    return {
        "of": plan.name,
        "stages": resources.as_rows(plan.work),
        "runs": [one._asdict() for one in plan.work],
        "downloads": [
            {**one._asdict(), "shape": one.shape._asdict() if one.shape else None}
            for one in resources.downloads(plan.known)
        ],
        "memory": [one._asdict() for one in plan.needs],
        "disk": [
            {
                "for": names,
                "path": str(path),
                "needed": room.size,
                "needs_more": room.more,
                "free": free,
            }
            for names, (path, room, free) in plan.disk.items()
        ],
        "speed": plan.known.speed._asdict() if plan.known.speed else None,
        "scaled_by_earlier_runs": resources.scales(plan.known),
        "prompts_drawn": plan.known.prompts,
        "notes": plan.notes,
        "problems": plan.problems,
    }


def _and_more(text: str, more: bool) -> str:
    return f"{text} and more" if more else text


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
