"""The tables and the JSON of `toxtrail plan`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from toxtrail.cli._output import echo_labelled, echo_note, format_bytes, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import BackendError, ConfigError, DataError, did_you_mean
from toxtrail.experiment import NO_VARIANTS, Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.config.schema import Config
    from toxtrail.preflight.device_speed import Speed
    from toxtrail.preflight.model_sizes import AssetSize
    from toxtrail.preflight.resources import DiskNeed, EstimateInputs, MemoryNeed, StageEstimate


class PlanOptions(NamedTuple):
    """Options of `toxtrail plan`."""

    family: str | None
    preset: str | None
    params: Path | None
    offline: bool
    no_probe: bool
    device: str | None
    """Key of DATASHEETS; None for this machine."""


class RunEstimate(NamedTuple):
    """Estimate of a run."""

    name: str
    inputs: EstimateInputs
    work: list[StageEstimate]
    needs: list[MemoryNeed]
    disk: dict[str, tuple[Path, DiskNeed, float]]
    """Name -> folder, required space, free bytes."""
    problems: list[str]
    notes: list[str]


def print_estimate(experiment: Experiment, options: PlanOptions, as_json: bool) -> bool:
    """Print the estimate; return whether a problem would stop the run."""
    plan = _planned(experiment, options)
    if as_json:
        print_json(_as_json(plan))
    else:
        _print(plan)
    return bool(plan.problems)


# --- estimating -----------------------------------------------------------------------------------


def _planned(experiment: Experiment, options: PlanOptions) -> RunEstimate:
    from toxtrail.preflight import resources

    name, config, root, exists = _planned_experiment(experiment, options)
    if options.family is not None and options.family not in config.families:
        raise ConfigError(
            f'Unknown family "{options.family}".{did_you_mean(options.family, config.families)}'
        )
    if not config.variants:
        raise ConfigError(NO_VARIANTS)
    notes: list[str] = []
    speed, problems = _speed(config, options)
    changed = _changed(root, notes) if exists else None
    inputs = resources.EstimateInputs(
        config=config,
        sizes=_asset_sizes(config, root, options),
        speed=speed,
        changed=changed,
        prompts=_prompt_count(root) if changed is not None and "prompts" not in changed else None,
    )
    chosen = (options.family,) if options.family else ()
    work = resources.estimate_stages(inputs, chosen)
    needs = resources.memory_needs(inputs, work)
    disk = _disk(resources.disk(inputs, work), root)
    disk_needs = {folder: (room.size, free) for folder, (_, room, free) in disk.items()}
    problems += resources.problems(inputs, needs, disk_needs)
    notes += [*resources.request_notes(inputs, work), *_licences(inputs)]
    notes += _slow_settings(config, options, work)
    return RunEstimate(name, inputs, work, needs, disk, problems, notes)


def _planned_experiment(
    experiment: Experiment, options: PlanOptions
) -> tuple[str, Config, Path, bool]:
    """Return (name, config, folder, whether the experiment exists)."""
    from toxtrail.config.load import load_config
    from toxtrail.scaffold import PRESETS, preset_path

    if options.preset and options.params:
        raise click.UsageError("Give only one of --preset and --params.")
    if options.params:
        folder = options.params.resolve().parent
        return str(options.params), load_config(options.params), folder, False
    if options.preset:
        if options.preset not in PRESETS:
            raise ConfigError(
                f'Unknown preset "{options.preset}".{did_you_mean(options.preset, PRESETS)}'
            )
        path = preset_path(options.preset)
        return f"the preset {options.preset}", load_config(path), path.parent, False
    return "params.yaml", experiment.config, experiment.root, True


def _speed(config: Config, options: PlanOptions) -> tuple[Speed | None, list[str]]:
    from toxtrail.backends.compute.devices import pick_device, set_num_threads
    from toxtrail.preflight.device_speed import datasheet_speed, measure_speed

    if options.device is not None:
        return datasheet_speed(options.device, config.generation.dtype), []
    if options.no_probe:
        return None, []
    try:
        device = pick_device(config.runtime.device)
    except BackendError as error:
        return None, [str(error)]
    threads = set_num_threads(config.runtime.threads, config.runtime.processes)
    return measure_speed(device, config.generation.dtype, threads), []


def _slow_settings(
    config: Config, options: PlanOptions, work: Sequence[StageEstimate]
) -> list[str]:
    """Name the precisions that are slow on this processor, of stages that will run."""
    from toxtrail.preflight.bfloat16 import device_without_torch, slow_bfloat16_here

    if options.device is not None:
        return []
    stages = dict.fromkeys(item.stage for item in work if item.runs)
    device = device_without_torch(config.runtime.device)
    lines = [line for stage in stages for line in slow_bfloat16_here(config, device, stage)]
    return [f"warning: {line}" for line in lines]


def _changed(root: Path, notes: list[str]) -> frozenset[str] | None:
    """Return the outdated stage runs; None if nothing was ever run."""
    from toxtrail.auditing.status.outdated_stages import staleness

    if not (root / "dvc.lock").is_file():
        return None
    try:
        return frozenset(staleness(root).stages)
    except DataError as error:
        notes.append(f"Finished stages are unknown ({error}): all stages are counted.")
        return None


def _asset_sizes(config: Config, root: Path, options: PlanOptions) -> dict[str, AssetSize]:
    from toxtrail.backends.assets import AssetStore, default_cache
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.backends.protocols import NoProgress
    from toxtrail.preflight.model_sizes import AssetSizer

    hub = None if options.offline else HubClient()
    assets = AssetStore(default_cache(), root, NoProgress(), config.outside)
    scales = AssetSizer(assets, hub, options.preset is None)
    return {key_path: scales.weigh(key_path, source) for key_path, source in config.sources()}


def _prompt_count(root: Path) -> int | None:
    """Return the number of prompts, if they exist."""
    from toxtrail.storage.artifacts import ArtifactStore

    store = ArtifactStore(root)
    return len(store.read_prompts()) if store.prompts_path.is_file() else None


def _disk(needs: Mapping[str, DiskNeed], root: Path) -> dict[str, tuple[Path, DiskNeed, float]]:
    """Merge the folders on one disk, which share its space."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from toxtrail.backends.assets import default_cache
    from toxtrail.preflight.resources import DiskNeed

    folders = {
        "the hub's cache": (Path(HF_HUB_CACHE), needs["hub"]),
        "toxtrail's cache": (default_cache(), needs["cache"]),
        "the experiment": (root, needs["root"]),
    }
    disks: dict[int, tuple[str, Path, DiskNeed]] = {}
    for name, (folder, need) in folders.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        disk = existing.stat().st_dev
        if disk in disks:
            names, first, other = disks[disk]
            both = DiskNeed(need.size + other.size, need.more or other.more)
            disks[disk] = (f"{names}, {name}", first, both)
        else:
            disks[disk] = (name, existing, need)
    return {
        names: (path, need, float(shutil.disk_usage(path).free))
        for names, path, need in disks.values()
    }


def _licences(inputs: EstimateInputs) -> Iterator[str]:
    from toxtrail.auditing.lineage.parent_claims import license_warning

    for asset in inputs.sizes.values():
        if asset.license and (warning := license_warning(asset.license)):
            yield f"license of {asset.uri}: {warning}"


# --- showing --------------------------------------------------------------------------------------


def _print(plan: RunEstimate) -> None:
    from toxtrail.preflight import resources

    rows = resources.as_rows(plan.work)
    title = f"Resources of a run of {plan.name}"
    columns = [*text_columns("stage"), *number_columns("to run", "done", "max tokens", "time")]
    stage_rows = [_stage_cells(row, plan.inputs.speed is not None) for row in rows]
    print_table(Table(title, columns, stage_rows))
    _print_downloads(plan)
    _print_needs(plan)
    cells = [
        (names, str(path), _and_more(format_bytes(room.size), room.more), format_bytes(free))
        for names, (path, room, free) in plan.disk.items()
    ]
    columns = [*text_columns("purpose", "folder"), *number_columns("needed", "free")]
    print_table(Table("Disk", columns, cells))
    for line in plan.notes:
        echo_note(line)
    if speed := plan.inputs.speed:
        echo_note(
            f"Times are orders of magnitude, by {speed.flops / 1e9:,.0f} GFLOP/s of {speed.name} "
            f"({speed.device}, {speed.dtype}), and exclude downloads (docs/plan.md)."
        )
    for line in plan.problems:
        echo_labelled("problem:", line, "red")
    echo_note(_total(plan, rows), bold=True)


def _stage_cells(row: Mapping[str, Any], timed: bool) -> tuple[object, ...]:
    tokens = "-" if row["tokens"] is None else f"{row['tokens']:,}"
    unknown = row["seconds_unknown"]
    time = _time(row["seconds"]) if row["seconds"] else "-"
    if unknown and timed:
        time = f"{time} and {unknown} unknown" if row["seconds"] else f"{unknown} unknown"
    tokens = _and_more(tokens, row["tokens_unknown"] and row["tokens"] is not None)
    return row["stage"], row["to_run"], row["done"], tokens, time if timed else "-"


def _print_downloads(plan: RunEstimate) -> None:
    from toxtrail.preflight.resources import downloads

    assets = downloads(plan.inputs)
    away = [
        asset for asset in assets if asset.state != "here" and not asset.uri.startswith("file:")
    ]
    if away:
        common = _common([asset.said for asset in away])
        rows = [
            (
                asset.uri,
                asset.state,
                f"{'about ' if asset.guessed else ''}{format_bytes(asset.missing)}",
                "(below)" if asset.said == common else asset.said or "-",
            )
            for asset in away
        ]
        columns = (
            *text_columns("asset", "state"), *number_columns("size"), *text_columns("note"),
        )  # fmt: skip
        print_table(Table("To download", columns, rows))
        if common:
            echo(f"(below): {common}.")
        if any(asset.guessed for asset in away):
            echo('"about": size estimated from the parameter count in its name.')
    local = [asset for asset in assets if asset.state == "here"]
    if local:
        size = sum(asset.size or 0 for asset in local)
        echo(f"{len(local)} asset(s) are cached ({format_bytes(size)}).")


def _common(messages: Sequence[str]) -> str | None:
    """Return the message shared by three or more assets."""
    often = max((line for line in messages if line), key=messages.count, default=None)
    return often if often and messages.count(often) > 2 else None


def _print_needs(plan: RunEstimate) -> None:
    if not plan.needs:
        return
    rows = [
        (
            need.key,
            need.what,
            "unknown" if need.parameters is None else f"{need.parameters / 1e6:,.4g} M",
            format_bytes(need.weights),
            {True: "yes", False: "NO", None: "unknown"}[need.fits],
        )
        for need in plan.needs
    ]
    speed = plan.inputs.speed
    where = f" ({speed.device} has {format_bytes(speed.memory_total)})" if speed else ""
    columns = (
        *text_columns("model", "to"),
        *number_columns("parameters", "without a batch"),
        *text_columns("fits"),
    )
    print_table(Table(f"Memory{where}", columns, rows))


def _total(plan: RunEstimate, rows: Sequence[Mapping[str, Any]]) -> str:
    from toxtrail.preflight.resources import downloads

    todo = sum(row["to_run"] for row in rows)
    if not todo:
        return "Everything is up to date: nothing would run."
    missing = [asset.missing for asset in downloads(plan.inputs)]
    total = sum(size or 0 for size in missing)
    unknown = sum(size is None for size in missing)
    size = f"{format_bytes(total)}" if total else "nothing"
    size += f" and {unknown} asset(s) of unknown size" if unknown else ""
    seconds = sum(row["seconds"] for row in rows)
    time = f"about {_time(seconds)}" if plan.inputs.speed else "time unknown"
    return f"{todo} stage run(s), {time}; {size} to download; {len(plan.problems)} problem(s)."


def _as_json(plan: RunEstimate) -> dict[str, Any]:
    from toxtrail.preflight import resources

    return {
        "of": plan.name,
        "stages": resources.as_rows(plan.work),
        "runs": [row._asdict() for row in plan.work],
        "downloads": [row._asdict() for row in resources.downloads(plan.inputs)],
        "memory": [row._asdict() for row in plan.needs],
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
        "speed": plan.inputs.speed._asdict() if plan.inputs.speed else None,
        "prompts_drawn": plan.inputs.prompts,
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
