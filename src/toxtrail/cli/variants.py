"""`toxtrail variants`: list the variants, and add one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import (
    echo_labelled,
    format_bytes,
    json_option,
    print_json,
    print_table,
)
from toxtrail.cli._variants_api import ApiTarget, add_api_model, print_outcome, write_params
from toxtrail.config.asset_uris import api_model_name
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text
from toxtrail.reporting.table import Table, text_columns
from toxtrail.text_escaping import escape_control_chars

if TYPE_CHECKING:
    from toxtrail.auditing.lineage.parent_claims import ParentClaimCheck, Proposal
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.backends.assets.inspect_weights import WeightsCandidate
    from toxtrail.config.edit_params import Entry, YamlListItem

FILE_SUFFIXES = (".gguf", ".safetensors", ".bin", ".csv", ".tsv", ".json", ".jsonl", ".parquet",
                 ".eval")  # fmt: skip
"""Endings of names that are files, and not repositories of the Hub."""


OUTPUTS = ("model", "generations", "scores", "posterior", "run")
"""Outputs of a variant, in the order of the stages."""


@click.group("variants", short_help="List or add variants.", invoke_without_command=True)
@json_option
@click.pass_context
def variants(ctx: click.Context, as_json: bool) -> None:
    """List the variants of params.yaml: family, role, parent, weights, and progress of each.

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
    experiment.require_variants()
    columns = (
        *text_columns("variant"),
        *text_columns("family", priority=1),
        *text_columns("role", priority=2),
        *text_columns("parent"),
        *text_columns("weights", priority=3),
        *text_columns("made"),
    )
    cells = [[_table_cell(row, column.name) for column in columns] for row in rows]
    print_table(Table(None, columns, cells))


@variants.command("add", short_help="Add third-party weights.")
@click.argument("address")
@click.option("--parent", metavar="VARIANT", help="Parent variant (default: from its model card).")
@click.option("--base", is_flag=True, help="It is a base model (no parent). Needs --family.")
@click.option("--key", metavar="NAME", help="Variant key (default: from its name).")
@click.option("--family", metavar="NAME", help="Family (default: the parent's).")
@click.option("--role", metavar="WORD", help="Role (default: from its tags, else community).")
@click.option("--url", metavar="URL", help="URL of the server, for api:NAME, with /v1.")
@click.option("--force", is_flag=True, help="Add even if its metadata contradicts --parent.")
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
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
    url: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add third-party weights: a Hub repository, a folder, an adapter or a GGUF file; or a model
    that is known by its name on a server only (api:NAME, with --url).

    The origin in its model card, adapter_config.json or GGUF metadata is shown and compared with
    the parent. If it names another parent, nothing is written, except with --force; if it names
    none, a warning is printed. Models are inspected, not downloaded. The entry is pinned; comments
    and order of params.yaml are kept.

    \b
    Examples:
      toxtrail variants add VAGOsolutions/Llama-3.1-SauerkrautLM-8b-Instruct
      toxtrail variants add org/name --parent llama-instruct --dry-run
      toxtrail variants add path/to/lora --parent llama-instruct --key mine
      toxtrail variants add path/to/model.gguf --base --family other --role base
      toxtrail variants add api:gpt-x --url https://HOST/v1 --base --family apis
    """
    _check_options(experiment, address, parent, base, url)
    if (name := api_model_name(address)) is not None:
        target = ApiTarget(name, url, parent, family, base)
        add_api_model(experiment, target, key, role, dry_run, as_json)
        return
    candidate, origin = examine_candidate(experiment, address, parent, base)
    problems = list(candidate.unusable)
    if not force:
        problems += origin.contradictions
    if not as_json:
        _print_candidate(candidate, origin)
    if problems:
        raise ConfigError(_refusal(candidate, origin))
    from toxtrail.auditing.lineage.parent_claims import propose_entry

    wishes = {"key": key, "family": family, "role": role}
    proposal = propose_entry(candidate, experiment.config, origin.parent, wishes)
    before = read_text(experiment.root / "params.yaml")
    after = with_variant(experiment, before, proposal, candidate, origin)
    diff = write_params(experiment, before, after, dry_run)
    if as_json:
        print_json(_as_json(candidate, origin, proposal, diff, not dry_run))
        return
    print_outcome(proposal.key, diff, dry_run)


def _check_options(
    experiment: Experiment, address: str, parent: str | None, base: bool, url: str | None
) -> None:
    if parent and base:
        raise click.UsageError("Give only one of --parent and --base.")
    if url is not None and api_model_name(address) is None:
        raise click.UsageError(f"--url is of a model api:NAME; {address} is none.")
    if parent:
        experiment.variant(parent)


def examine_candidate(
    experiment: Experiment, address: str, parent: str | None, base: bool
) -> tuple[WeightsCandidate, ParentClaimCheck]:
    """Inspect weights, and compare the claims of their metadata with the parent.

    Args:
        parent: a variant; None to determine it from the claims.
        base: whether they have no parent.
    """
    from toxtrail.auditing.lineage.parent_claims import ParentClaimCheck, check_parent_claims
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.backends.assets.inspect_weights import examine_weights, follow_quantized
    from toxtrail.execution.factories import make_asset_store

    hub = HubClient()
    uri = uri_of(experiment, address)
    named = [uri.removeprefix("file:")] if uri.startswith("file:") else []
    candidate = examine_weights(uri, experiment.root, make_asset_store(experiment, named), hub)
    if base:
        return candidate, ParentClaimCheck(None, (), tuple(_orphan(candidate)), ())
    kind = _type_of(experiment, parent, hub) if parent else None
    origin = check_parent_claims(
        candidate, experiment.config, parent, kind, lambda repo: follow_quantized(repo, hub)
    )
    if parent is None and origin.parent and candidate.model_type:
        kind = _type_of(experiment, origin.parent, hub)
        origin = check_parent_claims(
            candidate,
            experiment.config,
            origin.parent,
            kind,
            lambda repo: follow_quantized(repo, hub),
        )
    return candidate, origin


def uri_of(experiment: Experiment, address: str) -> str:
    """Return the URI for params.yaml; accept org/name and paths.

    Raises:
        ConfigError: it is neither.
    """
    from toxtrail.config.asset_uris import ASSET_SCHEMES, parse_uri

    if address.partition(":")[0] in ASSET_SCHEMES:
        parse_uri(address)
        return address
    path = Path(address).expanduser()
    if path.exists():
        resolved = path.resolve()
        inside = resolved.is_relative_to(experiment.root)
        return f"file:{resolved.relative_to(experiment.root).as_posix() if inside else resolved}"
    is_file_name = path.suffix.lower() in FILE_SUFFIXES and "@" not in address
    if address.startswith((".", "/", "~")) or is_file_name:
        raise ConfigError(f"{address}: there is no such file or folder. Check the path.")
    uri = f"hf:{address}"
    try:
        parse_uri(uri)
    except ConfigError:
        raise ConfigError(
            f"{address} is neither a file or folder here nor a Hub id (ORG/NAME@REVISION)."
        ) from None
    return uri


def _type_of(experiment: Experiment, parent: str, hub: HubClient) -> str | None:
    """Return the parent's architecture, from the Hub or its folder."""
    from toxtrail.backends.assets.inspect_weights import examine_weights
    from toxtrail.config.asset_uris import FileUri, HfUri, parse_uri
    from toxtrail.execution.factories import make_asset_store

    model = experiment.config.models.get(parent)
    if model is None or not model.has_weights:
        return None
    address = parse_uri(model.uri)
    if isinstance(address, HfUri):
        facts = hub.ask(address).facts
        return facts.model_type if facts else None
    if not isinstance(address, FileUri):
        return None
    try:
        return examine_weights(
            model.uri, experiment.root, make_asset_store(experiment), hub
        ).model_type
    except BackendError:
        return None


def _orphan(candidate: WeightsCandidate) -> Iterator[str]:
    for claim in candidate.claims:
        yield f"{claim.by} names {claim.base}: --base declares that it has no parent"


def _refusal(candidate: WeightsCandidate, origin: ParentClaimCheck) -> str:
    lines = [f"{candidate.uri} was not added:", *candidate.unusable, *origin.contradictions]
    if origin.contradictions and not candidate.unusable:
        lines.append("Give another --parent, or use --force if its metadata is wrong.")
    return escape_control_chars("\n  ".join(lines), keep="\n")


def with_variant(
    experiment: Experiment,
    before: str,
    proposal: Proposal,
    candidate: WeightsCandidate,
    origin: ParentClaimCheck,
) -> str:
    """Return the new text of params.yaml, validated before anything is written."""
    from toxtrail.config.edit_params import add_entries, with_outside
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml
    from toxtrail.execution.factories import make_asset_store

    entries, items = _additions(experiment, proposal, candidate, origin)
    after = add_entries(before, entries, items, "params.yaml")
    assets = make_asset_store(experiment)
    folder = assets.outside(candidate.uri)
    if folder is not None and assets.why_not_used(candidate.uri):
        after = with_outside(after, str(folder), "params.yaml")
    parse_config(parse_yaml(after), "params.yaml")
    return after


def _additions(
    experiment: Experiment,
    proposal: Proposal,
    candidate: WeightsCandidate,
    origin: ParentClaimCheck,
) -> tuple[list[Entry], list[YamlListItem]]:
    from toxtrail.config.edit_params import Entry, YamlListItem

    key, family = proposal.key, proposal.family
    fields = {"family": family, "role": proposal.role}
    fields |= {"parent": proposal.parent} if proposal.parent else {}
    entries = [
        Entry("models", key, proposal.model, _comments(candidate, origin)),
        Entry("variants", key, fields, one_line=True),
    ]
    if family in experiment.config.families:
        return entries, [YamlListItem(f"families.{family}.variants", key)]
    return [*entries, Entry("families", family, {"reference": key, "variants": [key]})], []


def _comments(candidate: WeightsCandidate, origin: ParentClaimCheck) -> list[str]:
    """Return the comments for params.yaml: license and caveats."""
    lines = [f"license: {candidate.license or 'not stated'}"]
    lines += [f"weak: {line}" for line in (*origin.contradictions, *origin.weak)]
    return [escape_control_chars(" ".join(line.split()))[:300] for line in lines]


def _print_candidate(candidate: WeightsCandidate, origin: ParentClaimCheck) -> None:
    from toxtrail.auditing.lineage.parent_claims import license_warning

    facts = [
        ("weights", candidate.uri),
        ("kind", candidate.kind + (f", {candidate.model_type}" if candidate.model_type else "")),
        ("made from", "; ".join(f"{c.base} ({c.by})" for c in candidate.claims) or "not stated"),
        ("license", candidate.license or "not stated"),
        ("trained on", ", ".join(candidate.datasets) or "not stated"),
        ("download", format_bytes(candidate.size) if candidate.size != 0 else "nothing: local"),
    ]
    print_table(Table(None, text_columns("what", "found"), facts))
    for line in candidate.notes:
        _say("note", "cyan", line)
    if warning := license_warning(candidate.license):
        _say("license", "yellow", warning)
    for line in origin.agreed:
        _say("ok", "green", line)
    for line in origin.weak:
        _say("weak", "yellow", line)
    for line in origin.contradictions:
        _say("contradicted", "red", line)


def _say(word: str, colour: str, line: str) -> None:
    echo_labelled(f"{word}:", line, colour)


def _as_json(
    candidate: WeightsCandidate,
    origin: ParentClaimCheck,
    proposal: Proposal,
    diff: list[str],
    written: bool,
) -> dict[str, Any]:
    from toxtrail.auditing.lineage.parent_claims import license_warning

    return {
        "candidate": {**candidate._asdict(), "claims": [c._asdict() for c in candidate.claims]},
        "license_warning": license_warning(candidate.license),
        "lineage": origin._asdict(),
        "proposal": proposal._asdict(),
        "diff": diff,
        "written": written,
    }


def _table_cell(row: Mapping[str, Any], column: str) -> str:
    """Return a cell: a commit by its first digits, all outputs in a word."""
    if column == "weights":
        return re.sub(r"(@[0-9a-f]{8})[0-9a-f]{32}\b", r"\1", row[column])
    if column == "made" and row["made"] == ", ".join(OUTPUTS):
        return "everything"
    return row[column] or "-"


def _variant(experiment: Experiment, key: str) -> dict[str, Any]:
    config, store = experiment.config, experiment.store
    variant_config = config.variants[key]
    model = config.models.get(key)
    source = model and (f"texts: {model.uri}" if model.texts else model.uri)
    weights = source or f"LoRA on {config.finetunes[key].parent}"
    paths = (
        store.model_dir(key) / "model.json",
        store.generations_path(variant_config.family, key),
        store.scores_path(variant_config.family, key),
        store.posterior_dir(variant_config.family, key) / "summary.json",
        store.variant_receipt_path(variant_config.family, key),
    )
    done = [name for name, path in zip(OUTPUTS, paths, strict=True) if path.is_file()]
    return {
        "variant": key,
        "family": variant_config.family,
        "role": variant_config.role,
        "parent": variant_config.parent,
        "weights": weights,
        "made": ", ".join(done),
    }
