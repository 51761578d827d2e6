"""`toxtrail export`: export a result that can be audited elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.cli._options import NewPath, project_option
from toxtrail.console import echo
from toxtrail.experiment import Experiment


@click.command("export", short_help="Write a self-contained bundle of a result.")
@click.argument("reference", metavar="RUN")
@click.option(
    "--to",
    "target",
    required=True,
    type=NewPath(dir_okay=True),
    metavar="DIR|ZIP",
    help="Output folder or .zip file (must not exist).",
)
@click.option("--ro-crate", is_flag=True, help="Describe it for archives: RO-Crate 1.1.")
@click.option(
    "--mlflow",
    "from_mlflow",
    is_flag=True,
    help="Export the files of an MLflow run even in an experiment's folder.",
)
@project_option
@click.pass_obj
def export(
    experiment: Experiment, reference: str, target: Path, ro_crate: bool, from_mlflow: bool
) -> None:
    """Export RUN's complete lineage, without the weights: manifests, params, lock, prompts,
    generations, scores, posterior, figures, model cards, signatures.

    RUN is a variant, a family, or an MLflow run of the present files. The bundle can be audited on
    a machine without the repo, without DVC and without MLflow. It contains generated text.

    Outside an experiment's folder, with MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, RUN is an
    MLflow run or a family: the bundle has the run's files, for a comparison also those of its
    variants, and a list of the parts of the lineage that runs do not hold. A run with a failed
    check is not exported.

    \b
    Examples:
      toxtrail export smollm2-135m --to smollm2.zip
      toxtrail export smollm2-rude --to for-zenodo.zip --ro-crate
      toxtrail export 3f2a9c01 --mlflow --to run.zip
      toxtrail audit smollm2.zip --verify
    """
    import shlex

    from toxtrail.errors import ConfigError

    if from_mlflow or not experiment.reads_own_results:
        if ro_crate:
            raise ConfigError("--ro-crate needs the files of an experiment, not an MLflow run.")
        files = _export_run(experiment, reference, target)
    else:
        files = _export_result(experiment, reference, target, ro_crate)
    size = sum(files.values())
    echo(f"{target}: {len(files)} files, {size / 1e6:.1f} MB uncompressed.")
    echo(f"Check it anywhere: toxtrail audit {shlex.quote(str(target))} --verify")


def _export_result(
    experiment: Experiment, reference: str, target: Path, ro_crate: bool
) -> dict[str, int]:
    """Write the bundle of a local result; return file -> size in bytes."""
    import tempfile

    from toxtrail.api.audit import scene_of
    from toxtrail.auditing.bundle import ro_crate as crate
    from toxtrail.auditing.bundle.bundle import bundle_files, write_bundle
    from toxtrail.auditing.lineage.resolve import resolve
    from toxtrail.auditing.verify.signatures import SignedResult
    from toxtrail.errors import ConfigError
    from toxtrail.storage.artifacts import pretty_json

    subject = resolve(reference, scene_of(experiment))
    stage, _, name = next(iter(subject.targets), "").partition("@")
    if stage not in ("track", "track-comparison"):
        raise ConfigError(
            f'"{reference}" is a {subject.kind} whose files are not in this workspace. Give a '
            "variant, a family, or a run that `toxtrail runs --for-lock` lists; --mlflow exports "
            "any MLflow run from its own files."
        )
    signed = SignedResult("variants" if stage == "track" else "families", name)
    files = bundle_files(experiment.store, experiment.config, signed)
    facts = dict(subject.link.facts)
    about = {"group": signed.group, "name": signed.name, "content_key": facts["content key"]}
    with tempfile.TemporaryDirectory() as folder:
        if ro_crate:
            made_by = signed.stage_runs(experiment.config)
            content = crate.ro_crate(signed.name, experiment.store, files, made_by)
            files[crate.METADATA] = Path(folder) / crate.METADATA
            files[crate.METADATA].write_text(pretty_json(content), encoding="utf-8")
        write_bundle(files, about, target)
        return {name: path.stat().st_size for name, path in files.items()}


def _export_run(experiment: Experiment, reference: str, target: Path) -> dict[str, int]:
    """Write the bundle of an MLflow run; return file -> size in bytes.

    Raises:
        DataError: a check of the run failed.
    """
    import tempfile

    from toxtrail.auditing.bundle.bundle import write_bundle
    from toxtrail.auditing.bundle.run_bundle import AUDIT, about_run, audit_text, run_bundle_files
    from toxtrail.auditing.verify.load_runs import load_run
    from toxtrail.auditing.verify.mlflow_runs import run_title
    from toxtrail.auditing.verify.stored_runs import audit_run, refuse_failed
    from toxtrail.execution.progress import progress

    loaded = load_run(experiment, reference, progress())
    audit = audit_run(loaded.verifier, loaded.run)
    refuse_failed(audit.checks, f"The MLflow {run_title(loaded.run)} was not exported")
    files = run_bundle_files(loaded)
    with tempfile.TemporaryDirectory() as folder:
        files[AUDIT] = Path(folder) / AUDIT
        files[AUDIT].write_text(audit_text(audit), encoding="utf-8")
        write_bundle(files, about_run(loaded, audit), target)
        return {name: path.stat().st_size for name, path in files.items()}
