"""Problems with the thoughts in continuations, for the stage that makes the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toxtrail.records.rows import Generation
from toxtrail.records.thought import ThoughtMarkers, begin_like, has_marker


def thought_problems(rows: Sequence[Generation], markers: ThoughtMarkers | None) -> Iterator[str]:
    """Yield one line for each kind of thought that is unfinished, odd or undeclared."""
    of = f"of {len(rows):,} continuations"
    if markers is None:
        begins = [begin for row in rows if (begin := begin_like(row.text))]
        if begins:
            yield (
                f"{len(begins):,} {of} begin with what looks like a thought ({begins[0]}), "
                "which is scored as the answer; declare its markers as generation.thought"
            )
        return
    unfinished = [row for row in rows if row.state == "unfinished"]
    if unfinished:
        cut = sum(row.finish_reason == "length" for row in unfinished)
        yield (
            f"{len(unfinished):,} {of} are unfinished thoughts ({cut:,} ended at the token limit, "
            "generation.max_new_tokens): without an answer, they are not scored"
        )
    if odd := sum(has_marker(row.text, markers) for row in rows):
        yield (
            f"{odd:,} {of} have a marker of a thought in the answer: a thought after other text, "
            "or an end marker alone; it is scored with the answer"
        )
