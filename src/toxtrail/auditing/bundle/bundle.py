"""Bundles: every file behind a result except the weights, with a list of their hashes.

A bundle has the layout of the repository, so the same checks apply to it, on a machine without the
repository, without DVC and without MLflow.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail import __version__
from toxtrail.auditing.bundle.run_bundle import RUNS, run_bundle_lineage, verify_run_bundle
from toxtrail.auditing.lineage.lineage import LineageBuilder, LineageNode
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    checks_of,
    compare_files,
    failed,
    runs_of_stage,
)
from toxtrail.auditing.verify.dvc_lock import Recorded, parse_lock
from toxtrail.auditing.verify.executions import verify_executions
from toxtrail.auditing.verify.hash_cache import FolderDigest, HashCache
from toxtrail.auditing.verify.mlflow_runs import verify_tracking
from toxtrail.auditing.verify.pipeline import other_run
from toxtrail.auditing.verify.rendered_outputs import verify_shown
from toxtrail.auditing.verify.rows import verify_manifests, verify_numbers, verify_rows
from toxtrail.auditing.verify.signatures import WEIGHTS, SignedResult, verify_signatures
from toxtrail.auditing.verify.unsafe_outputs import refused_below, refused_places
from toxtrail.auditing.verify.weights import verify_cards
from toxtrail.backends.assets import AssetStore, default_cache
from toxtrail.backends.protocols import Progress
from toxtrail.config.load import load_config, read_yaml
from toxtrail.config.schema import Config
from toxtrail.errors import (
    ConfigError,
    DataError,
    OtherVersionError,
    UnreadableError,
    is_of_the_system,
    why_unread,
)
from toxtrail.execution.execution_records import record_paths, relative_name
from toxtrail.pipeline import StageRun
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import sha256_file
from toxtrail.regular_files import files_below, files_by_name, open_regular, read_text
from toxtrail.storage.artifacts import ArtifactStore, pretty_json, read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LISTING = "bundle.json"
GROUPS = ("variants", "families", RUNS)
"""Contents of a bundle: a result of an experiment's folder, or MLflow runs."""
MAX_UNPACKED_BYTES = 20 << 30
"""Maximum bytes of an unpacked bundle."""
SUSPICIOUS_BYTES, MAX_COMPRESSION_RATIO = 1 << 30, 200
"""Bytes, and the largest compression ratio of a bundle above this size."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Earliest time stamp of a zip file: equal files give equal bundles."""
ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError,
)  # fmt: skip
"""Exceptions of zipfile for a damaged, encrypted or unsupported archive."""


def _cure(run: StageRun) -> str:
    """Return how to restore an output of a stage run."""
    if run.stage.name in ("track", "track-comparison"):
        return (
            "It is the receipt of an MLflow run, which DVC keeps no copy of: `toxtrail run "
            f"{run.key}` publishes the run (or finds it in MLflow) and writes the receipt."
        )
    return "Restore it with `dvc checkout` or `dvc pull`, or create it with `toxtrail run`."


def bundle_files(store: ArtifactStore, config: Config, target: SignedResult) -> dict[str, Path]:
    """Return name in the bundle -> file of the repo, for everything behind a variant or a family.

    Raises:
        DataError: a file is missing.
    """
    files = {name: store.root / name for name in ("params.yaml", "dvc.lock", "requirements.txt")}
    behind = target.stage_runs(config)
    for name, reason in refused_places(store.root, behind).items():
        raise DataError(f"{name} cannot be exported: {reason}. Delete it, then `dvc checkout`.")
    for stage_run in behind:
        for out in stage_run.outs:
            path = store.root / out
            if not path.exists():
                raise DataError(f"{out} does not exist here. {_cure(stage_run)}")
            inside = [path] if path.is_file() else files_below(path)
            files |= {p.relative_to(store.root).as_posix(): p for p in inside}
        files |= {
            relative_name(path): path
            for path in record_paths(store, stage_run.stage.name, stage_run.key or "-")
        }
        for signed in (
            SignedResult("variants", stage_run.key or ""),
            SignedResult("families", stage_run.key or ""),
        ):
            if signed.path(store.root).is_file():
                path = signed.path(store.root)
                files[path.relative_to(store.root).as_posix()] = path
    return {name: path for name, path in sorted(files.items()) if path.suffix not in WEIGHTS}


def write_bundle(files: Mapping[str, Path], about: Mapping[str, Any], target: Path) -> None:
    """Write a folder, or a zip if the name ends in .zip; the target appears only when complete.

    Raises:
        ConfigError: the target exists.
    """
    if target.exists():
        raise ConfigError(
            f"--to: {target} exists already. Choose another name; nothing is overwritten."
        )
    listing = {
        "schema_version": 1,
        "toxtrail": __version__,
        **about,
        "files": {name: sha256_file(path) for name, path in files.items()},
    }
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".toxtrail-") as scratch:
        draft = Path(scratch) / "draft"
        if target.suffix == ".zip":
            _write_zip(files, pretty_json(listing), draft)
        else:
            for name, path in files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, draft / name)
            (draft / LISTING).write_text(pretty_json(listing), encoding="utf-8")
        draft.replace(target)


def is_bundle(path: Path) -> bool:
    """Return whether a path is a bundle, by its listing."""
    if path.is_dir():
        return (path / LISTING).is_file()
    try:
        with zipfile.ZipFile(path) as archive:
            return LISTING in archive.namelist()
    except ZIP_DAMAGE as error:
        if is_of_the_system(error):
            raise
        return False


@contextmanager
def open_bundle(path: Path) -> Iterator[Path]:
    """Open a bundle's folder; a zip is unpacked to a temporary folder.

    Raises:
        DataError: a zip that would write outside the folder, contains links, or is too large.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="toxtrail-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _refuse_unsafe(archive, path.name)
                archive.extractall(folder)
        except ZIP_DAMAGE as error:
            if is_of_the_system(error):
                raise
            raise DataError(f"{path.name} is damaged: {error}") from None
        yield Path(folder)


def read_listing(root: Path) -> dict[str, Any]:
    """Read a bundle's listing.

    Raises:
        DataError: the listing is invalid.
    """
    value = read_json(root / LISTING)
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        raise DataError(f"{LISTING} is not a bundle's listing.")
    if value.get("schema_version") != 1 or value.get("group") not in GROUPS:
        raise DataError(
            f"{LISTING} has schema {value.get('schema_version')}; this version reads 1."
        )
    return value


def bundle_lineage(root: Path) -> LineageNode:
    """Return the lineage of the result in a bundle.

    Raises:
        DataError: the listing or a file of the lineage is damaged or missing.
    """
    for name, reason in refused_below(root).items():
        raise DataError(f"{name}: {reason}. The bundle was not opened.")
    listing = read_listing(root)
    if listing["group"] == RUNS:
        return run_bundle_lineage(root, listing)
    where = "posteriors/*" if listing["group"] == "variants" else "comparisons"
    summaries = root.glob(f"results/{where}/*/summary.json")
    summary_paths = [path for path in summaries if path.parent.name == listing["name"]]
    if not summary_paths:
        raise DataError(f"there is no summary.json of {listing['name']} in it.")
    try:
        return LineageBuilder(ArtifactStore(root), holds_weights=False).of_file(summary_paths[0])
    except DAMAGE_ERRORS as error:
        if why := why_unread(error):
            raise UnreadableError(why) from None
        raise DataError(f"a file of it is damaged: {error}") from None


def verify_bundle(root: Path, progress: Progress, keys: Sequence[Ed25519PublicKey]) -> list[Check]:
    """Verify everything that can be verified without the repository."""
    if refused := refused_below(root):
        return [broken("files", n, f"{why}. It was not opened.") for n, why in refused.items()]
    digests = HashCache(progress)
    digests.prepare([root])
    checks: list[Check] = []
    try:
        listing = read_listing(root)
        checks += _verify_listed_files(root, listing["files"], digests)
        if listing["group"] == RUNS:
            return [*checks, *verify_run_bundle(root, listing, progress, signed=bool(keys))]
        config = _config_of(root, listing)
        target = _target(listing, config)
        lock = parse_lock(read_text(root / "dvc.lock"))
    except DAMAGE_ERRORS as error:
        return [*checks, failed("files", LISTING, error, "the bundle cannot be read further")]
    evidence = VerifyContext(
        ArtifactStore(root), config, read_yaml(root / "params.yaml"), lock, None,
        digests, AssetStore(default_cache(), root, progress), default_cache(), root / ".no-cache",
    )  # fmt: skip
    scope = target.stage_runs(config)
    for stage_run in scope:
        checks += catch_damage("dvc.lock", stage_run.name, _verify_lock_entry(evidence, stage_run))
    checks += catch_damage("files", LISTING, _verify_content_key(root, listing, scope))
    parts = (verify_cards, verify_executions, verify_manifests, verify_rows, verify_numbers)
    for part in (*parts, verify_shown):
        checks += catch_damage("files", part.__name__, part(evidence, scope))
    checks += catch_damage("receipts", "receipts", verify_tracking(evidence, scope, None))
    signatures = verify_signatures(evidence, [target], keys)
    checks += catch_damage("signatures", "checking signatures", signatures)
    checks.append(absent("weights", "weights", "a bundle holds none; only their hashes are known"))
    return checks


def _config_of(root: Path, listing: Mapping[str, Any]) -> Config:
    """Read the params.yaml of a bundle.

    Raises:
        ConfigError: it is invalid.
        OtherVersionError: it is invalid for this version, and another one exported the bundle.
    """
    try:
        return load_config(root / "params.yaml")
    except ConfigError as error:
        if (exported_by := listing.get("toxtrail")) == __version__:
            raise
        raise OtherVersionError(
            f"toxtrail {exported_by} exported the bundle, and toxtrail {__version__} does not know "
            f"its settings. Verify it with toxtrail {exported_by}. {error}"
        ) from None


def _target(listing: Mapping[str, Any], config: Config) -> SignedResult:
    """Return the variant or family of a bundle.

    Raises:
        DataError: its params.yaml has no such variant or family.
    """
    group, name = listing["group"], str(listing.get("name"))
    entries = config.variants if group == "variants" else config.families
    if name not in entries:
        raise DataError(f"{LISTING} names {name!r}; params.yaml has no such entry in {group}.")
    return SignedResult(group, name)


def _verify_content_key(
    root: Path, listing: Mapping[str, Any], scope: Sequence[StageRun]
) -> Iterator[Check]:
    """Check that the content key in the listing is that of the result."""
    for stage_run in runs_of_stage(scope, "posterior", "compare"):
        if stage_run.key != listing["name"]:
            continue
        manifest = read_embedded_manifest(root / stage_run.writes[0] / "summary.json")
        key = manifest.content_key if manifest else None
        if listing.get("content_key") != key:
            detail = f"it names the content key {listing.get('content_key')}; the result has {key}"
            yield broken("files", LISTING, detail)


def _verify_listed_files(
    root: Path, files: Mapping[str, str], digests: HashCache
) -> Iterator[Check]:
    present = files_by_name(root)
    present.pop(LISTING, None)
    for name, problems in compare_files(digests, present, files, LISTING):
        yield from checks_of("files", name, problems)


def _verify_lock_entry(evidence: VerifyContext, stage_run: StageRun) -> Iterator[Check]:
    """Check values against params.yaml and files against dvc.lock; a bundle has no weights."""
    entry = evidence.lock.get(stage_run.name)
    if entry is None:
        yield broken("dvc.lock", stage_run.name, "the bundle's dvc.lock has no entry of it")
        return
    problems = list(other_run(evidence, stage_run, entry))
    if unread := sorted(set(stage_run.reads) - set(entry.deps)):
        problems.append(f"its manifest does not list the input {', '.join(unread)}")
    yield from checks_of("dvc.lock", stage_run.name, problems)
    deps = (dep for path, dep in entry.deps.items() if path in stage_run.reads)
    read = [dep for dep in deps if dep.nfiles is None]  # a bundle holds parts of the folders
    outs = [out for path, out in entry.outs.items() if path in stage_run.outs]
    for recorded in (*read, *(outs if stage_run.stage.name != "finetune" else ())):
        yield from catch_damage("dvc.lock", recorded.path, _verify_recorded(evidence, recorded))


def _verify_recorded(evidence: VerifyContext, recorded: Recorded) -> Iterator[Check]:
    path = evidence.path(recorded.path)
    digest: Any = evidence.digests.folder(path) or evidence.digests.of(path)
    md5 = digest.md5 if digest else None
    kind = "folder" if isinstance(digest, FolderDigest) else "file"
    problem = f"the {kind} has md5 {md5}, the bundle's dvc.lock {recorded.md5}"
    yield from checks_of("dvc.lock", recorded.path, [problem] if md5 != recorded.md5 else [])


def _write_zip(files: Mapping[str, Path], listing: str, draft: Path) -> None:
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            with open_regular(path) as source, archive.open(_zip_entry(name), "w") as target:
                shutil.copyfileobj(source, target)
        archive.writestr(_zip_entry(LISTING), listing)


def _zip_entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _refuse_unsafe(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse links and zip bombs; zipfile itself refuses paths outside the folder."""
    size = sum(entry.file_size for entry in archive.infolist())
    packed = sum(entry.compress_size for entry in archive.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise DataError(f"{name} would unpack to more than {MAX_UNPACKED_BYTES >> 30} GiB.")
    if size > max(SUSPICIOUS_BYTES, MAX_COMPRESSION_RATIO * packed):
        raise DataError(f"{name} would unpack {packed} bytes to {size}: no bundle does.")
    for entry in archive.infolist():
        path = Path(entry.filename)
        if stat.S_ISLNK(entry.external_attr >> 16) or path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{name} contains {entry.filename!r}: a link, or a path outside the bundle."
            )
