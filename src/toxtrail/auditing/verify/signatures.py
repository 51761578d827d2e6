"""Signatures compared with the present files and values.

A signed statement lists the SHA-256 of every file behind a result, and the values of params.yaml
that produced them. It excludes receipts, which differ between MLflow stores and are recomputed, and
weights, whose hashes are on the model cards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toxtrail.auditing.bundle.signing import VerifiedEnvelope, open_envelope
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    absent,
    broken,
    failed,
    ok,
    weak,
)
from toxtrail.auditing.verify.hash_cache import HashCache, dvc_files
from toxtrail.auditing.verify.params import changes
from toxtrail.auditing.verify.pipeline import RECEIPTS
from toxtrail.auditing.verify.unsafe_outputs import refused_places
from toxtrail.backends.protocols import NoProgress
from toxtrail.config.schema import Config
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.pipeline import StageRun, stage_runs, upstream, value_at
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import canonical_json
from toxtrail.regular_files import irregular, read_text
from toxtrail.storage.artifacts import ArtifactStore

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

UNSIGNED = (
    "unsigned: the hashes detect accidents, not a forger, who would seal again (`toxtrail sign`)"
)
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:toxtrail:signed:1"
WEIGHTS = {".safetensors", ".gguf", ".bin", ".pt", ".pth"}
EXPERIMENT = "experiment"


class SignedResult(NamedTuple):
    """Result that can be signed."""

    group: Literal["variants", "families", "experiment"]
    name: str

    @property
    def title(self) -> str:
        return "the experiment" if self.group == EXPERIMENT else self.name

    def path(self, root: Path) -> Path:
        """Return the path of its signature; git keeps it."""
        folder = root / "signatures"
        name = EXPERIMENT if self.group == EXPERIMENT else f"{self.group}/{self.name}"
        return folder / f"{name}.dsse.json"

    def stage_runs(self, config: Config) -> list[StageRun]:
        """Return all stage runs behind it, in order."""
        everything = stage_runs(config)
        if self.group == EXPERIMENT:
            return everything
        stage = "track" if self.group == "variants" else "track-comparison"
        return upstream(
            everything, [o for o in everything if (o.stage.name, o.key) == (stage, self.name)]
        )

    def missing(self, store: ArtifactStore, config: Config) -> list[str]:
        """Return the outputs behind it that do not exist locally."""
        outs = _signed_outs(self.stage_runs(config))
        return [out for out in outs if not store.at(out).exists()]


EXPERIMENT_SIGNABLE = SignedResult("experiment", EXPERIMENT)
"""The complete experiment, including the report."""


def signable(config: Config, names: Sequence[str]) -> list[SignedResult]:
    """Return the named variants and families, or all of them and the experiment.

    Raises:
        ConfigError: a name is neither.
    """
    signables = [
        *(SignedResult("variants", name) for name in config.variants),
        *(SignedResult("families", name) for name in config.families),
    ]
    for name in names:
        if name not in {item.name for item in signables}:
            suggestion = did_you_mean(name, [item.name for item in signables])
            raise ConfigError(f'"{name}" is neither a variant nor a family.{suggestion}')
    if names:
        return [item for item in signables if item.name in names]
    return [*signables, EXPERIMENT_SIGNABLE]


def statement(
    store: ArtifactStore, config: Config, values: Mapping[str, Any], what: SignedResult
) -> str:
    """Return the in-toto statement of the present files and values, as canonical JSON.

    Args:
        values: content of params.yaml.

    Raises:
        DataError: a file is missing, or is not a regular file.
    """
    behind = what.stage_runs(config)
    if missing := what.missing(store, config):
        raise DataError(
            f"{what.title} cannot be signed: {missing[0]} does not exist here. Run `dvc repro`, or "
            "restore it with `dvc checkout` or `dvc pull`."
        )
    for name, reason in refused_places(store.root, behind).items():
        raise DataError(f"{what.title} cannot be signed: {name}: {reason}.")
    hashes = signed_files(store, behind, HashCache(NoProgress()))
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [{"name": n, "digest": {"sha256": hashes[n]}} for n in sorted(hashes)],
            "predicateType": PREDICATE,
            "predicate": {
                "group": what.group,
                "name": what.name,
                "params": signed_params(behind, values),
                "manifest": _manifest(store, behind, what),
            },
        }
    )


def signed_files(
    store: ArtifactStore, behind: Sequence[StageRun], digests: HashCache
) -> dict[str, str]:
    """Return name -> SHA-256 of each existing file of these stage runs."""
    hashes = {}
    for out in _signed_outs(behind):
        for path in dvc_files(store.at(out)):
            digest = digests.of(path) if path.suffix not in WEIGHTS else None
            if digest:
                hashes[path.relative_to(store.root).as_posix()] = digest.sha256
    return hashes


def signed_params(behind: Sequence[StageRun], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return key path -> value of params.yaml, for everything that the stage runs depend on."""
    makers = [instance for instance in behind if not instance.stage.name.startswith("track")]
    key_paths = dict.fromkeys(key_path for instance in makers for key_path in instance.params)
    return {key_path: value_at(values, key_path) for key_path in key_paths}


def verify_signatures(
    evidence: VerifyContext, names: Sequence[SignedResult], keys: Sequence[Ed25519PublicKey]
) -> Iterator[Check]:
    """Check that each signature matches the present files and, with a public key, its owner."""
    signed = [item for item in names if item.path(evidence.root).exists()]
    for item in signed:
        try:
            envelope = open_envelope(
                read_text(item.path(evidence.root), "replace"), keys, item.title
            )
            problems, missing = _compare_with_signed(evidence, item, envelope)
        except DAMAGE_ERRORS as error:
            yield failed("signatures", item.title, error, "it cannot be compared with the files")
            continue
        yield from _signature_checks(item.title, envelope, problems, bool(keys))
        if missing:
            detail = f"{len(missing)} signed files do not exist here, the first {missing[0]}"
            yield absent("signatures", item.title, detail)
    yield from _unsigned(evidence, [item for item in names if item not in signed], bool(keys))


def _unsigned(
    evidence: VerifyContext, names: Sequence[SignedResult], has_keys: bool
) -> Iterator[Check]:
    """Return existing results without a signature."""
    whole = [item for item in names if not item.missing(evidence.store, evidence.config)]
    titles = ", ".join(item.title for item in whole)
    if whole and has_keys:
        detail = "no signature, though a public key was given: anybody may have made it"
        yield broken("signatures", titles, detail)
    elif whole:
        yield weak("signatures", titles, UNSIGNED)


def _compare_with_signed(
    evidence: VerifyContext, what: SignedResult, signed: VerifiedEnvelope
) -> tuple[list[str], list[str]]:
    """Return differences from the signed state, and names of signed files that do not exist."""
    value = json.loads(signed.payload)
    predicate = value["predicate"]
    if value["_type"] != STATEMENT or value["predicateType"] != PREDICATE:
        kind = value["predicateType"]
        raise DataError(f"it signs a statement of another kind, {kind}. Sign again.")
    if (predicate["group"], predicate["name"]) != (what.group, what.name):
        return [f"it signs {predicate['group']}/{predicate['name']}"], []
    behind = what.stage_runs(evidence.config)
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in value["subject"]}
    present = signed_files(evidence.store, behind, evidence.digests)
    other = [name for name in present if subjects.get(name, present[name]) != present[name]]
    new = [name for name in present if name not in subjects]
    problems = [f"other files than were signed: {', '.join(other)}"] if other else []
    problems += [f"files that were not signed: {', '.join(new)}"] if new else []
    was, now = predicate["params"], signed_params(behind, evidence.raw)
    for key_path in {**was, **now}:
        problems += [
            f"{name} was signed as {old}, params.yaml has {new}"
            for name, old, new in changes(key_path, was.get(key_path), now.get(key_path))
        ]
    strange = [name for name in sorted(subjects) if irregular(evidence.path(name))]
    return problems, [name for name in sorted(subjects) if name not in {*present, *strange}]


def _signature_checks(
    title: str, envelope: VerifiedEnvelope, problems: Sequence[str], has_keys: bool
) -> Iterator[Check]:
    key_ids = ", ".join(envelope.key_ids)
    for problem in problems:
        yield broken("signatures", title, f"signed by key {key_ids}: {problem}")
    if has_keys and not envelope.valid_for:
        yield broken("signatures", title, f"no given public key made it; it names key {key_ids}")
    elif not problems and not has_keys:
        detail = f"signed by key {key_ids}; give --public-key to check whether you trust it"
        yield weak("signatures", title, detail)
    elif not problems:
        yield ok("signatures", f"{title} (key {', '.join(envelope.valid_for)})")


def _signed_outs(behind: Sequence[StageRun]) -> list[str]:
    return [out for instance in behind for out in instance.outs if not out.startswith(RECEIPTS)]


def _manifest(
    store: ArtifactStore, behind: Sequence[StageRun], what: SignedResult
) -> dict[str, Any] | None:
    """Return the complete provenance of the result: its manifest."""
    kind = {"variants": "posterior", "families": "compare", EXPERIMENT: "report"}[what.group]
    instance = next(instance for instance in reversed(behind) if instance.stage.name == kind)
    path = store.at(instance.writes[0])
    manifest = read_embedded_manifest(path / "summary.json" if path.is_dir() else path)
    return manifest.to_json() if manifest else None
