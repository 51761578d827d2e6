"""`toxtrail variants`: what is measured, and how to measure one more."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table, size_text
from toxtrail.console import echo
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import visible

if TYPE_CHECKING:
    from toxtrail.audit.lineage.parent_claims import Judged, Proposal
    from toxtrail.backends.assets.hub_info import Hub
    from toxtrail.backends.assets.inspect_weights import Candidate
    from toxtrail.config.add_entries import Entry, Item


@click.group("variants", short_help="List the variants; add one.", invoke_without_command=True)
@json_option
@click.pass_context
def variants(ctx: click.Context, as_json: bool) -> None:
    """List the variants of params.yaml: family, role, parent, weights, and how far each is.

    \b
    Examples:
      toxtrail variants
      toxtrail variants --json
      toxtrail variants add ORG/NAME --parent smollm2-instruct
    """
    if ctx.invoked_subcommand is not None:
        return
    experiment: Experiment = ctx.obj
    rows = [_variant(experiment, key) for key in experiment.config.variants]
    if as_json:
        print_json(rows)
        return
    columns = ["variant", "family", "role", "parent", "weights", "made"]
    print_table(None, columns, [[row[c] or "-" for c in columns] for row in rows])


@variants.command("add", short_help="Add weights that others made.")
@click.argument("address")
@click.option("--parent", metavar="VARIANT", help="What it was tuned from [what its card names].")
@click.option("--base", is_flag=True, help="It is a base model (no parent). Needs --family.")
@click.option("--key", metavar="NAME", help="What to call it [from its own name].")
@click.option("--family", metavar="NAME", help="With what it is compared [the parent's].")
@click.option("--role", metavar="WORD", help="What it is [a word of its tags, else community].")
@click.option("--force", is_flag=True, help="Add even if its metadata contradicts --parent.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, change nothing.")
@json_option
@click.pass_obj
def add(
    experiment: Experiment,
    address: str,
    parent: str | None,
    base: bool,
    key: str | None,
    family: str | None,
    role: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add weights that others made: a repo of the hub, a folder, an adapter or a GGUF file.

    What its card, its adapter_config.json or its GGUF metadata say of its origin is shown and held
    against the parent. If they name something else nothing is written, unless you insist
    (--force); if they name nothing, that is said. Models are only looked at, not downloaded. The
    entry is pinned; comments and order of params.yaml stay.

    \b
    Examples:
      toxtrail variants add VAGOsolutions/Llama-3.1-SauerkrautLM-8b-Instruct
      toxtrail variants add org/name --parent llama-instruct --dry-run
      toxtrail variants add path/to/lora --parent llama-instruct --key mine
      toxtrail variants add path/to/model.gguf --base --family other --role base
    """
    if parent and base:
        raise click.UsageError("--parent and --base: one of them.")
    if parent:
        experiment.variant(parent)
    candidate, judged = _examined(experiment, address, parent, base)
    problems = list(candidate.unusable)
    if not force:
        problems += judged.contradictions
    if not as_json:
        _print_candidate(candidate, judged)
    if problems:
        raise ConfigError(_refusal(candidate, judged))
    from toxtrail.audit.lineage.parent_claims import propose

    wishes = {"key": key, "family": family, "role": role}
    proposal = propose(candidate, experiment.config, judged.parent, wishes)
    path = experiment.root / "params.yaml"
    before = read_text(path)
    after = _edited(experiment, before, proposal, candidate, judged)
    if not dry_run:
        from toxtrail.config.add_entries import write_text

        write_text(path, after)
    diff = list(difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml", "params.yaml", lineterm=""
    ))  # fmt: skip
    if as_json:
        print_json(_as_json(candidate, judged, proposal, diff, not dry_run))
        return
    _print_outcome(proposal, diff, dry_run)


def _examined(
    experiment: Experiment, address: str, parent: str | None, base: bool
) -> tuple[Candidate, Judged]:
    from toxtrail.audit.lineage.parent_claims import Judged, judge_origin
    from toxtrail.backends.assets.hub_info import Hub
    from toxtrail.backends.assets.inspect_weights import examine, original
    from toxtrail.cli.stage import assets_of

    hub = Hub()
    uri = _as_uri(experiment, address)
    named = [uri.removeprefix("file:")] if uri.startswith("file:") else []
    candidate = examine(uri, experiment.root, assets_of(experiment, named), hub)
    if base:
        return candidate, Judged(None, (), tuple(_orphan(candidate)), ())
    kind = _type_of(experiment, parent, hub) if parent else None
    judged = judge_origin(
        candidate, experiment.config, parent, kind, lambda repo: original(repo, hub)
    )
    if parent is None and judged.parent and candidate.model_type:
        kind = _type_of(experiment, judged.parent, hub)
        judged = judge_origin(
            candidate, experiment.config, judged.parent, kind, lambda repo: original(repo, hub)
        )
    return candidate, judged


def _as_uri(experiment: Experiment, address: str) -> str:
    """An address as params.yaml spells it: org/name and paths are understood."""
    from toxtrail.config.asset_uris import parse_uri

    if address.partition(":")[0] in ("hf", "pypi", "file", "detoxify"):
        parse_uri(address)
        return address
    place = Path(address).expanduser()
    if place.exists():
        whole = place.resolve()
        inside = whole.is_relative_to(experiment.root)
        return f"file:{whole.relative_to(experiment.root).as_posix() if inside else whole}"
    uri = f"hf:{address}"
    parse_uri(uri)
    return uri


def _type_of(experiment: Experiment, parent: str, hub: Hub) -> str | None:
    """The parent's architecture, by the hub or by its own folder."""
    from toxtrail.backends.assets.inspect_weights import examine
    from toxtrail.cli.stage import assets_of
    from toxtrail.config.asset_uris import FileUri, HfUri, parse_uri

    own = experiment.config.models.get(parent)
    if own is None:
        return None
    address = parse_uri(own.uri)
    if isinstance(address, HfUri):
        facts = hub.ask(address).facts
        return facts.model_type if facts else None
    if not isinstance(address, FileUri):
        return None
    try:
        return examine(own.uri, experiment.root, assets_of(experiment), hub).model_type
    except BackendError:
        return None


def _orphan(candidate: Candidate) -> Iterator[str]:
    for claim in candidate.claims:
        yield f"{claim.by} names {claim.base}: you say that it was tuned from none"


def _refusal(candidate: Candidate, judged: Judged) -> str:
    lines = [f"{candidate.uri} was not added:", *candidate.unusable, *judged.contradictions]
    if judged.contradictions and not candidate.unusable:
        lines.append("Name another --parent, or --force if you know better than its card.")
    return visible("\n  ".join(lines), keep="\n")


def _edited(
    experiment: Experiment, before: str, proposal: Proposal, candidate: Candidate, judged: Judged
) -> str:
    """The new text of params.yaml, which is checked as a whole before anything is written."""
    from toxtrail.cli.stage import assets_of
    from toxtrail.config.add_entries import with_entries, with_outside
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml

    entries, items = _additions(experiment, proposal, candidate, judged)
    after = with_entries(before, entries, items, "params.yaml")
    assets = assets_of(experiment)
    place = assets.outside(candidate.uri)
    if place is not None and assets.why_not_used(candidate.uri):
        after = with_outside(after, str(place), "params.yaml")
    parse_config(parse_yaml(after), "params.yaml")
    return after


def _additions(
    experiment: Experiment, proposal: Proposal, candidate: Candidate, judged: Judged
) -> tuple[list[Entry], list[Item]]:
    from toxtrail.config.add_entries import Entry, Item

    key, family = proposal.key, proposal.family
    who = {"family": family, "role": proposal.role}
    who |= {"parent": proposal.parent} if proposal.parent else {}
    entries = [
        Entry("models", key, proposal.model, _comments(candidate, judged)),
        Entry("variants", key, who, one_line=True),
    ]
    if family in experiment.config.families:
        return entries, [Item(f"families.{family}.variants", key)]
    return [*entries, Entry("families", family, {"reference": key, "variants": [key]})], []


def _comments(candidate: Candidate, judged: Judged) -> list[str]:
    """What a reader of params.yaml should know later."""
    lines = [f"licence: {candidate.license or 'not stated'}"]
    lines += [f"weak: {line}" for line in (*judged.contradictions, *judged.weak)]
    return [visible(" ".join(line.split()))[:300] for line in lines]


def _print_candidate(candidate: Candidate, judged: Judged) -> None:
    from toxtrail.audit.lineage.parent_claims import license_warning

    facts = [
        ("weights", candidate.uri),
        ("kind", candidate.kind + (f", {candidate.model_type}" if candidate.model_type else "")),
        ("made from", "; ".join(f"{c.base} ({c.by})" for c in candidate.claims) or "not stated"),
        ("licence", candidate.license or "not stated"),
        ("trained on", ", ".join(candidate.datasets) or "not stated"),
        ("download", size_text(candidate.size) if candidate.size != 0 else "nothing: it is here"),
    ]
    print_table(None, ["what", "found"], facts)
    for line in candidate.notes:
        _say("note", "cyan", line)
    if warning := license_warning(candidate.license):
        _say("licence", "yellow", warning)
    for line in judged.agreed:
        _say("ok", "green", line)
    for line in judged.weak:
        _say("weak", "yellow", line)
    for line in judged.contradictions:
        _say("contradicted", "red", line)


def _say(word: str, colour: str, line: str) -> None:
    echo(f"{word}: ", fg=colour, nl=False)
    echo(line)


def _print_outcome(proposal: Proposal, diff: Sequence[str], dry_run: bool) -> None:
    for line in diff:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        echo(line, fg=colour)
    if dry_run:
        echo("Nothing was written (--dry-run).")
        return
    echo(
        f"{proposal.key} was added to params.yaml. `toxtrail plan` says what it will take, "
        f"`toxtrail run {proposal.key}` measures it.",
        bold=True,
    )


def _as_json(
    candidate: Candidate, judged: Judged, proposal: Proposal, diff: list[str], written: bool
) -> dict[str, Any]:
    from toxtrail.audit.lineage.parent_claims import license_warning

    return {
        "candidate": {**candidate._asdict(), "claims": [c._asdict() for c in candidate.claims]},
        "license_warning": license_warning(candidate.license),
        "lineage": judged._asdict(),
        "proposal": proposal._asdict(),
        "diff": diff,
        "written": written,
    }


def _variant(experiment: Experiment, key: str) -> dict[str, Any]:
    config, store = experiment.config, experiment.store
    who = config.variants[key]
    own = config.models.get(key)
    weights = own.uri if own else f"LoRA on {config.finetunes[key].parent}"
    made = {
        "model": store.model(key) / "model.json",
        "generations": store.generations(who.family, key),
        "scores": store.scores(who.family, key),
        "posterior": store.posterior(who.family, key) / "summary.json",
        "run": store.variant_receipt(who.family, key),
    }
    done = [name for name, path in made.items() if path.is_file()]
    return {
        "variant": key,
        "family": who.family,
        "role": who.role,
        "parent": who.parent,
        "weights": weights,
        "made": ", ".join(done),
    }
