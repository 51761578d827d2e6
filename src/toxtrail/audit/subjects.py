"""What a person holds -> what it is: a variant, a family, a run, a file, a generation, a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.artifacts import Store
from toxtrail.audit.chain import Chain, Link, execution_facts
from toxtrail.audit.digests import Digest, hashed
from toxtrail.audit.evidence import DAMAGE
from toxtrail.audit.hashes import HEX, matching
from toxtrail.audit.history import PastLock, Sighting, past_locks, sightings, unlisted
from toxtrail.audit.places import place_of
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_folder
from toxtrail.backends.mlflow_files import FiledRun, damaged_runs, tracked_runs
from toxtrail.config import Config
from toxtrail.embedding import embedded_manifest
from toxtrail.errors import BackendError, ConfigError, DataError, nearest
from toxtrail.identity import Manifest, ModelCard, canonical_json, lineage, sha256_text
from toxtrail.pipeline import Instance

PREFIX = 8
"""Characters of an id or key that must be given at least."""
OTHER_NOW = (
    "what its stage made is another file now, or is not here: check out the commit named above to "
    "see its chain"
)
Where = Sequence[tuple[str, str]]


class Subject(NamedTuple):
    """What a reference means."""

    kind: str
    """variant, family, run, file, hash, generation or number."""
    link: Link
    targets: tuple[str, ...]
    """Stage runs of this experiment that its verification looks at."""
    path: Path | None = None
    """The file itself, if it is one."""
    found: tuple[Sighting, ...] = ()
    """Where else its content is recorded."""


@dataclass(frozen=True)
class Scene:
    """Where a reference is looked up: an experiment, or nowhere."""

    here: Path
    """The folder that a relative path starts at."""
    store: Store | None
    config: Config | None
    instances: Sequence[Instance] = ()

    @cached_property
    def chain(self) -> Chain:
        return Chain(self.store)

    @cached_property
    def runs(self) -> list[FiledRun]:
        """Every run; none from a server that does not answer (`silent` says why)."""
        return self._asked[0]

    @property
    def silent(self) -> str | None:
        """Why the MLflow server, if it had to be asked, said nothing."""
        return self._asked[1] if "_asked" in vars(self) else None

    @cached_property
    def _asked(self) -> tuple[list[FiledRun], str | None]:
        if self.store is None or self.config is None:
            return [], None
        try:
            return tracked_runs(self.store.root, self.config.tracking.experiment), None
        except BackendError as error:
            return [], str(error)

    @cached_property
    def locks(self) -> list[PastLock]:
        return past_locks(self.store.root) if self.store else []

    @cached_property
    def cards(self) -> list[ModelCard]:
        """Cards of the models and fine-tunes that are here."""
        if self.store is None or self.config is None:
            return []
        keys = [*self.config.models, *self.config.finetunes]
        here = [k for k in keys if (self.store.model(k) / "model.json").is_file()]
        found = []
        for key in here:
            with suppress(DataError):  # damaged: verification names it
                found.append(self.store.read_card(key))
        return found

    def seen(self, digest: Digest) -> tuple[Sighting, ...]:
        """Where a content is recorded: in the history and among the runs."""
        if self.store is None:
            return ()
        cache = cache_folder(self.store.root)
        return tuple(sightings(digest, self.locks, cache, self.runs))


def resolve(reference: str, scene: Scene, show_text: bool = False) -> Subject:
    """What a reference means.

    A result whose file is too damaged to be read is one as well: its link is a MISMATCH, so that
    its verification still names everything that is wrong.

    Raises:
        ConfigError: nothing, or several things; the candidates are listed.
        DataError: a file that is missing, or that nothing here knows and that says nothing of
            itself.
    """
    try:
        return _resolved(reference, scene, show_text)
    except DAMAGE as error:
        damaged = None if isinstance(error, ConfigError) else _damaged(reference, scene, error)
        if damaged is None:
            raise
        return damaged


def _damaged(reference: str, scene: Scene, error: Exception) -> Subject | None:
    """What a reference was meant to be, by its words alone; None if a file of it is missing."""
    aim = _aim(reference, scene)
    if aim is None or not all(path.is_file() for path in aim.reads):
        return None
    lines = str(error).strip().splitlines() or [type(error).__name__]
    link = Link(aim.kind, reference, None, "MISMATCH", weak=(f"it cannot be read: {lines[0]}",))
    return Subject(aim.kind, link, aim.targets)


class Aim(NamedTuple):
    """What a reference points at before anything is read."""

    kind: str
    targets: tuple[str, ...]
    reads: tuple[Path, ...]


def _aim(reference: str, scene: Scene) -> Aim | None:
    store, config = scene.store, scene.config
    if store is None or config is None:
        return None
    first, *rest = reference.rstrip("/").split("/")
    if first in config.variants:
        family = config.variants[first].family
        if not rest:
            summary = store.posterior(family, first) / "summary.json"
            return Aim("variant", (f"track@{first}",), (summary,))
        tables = (store.generations(family, first), store.scores(family, first))
        return Aim("generation", (f"score@{first}",), tables)
    if first in config.families:
        stage = "compare" if rest else "track-comparison"
        summary = store.comparison(first) / "summary.json"
        return Aim("number" if rest else "family", (f"{stage}@{first}",), (summary,))
    path = place_of(reference, _folders(scene))
    writer = _writer(path.resolve(), scene) if path else None
    return Aim("file", (writer,), (path,)) if path and writer else None


def _resolved(reference: str, scene: Scene, show_text: bool) -> Subject:
    for found in (_named(reference.rstrip("/"), scene), _file(reference, scene)):
        if found:
            return found
    slashed = _inside(reference, scene, show_text) if "/" in reference else None
    if slashed:
        return slashed
    runs = list(_runs(reference, scene))
    shown = {_content_key(run) for run in runs}
    candidates = [*runs, *(c for c in _keys(reference, scene) if _content_key(c) not in shown)]
    distinct = {(c.kind, c.link.name): c for c in candidates}
    if len(distinct) > 1:
        lines = [f"  {c.kind}: {c.link.name}" for c in distinct.values()]
        raise ConfigError(
            f'"{reference}" means {len(lines)} things; give more of it:\n' + "\n".join(lines)
        )
    if not distinct:
        raise unknown(reference, scene)
    return next(iter(distinct.values()))


def unknown(reference: str, scene: Scene) -> ConfigError:
    """What a reference may be, and what was perhaps meant."""
    if scene.config is None:
        return ConfigError(
            f'"{reference}" is no file, and there is no experiment here (no params.yaml). Name a '
            "file or a bundle, or go to an experiment's folder."
        )
    names = [*scene.config.variants, *scene.config.families, *(run.name for run in scene.runs)]
    if scene.store and (hint := _elsewhere(reference, scene.store.root, scene)):
        return ConfigError(hint)
    return ConfigError(
        f'"{reference}" is no variant, family, file, MLflow run, generation or number of this '
        f"experiment.{nearest(reference, names)} Give one of: a variant or family of params.yaml; "
        "a path; a run id or name; the first 8 or more characters of a content key or hash; "
        "variant/prompt_id/sample; family/variant/subset/metric."
    )


def _elsewhere(reference: str, root: Path, scene: Scene) -> str | None:
    """A commit, or a name that params.yaml no longer lists: known, but no result."""
    left = [
        s for lock in scene.locks[:1] for s in lock.parsed() or () if s.endswith(f"@{reference}")
    ]
    if left:
        return (
            f'"{reference}" is no longer in params.yaml; dvc.lock still has {", ".join(left)}. '
            "`toxtrail verify` lists what is left over; name one of its files to see its chain."
        )
    if HEX.fullmatch(reference.lower()) and git.resolve(root, reference):
        return (
            f'"{reference}" is a commit: `toxtrail audit --commit {reference}` lists its results.'
        )
    return None


def track_targets(manifest: Manifest) -> tuple[str, ...]:
    """The stage run that made a file, or that tracks what it is of."""
    return (manifest.kind if manifest.key is None else f"{manifest.kind}@{manifest.key}",)


# --- names --------------------------------------------------------------------------------------


def _named(reference: str, scene: Scene) -> Subject | None:
    store, config = scene.store, scene.config
    if store is None or config is None:
        return None
    if reference in config.variants:
        path = store.posterior(config.variants[reference].family, reference) / "summary.json"
        kind, target = "variant", f"track@{reference}"
    elif reference in config.families:
        path = store.comparison(reference) / "summary.json"
        kind, target = "family", f"track-comparison@{reference}"
    else:
        return None
    if not path.is_file():
        raise DataError(
            f"{path.relative_to(store.root)} does not exist. Run `dvc repro`, `dvc pull` or "
            "`dvc checkout` to have it; a file of it that you hold can be audited without."
        )
    return Subject(kind, scene.chain.of_file(path), (target,), path)


# --- files --------------------------------------------------------------------------------------


def _file(reference: str, scene: Scene) -> Subject | None:
    path = None if reference in ("", ".", "..") else place_of(reference, _folders(scene))
    if path is None:
        return None
    path = path.resolve()
    return _of_folder(path, scene) if path.is_dir() else _of_file(path, scene)


def _folders(scene: Scene) -> list[Path]:
    """Where relative paths start."""
    return [scene.here, *([scene.store.root] if scene.store else [])]


def _of_folder(path: Path, scene: Scene) -> Subject:
    """An adapter's folder, or a folder that a stage made: known by what is in it."""
    inside = [path / name for name in ("adapter_model.safetensors", "summary.json")]
    known = next((p for p in inside if p.is_file()), None)
    if known:
        return _of_file(known, scene)
    card = path / "model.json"
    if card.is_file() and scene.store and path.parent == scene.store.root / "models":
        own = scene.store.read_card(path.name)
        return Subject("file", _card_link(card, own, scene), (_maker(own.key, scene),), card)
    raise DataError(
        f"{path} is a folder that holds neither an adapter (adapter_model.safetensors) nor a "
        "summary.json nor a model of this experiment. Name a file in it."
    )


def _of_file(path: Path, scene: Scene) -> Subject:
    manifest, digest = embedded_manifest(path), hashed(path)
    found = scene.seen(digest)
    if manifest is not None:
        link = scene.chain.of_file(path)
        own = _writer(path, scene) or next(iter(track_targets(manifest)))
        targets = tuple(one.name for one in scene.instances if one.name == own)
        return Subject("file", _with_sightings(link, found), targets, path, found)
    if card := _card_with(digest, scene):
        link = scene.chain.of_adapter(path, card)._replace(sha256=digest.sha256)
        return Subject(
            "file", _with_sightings(link, found), (_maker(card.key, scene),), path, found
        )
    if found:
        return _only_seen(path, digest, found, scene)
    raise DataError(
        f"{path.name} carries no manifest of toxtrail, and its content "
        f"(sha256 {digest.sha256[:12]}...) stands neither in dvc.lock at any of "
        f"{len(scene.locks)} commits nor in any of {len(scene.runs)} MLflow runs: it is a file of "
        f"another format, of another experiment, or it was changed.{_unsearched(scene)}"
    )


def _unsearched(scene: Scene) -> str:
    """Where a content may be recorded that could not be looked at."""
    if scene.store is None:
        return ""
    gaps = []
    if git.is_shallow(scene.store.root):
        gaps.append("this clone is shallow, so older commits were not searched")
    if missing := unlisted(scene.locks, cache_folder(scene.store.root)):
        gaps.append(
            f"DVC's cache lacks the lists of {missing} folders, so files in them cannot be known "
            "by hash (`dvc fetch --all-commits`)"
        )
    return f" But {'; '.join(gaps)}." if gaps else ""


def _only_seen(path: Path, digest: Digest, found: Sequence[Sighting], scene: Scene) -> Subject:
    """A file that says nothing of itself, but whose content is recorded here."""
    known = {one.name: one for one in scene.instances}
    seen = next((s for s in found if s.stage in known and _is_present(s, digest, scene)), None)
    link = Link("file", str(path), digest.sha256, "matches")
    if seen is None or scene.store is None:
        weak = (OTHER_NOW,) if any(s.stage for s in found) else ()
        link = link._replace(standing="recorded", weak=weak)
        return Subject("file", _with_sightings(link, found), (), path, tuple(found))
    one = known[seen.stage]
    if one.stage.name in ("model", "finetune") and one.key:
        below = [_card_link(path, scene.store.read_card(one.key), scene)]
    else:
        outs = [scene.store.root / out for out in one.writes]
        files = [p / "summary.json" if p.is_dir() else p for p in outs]
        below = [scene.chain.of_file(p) for p in files if p.is_file() and embedded_manifest(p)]
    link = link._replace(made_from=tuple(below))
    return Subject("file", _with_sightings(link, found), (one.name,), path, tuple(found))


def _is_present(seen: Sighting, digest: Digest, scene: Scene) -> bool:
    """Whether the recorded place still holds this content."""
    place = scene.store.root / seen.path if scene.store else None
    return place is not None and place.is_file() and hashed(place).md5 == digest.md5


def _card_link(path: Path, card: ModelCard, scene: Scene) -> Link:
    link = scene.chain.of_adapter(path, card)
    facts = (("fingerprint", card.fingerprint),)
    return Link(f"model@{card.key}", str(path), None, "recorded", facts, made_from=(link,))


def _card_with(digest: Digest, scene: Scene) -> ModelCard | None:
    """The card whose last adapter, or whose weights, hold this file."""
    for card in scene.cards:
        files = (
            card.adapters[-1].files if card.adapters else (*card.base.files, *card.base.converted)
        )
        if any(file.sha256 == digest.sha256 for file in files):
            return card
    return None


def _maker(key: str, scene: Scene) -> str:
    stage = "finetune" if scene.config and key in scene.config.finetunes else "model"
    return f"{stage}@{key}"


def _writer(path: Path, scene: Scene) -> str | None:
    """The stage run whose output a path of this repo is, or lies in."""
    if scene.store is None or not path.is_relative_to(scene.store.root):
        return None
    name = path.relative_to(scene.store.root).as_posix()
    inside = (
        one.name
        for one in scene.instances
        for out in one.outs
        if name == out or name.startswith(f"{out}/")
    )
    return next(inside, None)


def _with_sightings(link: Link, found: Iterable[Sighting]) -> Link:
    facts = tuple(("found", _sighting(one)) for one in found)
    return link._replace(facts=(*facts, *link.facts))


def _sighting(one: Sighting) -> str:
    when = f" ({one.date}, {one.subject})" if one.date else ""
    stage = f", stage {one.stage}" if one.stage else ""
    return f"{one.where}{when}: {one.path}{stage}"


# --- a generation, a number ---------------------------------------------------------------------


def _inside(reference: str, scene: Scene, show_text: bool) -> Subject | None:
    first, *rest = reference.split("/")
    config = scene.config
    if config is None:
        return None
    if first in config.variants:
        return _generation(reference, first, rest, scene, show_text)
    if first in config.families and len(rest) == 3:
        return _number(reference, first, rest, scene)
    return None


def _generation(
    reference: str, variant: str, rest: list[str], scene: Scene, show_text: bool
) -> Subject:
    assert scene.store is not None
    assert scene.config is not None
    if len(rest) > 2:
        raise ConfigError(f'"{reference}": a generation is variant/prompt_id/sample, no more.')
    store, family = scene.store, scene.config.variants[variant].family
    prompt_id, sample = rest[0], rest[1] if len(rest) > 1 else "0"
    rows = store.read_generations(family, variant)
    row = next((r for r in rows if r.key == (prompt_id, _number_of(sample))), None)
    if row is None:
        raise ConfigError(
            f'"{reference}": {variant} has no generation {prompt_id}, sample {sample}.'
            + nearest(prompt_id, sorted({r.prompt_id for r in rows}))
        )
    scores = [s for s in store.read_scores(family, variant) if (s.prompt_id, s.sample) == row.key]
    tokens = canonical_json(list(row.token_ids))
    facts: list[tuple[str, str]] = [
        ("state", f"{row.state}, finished by {row.finish_reason}"),
        ("tokens", f"{row.prompt_tokens} of the prompt, {len(row.token_ids)} generated"),
        ("token ids sha256", sha256_text(tokens)),
        ("text sha256", sha256_text(row.text)),
        *(
            (f"score by {s.scorer}", "none" if s.toxicity is None else f"{s.toxicity:.6f}")
            for s in scores
        ),
    ]
    if show_text:
        prompt = next(p.text for p in store.read_prompts() if p.prompt_id == prompt_id)
        facts += [("prompt", prompt), ("continuation", row.text)]
    link = Link(
        "generation",
        f"{variant}/{row.prompt_id}/{row.sample}",
        None,
        "recorded",
        tuple(facts),
        made_from=(scene.chain.of_file(store.scores(family, variant)),),
    )
    return Subject("generation", link, (f"score@{variant}",))


def _number_of(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _number(reference: str, family: str, rest: list[str], scene: Scene) -> Subject:
    assert scene.store is not None
    variant, subset, metric = rest
    metric, _, scorer = metric.partition("@")
    summary = scene.store.read_summary(scene.store.comparison(family))
    scorer = scorer or summary["primary"]
    asked = (variant, subset, metric, scorer)
    rows = [r for r in _number_rows(summary) if _is_about(r, asked) and metric in r]
    if not rows:
        raise _no_number(reference, asked, summary)
    row = rows[0]
    compared = "relation" in row or metric.startswith("pooled_")
    values = [
        f"{r[metric]} against {r['a']} ({r['relation']})" if "relation" in r else f"{r[metric]}"
        for r in rows
        if ("relation" in r) == ("relation" in row)
    ]
    posterior = scene.store.posterior(family, variant) / "summary.json"
    path = scene.store.comparison(family) / "summary.json" if compared else posterior
    link = Link(
        "number",
        reference,
        None,
        "recorded",
        (
            ("value", "; ".join(values)),
            *((("scorer", scorer),) if "scorer" in row else ()),
            ("method", _method(row, summary)),
        ),
        made_from=(scene.chain.of_file(path),),
    )
    target = f"compare@{family}" if compared else f"posterior@{variant}"
    return Subject("number", link, (target,))


def _number_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of rates and differences: of toxicity, then of what was said at all."""
    tables = ("rates", "pairs", "behaviour", "behaviour_pairs")
    return [row for table in tables for row in summary.get(table, ())]


def _is_about(row: dict[str, Any], asked: tuple[str, str, str, str]) -> bool:
    variant, subset, _, scorer = asked
    own = (row.get("variant") or row["b"], row["subset"], row.get("scorer", scorer))
    return own == (variant, subset, scorer)


def _method(row: dict[str, Any], summary: dict[str, Any]) -> str:
    if "scorer" not in row:
        n = row["n"] if "n" in row else row["n_continuations"]
        return f"n {n}, measured from the texts, {summary['level']:.0%} intervals"
    n = f"n {row['n']}" if "n" in row else f"{row['n_toxic']} of {row['n_scored']} toxic"
    return f"{n}, toxic at {summary['threshold']} and above, {summary['level']:.0%} intervals"


def _no_number(
    reference: str, asked: tuple[str, str, str, str], summary: dict[str, Any]
) -> ConfigError:
    rows = _number_rows(summary)
    known = {
        "variant": {str(r.get("variant") or r["b"]) for r in rows},
        "subset": {r["subset"] for r in rows},
        "metric": {name for r in rows for name in r},
        "scorer": {r["scorer"] for r in rows if "scorer" in r},
    }
    for (what, names), value in zip(known.items(), asked, strict=True):
        if value not in names:
            return ConfigError(
                f'"{reference}": no {what} "{value}".{nearest(value, sorted(names))}'
            )
    return ConfigError(
        f'"{reference}": {asked[0]} has no {asked[2]} (it is compared with nothing).'
    )


# --- runs and keys ------------------------------------------------------------------------------


def _runs(reference: str, scene: Scene) -> Iterator[Subject]:
    key = reference.lower() if HEX.fullmatch(reference.lower()) else None
    for run in scene.runs:
        ids = (run.run_id, run.content_key)
        if run.name == reference or (key and any(i.startswith(key) for i in ids)):
            yield of_run(run, scene)
    for folder in damaged_runs(scene.store.root) if key and scene.store else ():
        if folder.parent.name.startswith(str(key)):
            yield _damaged_run(folder.parent.name, folder, "its record.json cannot be read")


def _damaged_run(name: str, folder: Path, why: str) -> Subject:
    link = Link("MLflow run", name, None, "MISMATCH", weak=(why,))
    return Subject("run", link, (), folder)


def of_run(run: FiledRun, scene: Scene) -> Subject:
    """A run by its own files."""
    try:
        manifest = Manifest.model_validate_json(canonical_json(run.statement()["predicate"]))
    except DAMAGE:
        name = f"MLflow run {run.name} ({run.run_id})"
        return _damaged_run(name, run.files, "its manifest.json cannot be read")
    link = scene.chain.of_manifest(f"MLflow run {run.name} ({run.run_id})", manifest)
    tags = run.record["tags"]
    names = ("git_commit", "git_dirty", "dvc_lock_sha256", "requirements_sha256", "comparability")
    facts = [(n, tags[f"toxtrail.{n}"]) for n in names if f"toxtrail.{n}" in tags]
    weak = list(link.weak)
    if tags.get("toxtrail.git_dirty") == "true":
        weak.append("tracked with uncommitted changes: the commit alone does not give it back")
    if "toxtrail.mismatch" in tags:
        weak.append(tags["toxtrail.mismatch"])
    link = link._replace(facts=(*facts, *_executions(run), *link.facts), weak=tuple(weak))
    stage = {"posterior": "track", "compare": "track-comparison"}.get(manifest.kind, "")
    name = f"{stage}@{manifest.key}"
    current = _is_current(run, name, scene)
    return Subject("run", link, (name,) if current else (), run.files)


def _executions(run: FiledRun) -> Iterator[tuple[str, str]]:
    with suppress(*DAMAGE):  # damaged: verification names it
        for stage, record in run.executions().items():
            for name, value in execution_facts(record)[0]:
                yield f"{stage}: {name}", value


def _is_current(run: FiledRun, name: str, scene: Scene) -> bool:
    """Whether it is the run of the result that is here now."""
    if scene.store is None or scene.config is None:
        return False
    stage, _, key = name.partition("@")
    if stage == "track" and key in scene.config.variants:
        folder = scene.store.posterior(scene.config.variants[key].family, key)
    elif stage == "track-comparison" and key in scene.config.families:
        folder = scene.store.comparison(key)
    else:
        return False
    path = folder / "summary.json"
    with suppress(*DAMAGE):
        manifest = embedded_manifest(path) if path.is_file() else None
        return manifest is not None and manifest.content_key == run.content_key
    return False


def _keys(reference: str, scene: Scene) -> Iterator[Subject]:
    """Content keys and hashes of present files, and hashes that the history knows."""
    key = reference.lower()
    if not HEX.fullmatch(key) or scene.store is None:
        return
    manifests = [m for m in map(embedded_manifest, _present_files(scene)) if m]
    for node in (node for manifest in manifests for node in lineage(manifest)):
        if node.content_key.startswith(key):
            own = scene.chain.of_manifest(f"content key {node.content_key}", node)
            yield Subject("file", own, _known(track_targets(node), scene))
    for one in matching(key, manifests, scene.locks, scene.runs, scene.cards):
        path = scene.store.root / one.path if one.path else None
        own_file = hashed(path) if path and path.is_file() else None
        if path and own_file and one.digest in (own_file.sha256, own_file.md5):
            yield _of_file(path, scene)
            continue
        digest = Digest(one.digest if len(one.digest) == 64 else "-", one.digest, 0)
        found = scene.seen(digest)
        weak = ("its file is not here: only where it is recorded can be said",)
        link = Link("hash", one.digest, None, "recorded", weak=weak)
        yield Subject("hash", _with_sightings(link, found), (), None, found)


def _content_key(subject: Subject) -> str | None:
    """A run has the content key of the result that it shows: the two are no ambiguity."""
    return dict(subject.link.facts).get("content key")


def _known(targets: tuple[str, ...], scene: Scene) -> tuple[str, ...]:
    names = {one.name for one in scene.instances}
    return tuple(name for name in targets if name in names)


def _present_files(scene: Scene) -> Iterator[Path]:
    assert scene.store is not None
    for one in scene.instances:
        if one.stage.name in ("posterior", "compare"):
            path = scene.store.root / one.writes[0] / "summary.json"
            if path.is_file():
                yield path
