"""The files of an MLflow run in the layout of an experiment, so that its checks apply to them.

A comparison's run holds no rows, so the files of the variants' runs that it names are added.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.mlflow.fetch_artifacts import MANIFEST
from toxtrail.backends.mlflow.read_store import StoredRun
from toxtrail.backends.mlflow.run_files import EXECUTIONS
from toxtrail.backends.mlflow.write_run import PAYLOAD, RECORD
from toxtrail.errors import DataError
from toxtrail.execution.execution_records import RECORDED, record_name, records_dir
from toxtrail.provenance.identity import (
    Manifest,
    execution_record_hash,
    sha256_file,
    walk_lineage,
)
from toxtrail.records.run_tags import KEY_TAG, SEAL_TAG
from toxtrail.regular_files import files_by_name, leads_out, read_text
from toxtrail.storage.artifacts import ArtifactStore

SNAPSHOT = ("params.yaml", "dvc.lock")
"""Files of the repository that a run holds and its manifest does not list."""
PAGE_FILES = (PAYLOAD, RECORD, MANIFEST, EXECUTIONS, *SNAPSHOT)
"""Files of a run that stages before it did not write."""


class RunWorkspace(NamedTuple):
    """A run's files in a temporary folder."""

    store: ArtifactStore
    manifest: Manifest
    """Manifest of its result: that of a posterior or of a comparison."""
    family: str
    missing: Mapping[str, str]
    """Variant of a comparison whose files are not here -> the reason."""

    @property
    def variants(self) -> list[str]:
        """The variants whose rows belong to the result."""
        return [str(node.key) for node in variant_manifests(self.manifest)]


@contextmanager
def run_workspace(run: StoredRun, others: Sequence[StoredRun]) -> Iterator[RunWorkspace]:
    """Lay out the files of a run in a temporary folder.

    Args:
        run: verified (`verify_run`): nothing is compared here.
        others: verified runs, among which those of a comparison's variants are searched.

    Raises:
        DataError: its manifest is not that of a variant or of a comparison.
    """
    manifest = run_manifest(run)
    family = family_of(manifest)
    with tempfile.TemporaryDirectory(prefix="toxtrail-") as folder:
        store = ArtifactStore(Path(folder))
        files = _files_of(run)
        for name in SNAPSHOT:
            if name in files:
                _place(files[name], store.root / name)
        missing: dict[str, str] = {}
        if manifest.kind == "posterior":
            _lay_out_variant(store, family, str(manifest.key), files)
        else:
            _lay_out_comparison(store, family, files)
            missing = _lay_out_variants(store, family, manifest, others)
        yield RunWorkspace(store, manifest, family, missing)


def run_manifest(run: StoredRun) -> Manifest:
    """Read the manifest of a run's result, from the in-toto statement."""
    return Manifest.from_json(_statement(run)["predicate"])


def run_subjects(run: StoredRun) -> dict[str, str]:
    """Read file -> sha256 from the in-toto statement."""
    return {one["name"]: one["digest"]["sha256"] for one in _statement(run)["subject"]}


def run_record(run: StoredRun) -> dict[str, Any]:
    """Read the values of a run's page, as they were sealed."""
    return _json(run, RECORD)


def _statement(run: StoredRun) -> dict[str, Any]:
    return _json(run, MANIFEST)


def _json(run: StoredRun, name: str) -> dict[str, Any]:
    assert run.files is not None
    value: dict[str, Any] = json.loads(read_text(run.files / name))
    return value


def family_of(manifest: Manifest) -> str:
    """Return the family of a run's result.

    Raises:
        DataError: it is neither a variant's nor a comparison's, or a name leads out of a folder.
    """
    if manifest.kind == "posterior":
        family = str(manifest.params["variant"]["family"])
    elif manifest.kind == "compare":
        family = str(manifest.key)
    else:
        raise DataError(f"its manifest is of {manifest.kind}, not of a variant or a comparison.")
    for name in (family, *(str(node.key) for node in variant_manifests(manifest))):
        if leads_out(name) or Path(name).name != name:
            raise DataError(f"its manifest has the name {name!r}, which is not a file name.")
    return family


def variant_manifests(manifest: Manifest) -> list[Manifest]:
    """Return the manifests of the posteriors of a result; their content keys are those of the
    variants' runs."""
    nodes = {n.key: n for n in walk_lineage(manifest) if n.kind == "posterior"}
    return [nodes[key] for key in sorted(nodes, key=str)]


def runs_of_variant(node: Manifest, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the sealed runs of a posterior."""
    return [
        run
        for run in runs
        if run.run.tags.get(KEY_TAG) == node.content_key
        and SEAL_TAG in run.run.tags
        and not run.deleted
    ]


def recorded_inputs(manifest: Manifest) -> dict[str, str]:
    """Return path in the experiment -> sha256, of every file behind a result."""
    return {
        source.path: source.sha256
        for node in walk_lineage(manifest)
        for source in node.inputs.values()
    }


def _files_of(run: StoredRun) -> dict[str, Path]:
    return {} if run.files is None else files_by_name(run.files)


def _lay_out_variant(
    store: ArtifactStore, family: str, variant: str, files: Mapping[str, Path]
) -> None:
    for name, path in store.variant_run_files(family, variant).items():
        if name in files and not path.exists():
            _place(files[name], path)
    if EXECUTIONS in files:
        for stage, record in json.loads(read_text(files[EXECUTIONS])).items():
            if stage not in RECORDED:
                raise DataError(f"{EXECUTIONS} has a record of {stage!r}, which writes none.")
            name = record_name(execution_record_hash(record))
            store.write_json(records_dir(store, stage, variant) / name, record)


def _lay_out_comparison(store: ArtifactStore, family: str, files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        folder, _, inner = name.rpartition("/")
        if folder == "pooled":
            _place(path, store.pooled_dir(family) / inner)
        elif not folder and name not in PAGE_FILES:
            _place(path, store.comparison_dir(family) / name)


def _lay_out_variants(
    store: ArtifactStore, family: str, manifest: Manifest, others: Sequence[StoredRun]
) -> dict[str, str]:
    """Add the files of the variants' runs; return variant -> why it has none."""
    recorded, missing = recorded_inputs(manifest), {}
    for node in variant_manifests(manifest):
        variant, runs = str(node.key), runs_of_variant(node, others)
        fitting = [run for run in runs if _fits(store, family, variant, run, recorded)]
        if fitting:
            _lay_out_variant(store, family, variant, _files_of(fitting[0]))
        elif runs:
            ids = ", ".join(run.run.run_id[:8] for run in runs)
            missing[variant] = f"its run ({ids}) has other files than those that were compared"
        else:
            missing[variant] = f"no intact run has its content key, {node.content_key[:12]}"
    return missing


def _fits(
    store: ArtifactStore, family: str, variant: str, run: StoredRun, recorded: Mapping[str, str]
) -> bool:
    """Return whether a run has the files from which the comparison was made."""
    files = _files_of(run)
    for name, path in store.variant_run_files(family, variant).items():
        expected = recorded.get(path.relative_to(store.root).as_posix())
        if expected is not None and (name not in files or sha256_file(files[name]) != expected):
            return False
    return True


def _place(source: Path, target: Path) -> None:
    """Give a file a second name; copy it if the folders are on different disks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
