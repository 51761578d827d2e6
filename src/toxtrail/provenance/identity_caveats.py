"""Weak marks of a variant: reasons to doubt that it is what params.yaml states.

Different weights may respond like the parent's, and two names may refer to the same weights.
Neither is an error, so nothing is rejected; the marks are shown with the variant by the stages
`model` and `finetune`, by `check`, `verify` and the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from toxtrail.provenance.identity import FileHash, ModelIdentity

WEIGHTS = (".safetensors", ".gguf")
ORIGINS = ("file of texts", "name on a server")
"""Origins of texts in place of weights; the index is whether it is on a server."""


def doubts(
    cards: Mapping[str, ModelIdentity], parents: Mapping[str, str | None]
) -> dict[str, list[str]]:
    """Return variant -> weak marks; variants without marks are omitted.

    Args:
        cards: model cards of the variants whose weights are known.
        parents: variant -> the variant that it was tuned from.
    """
    caveats = {}
    for key, card in cards.items():
        parent = cards.get(parents.get(key) or "")
        lines = [*_of_card(card), *_twins(key, cards)]
        if parent is not None and not lines:
            lines += _beside(card, parent)
        if lines:
            caveats[key] = lines
    return caveats


def adapter_notes(card: ModelIdentity) -> list[str]:
    """Return notes on the files that the adapters of a variant use in place of the base's."""
    return [
        f"the adapter {adapter.key} has its own {' and '.join(files)}, used in place of the base's"
        for adapter in card.adapters
        if (files := [what for what, _ in adapter.brings])
    ]


def other_base(claim: object, uri: str) -> str | None:
    """Return the base that an adapter's config names, if it differs from the base it is applied to.

    A path on the uploader's disk is compared by its last component, a hub repository by its full
    name.

    Args:
        claim: `base_model_name_or_path` of adapter_config.json.
        uri: URI of the base in params.yaml.
    """
    if not isinstance(claim, str) or not claim.strip():
        return None
    named, base = _bare(claim), _bare(uri)
    if named == base:
        return None
    of_hub = uri.startswith("hf:") and named.count("/") == 1 and not claim.startswith((".", "~"))
    if of_hub:
        return claim
    last, base_name = PurePosixPath(named).name, PurePosixPath(base).name
    is_file = base_name.endswith(".gguf") and base_name.startswith(last)
    return None if last == base_name or is_file else claim


def texts_caveat(card: ModelIdentity) -> str:
    """Return why texts from a file prove less than generated ones."""
    return (
        f"its texts were handed in ({card.base.uri}, sha256 {card.base.sha256}): which model made "
        "them, and with which settings, is not known, and they cannot be regenerated"
    )


def origin_caveat(card: ModelIdentity) -> str:
    """Return why rows of a variant without known weights prove less than others; empty for one with
    weights."""
    if card.texts is not None:
        return texts_caveat(card)
    if card.api is not None:
        return (
            f'its texts are answers of a server to requests for "{card.api.model}": which weights '
            "that is, and whether they stay the same, is the server's claim, and the texts cannot "
            "be regenerated from weights"
        )
    return ""


def _of_card(card: ModelIdentity) -> Iterator[str]:
    if caveat := origin_caveat(card):
        yield caveat
    for adapter in card.adapters:
        if adapter.other_base is not None:
            yield (
                f"the config of adapter {adapter.key} names {adapter.other_base} as its base, not "
                f"{card.base.uri}: it is not verified that it was trained on these weights"
            )
    if card.probe is not None and card.probe.unmoved:
        yield (
            f"its last adapter changes none of the {len(card.probe.top_tokens)} most likely tokens "
            "of the probe sentences: it may respond as without the adapter"
        )


def _twins(key: str, cards: Mapping[str, ModelIdentity]) -> Iterator[str]:
    fingerprint = cards[key].fingerprint
    same = [
        other for other, card in cards.items() if other != key and card.fingerprint == fingerprint
    ]
    if same:
        what = "weights and tokenizer" if cards[key].has_weights else ORIGINS[bool(cards[key].api)]
        yield f"it has the same {what} as {' and '.join(same)} (one fingerprint)"


def _beside(card: ModelIdentity, parent: ModelIdentity) -> Iterator[str]:
    if card.adapters == parent.adapters and _hashes(card) == _hashes(parent):
        theirs = {(file.path, file.sha256) for file in _read(parent)}
        other = [f.path for f in _read(card) if (f.path, f.sha256) not in theirs]
        yield (
            f"its weight files are those of its parent {parent.key}, byte by byte; what differs: "
            f"{', '.join(other) or 'files that are missing'}"
        )
    elif card.probe and parent.probe and card.probe.digest == parent.probe.digest:
        yield (
            f"the {len(card.probe.top_tokens)} most likely tokens of the probe sentences are all "
            f"those of its parent {parent.key}: it may respond as its parent does"
        )


def _hashes(card: ModelIdentity) -> set[str]:
    return {file.sha256 for file in _read(card) if file.path.lower().endswith(WEIGHTS)}


def _read(card: ModelIdentity) -> tuple[FileHash, ...]:
    """Return the files that are loaded."""
    return card.base.converted or card.base.files


def _bare(name: str) -> str:
    """Normalise a repository id or path: hf:Org/Name@commit -> org/name."""
    text = name.strip().replace("\\", "/")
    scheme, _, rest = text.partition(":")
    text = rest if scheme in ("hf", "file", "pypi") else text
    if scheme != "pypi":
        text = text.partition("@")[0]
    return text.removeprefix("./").rstrip("/").lower()
