"""Signatures against the statements of the files that are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from toxtrail.artifacts import Store
from toxtrail.audit.evidence import DAMAGE, Check, broken, ok, weak
from toxtrail.audit.signatures import Signed, opened
from toxtrail.config import Config
from toxtrail.errors import ConfigError, nearest
from toxtrail.regular_files import read_text
from toxtrail.stages.track import comparison_content, variant_content

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

UNSIGNED = (
    "unsigned: the hashes hold against accident, not against a forger, who would seal again "
    "(`toxtrail sign`)"
)


class Signable(NamedTuple):
    """What can be signed."""

    group: Literal["variants", "families"]
    name: str

    def path(self, root: Path) -> Path:
        """Where its signature lies; git keeps it."""
        return root / "signatures" / self.group / f"{self.name}.dsse.json"

    def is_here(self, store: Store, config: Config) -> bool:
        """Whether every file that its statement lists is here."""
        if self.group == "families":
            needed = [store.comparison(self.name), store.pooled(self.name)]
            return all((folder / "summary.json").is_file() for folder in needed)
        family = config.variants[self.name].family
        posterior = store.posterior(family, self.name)
        needed = [
            store.model(self.name) / "model.json",
            store.generations(family, self.name),
            store.scores(family, self.name),
            *(posterior / name for name in ("summary.json", "posterior.nc")),
        ]
        return all(path.is_file() for path in needed)

    def statement(self, store: Store, config: Config) -> str:
        """The in-toto statement of its present files, as canonical JSON.

        Raises:
            DataError: a file is missing.
        """
        if self.group == "families":
            return comparison_content(store, self.name, {}).manifest
        return variant_content(store, self.name, config.variants[self.name], {}).manifest


def signable(config: Config, names: Sequence[str]) -> list[Signable]:
    """The variants and families named, or all.

    Raises:
        ConfigError: a name is neither.
    """
    known = [
        *(Signable("variants", name) for name in config.variants),
        *(Signable("families", name) for name in config.families),
    ]
    for name in names:
        if name not in {one.name for one in known}:
            suggestion = nearest(name, [one.name for one in known])
            raise ConfigError(f'"{name}" is neither a variant nor a family.{suggestion}')
    return [one for one in known if not names or one.name in names]


def verify_signatures(
    store: Store, config: Config, names: Sequence[Signable], keys: Sequence[Ed25519PublicKey]
) -> Iterator[Check]:
    """Each signature is of the present files and, where a public key is given, of its owner."""
    signed = [one for one in names if one.path(store.root).is_file()]
    for one in signed:
        try:
            wanted = one.statement(store, config)
            found = opened(read_text(one.path(store.root), "replace"), keys, one.name)
        except DAMAGE as error:
            yield broken("signatures", one.name, f"it cannot be held against the files: {error}")
            continue
        yield _judged(one.name, found, wanted, bool(keys))
    unsigned = [one.name for one in names if one not in signed]
    if unsigned and keys:
        detail = "no signature, though a public key was given: anybody may have made it"
        yield broken("signatures", ", ".join(unsigned), detail)
    elif unsigned:
        yield weak("signatures", ", ".join(unsigned), UNSIGNED)


def _judged(name: str, found: Signed, wanted: str, has_keys: bool) -> Check:
    who = ", ".join(found.key_ids)
    if found.payload.decode("utf-8", "replace") != wanted:
        return broken("signatures", name, f"the signature (key {who}) is of other files than these")
    if not has_keys:
        detail = f"signed by key {who}; give --public-key to know whether it is whose you trust"
        return weak("signatures", name, detail)
    if not found.valid_for:
        return broken("signatures", name, f"no given public key made it; it names key {who}")
    return ok("signatures", f"{name} (key {', '.join(found.valid_for)})")
