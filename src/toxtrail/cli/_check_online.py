"""`toxtrail check --online`: check which Hub assets are accessible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.cli._output import echo_labelled, print_table
from toxtrail.config.asset_uris import HfUri, parse_uri
from toxtrail.config.schema import Config
from toxtrail.console import echo
from toxtrail.reporting.table import Table, text_columns

AVAILABLE = ("there", "renamed")


class HubAssetStatus(NamedTuple):
    """Status of one Hub asset."""

    uri: str
    places: tuple[str, ...]
    """Keys in params.yaml."""
    state: str
    """there, renamed, gated, missing or unreachable."""
    said: str
    commit: str | None
    license: str | None


def check_hub_assets(config: Config) -> list[HubAssetStatus]:
    """Look up every Hub asset, each once."""
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.backends.assets.inspect_weights import license_of

    places: dict[str, list[str]] = {}
    for key_path, source in config.sources():
        if isinstance(parse_uri(source.uri), HfUri):
            places.setdefault(source.uri, []).append(key_path)
    hub, statuses = HubClient(), []
    for uri, where in places.items():
        address = parse_uri(uri)
        assert isinstance(address, HfUri)
        answer = hub.ask(address)
        facts = answer.facts
        renamed = answer.state == "there" and facts is not None and facts.name != address.repo
        statuses.append(
            HubAssetStatus(
                uri,
                tuple(where),
                "renamed" if renamed else answer.state,
                answer.message,
                facts.commit if facts else None,
                license_of(facts.card) if facts else None,
            )
        )
    return statuses


def print_online(statuses: Sequence[HubAssetStatus]) -> None:
    """Print a table, the problems below it, and a summary."""
    from toxtrail.auditing.lineage.parent_claims import license_warning

    if not statuses:
        echo("params.yaml has no Hub assets.")
        return
    unreachable = [status for status in statuses if status.state == "unreachable"]
    if len(unreachable) == len(statuses):
        echo_labelled(
            "problem:",
            f"{unreachable[0].said}. None of the {len(statuses)} assets was checked.",
            "red",
        )
        return
    rows = [
        (status.state, status.uri, status.license or "not stated", ", ".join(status.places))
        for status in statuses
    ]
    columns = text_columns("", "asset", "license", "in params.yaml")
    print_table(Table("Hub assets", columns, rows))
    for status in statuses:
        if status.said:
            good = status.state in AVAILABLE
            label, colour = ("note:", "cyan") if good else ("problem:", "red")
            echo_labelled(label, f"{status.uri}: {status.said}.", colour)
        warning = license_warning(status.license) if status.commit and status.license else None
        if warning:
            echo_labelled("license:", f"{status.uri}: {warning}.", "yellow")
    available = sum(status.state in AVAILABLE for status in statuses)
    echo(f"{available} of {len(statuses)} Hub assets are accessible.")
