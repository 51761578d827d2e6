"""The chain behind a result, as a tree of links, each with its hash and whether it still stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.artifacts import Store
from toxtrail.embedding import embedded_manifest
from toxtrail.errors import ConfigError, DataError
from toxtrail.identity import (
    Adapter,
    Input,
    Manifest,
    ModelCard,
    hash_tree,
    sha256_file,
    tree_sha256,
)

Standing = Literal["matches", "MISMATCH", "not here", "recorded"]
"""matches: the local file has the recorded hash. MISMATCH: it has another. not here: no local file.
recorded: a hash or a fact with no file in this repo (an asset, a setting)."""


class Link(NamedTuple):
    """One step of the chain."""

    what: str
    name: str
    sha256: str | None
    standing: Standing
    facts: tuple[tuple[str, str], ...]
    """Settings and facts, in reading order."""
    made_from: tuple[Link, ...]

    def to_json(self) -> dict[str, Any]:
        """The link and everything below it."""
        return {
            **self._asdict(),
            "facts": dict(self.facts),
            "made_from": [link.to_json() for link in self.made_from],
        }

    def mismatches(self) -> Iterator[Link]:
        """This link and those below it whose file is not what was recorded."""
        if self.standing == "MISMATCH":
            yield self
        for link in self.made_from:
            yield from link.mismatches()


def chain_of_file(store: Store, path: Path) -> Link:
    """The chain of a file that carries a manifest.

    Raises:
        DataError: it carries none.
    """
    manifest = embedded_manifest(path)
    if manifest is None:
        raise DataError(
            f"{path} carries no manifest of toxtrail. Name a .parquet, summary.json or .nc "
            "file that a "
            "stage wrote, a variant, a family, or an MLflow run."
        )
    name = path.relative_to(store.root).as_posix() if path.is_relative_to(store.root) else str(path)
    return _produced(store, name, sha256_file(path), "matches", manifest)


def chain_of_manifest(store: Store, name: str, manifest: Manifest) -> Link:
    """The chain of a result known by its manifest alone, such as an MLflow run."""
    return _produced(store, name, None, "recorded", manifest)


def _produced(
    store: Store, name: str, sha256: str | None, standing: Standing, manifest: Manifest
) -> Link:
    below = [
        _input(store, key, source)
        for key, source in manifest.inputs.items()
        if not (key == "model" and manifest.model)
    ]
    if manifest.model:
        below.append(_model(store, manifest.model, manifest.inputs.get("model")))
    return Link(
        what=manifest.kind if manifest.key is None else f"{manifest.kind}@{manifest.key}",
        name=name,
        sha256=sha256,
        standing=standing,
        facts=(
            ("content key", manifest.content_key),
            *((section, _brief(value)) for section, value in manifest.params.items()),
            ("code sha256", manifest.code_sha256),
            *((("environment", _brief(manifest.environment)),) if manifest.environment else ()),
            *_execution(store, manifest, sha256),
        ),
        made_from=tuple(below),
    )


def _input(store: Store, key: str, source: Input) -> Link:
    standing = _standing(store.root / source.path, source.sha256)
    if source.manifest is not None:
        return _produced(store, source.path, source.sha256, standing, source.manifest)
    return Link(
        key, source.path, source.sha256, "recorded" if ":" in source.path else standing, (), ()
    )


def _model(store: Store, card: ModelCard, source: Input | None) -> Link:
    folder = store.model(card.key)
    base = Link(
        what="base weights",
        name=card.base.uri,
        sha256=card.base.sha256,
        standing="recorded",
        facts=(
            ("resolved", card.base.resolved),
            ("architecture", f"{card.base.architecture}, {card.base.parameters:,} parameters"),
            ("stored as", card.base.quantization or card.base.stored_dtype),
            ("license", card.base.license or "not stated"),
            *((f.path, f.sha256) for f in (*card.base.files, *card.base.converted)),
            ("tokenizer", card.base.tokenizer_sha256),
            ("chat template", card.base.chat_template_sha256 or "none"),
        ),
        made_from=(),
    )
    return Link(
        what=f"model@{card.key}",
        name=source.path if source else f"models/{card.key}/model.json",
        sha256=source.sha256 if source else None,
        standing=_standing(folder / "model.json", source.sha256) if source else "recorded",
        facts=(("fingerprint", card.fingerprint),),
        made_from=(*(_adapter(folder, a) for a in reversed(card.adapters)), base),
    )


def _adapter(folder: Path, adapter: Adapter) -> Link:
    facts: list[tuple[str, str]] = [(file.path, file.sha256) for file in adapter.files]
    below: tuple[Link, ...] = ()
    if training := adapter.training:
        facts += [
            ("recipe", _brief(training.recipe)),
            ("steps", f"{training.steps}, final loss {training.final_loss:.4f}"),
            ("code sha256", training.code_sha256),
            ("environment", _brief(training.environment)),
            ("parent fingerprint", training.parent_fingerprint),
        ]
        data = Link(
            "training data",
            training.data_uri,
            training.data_sha256,
            "recorded",
            (("examples", f"{training.examples} ({training.cut_examples} cut)"),),
            (),
        )
        below = (data,)
    else:
        facts.append(("training data", "unknown: what its card says is its uploader's claim"))
    local = folder / "adapters" / adapter.key
    standing = _adapter_standing(local, adapter) if adapter.uri is None else "recorded"
    name = adapter.uri or f"models/{folder.name}/adapters/{adapter.key}"
    return Link(f"adapter {adapter.key}", name, adapter.sha256, standing, tuple(facts), below)


def _adapter_standing(folder: Path, adapter: Adapter) -> Standing:
    if not folder.is_dir():
        return "not here"
    files = hash_tree(folder, [path for path in folder.rglob("*") if path.is_file()])
    return "matches" if tree_sha256(files) == adapter.sha256 else "MISMATCH"


def _standing(path: Path, sha256: str) -> Standing:
    if not path.is_file():
        return "not here"
    return "matches" if sha256_file(path) == sha256 else "MISMATCH"


def _execution(store: Store, manifest: Manifest, sha256: str | None) -> Iterator[tuple[str, str]]:
    """When, where and at which commit this very file was made, if this machine made it."""
    from toxtrail.artifacts import read_json

    path = store.record(manifest.kind, manifest.key or "-")
    record = read_json(path) if sha256 and path.is_file() else {}
    if record and record["output_sha256"] == sha256:
        dirty = " with uncommitted changes" if record["dirty"] else ""
        yield (
            "made",
            f"{record['started']} on {record['machine']}, {record['cost']['seconds']:.0f} s",
        )
        yield "git commit", f"{record['commit'] or 'none'}{dirty}"


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_brief(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return f"[{', '.join(_brief(inner) for inner in value)}]"
    return str(value)


def unknown_reference(reference: str) -> ConfigError:
    """What a reference may be."""
    return ConfigError(
        f'"{reference}" is no variant, family, file or MLflow run. Give a variant or family of '
        "params.yaml, a path to a .parquet, .json or .nc file, a run id or name, or the first 8 or "
        "more characters of a content key."
    )
