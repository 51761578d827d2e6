"""`toxtrail check`: check params.yaml and the files it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._check_online import AVAILABLE, check_hub_assets, print_online
from toxtrail.cli._output import echo_labelled, echo_note, json_option, print_json
from toxtrail.console import echo
from toxtrail.experiment import NO_VARIANTS, Experiment
from toxtrail.regular_files import read_text

if TYPE_CHECKING:
    from toxtrail.preflight.source_contents import InClusters

PIN_CURE = "`toxtrail pin` resolves and writes it."


@click.command("check", short_help="Check params.yaml and the files it names.")
@click.option("--strict", is_flag=True, help="Treat unpinned assets as errors.")
@click.option("--online", is_flag=True, help="Check which Hub assets are accessible (network).")
@json_option
@click.pass_context
def check(ctx: click.Context, strict: bool, online: bool, as_json: bool) -> None:
    """Check params.yaml, and that local files match their pins and contain the required columns,
    rows and prompts; that scorers have the named heads, and are those whose error rates are given;
    and that this machine has the named device, and vLLM if it is the engine. Package versions that
    results were made with and that are not the installed ones are a note, and a precision that is
    slow on this processor is a warning. Nothing is downloaded.

    With --online, look up each asset on the Hub: whether it exists, is gated (accept its license
    first), was renamed or is missing; and its license.

    \b
    Examples:
      toxtrail check
      toxtrail check --strict
      toxtrail check --online
      toxtrail check --json
    """
    from toxtrail.auditing.verify.weights import identity_caveats
    from toxtrail.preflight.pinned_files import pin_problems
    from toxtrail.preflight.result_packages import other_versions_note, result_packages
    from toxtrail.scaffold import stages_with_other_code

    experiment: Experiment = ctx.obj
    config = experiment.config
    unpinned, changed = config.unpinned(), pin_problems(experiment)
    drawn = _prompts_of(experiment)
    code, notes = list(stages_with_other_code(experiment.root)), _notes_of_reading(experiment)
    packages = result_packages(config, experiment.store)
    changed += _problems_of_lock(experiment) + _problems_of_reading(experiment)
    changed += _problems_of_device(config.runtime.device)
    changed += [] if config.variants else [NO_VARIANTS]
    outside, weak = _outside_of(experiment), identity_caveats(experiment)
    statuses, slow = check_hub_assets(config) if online else [], _slow_settings(experiment)
    if as_json:
        result: dict[str, Any] = {
            "unpinned": unpinned,
            "files": changed,
            "warnings": slow,
            "notes": notes,
            "code": code,
            "packages": [other._asdict() for other in packages],
            "clusters": [one._asdict() for one in drawn],
        }
        result |= {"outside": outside, "weak": weak}
        more = {"online": [status._asdict() for status in statuses]} if online else {}
        print_json({**result, "variants": list(config.variants), **more})
    else:
        lines = [f"{o['place']}: outside the experiment, {o['path']}" for o in outside]
        lines += [f"weak: {key}: {line}" for key, caveats in weak.items() for line in caveats]
        if versions := other_versions_note(packages):
            notes.append(versions)
        warnings = [*(f"{line}. {PIN_CURE}" for line in unpinned), *slow]
        _print_check(experiment, warnings, changed, [*_drawn_lines(drawn), *notes, *lines])
        _print_code(code)
        if online:
            print_online(statuses)
    missing = any(status.state not in AVAILABLE for status in statuses)
    if missing or changed or code or (strict and unpinned):
        ctx.exit(1)


def _outside_of(experiment: Experiment) -> list[dict[str, str]]:
    """List the local assets outside the experiment: key in params.yaml, and path."""
    from toxtrail.execution.factories import make_asset_store

    assets = make_asset_store(experiment)
    places = [
        (key_path, assets.outside(source.uri)) for key_path, source in experiment.config.sources()
    ]
    return [{"place": key_path, "path": str(path)} for key_path, path in places if path is not None]


def _problems_of_reading(experiment: Experiment) -> list[str]:
    """List local sources and scorers without the contents that params.yaml requires, and error
    rates that were measured on another scorer."""
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.preflight.source_contents import (
        damaged_weights,
        unknown_heads,
        unreadable_sources,
    )
    from toxtrail.preflight.vllm_support import vllm_problems
    from toxtrail.provenance.measured_scorers import scorer_error_problems

    config, assets = experiment.config, make_asset_store(experiment)
    scorers = {name: scorer.plain() for name, scorer in config.scoring.scorers.items()}
    return [
        *unreadable_sources(config, assets),
        *unknown_heads(config, assets),
        *damaged_weights(config, assets),
        *scorer_error_problems(config.posterior, scorers),
        *vllm_problems(config, experiment.root, assets),
    ]


def _problems_of_lock(experiment: Experiment) -> list[str]:
    """Report a dvc.lock with conflict markers, or a truncated one."""
    from toxtrail.auditing.status.lock_repair import lock_problem

    path = experiment.root / "dvc.lock"
    problem = lock_problem(read_text(path, "replace")) if path.is_file() else None
    return [problem] if problem else []


def _problems_of_device(device: str) -> list[str]:
    """Report a device that this machine does not have; import torch only if necessary."""
    if device in ("auto", "cpu"):
        return []
    from toxtrail.backends.compute.devices import pick_device
    from toxtrail.errors import BackendError

    try:
        pick_device(device)
    except BackendError as error:
        return [str(error)]
    return []


def _slow_settings(experiment: Experiment) -> list[str]:
    from toxtrail.preflight.bfloat16 import device_without_torch, slow_bfloat16_here

    config = experiment.config
    return slow_bfloat16_here(config, device_without_torch(config.runtime.device))


def _notes_of_reading(experiment: Experiment) -> list[str]:
    """List settings detected in files (the delimiter of a source, an adapter's own tokenizer),
    golden texts without a score, the lack of a scorer that is not lexical, and a clone in which
    git merges params.yaml and dvc.lock by lines."""
    from toxtrail.auditing.verify.weights import identified_cards
    from toxtrail.backends.merge_driver import NOT_INSTALLED, lacks_merge_driver
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.preflight.source_contents import (
        detected_delimiters,
        lexical_scorers_only,
        unmeasured_golden_texts,
    )
    from toxtrail.provenance.identity_caveats import adapter_notes

    cards = identified_cards(experiment)
    return [
        *detected_delimiters(experiment.config, make_asset_store(experiment)),
        *(f"{key}: {note}" for key, card in cards.items() for note in adapter_notes(card)),
        *unmeasured_golden_texts(experiment.config),
        *lexical_scorers_only(experiment.config),
        *([NOT_INSTALLED] if lacks_merge_driver(experiment.root) else []),
    ]


def _prompts_of(experiment: Experiment) -> list[InClusters]:
    """Return the numbers of prompts and clusters of subsets with a cluster column."""
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.preflight.source_contents import prompts_in_clusters

    return prompts_in_clusters(experiment.config, make_asset_store(experiment))


def _drawn_lines(drawn: Sequence[InClusters]) -> list[str]:
    """Return lines on prompts and clusters of each subset, with a warning for too few."""
    from toxtrail.reporting.notes import FEW_CLUSTERS

    return [
        f"prompts.subsets.{one.subset}: {one.prompts:,} prompts in {one.clusters:,} clusters"
        + (
            f"; with fewer than {FEW_CLUSTERS} clusters intervals may be too narrow."
            if one.clusters < min(FEW_CLUSTERS, one.prompts)
            else "."
        )
        for one in drawn
    ]


def _print_code(names: Sequence[str]) -> None:
    from toxtrail.scaffold import code_differs_message

    if names:
        echo_labelled("problem:", code_differs_message(names), "red")


def _print_check(
    experiment: Experiment, warnings: list[str], changed: list[str], notes: list[str]
) -> None:
    config = experiment.config
    echo(
        f"params.yaml: {len(config.variants)} variants in {len(config.families)} families, "
        f"{len(config.prompts.subsets)} prompt subsets, {len(config.scoring.scorers)} scorers."
    )
    for line in warnings:
        echo_labelled("warning:", line, "yellow")
    for line in notes:
        echo_note(f"note: {line}")
    for line in changed:
        echo_labelled("problem:", line, "red")
    if not changed:
        echo("All local files match their pins and have the required contents.")
