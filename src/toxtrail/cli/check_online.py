"""`toxtrail check --online`: which addresses of the hub can be had?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.cli._output import print_table
from toxtrail.config.asset_uris import HfUri, parse_uri
from toxtrail.config.schema import Config
from toxtrail.console import echo

CAN_BE_HAD = ("there", "renamed")


class Asked(NamedTuple):
    """One address of the hub, and what came of asking."""

    uri: str
    places: tuple[str, ...]
    """In params.yaml."""
    state: str
    """there, renamed, gated, missing or unreachable."""
    said: str
    commit: str | None
    license: str | None


def asked_online(config: Config) -> list[Asked]:
    """Every address of the hub, each asked once."""
    from toxtrail.backends.assets.hub_info import Hub
    from toxtrail.backends.assets.inspect_weights import license_of

    places: dict[str, list[str]] = {}
    for place, source in config.sources():
        if isinstance(parse_uri(source.uri), HfUri):
            places.setdefault(source.uri, []).append(place)
    hub, found = Hub(), []
    for uri, where in places.items():
        address = parse_uri(uri)
        assert isinstance(address, HfUri)
        answer = hub.ask(address)
        facts = answer.facts
        renamed = answer.state == "there" and facts is not None and facts.name != address.repo
        found.append(
            Asked(
                uri,
                tuple(where),
                "renamed" if renamed else answer.state,
                answer.message,
                facts.commit if facts else None,
                license_of(facts.card) if facts else None,
            )
        )
    return found


def print_online(found: Sequence[Asked]) -> None:
    """A table, what is wrong below it, and one sentence."""
    from toxtrail.audit.lineage.parent_claims import license_warning

    if not found:
        echo("params.yaml names nothing on the hub.")
        return
    silent = [one for one in found if one.state == "unreachable"]
    if len(silent) == len(found):
        echo("problem: ", fg="red", nl=False)
        echo(f"{silent[0].said}. None of {len(found)} address(es) was asked about.")
        return
    rows = [
        (one.state, one.uri, one.license or "not stated", ", ".join(one.places)) for one in found
    ]
    print_table("On the hub", ["", "address", "licence", "in params.yaml"], rows)
    for one in found:
        if one.said:
            good = one.state in CAN_BE_HAD
            echo("note: " if good else "problem: ", fg="cyan" if good else "red", nl=False)
            echo(f"{one.uri}: {one.said}.")
        warning = license_warning(one.license) if one.commit and one.license else None
        if warning:
            echo("licence: ", fg="yellow", nl=False)
            echo(f"{one.uri}: {warning}.")
    had = sum(one.state in CAN_BE_HAD for one in found)
    echo(f"{had} of {len(found)} address(es) of the hub can be had.")
