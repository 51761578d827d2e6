"""Claims about the parent of new weights, compared with the parent given by the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.assets.inspect_weights import Claim, WeightsCandidate
from toxtrail.config.asset_uris import FileUri, HfUri, parse_uri
from toxtrail.config.schema import Config, ModelConfig
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import ConfigError

Originals = Callable[[str], Iterable[tuple[str, str]]]
"""A repo -> (the repo that it is another form of, explanation), nearest first."""

KNOWN_ROLES = ("abliterated", "uncensored", "dolly")
"""Roles recognised in names or tags; the default is the community role."""
RESTRICTIVE_LICENSES: Mapping[str, str] = {
    "-nc": "no commercial use",
    "-nd": "no changed versions may be passed on",
    "noncommercial": "no commercial use",
    "non-commercial": "no commercial use",
    "research": "research only",
    "other": "a custom license: read it before use",
    "unknown": "permitted uses are not stated",
}
"""Part of a license name -> what the license forbids, or may forbid."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
UNVERIFIED_CLAIM = "its uploader's claim, which is not verified"


class ParentClaimCheck(NamedTuple):
    """Result of comparing claims with a parent."""

    parent: str | None
    agreed: tuple[str, ...]
    """Claims that name the parent."""
    weak: tuple[str, ...]
    """Caveats: facts of the entry that are not verified."""
    contradictions: tuple[str, ...]
    """Claims that name something else: rejected unless the user forces them."""


class Proposal(NamedTuple):
    """Proposed entry for a new variant."""

    key: str
    family: str
    role: str
    parent: str | None
    model: dict[str, Any]
    """Its entry in `models`."""


def check_parent_claims(
    candidate: WeightsCandidate,
    config: Config,
    parent: str | None,
    parent_type: str | None,
    originals: Originals,
) -> ParentClaimCheck:
    """Compare claims with the given parent, or determine the parent from the claims.

    Args:
        parent: a variant; None to use the one that the claims name.
        parent_type: its architecture (`model_type`), if known.

    Raises:
        ConfigError: the claims name no variant or several, and the user named none.
    """
    holders = [(claim, *_variants_of_claim(claim, config, originals)) for claim in candidate.claims]
    chosen = parent if parent is not None else _claimed_parent(candidate, holders)
    names = known_names(config, chosen)
    agreed: list[str] = []
    weak: list[str] = []
    against: list[str] = []
    merged = any(c.relation == "merge" and chosen in claimed for c, claimed, _ in holders)
    for claim, variants, how in holders:
        if chosen in variants:
            agreed.append(f"{claim.by} names {claim.base}, which is {chosen}")
            weak += [how] if how else []
            continue
        other = _contradiction(claim, variants, chosen, names)
        if merged and claim.relation == "merge":
            weak.append(f"{other}: a merge differs from {chosen} by more than tuning")
        elif variants or _comparable(claim.base, config, chosen):
            against.append(other)
        else:
            weak.append(
                f"{claim.by} names {claim.base}; {chosen} has no name of that kind for a comparison"
            )
    if not candidate.claims:
        weak.append(
            f"its metadata does not state its parent: that it is {chosen} is your statement"
        )
    elif agreed:
        weak.append(f"that its parent is {chosen} is {UNVERIFIED_CLAIM}")
    if candidate.model_type and parent_type and candidate.model_type != parent_type:
        against.append(
            f"it is a {candidate.model_type}, {chosen} a {parent_type}: tuning does not change that"
        )
    return ParentClaimCheck(chosen, tuple(agreed), tuple(weak), tuple(against))


def propose_entry(
    candidate: WeightsCandidate,
    config: Config,
    parent: str | None,
    wishes: Mapping[str, str | None],
) -> Proposal:
    """Propose an entry from the user's options, else from name, tags and parent.

    Args:
        wishes: `key`, `family`, `role`; None if not given.

    Raises:
        ConfigError: the key is in use, the weights are already listed, or an adapter has no plain
            base.
    """
    key = wishes["key"] or slug(candidate.name)
    taken = {**config.models, **config.finetunes, **config.variants}
    if key in taken:
        raise ConfigError(f'"{key}" exists already. Choose another name: --key NAME')
    twin = next(
        (k for k, pinned in config.models.items() if _last_source(pinned).uri == candidate.uri),
        None,
    )
    if twin:
        raise ConfigError(f"{candidate.uri} is already listed: models.{twin}.")
    family = wishes["family"] or (config.variants[parent].family if parent else None)
    if family is None:
        raise ConfigError("Without a parent it needs a family: --family NAME")
    pinned = _source_entry(candidate.uri, candidate.sha256)
    model = pinned
    if candidate.kind == "adapter":
        base = _base_of(candidate, config, parent)
        model = {**_source_entry(base.uri, base.sha256), "adapter": pinned}
    return Proposal(key, family, wishes["role"] or role_of(candidate), parent, model)


def known_names(config: Config, variant: str | None) -> set[str]:
    """Return the names that cards may use for a variant: its repo, folder or file."""
    model = config.models.get(variant or "")
    if model is None or model.api_name is not None:
        return set()
    address = parse_uri(_last_source(model).uri)
    if isinstance(address, HfUri):
        return {_normalised_name(address.repo)}
    return {_normalised_name(address.path)} if isinstance(address, FileUri) else set()


def license_warning(named: str | None) -> str | None:
    """Return what a license forbids, judging by its name; None for an ordinary license."""
    if named is None:
        return "no license is stated: by default no use is permitted"
    for part, meaning in RESTRICTIVE_LICENSES.items():
        if re.search(rf"(^|[^a-z]){re.escape(part.strip('-'))}([^a-z]|$)", named.lower()):
            return f"{named}: {meaning}"
    return None


def role_of(candidate: WeightsCandidate) -> str:
    """Return the role from a word of its name or tags, else `merge` or `community`."""
    words = " ".join([candidate.name, *candidate.tags]).lower()
    if any(claim.relation == "merge" for claim in candidate.claims):
        return "merge"
    return next((role for role in KNOWN_ROLES if role in words), "community")


def slug(name: str) -> str:
    """Return a key for a name: `Llama-3.1-8B_X` -> `llama-3-1-8b_x`."""
    text = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")
    return text or "model"


def _variants_of_claim(
    claim: Claim, config: Config, originals: Originals
) -> tuple[list[str], str | None]:
    """Return the variants that a claim refers to, and how (None if by their own name)."""
    name = _normalised_name(claim.base)
    if variants := _variants_with_name(config, name):
        return variants, None
    for repo, how in originals(name) if "/" in name else ():
        if variants := _variants_with_name(config, _normalised_name(repo)):
            return variants, how
    return [], None


def _comparable(base: str, config: Config, parent: str) -> bool:
    """Return whether a claim and a parent have names of the same kind: both on the Hub, or both
    files of this experiment. A path on the uploader's disk is neither."""
    model = config.models.get(parent)
    has_address = model is not None and model.api_name is None
    address = parse_uri(_last_source(model).uri) if model and has_address else None
    if isinstance(address, HfUri):
        return bool(HUB_NAME.fullmatch(base.removeprefix("hf:").partition("@")[0]))
    return isinstance(address, FileUri) and base.startswith("file:")


def _variants_with_name(config: Config, name: str) -> list[str]:
    return [variant for variant in config.variants if name in known_names(config, variant)]


def _claimed_parent(
    candidate: WeightsCandidate, holders: Sequence[tuple[Claim, list[str], str | None]]
) -> str:
    named = list(dict.fromkeys(variant for _, variants, _ in holders for variant in variants))
    if len(named) == 1:
        return named[0]
    claims = "; ".join(f"{claim.by} names {claim.base}" for claim, _, _ in holders)
    why = f"that may be {' or '.join(named)}" if named else "that is not a variant here"
    raise ConfigError(
        f"What {candidate.name} was tuned from is not clear ("
        f"{claims or 'its metadata does not state it'}{'; ' + why if claims else ''}). "
        "Name it: --parent VARIANT, or --base for weights "
        "that were tuned from none."
    )


def _contradiction(claim: Claim, variants: list[str], parent: str | None, names: set[str]) -> str:
    which = f", which is {' and '.join(variants)}" if variants else ""
    called = f" ({', '.join(sorted(names))})" if names else ""
    return f"{claim.by} names {claim.base}{which}, not {parent}{called}"


def _base_of(candidate: WeightsCandidate, config: Config, parent: str | None) -> ModelConfig:
    model = config.models.get(parent or "")
    if model is None or model.adapter is not None or not model.has_weights:
        raise ConfigError(
            f"{candidate.uri} is an adapter: it needs a parent with plain weights in `models`, "
            f"and {parent or 'no parent'} has "
            + _instead_of_weights(model)
            + " Merge it, or name another parent."
        )
    return model


def _instead_of_weights(model: ModelConfig | None) -> str:
    if model is None:
        return "none."
    if not model.has_weights:
        return "texts." if model.texts else "a name on a server."
    return "an adapter of its own."


def _last_source(model: ModelConfig) -> PinnedAsset:
    return model.adapter or model


def _normalised_name(name: str) -> str:
    """Normalise a repo id or a path: hf:Org/Name@commit -> org/name."""
    text = name.removeprefix("hf:").removeprefix("file:").partition("@")[0]
    return text.removeprefix("./").rstrip("/").lower()


def _source_entry(uri: str, sha256: str | None) -> dict[str, Any]:
    return {"uri": uri} | ({"sha256": sha256} if sha256 else {})
