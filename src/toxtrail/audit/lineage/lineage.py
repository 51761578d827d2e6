"""The lineage of a result as a tree of nodes, each with its hash and the status of its file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.audit.verify.context import DAMAGE_ERRORS
from toxtrail.errors import DataError, why_unread
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    InputFile,
    Manifest,
    ModelIdentity,
    TrainingRecord,
    content_key,
    hash_tree,
    sha256_file,
    tree_sha256,
    walk_lineage,
)
from toxtrail.regular_files import (
    files_below,
    irregular,
    is_file,
    leads_out,
    link_target,
    read_text,
)
from toxtrail.storage.artifacts import ArtifactStore, read_json

HashStatus = Literal["matches", "MISMATCH", "unread", "not here", "recorded"]
"""matches: the local file has the recorded hash. MISMATCH: it has another. unread: there is a local
file, and it could not be read. not here: no local file. recorded: a hash or a fact with no file in
this repo (an asset, a setting)."""

SERVED = (
    "made by a server: that it held these weights is its own claim, which its answers to the probe "
    "do not contradict; `--reproduce` compares its rows with the weights"
)
CLAIM = "that it was trained on the data its card names is its uploader's claim: nothing proves it"


class LineageNode(NamedTuple):
    """One node of the lineage."""

    what: str
    name: str
    sha256: str | None
    standing: HashStatus
    facts: tuple[tuple[str, str], ...] = ()
    """Settings and facts, in display order."""
    weak: tuple[str, ...] = ()
    """Caveats: where less is verified than a reader may assume."""
    made_from: tuple[LineageNode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the node and everything below it."""
        return {
            **self._asdict(),
            "facts": dict(self.facts),
            "weak": list(self.weak),
            "made_from": [link.to_json() for link in self.made_from],
        }

    def all(self) -> Iterator[LineageNode]:
        """Yield this node and those below it."""
        yield self
        for link in self.made_from:
            yield from link.all()

    def unread(self) -> Iterator[LineageNode]:
        """Yield nodes whose file could not be read."""
        return (link for link in self.all() if link.standing == "unread")

    def mismatches(self) -> Iterator[LineageNode]:
        """Yield nodes whose file differs from the record."""
        return (link for link in self.all() if link.standing == "MISMATCH")


class LineageBuilder:
    """Builds lineages; each file is hashed once."""

    def __init__(self, store: ArtifactStore | None, holds_weights: bool = True) -> None:
        """Args:
        store: None outside an experiment; then only a file's own manifest is known.
        holds_weights: false for a bundle, which has no adapter files.
        """
        self._store = store
        self._holds_weights = holds_weights
        self._hashes: dict[Path, str | None] = {}

    def of_file(self, path: Path) -> LineageNode:
        """Return the lineage of a file with a manifest.

        Raises:
            DataError: it has none.
        """
        manifest = read_embedded_manifest(path)
        if manifest is None:
            raise DataError(
                f"{path} carries no manifest of toxtrail: it is a file of another format, or was "
                "not made by a stage."
            )
        return self.of_manifest(
            self._name(path), manifest, sha256_file(path), self._file_standing(path)
        )

    def of_manifest(
        self,
        name: str,
        manifest: Manifest,
        sha256: str | None = None,
        standing: HashStatus = "recorded",
    ) -> LineageNode:
        """Return the lineage of a result known by its manifest, such as an MLflow run."""
        below = [
            self._input(key, source)
            for key, source in manifest.inputs.items()
            if not (key in ("model", "parent") and manifest.model)
        ]
        if manifest.model:
            source = manifest.inputs.get("model") or manifest.inputs.get("parent")
            below.append(self._model(manifest.model, source))
        facts, weak = self._execution(manifest, sha256)
        claims = (*((SERVED,) if is_served(manifest) else ()), *_parent_claim(manifest))
        return LineageNode(
            what=manifest.kind if manifest.key is None else f"{manifest.kind}@{manifest.key}",
            name=name,
            sha256=sha256,
            standing=standing,
            facts=(
                ("content key", manifest.content_key),
                *(
                    (name, format_value(_without_golden_texts(value)))
                    for name, value in manifest.params.items()
                ),
                ("code sha256", manifest.code_sha256),
                *_environment_facts(manifest),
                *facts,
            ),
            weak=(*claims, *weak),
            made_from=tuple(below),
        )

    def of_adapter(self, path: Path, card: ModelIdentity) -> LineageNode:
        """Return the lineage of an adapter that a card of this experiment lists last."""
        link = self._weights(card.key, card.base, card.adapters)
        return link._replace(name=f"{path} = {link.name}")

    def _input(self, key: str, source: InputFile) -> LineageNode:
        standing = self._standing(source.path, source.sha256)
        if source.manifest is not None:
            return self.of_manifest(source.path, source.manifest, source.sha256, standing)
        recorded: HashStatus = "recorded" if ":" in source.path else standing
        what = "training data" if key == "data" else key
        return LineageNode(what, source.path, source.sha256, recorded)

    def _model(self, card: ModelIdentity, source: InputFile | None) -> LineageNode:
        path = f"models/{card.key}/model.json"
        probe = card.probe
        probe_text = f"{probe.digest} ({probe.dtype})" if probe else "none"
        return LineageNode(
            what=f"model@{card.key}",
            name=source.path if source else path,
            sha256=source.sha256 if source else None,
            standing=self._standing(path, source.sha256) if source else "recorded",
            facts=(("fingerprint", card.fingerprint), ("probe", probe_text)),
            weak=() if probe else ("its weights were never probed",),
            made_from=(self._weights(card.key, card.base, card.adapters),),
        )

    def _weights(self, key: str, base: BaseWeights, adapters: Sequence[Adapter]) -> LineageNode:
        """Return the last adapter with its parent weights, down to the base."""
        if not adapters:
            return _base_link(base)
        last = adapters[-1]
        below = self._weights(key, base, adapters[:-1])
        facts: list[tuple[str, str]] = [(file.path, file.sha256) for file in last.files]
        facts += [(f"its own {what}", sha256) for what, sha256 in last.brings]
        made_from = [below]
        if last.training:
            made_from = [self._training(last, last.training), below]
        name = last.uri or f"models/{key}/adapters/{last.key}"
        return LineageNode(
            f"adapter {last.key}",
            name,
            last.sha256,
            self._adapter_standing(key, last) if last.uri is None else "recorded",
            tuple(facts),
            () if last.training else (CLAIM,),
            tuple(made_from),
        )

    def _training(self, adapter: Adapter, training: TrainingRecord) -> LineageNode:
        """Return the fine-tune stage: recipe, loss curve, data and parent."""
        data = LineageNode(
            "training data",
            training.data_uri,
            training.data_sha256,
            "recorded",
            (("examples", f"{training.examples} ({training.cut_examples} cut)"),),
        )
        return LineageNode(
            f"finetune@{adapter.key}",
            f"parent fingerprint {training.parent_fingerprint}",
            None,
            "recorded",
            (
                ("recipe", format_value(training.recipe)),
                ("loss", self._loss(adapter.key, training)),
                *_held_out_facts(training),
                ("code sha256", training.code_sha256),
                ("environment", format_value(training.environment)),
                ("environment sha256", content_key(training.environment)),
            ),
            made_from=(data,),
        )

    def _loss(self, key: str, training: TrainingRecord) -> str:
        is_local = self._store is not None and not leads_out(key)
        path = self._store.model_dir(key) / "loss.csv" if self._store and is_local else None
        last = f"{training.final_loss:.4f} nats per token after {training.steps} steps"
        if path is None or not path.is_file():
            return last
        try:
            rows = csv.DictReader(read_text(path).splitlines())
            losses = [float(row["loss"]) for row in rows if row["loss"]]
        except DAMAGE_ERRORS:
            return f"{last} (models/{key}/loss.csv cannot be read)"
        return f"{losses[0]:.4f} -> {last} (models/{key}/loss.csv)" if losses else last

    def _adapter_standing(self, key: str, adapter: Adapter) -> HashStatus:
        if self._store is None or not self._holds_weights:
            return "recorded"
        if leads_out(f"{key}/{adapter.key}"):
            return "MISMATCH"
        folder = self._store.model_dir(key) / "adapters" / adapter.key
        if not folder.is_dir():
            return "not here"
        try:
            files = hash_tree(folder, files_below(folder))
        except DAMAGE_ERRORS as error:
            return "unread" if why_unread(error) else "MISMATCH"
        return "matches" if tree_sha256(files) == adapter.sha256 else "MISMATCH"

    def _standing(self, path: str, sha256: str) -> HashStatus:
        if self._store is None:
            return "recorded"
        try:
            current = self._sha256(path)
        except (OSError, MemoryError) as error:
            return "unread" if why_unread(error) else "not here"
        if current is None:
            return "not here"
        return "matches" if current == sha256 else "MISMATCH"

    def _file_standing(self, path: Path) -> HashStatus:
        """Return `recorded` for a file outside the experiment: only its manifest is known."""
        inside = self._store is not None and path.is_relative_to(self._store.root)
        return "matches" if inside else "recorded"

    def _sha256(self, name: str) -> str | None:
        """Return the hash of a file; None if it is missing, empty if it is not opened."""
        assert self._store is not None
        if leads_out(name):
            return ""
        path = self._store.root / name
        if path not in self._hashes:
            strange = irregular(path) or link_target(path)
            current = sha256_file(path) if not strange and is_file(path) else None
            self._hashes[path] = "" if strange else current
        return self._hashes[path]

    def _name(self, path: Path) -> str:
        root = self._store.root if self._store else None
        return (
            path.relative_to(root).as_posix() if root and path.is_relative_to(root) else str(path)
        )

    def _execution(
        self, manifest: Manifest, sha256: str | None
    ) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return when, where and at which commit this file was made, if recorded here."""
        if self._store is None or sha256 is None:
            return (), ()
        try:
            path = self._store.execution_record_path(manifest.kind, manifest.key or "-")
            record = read_json(path) if path.is_file() else {}
            return execution_facts(record) if record.get("output_sha256") == sha256 else ((), ())
        except DAMAGE_ERRORS:
            name = f"data/records/{manifest.kind}/{manifest.key}.json"
            return (), (f"{name} cannot be read: when and where it was made is lost",)


def _parent_claim(manifest: Manifest) -> tuple[str, ...]:
    """Return a caveat if a posterior's parent is only a claim (weights not fine-tuned here)."""
    parent = manifest.params.get("variant", {}).get("parent")
    cards = [
        node.model for node in walk_lineage(manifest) if node.kind == "generate" and node.model
    ]
    if manifest.kind != "posterior" or not parent or any(card.adapters for card in cards):
        return ()
    return (
        f"that it was tuned from {parent} is what params.yaml says: nothing in its weights proves "
        "it",
    )


def is_served(manifest: Manifest) -> bool:
    """Return whether a server generated the texts, instead of verified local weights."""
    return manifest.kind == "generate" and "served_as" in manifest.params


def execution_facts(record: dict[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return facts and caveats of one execution."""
    seconds, state = record["cost"]["seconds"], "dirty" if record["dirty"] else "clean"
    weak = []
    if record["dirty"]:
        weak.append("made with uncommitted changes: the commit alone does not give it back")
    if not record["commit"]:
        weak.append("made outside git: no commit holds its code")
    return (
        ("made", f"{record['started']} on {record['host']} ({record['machine']}), {seconds:.0f} s"),
        ("git commit", f"{record['commit'] or 'none'} ({state})"),
        ("batch plan", format_value(record["settings"])),
    ), tuple(weak)


def format_value(value: object) -> str:
    """Format a setting on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return f"[{', '.join(format_value(inner) for inner in value)}]"
    return str(value)


def _held_out_facts(training: TrainingRecord) -> tuple[tuple[str, str], ...]:
    if training.held_out is None or training.held_out_loss is None:
        return ()
    loss = f"{training.held_out_loss:.4f} nats per token on {training.held_out} examples"
    return (("held-out loss", loss),)


def _without_golden_texts(value: Any) -> Any:
    """Remove the golden texts of a scorer, which may be toxic."""
    if not isinstance(value, dict):
        return value
    return {
        key: f"{len(inner)} texts" if key == "golden" else _without_golden_texts(inner)
        for key, inner in value.items()
    }


def _base_link(base: BaseWeights) -> LineageNode:
    return LineageNode(
        what="base weights",
        name=base.uri,
        sha256=base.sha256,
        standing="recorded",
        facts=(
            ("resolved", base.resolved),
            ("architecture", f"{base.architecture}, {base.parameters:,} parameters"),
            ("stored as", base.quantization or base.stored_dtype),
            ("license", base.license or "not stated"),
            *((f.path, f.sha256) for f in (*base.files, *base.converted)),
            ("tokenizer", base.tokenizer_sha256),
            ("chat template", base.chat_template_sha256 or "none"),
        ),
    )


def _environment_facts(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    if not manifest.environment:
        return ()
    return (
        ("environment", format_value(manifest.environment)),
        ("environment sha256", content_key(manifest.environment)),
    )
