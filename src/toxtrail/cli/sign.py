"""`toxtrail sign`: sign results with a key."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.cli._options import NewPath, refuse_several
from toxtrail.console import echo
from toxtrail.experiment import Experiment

PATH = click.Path(path_type=Path, dir_okay=False)


@click.command("sign", short_help="Sign results with an ed25519 key.")
@click.argument("names", nargs=-1, metavar="[VARIANT|FAMILY]...")
@click.option("--key", type=PATH, metavar="FILE", help="Private key in PEM.")
@click.option(
    "--new-key", type=NewPath(), metavar="FILE", help="Generate a key pair: FILE and FILE.pub."
)
@click.pass_obj
def sign(
    experiment: Experiment, names: tuple[str, ...], key: Path | None, new_key: Path | None
) -> None:
    """Sign the statements of variants and families into signatures/; without names also the
    complete experiment, with its report.

    A statement lists the SHA-256 of every file behind a result, the values of params.yaml that
    produced them and the complete provenance (in-toto v1), in a signed DSSE envelope. Commit
    signatures/ and distribute FILE.pub; keep FILE secret.

    \b
    Examples:
      toxtrail sign --new-key ~/.toxtrail.pem
      toxtrail sign --key ~/.toxtrail.pem
      toxtrail verify --public-key toxtrail.pem.pub
    """
    from toxtrail.auditing.bundle import signing
    from toxtrail.auditing.verify.signatures import signable, statement
    from toxtrail.config.load import read_yaml

    refuse_several({"--key": key, "--new-key": new_key})
    if new_key is not None:
        public = signing.generate_key_pair(new_key)
        echo(f"Private key: {new_key} (keep it secret). Public key: {public} (distribute it).")
        return
    if key is None:
        raise click.UsageError("Give a --key, or generate one with --new-key.")
    private = signing.private_key(key)
    signer = signing.key_id(private.public_key())
    config, root, store = experiment.config, experiment.root, experiment.store
    values = read_yaml(root / "params.yaml")
    statements = {o: statement(store, config, values, o) for o in signable(config, names)}
    for signed, text in statements.items():
        path = signed.path(root)
        store.write_json(path, signing.envelope(text.encode(), private))
        echo(f"{path.relative_to(root)}: signed by {signer}")
