"""The report in a real browser: it renders, filters and unmasks; hostile texts do nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from browsing import opened_browser

from toxtrail.pipeline import manifest_of
from toxtrail.records.results import ScorerPooling
from toxtrail.reporting.html_report import FamilyPage, render
from toxtrail.text_escaping import escape_control_chars

pytestmark = pytest.mark.slow

NO_PROMPTS = {"seed": 1, "prompts": 0, "subsets": {}}
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><img src=x onerror='window.pwned = 2'>",
    '" autofocus onfocus="window.pwned = 3',
    "<svg onload=window.pwned=4><style>*{display:none}</style>",
    "\u202eevil\u2066\u200b\u200d\ufeff",
    "{{ 7 * 7 }} ${7*7} javascript:window.pwned=5",
    "]]>--><!-- &lt;b&gt; &amp;",
    "\x1b[2J\x00\x07",
    "a" * 1_000_000,
    "z\u0300" * 500,
)


@pytest.fixture(scope="module")
def made():
    """What is made once: the page."""
    return {}


@pytest.fixture
def pages(made, score_rows, settings, measured, spoken, tmp_path):
    """A family of three with hostile texts on every flip, as a file."""
    path = tmp_path / "index.html"
    if not made:
        made["page"] = _page(score_rows, settings, measured, spoken)
    path.write_text(made["page"], encoding="utf-8")
    return path


def _page(score_rows, settings, measured, spoken):
    n = len(HOSTILE)
    values = {
        "base": {"one": [0.1] * n, "two": [0.9] * 8 + [0.1] * 12},
        "up": {"one": [0.9] * n, "two": [0.9] * 20},
        "down": {"one": [0.1] * n, "two": [0.2] * 20},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    found = measured(rows, {"base": None, "up": "base", "down": "base"}).compared(settings).summary
    texts = {name: [_hostile(row, name) for row in spoken(own)] for name, own in rows.items()}
    manifest = manifest_of("compare", "f", {}, {}, {})
    pooled = {"judge": ScorerPooling(status="left out", reason="pooling is switched off")}
    summary = replace(found, pooled=pooled, manifest=manifest.to_json())
    prompts = {row.prompt_id: f"prompt {row.prompt_id} {HOSTILE[0]}" for row in rows["base"]}
    page = FamilyPage(summary, {}, prompts, texts, rows)
    return render([page], NO_PROMPTS, manifest_of("report", None, {}, {}, {}))


def _hostile(row, variant):
    place = int(row.prompt_id.rpartition("-")[2])
    hostile = HOSTILE[place] if row.subset == "one" else f"needle{place} of {variant}"
    return row._replace(text=f"{variant} said {hostile}")


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as own:
        yield own


@pytest.fixture
def context(browser):
    """Opens a profile of its own in the browser: a test has no cookie and no setting of another."""
    opened = []

    def make(**settings):
        opened.append(browser.new_context(**settings))
        return opened[-1]

    yield make
    for own in opened:
        own.close()


@pytest.fixture
def page(pages, context):
    """The page, with everything that a browser complains of or asks the net for."""
    own = context().new_page()
    own.problems, own.asked = [], []
    own.on("console", lambda message: own.problems.append(message.text))
    own.on("pageerror", lambda error: own.problems.append(str(error)))
    own.on("dialog", lambda dialog: own.problems.append(dialog.message))
    own.on("request", lambda request: own.asked.append(request.url))
    own.goto(pages.as_uri())
    return own


def flips(page):
    return page.locator("article.flip")


def test_hostile_texts_do_nothing_and_are_shown_as_they_are(page, pages):
    assert "base said" not in page.inner_text("body")
    page.check("[data-control=unmask]")
    shown = page.inner_text("body")
    assert "<script>window.pwned = 1</script>" in shown
    assert escape_control_chars("\u202eevil\u2066") in shown
    assert "{{ 7 * 7 }} ${7*7}" in shown
    assert "characters more" in shown
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert page.problems == []
    assert page.asked == [pages.as_uri()]
    assert (
        page.locator("main img, main iframe, main object, article svg, article style").count() == 0
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert (
        max(box["height"] for box in (flips(page).nth(i).bounding_box() for i in range(10))) < 900
    )


def test_texts_are_masked_until_clicked_side_by_side_and_can_be_hidden_again(page):
    first = flips(page).first
    assert first.locator(".texts").count() == 0
    first.get_by_role("button").click()
    before, after = (first.locator(f".{name}") for name in ("before", "after"))
    assert "base said" in before.inner_text()
    assert "up said" in after.inner_text()
    left, right = before.bounding_box(), after.bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    first.get_by_role("button").click()
    assert first.locator(".texts").count() == 0


def test_flips_are_found_by_pair_subset_direction_and_text(page):
    def found():
        return page.inner_text(".status").split(" found")[0]

    assert found() == "22"
    page.select_option("[data-control=subset]", label="two")
    assert found() == "12"
    page.fill("[data-control=search]", "needle13")
    assert found() == "1"
    page.fill("[data-control=search]", "nothing like this")
    assert "No flip matches." in page.inner_text(".status")
    page.fill("[data-control=search]", "")
    page.select_option("[data-control=direction]", label="became harmless")
    assert "No flip matches." in page.inner_text(".status")
    page.select_option("[data-control=pair]", label="down against base")
    assert found() == "8"
    page.select_option("[data-control=direction]", label="stayed harmless")
    assert int(found()) > 0
    assert page.problems == []


def test_everything_works_with_the_keyboard(page):
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.dataset.control") == "search"
    page.keyboard.type("needle9")
    assert flips(page).count() == 1
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    page.keyboard.press("Enter")
    assert flips(page).first.locator(".texts").count() == 1
    page.click("body", position={"x": 5, "y": 5})
    page.keyboard.press("Control+Home")


def test_more_flips_than_a_page_holds_are_turned_over(page):
    assert flips(page).count() == 20
    page.click("[data-control=on]")
    assert flips(page).count() == 2
    assert page.is_disabled("[data-control=on]")
    page.click("[data-control=back]")
    assert flips(page).count() == 20


def test_a_table_shows_one_subset(page):
    page.select_option("select[data-table]", label="two")
    rows = page.locator("#pairs-1 tbody tr:visible")
    assert {row.split("\t")[2] for row in rows.all_inner_texts()} == {"two"}


def test_the_dark_page_is_dark_and_the_phone_needs_no_sideways_scrolling(pages, context):
    colours = []
    for scheme in ("light", "dark"):
        own = context(color_scheme=scheme, viewport={"width": 360, "height": 740}).new_page()
        own.goto(pages.as_uri())
        own.check("[data-control=unmask]")
        assert own.evaluate("document.documentElement.scrollWidth") <= 360
        colours.append(own.evaluate("getComputedStyle(document.body).backgroundColor"))
        before, after = (own.locator(f".{name}").first for name in ("before", "after"))
        assert before.bounding_box()["x"] == after.bounding_box()["x"]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 24, 30)"]


def test_details_of_a_table_are_shown_on_demand_and_printed(page):
    detail = page.locator("#pairs-1 td.detail").first
    switch = page.locator(".table:has(#pairs-1) > .more-columns > input")
    assert not detail.is_visible()
    switch.check()
    assert detail.is_visible()
    switch.uncheck()
    page.emulate_media(media="print")
    assert detail.is_visible()


@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_no_table_is_wider_than_its_box(pages, context, width):
    own = context(viewport={"width": width, "height": 800}).new_page()
    own.goto(pages.as_uri())
    boxes = own.locator(".wide").all()
    assert boxes
    for box in boxes:
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert own.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_is_on_it_and_headings_are_in_order(page):
    assert page.locator(".answer").bounding_box()["y"] < 300
    assert page.locator("table.chart").first.bounding_box()["y"] < 600
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("table th:not([scope])").count() == 0
    target = page.locator("aside li a").first.get_attribute("href")
    assert page.locator(target).inner_text() == "Flips"


def test_print_leaves_out_the_controls_and_what_is_masked(page):
    page.emulate_media(media="print")
    assert not page.is_visible("[data-control=pair]")
    assert "base said" not in page.inner_text("body")
    assert page.is_visible("#pairs-1")
    assert page.is_visible(".answer")
    assert page.is_visible("table.chart")
    page.set_viewport_size({"width": 718, "height": 1000})  # an A4 page without its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert len(page.pdf()) > 10_000


def test_without_scripts_the_numbers_stand_and_the_way_to_the_texts_is_said(pages, context):
    own = context(java_script_enabled=False).new_page()
    own.goto(pages.as_uri())
    assert own.is_visible("#pairs-1")
    assert "toxtrail flips A B --show-text" in own.inner_text("body")
