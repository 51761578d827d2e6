"""benchmarks/results/latest.json, and its rendering in benchmarks/RESULTS.md."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- generation.py: begin -->", "<!-- generation.py: end -->"
NOTHING = "Not measured yet: `make bench` fills this in."


def machine() -> dict[str, Any]:
    """Describe the machine, and its load by other processes just before."""
    import psutil

    from toxtrail.backends.compute.devices import usable_cores

    return {
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "busy_before": psutil.cpu_percent(1.0) / 100,
    }


def versions() -> dict[str, str]:
    from toxtrail.backends.compute.devices import environment_info

    known = environment_info("cpu")
    return {name: value for name, value in known.items() if name != "device"}


def stamp(root: Path) -> dict[str, Any]:
    """Return the time and commit."""
    from toxtrail.backends.git import changed_files, head_commit

    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": head_commit(root),
        "changed_files": len(changed_files(root)),
    }


def with_section(known: dict[str, Any], name: str, section: dict[str, Any]) -> dict[str, Any]:
    """Return the results with one part replaced; the other parts remain, each with its own machine.

    A part that cannot be measured here does not remove a result from another machine.
    """
    if "not_measured" in section and "not_measured" not in known.get(name, section):
        return known
    shared = {key: section[key] for key in ("machine", "versions") if key in section}
    return {**known, **shared, name: section}


def write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def replace(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def put_into(page: str, block: str) -> str:
    """Return the page with the block between its two marks.

    Raises:
        ValueError: the marks do not occur once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the page needs one {BEGIN} and then one {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def render(results: dict[str, Any]) -> str:
    """Return Markdown of every measured part."""
    parts: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
        "generation_cpu": _generation,
        "generation_harness": _harness,
        "scoring_cpu": _scoring,
        "generation_gpu": _gpu,
    }
    blocks = [
        "\n".join([*show(results[name]), "", _under(results[name])])
        for name, show in parts.items()
        if name in results
    ]
    return "\n\n".join(blocks) or NOTHING


def _generation(own: dict[str, Any]) -> Iterator[str]:
    yield "### Generation on a CPU"
    yield (
        f"{own['model']} ({own['parameters'] / 1e6:.0f} million weights), {own['prompts']} prompts "
        f"({own['prompt_tokens']:,} tokens), up to {own['max_new_tokens']} new tokens, greedy; "
        f"{own['at_once']} rows in parallel. New tokens per second of the complete call without "
        "loading: median (lowest to highest). Rows equal to plain `generate` of one prompt at a "
        "time in float32."
    )
    yield ""
    yield "| method | tokens/s | ratio to the float32 reference loop | rows equal |"
    yield "|---|---|---|---|"
    for name, rate in own["tokens_per_second"].items():
        yield (
            f"| {name} | {_spread(rate, '.0f')} | "
            f"{_spread(own['ratios_to_float32_reference_loop'][name], '.2f')} | "
            f"{_share(own['equal_rows_by_way'][name])} |"
        )
    yield f"| one prompt at a time, float32 | {own['one_by_one_tokens_per_second']:.0f} | | |"
    yield ""
    shares = own["spread"]
    yield (
        "Share of the limit (linear layers only, the same number of rows in parallel): "
        f"{_spread(shares['share_of_limit'], '.0%')} in float32, "
        f"{_spread(shares['share_of_limit_bf16'], '.0%')} in bfloat16 with torch's products; with "
        "toxtrail's products (weights prepacked for oneDNN) "
        f"{_spread(shares['share_of_laid_out_limit'], '.0%')} and "
        f"{_spread(shares['share_of_laid_out_limit_bf16'], '.0%')}. In bfloat16 "
        f"{_share(own['equal_rows_bf16_other_neighbours'])} of the rows were equal with other "
        f"batch neighbours and a third of the memory; {_share(own['equal_rows_bf16_vs_float32'])} "
        "were equal to those in float32."
    )
    yield ""
    yield _differing(own["differing_rows"])


def _differing(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No float32 row differs from plain `generate` of one prompt at a time."
    margins = ", ".join(f"{row['margin']:.1e} of {row['logit_sd']:.1f}" for row in rows)
    ties = sum(row["tie"] for row in rows)
    return (
        f"{len(rows)} float32 row(s) differ, {ties} of them at a tie (margin of the two best "
        f"logits, of their standard deviation: {margins})."
    )


def _harness(own: dict[str, Any]) -> Iterator[str]:
    yield "### Comparison with lm-evaluation-harness"
    if why := own.get("not_measured"):
        yield f"Not measured: {why}"
        return
    yield (
        f"lm_eval {own['lm_eval']} (`hf`, `generate_until`, batches of {own['batch']}; it sorts by "
        f"length), {own['model']}, {own['prompts']} prompts, up to {own['max_new_tokens']} new "
        f"tokens, float32: toxtrail generates {_spread(own['spread']['ratio_vs_harness'], '.2f')} "
        f"times as many tokens per second; {_share(own['equal_rows'])} of the rows are equal."
    )


def _scoring(own: dict[str, Any]) -> Iterator[str]:
    yield "### Scoring on a CPU"
    yield (
        f"A Detoxify checkpoint ({own['checkpoint']}; {own['layers']} layers, {own['width']} "
        f"wide), {own['texts']:,} texts of {own['tokens']['low']:.0f} to "
        f"{own['tokens']['high']:.0f} tokens (median {own['tokens']['median']:.0f}). Texts per "
        "second: median (lowest to highest)."
    )
    yield ""
    yield "| method | texts/s | toxtrail's speed relative to it | largest difference of a score |"
    yield "|---|---|---|---|"
    for name, rate in own["texts_per_second"].items():
        yield (
            f"| {name} | {_spread(rate, '.0f')} | {_spread(own['ratios'][name], '.2f')} | "
            f"{own['largest_difference'][name]:.1e} |"
        )
    yield ""
    yield (
        f"The linear layers alone, with {own['limit_rows']:,} tokens in parallel, take "
        f"{_spread(own['spread']['limit_vs_one_by_one'], '.2f')} of the time of one by one with "
        "toxtrail's products, and "
        f"{_spread(own['spread']['torch_limit_vs_one_by_one'], '.2f')} with torch's: the largest "
        f"possible speed-up on this machine in float32 is {1 / own['limit_vs_one_by_one']:.1f}. "
        "toxtrail reaches "
        f"{_spread(own['spread']['share_of_limit'], '.0%')} of it."
    )


def _gpu(own: dict[str, Any]) -> Iterator[str]:
    yield "### Generation on a GPU"
    if why := own.get("not_measured"):
        yield f"Not measured: {why}"
        return
    yield (
        f"{own['gpu']}; random weights, bfloat16, {own['prompts']} prompts of random tokens, "
        f"{own['max_new_tokens']} new tokens; reads {own['gigabytes_per_second']:.0f} GB/s."
    )
    yield ""
    yield "| model | method | tokens/s | ratio to the reference loop | share of bandwidth limit |"
    yield "|---|---|---|---|---|"
    for model, shown in own["models"].items():
        for name, rate in shown["tokens_per_second"].items():
            share = shown["share_of_bandwidth_limit"].get(name)
            yield (
                f"| {model} | {name} | {_spread(rate, '.0f')} | "
                f"{_spread(shown['ratios'][name], '.2f')} | "
                f"{_spread(share, '.0%') if share else ''} |"
            )


def _under(own: dict[str, Any]) -> str:
    """Return the machine and time, for the line under each table."""
    on, what = own["machine"], own["versions"]
    commit = (own.get("commit") or "no commit")[:10]
    changed = " with changes" if own.get("changed_files") else ""
    return (
        f"*{on['cpu']}, {on['cores']} cores ({what['cpu_capability']}), {on['memory_gib']} GiB, "
        f"{on['busy_before']:.0%} of it in use before; Python {what['python']}, "
        f"torch {what['torch']}, transformers {what['transformers']}; "
        f"{own['measured'][:10]}, {commit}{changed}, rounds: {own['rounds']}"
        f"{', --quick: no measurement' if own['quick'] else ''}.*"
    )


def _spread(own: dict[str, float], form: str) -> str:
    if own["rounds"] == 1:
        return f"{own['median']:{form}}"
    return f"{own['median']:{form}} ({own['low']:{form}} to {own['high']:{form}})"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
