"""Consistency of dvc.yaml, dvc.lock, params.yaml, the outputs and DVC's cache.

DVC relies on its own state: an object edited in its cache with mode and time kept, a frozen stage
or a hand-edited lock pass `dvc status` without a message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toxtrail.auditing.verify.committed_lock import other_bytes, other_bytes_message
from toxtrail.auditing.verify.context import (
    Check,
    Problem,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    checks_of,
    compare_files,
    ok,
    problem,
    weak,
)
from toxtrail.auditing.verify.dvc_lock import MD5, LockEntry, Recorded, is_own, outputs, parse_lock
from toxtrail.auditing.verify.hash_cache import dir_md5, dvc_files, md5_of
from toxtrail.auditing.verify.params import changes
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_path
from toxtrail.errors import DataError
from toxtrail.pipeline import StageRun, value_at
from toxtrail.regular_files import files_by_name, is_file, leads_out, name_in, read_bytes, read_text

LINK_OF_STAGE = {
    "prompts": "prompt set",
    "model": "model cards",
    "finetune": "adapters",
    "generate": "generations",
    "score": "scores",
    "posterior": "posteriors",
    "pool": "posteriors",
    "compare": "comparisons",
    "track": "receipts",
    "track-comparison": "receipts",
    "report": "report",
}

RECEIPTS = "mlruns/receipts/"
NAMED = 6
"""Largest number of paths or parameters that one problem lists."""


def receipt_of_commit_message(commit: str) -> str:
    """Return the message for a receipt that another commit's dvc.lock records."""
    return (
        f"the receipt here is the one of commit {commit[:12]}; DVC checks none out. `dvc repro` "
        "makes the one of these files."
    )


def verify_lock(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check that every stage of the scope was run with the present values and files."""
    outputs_by_path = {out.path: out for entry, out in outputs(evidence.lock) if is_own(entry.name)}
    lost: set[str] = set()
    for instance in scope:
        entry = evidence.lock.get(instance.name)
        if entry is None:
            yield _no_entry(evidence, instance)
            continue
        expected = set(instance.deps(evidence.root))
        deps = {path: dep for path, dep in entry.deps.items() if path in expected}
        problems = [
            *other_run(evidence, instance, entry),
            *_other_files(evidence, deps, outputs_by_path),
        ]
        if odd := set(entry.deps) ^ expected:
            problems.append(_not_those("deps", odd))
        yield from checks_of("dvc.lock", instance.name, problems)
        lost |= {d.path for d in deps.values() if _is_lost(evidence, d)}
    parts = {
        str(folder) for path in outputs_by_path for folder in (Path(path), *Path(path).parents)
    }
    for path in sorted(lost - parts):  # a stage's output is checked with the outputs
        yield absent("pipeline", path, "the stages that read it were run with it; it is not here")


def _is_lost(evidence: VerifyContext, dep: Recorded) -> bool:
    """Return whether a file does not exist; an unreadable file does."""
    try:
        return _current_content(evidence, dep) is None
    except (OSError, MemoryError):
        return False


def _no_entry(evidence: VerifyContext, instance: StageRun) -> Check:
    """Return the check for a missing lock entry: never run, or removed although other entries
    depend on it."""
    readers = [e.name for e in evidence.lock.values() if set(e.deps) & set(instance.writes)]
    if instance.name in evidence.committed and evidence.path(instance.writes[0]).exists():
        readers.append("HEAD's dvc.lock")
    if readers and not evidence.lock_problem:
        detail = (
            f"its entry was removed from dvc.lock, but {', '.join(readers)} depends on it. "
            "`git checkout dvc.lock`, or `dvc repro`."
        )
        return broken("dvc.lock", instance.name, detail)
    detail = "dvc.lock has no entry: the stage was never run here. Run `dvc repro`."
    return absent("dvc.lock", instance.name, detail)


def verify_stale_entries(
    evidence: VerifyContext, listed: Sequence[StageRun], scope: Sequence[StageRun] | None = None
) -> Iterator[Check]:
    """Report entries of a variant, model or family that params.yaml no longer lists.

    Args:
        scope: only entries with an output of these; None for all.
    """
    names = {instance.name for instance in listed}
    claimed = {path for instance in scope or () for path in instance.writes}
    for entry in evidence.lock.values():
        if scope is not None and not claimed & set(entry.outs):
            continue
        if is_own(entry.name) and entry.name not in names:
            outs = ", ".join(entry.outs)
            yield broken(
                "dvc.lock",
                entry.name,
                f"params.yaml no longer lists it, its entry and files ({outs}) are left over. "
                "Delete both, or put it back into params.yaml.",
            )


NOT_COMMITTED = "it is not the committed one: these results are in no commit"


def verify_committed(root: Path) -> Iterator[Check]:
    """Compare the lock with its committed version."""
    text = read_text(root / "dvc.lock", "replace")
    committed = git.file_at(root, "HEAD", "dvc.lock")
    if git.head_commit(root) is None:
        reason = git.refusal(root) or "there is no git history here, so its commit is unknown"
        yield absent("git", "dvc.lock", reason)
    elif committed is None:
        yield weak("git", "dvc.lock", "HEAD has no dvc.lock: the results are in no commit")
    elif committed == text:
        yield ok("git", "dvc.lock is the committed one")
    elif _same_entries(committed, text):
        detail = "it has HEAD's content in other bytes: it was edited by hand. `git checkout` it"
        yield broken("git", "dvc.lock", detail)
    else:
        changed = other_bytes(root)
        detail = f". {other_bytes_message(changed)}" if changed else ""
        yield weak("git", "dvc.lock", f"{NOT_COMMITTED}{detail}")
    if git.is_shallow(root):
        yield weak("git", "history", "this clone is shallow: older commits cannot be read")


def verify_outputs(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check that each output, and its copy in DVC's cache, has the hash in dvc.lock."""
    for instance in scope:
        entry = evidence.lock.get(instance.name)
        for out in entry.outs.values() if entry else ():
            if out.path not in instance.outs:
                continue  # verify_lock names it
            link = LINK_OF_STAGE[instance.stage.name]
            yield from catch_damage(link, out.path, _verify_output(evidence, link, out))
            if not out.path.startswith(RECEIPTS):  # they are not cached
                name = f"{out.path} ({out.md5})"
                yield from catch_damage("dvc cache", name, _verify_cached(evidence, out))


def cached_folder_listing(cache: Path, md5: str) -> dict[str, str] | None:
    """Return relative name -> md5 of a folder, from DVC's cache; None if it is missing or damaged.

    Raises:
        OSError: it exists and cannot be read.
    """
    path = cache_path(cache, md5)
    if not is_file(path):
        return None
    text = read_bytes(path)
    if md5_of(text) + ".dir" != md5:
        return None
    files = {str(row["relpath"]): str(row["md5"]) for row in json.loads(text)}
    plain = all(MD5.fullmatch(inner) and not leads_out(name) for name, inner in files.items())
    return files if plain else None


def other_run(evidence: VerifyContext, instance: StageRun, entry: LockEntry) -> Iterator[Problem]:
    """Return how an entry differs from this stage with these values."""
    if entry.cmd != instance.cmd:
        yield f'its command is "{entry.cmd}", not "{instance.cmd}"'
    for what, actual, expected in (
        ("outs", set(entry.outs), set(instance.outs)),
        ("params", set(entry.params), set(instance.params)),
    ):
        if actual != expected:
            yield _not_those(what, actual ^ expected)
    try:
        yield from _odd_modes(evidence, instance, entry)
    except OSError as error:
        yield problem(error, "its outputs cannot be read")
    for key_path in set(instance.params) & set(entry.params):
        for name, was, now in changes(
            key_path, entry.params[key_path], value_at(evidence.raw, key_path)
        ):
            yield f"{name}: dvc.lock has {was}, params.yaml has {now}"


def _not_those(what: str, odd: set[str]) -> str:
    names = sorted(odd)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"its {what} are not those of the stage: {', '.join(names[:NAMED])}{more}"


def _odd_modes(evidence: VerifyContext, instance: StageRun, entry: LockEntry) -> Iterator[str]:
    """Return unexpected modes: DVC marks an output that was executable when saved, and no
    dependency."""
    for name in (dep.path for dep in entry.deps.values() if dep.isexec):
        yield f"{name} is marked as isexec, which DVC records of no dependency"
    for out in entry.outs.values():
        if out.isexec and out.path in instance.outs and not _executable(evidence.path(out.path)):
            yield f"{out.path} is marked as isexec, and is not an executable file"


def _executable(path: Path) -> bool:
    """Return whether a file is executable; a missing file is not checked."""
    return not path.exists() or (path.is_file() and bool(path.stat().st_mode & 0o111))


def _other_files(
    evidence: VerifyContext, deps: Mapping[str, Recorded], outputs_by_path: Mapping[str, Recorded]
) -> Iterator[Problem]:
    """Return dependencies that differ from the entry."""
    for dep in deps.values():
        try:
            yield from _other_file(evidence, dep, outputs_by_path)
        except (OSError, MemoryError) as error:
            yield problem(error, f"{dep.path} cannot be read")


def _other_file(
    evidence: VerifyContext, dep: Recorded, outputs_by_path: Mapping[str, Recorded]
) -> Iterator[str]:
    if dep.path in outputs_by_path:
        out = outputs_by_path[dep.path]
        if (out.md5, out.size) != (dep.md5, dep.size):
            yield f"it read {dep.path} as {dep.md5}, the stage that creates it wrote {out.md5}"
        elif out.nfiles != dep.nfiles:
            yield f"it read {dep.path} as {dep.nfiles} files, its stage wrote {out.nfiles}"
        return
    if parts := _parts_of_folder(dep, outputs_by_path):
        yield from _other_parts(evidence, dep, parts)
        return
    current = _current_content(evidence, dep)
    if current is not None and current != (dep.md5, dep.size):
        yield (
            f"it was run with another {dep.path} (md5 {dep.md5}, {dep.size} bytes; now "
            f"{current[0]}, {current[1]} bytes). Run `dvc repro`, or restore the file."
        )


def _parts_of_folder(dep: Recorded, outputs_by_path: Mapping[str, Recorded]) -> dict[str, Recorded]:
    """Return name -> output in a folder to which several stages write one file each (such as
    receipts); empty if one of them created a folder of its own."""
    folder = f"{dep.path}/"
    inside = {path: out for path, out in outputs_by_path.items() if path.startswith(folder)}
    parts = {path.removeprefix(folder): out for path, out in inside.items()}
    return parts if all(out.nfiles is None for out in parts.values()) else {}


def _other_parts(
    evidence: VerifyContext, dep: Recorded, parts: dict[str, Recorded]
) -> Iterator[str]:
    """Yield differences between a folder as read and as its stages wrote it; the present content is
    checked with the outputs."""
    written = dir_md5({name: out.md5 for name, out in parts.items()})
    if written != dep.md5:
        yield f"it read {dep.path} as {dep.md5}, the stages that fill it wrote {written}"
    folder = evidence.path(dep.path)
    for path in dvc_files(folder) if folder.is_dir() else ():
        if (name := path.relative_to(folder).as_posix()) not in parts:
            yield f"{dep.path}/{name} is an extra file: no stage of dvc.lock made it. Delete it."


def _current_content(evidence: VerifyContext, recorded: Recorded) -> tuple[str, int] | None:
    path = evidence.path(recorded.path)
    folder = evidence.digests.folder(path)
    if folder:
        return folder.md5, folder.size
    file = evidence.digests.of(path)
    return (file.md5, file.size) if file else None


def _verify_output(evidence: VerifyContext, link: str, out: Recorded) -> Iterator[Check]:
    if out.path in evidence.refused:
        return  # verify_refused names it
    path = evidence.path(out.path)
    current = _current_content(evidence, out)
    receipt = out.path.startswith(RECEIPTS)
    if current is None:
        cure = "Run `dvc repro`" if receipt else "Restore it with `dvc checkout` or `dvc pull`"
        yield absent(link, out.path, f"it does not exist here. {cure}.")
    elif receipt and (commit := evidence.older(out.path, current[0])):
        yield absent(link, out.path, receipt_of_commit_message(commit))
    elif out.nfiles is not None and path.is_dir():
        yield from _verify_folder(evidence, link, out, current)
    elif current == (out.md5, out.size):
        yield ok(link, out.path)
    else:
        yield broken(link, out.path, _differs(out, current))


def _verify_folder(
    evidence: VerifyContext, link: str, out: Recorded, current: tuple[str, int]
) -> Iterator[Check]:
    """Check a folder's files by name, if the cache lists them."""
    count = evidence.digests.folder(evidence.path(out.path))
    if current == (out.md5, out.size) and count and count.nfiles == out.nfiles:
        yield ok(link, out.path)
        return
    recorded_files = cached_folder_listing(evidence.dvc_cache, out.md5)
    if recorded_files is None:
        yield broken(link, out.path, f"{_differs(out, current)} Files: {count and count.nfiles}.")
        return
    files = compare_files(
        evidence.digests, files_by_name(evidence.path(out.path)), recorded_files, "dvc.lock", "md5"
    )
    changed = [(name, problems) for name, problems in files if problems]
    if not changed:
        yield broken(link, out.path, _differs(out, current))
    for name, problems in changed:
        yield from checks_of(link, f"{out.path}/{name}", problems)


def _verify_cached(evidence: VerifyContext, out: Recorded) -> Iterator[Check]:
    path = cache_path(evidence.dvc_cache, out.md5)
    if not out.md5.endswith(".dir"):
        yield from _verify_object(evidence, out.path, out.md5)
        return
    if not is_file(path):
        yield absent("dvc cache", f"{out.path} ({out.md5})", "DVC's cache has no copy of it")
        return
    recorded_files = cached_folder_listing(evidence.dvc_cache, out.md5)
    if recorded_files is None:
        yield broken("dvc cache", name_in(evidence.root, path), "the list of a folder was changed")
        return
    yield ok("dvc cache", f"{out.path} (list)")
    for name, md5 in recorded_files.items():
        inner = f"{out.path}/{name}"
        yield from catch_damage(
            "dvc cache", f"{inner} ({md5})", _verify_object(evidence, inner, md5)
        )


def _verify_object(evidence: VerifyContext, name: str, md5: str) -> Iterator[Check]:
    path = cache_path(evidence.dvc_cache, md5)
    digest = evidence.digests.of(path)
    if digest is None:
        yield absent("dvc cache", f"{name} ({md5})", "DVC's cache has no copy of it")
    elif digest.md5 != md5:
        yield broken(
            "dvc cache",
            name_in(evidence.root, path),
            f"the cached copy of {name} was changed: its md5 is {digest.md5}. DVC would restore it "
            "without a message: delete it, then `dvc repro` or `dvc pull`.",
        )
    else:
        yield ok("dvc cache", name)


def _differs(out: Recorded, current: tuple[str, int]) -> str:
    return (
        f"it is not what dvc.lock records: md5 {current[0]}, {current[1]} bytes; recorded "
        f"{out.md5}, {out.size} bytes."
    )


def _same_entries(left: str, right: str) -> bool:
    try:
        return parse_lock(left) == parse_lock(right)
    except DataError:
        return False
