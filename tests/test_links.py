"""Relative links of the pages lead to files and headings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "mlruns/*.md", "data/sources/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def targets(page: Path) -> Iterator[str]:
    """Targets of links and images."""
    for block in tokens(page):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if target is not None:
                yield unquote(str(target))


def anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and GitLab write them."""
    found: set[str] = set()
    blocks = tokens(page)
    for block, text in pairwise(blocks):
        if block.type == "heading_open":
            words = "".join(token.content for token in text.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None
                         for other in found)  # fmt: skip
            found.add(f"{slug}-{number}" if slug in found else slug)
    return found


def broken(page: Path) -> list[str]:
    """Targets that do not exist; external ones are not fetched."""
    missing = []
    for target in targets(page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# One *two*\n## `a`: b\n## `a`: b\n", "utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#one-two) [b](other.md#a-b-1) [c](other.md#a-b-2) [d](absent.md) [e](#top)\n"
        "![f](absent.png) [g](https://example.org/absent) `[h](absent.md)`\n",
        "utf-8",
    )
    assert broken(page) == ["other.md#a-b-2", "absent.md", "#top", "absent.png"]


def test_the_site_has_every_page():
    listed = re.findall(r"file: docs/([\w-]+)", (ROOT / "docs/toc.yml").read_text("utf-8"))
    assert sorted(listed) == sorted({path.stem for path in ROOT.glob("docs/*.md")} | {"cli"})


def test_every_page_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for target in targets(ROOT / "README.md")}
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} <= linked
