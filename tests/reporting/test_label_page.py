"""The labelling page: what it embeds, and how it labels in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from browsing import opened_browser

from toxtrail.analysis.annotator_agreement import merged_sheet
from toxtrail.analysis.human_labels import blind_labels, draw, key_of
from toxtrail.datasets.readers import read_rows
from toxtrail.errors import DataError
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.rows import Generation
from toxtrail.reporting.label_page import MAX_DISPLAY_CHARS, render_label_page

PATH = Path("sheet.csv")
HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'> & \u2028 &lt;b&gt;",
    "\u202eright to left\u2066 \u200b\ufeff",
    "zero\x00 byte \x1b[2J \x07",
    "two\r\nlines, a lone \r and \n",
    '=HYPERLINK("https://example.org")',
    'a "quoted", word; and\ta tab ',
    "\U0001f600 ünïcode 雨 " + "z\u0300" * 50,
    "a" * 200_000,
    " ",
)


def sample_of(texts):
    """Sheet, key and texts of one variant."""
    rows = [
        Generation(f"p-{i}", 0, "p", "ok", text, (1,), 3, "stop", "")
        for i, text in enumerate(texts)
    ]
    drawing = draw({"secret": rows}, len(rows), seed=1)
    key = key_of(PATH, list(enumerate(csv.DictReader(io.StringIO(rows_to_csv(drawing.key))))))
    return drawing.sheet, key, {("secret", row.prompt_id, 0): row.text for row in rows}


def written(folder, sheet, name="sheet.csv"):
    path = folder / name
    path.write_text(rows_to_csv(sheet), encoding="utf-8", newline="")
    return path


def rendered(path):
    return render_label_page(path, list(read_rows(path)))


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="sheet">(.*?)</script>', page)[1]
    )


def test_a_page_embeds_the_cells_of_the_sheet_and_nothing_of_its_key(tmp_path):
    sheet, _, _ = sample_of(HOSTILE)
    path = written(tmp_path, sheet)
    page = rendered(path)
    data = data_of(page)
    names = data["columns"]
    cells = [[row[name] for name in names] for _, row in read_rows(path)]
    assert data["rows"] == cells
    assert data["open"] == list(range(len(cells)))
    assert page.count("</script>") == 2
    assert "\x00" not in page
    assert "secret" not in page
    assert "p-1" not in page
    shown = [data["display"].get(str(i), row[1]) for i, row in enumerate(cells)]
    assert any(text.startswith("=HYPERLINK") for text in shown)
    assert max(map(len, shown)) < MAX_DISPLAY_CHARS + 50
    assert not any(c in text for text in shown for c in "\u202e\x1b\x07\r\u200b")


def test_the_policy_permits_this_script_and_style_only(tmp_path):
    page = rendered(written(tmp_path, sample_of(["a"])[0]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=|https?:", page.split("<script")[0])


def test_labels_of_the_sheet_are_kept(tmp_path):
    sheet, _, _ = sample_of(["a", "b", "c"])
    for row, word in zip(sheet, ["TRUE", "0", ""]):
        row["toxic"] = word
    assert data_of(rendered(written(tmp_path, sheet)))["labels"] == ["yes", "no", ""]


def test_of_a_merged_sheet_only_rows_without_an_agreed_label_are_labelled(tmp_path):
    sheet, _, _ = sample_of(["a", "b", "c", "d"])
    labels = [("yes", "yes"), ("yes", "no"), ("", "no"), ("", "")]
    merged = [
        {"id": row["id"], "text": row["text"], "annotator a": a, "annotator b": b, "toxic": ""}
        for row, (a, b) in zip(sheet, labels)
    ]
    assert data_of(rendered(written(tmp_path, merged)))["open"] == [1, 3]
    with pytest.raises(DataError, match="agree on every row"):
        rendered(written(tmp_path, merged[:1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {**row, "variant": "secret"}, "columns must be"),
        (lambda row: {"id": row["id"], "toxic": ""}, "columns must be"),
        (lambda row: {**row, "id": "1"}, 'id "1"'),
        (lambda row: {**row, "id": "00000000-1"}, "several samples"),
        (lambda row: {**row, "toxic": "maybe"}, 'row 1: "maybe"'),
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path, change, said):
    sheet, _, _ = sample_of(["a", "b"])
    rows = [change(sheet[0]), *sheet[1:]]
    if set(rows[0]) != set(sheet[0]):
        rows = [change(row) for row in sheet]
    with pytest.raises(DataError, match=said):
        rendered(written(tmp_path, rows))


def test_a_row_that_occurs_twice_is_refused(tmp_path):
    sheet, _, _ = sample_of(["a", "b"])
    with pytest.raises(DataError, match="occurs twice"):
        rendered(written(tmp_path, [*sheet, sheet[0]]))


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as own:
        yield own


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of a sheet in a profile of its own, with what the browser complains of."""
    contexts = []

    def make(sheet, width=1200, script=""):
        path = tmp_path / "sheet.html"
        path.write_text(rendered(written(tmp_path, sheet)), encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}))
        if script:
            contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.problems, page.requests = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield make
    for context in contexts:
        context.close()


def start(page, name="ann"):
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def press(page, keys):
    for key in keys:
        page.keyboard.press(key)


def downloaded(page, folder):
    with page.expect_download() as event:
        page.keyboard.press("d")
    path = folder / event.value.suggested_filename
    event.value.save_as(path)
    return path


@pytest.mark.slow
def test_every_text_returns_unchanged_with_the_labels_of_the_keyboard(opened, tmp_path):
    sheet, key, texts = sample_of(HOSTILE)
    page = opened(sheet)
    start(page)
    for n in range(len(sheet)):
        assert page.locator("#text").is_hidden()
        press(page, [" ", "y" if n % 2 else "n"])
    assert "All texts are labelled" in page.inner_text("#status")
    path = downloaded(page, tmp_path)
    assert path.name == "sheet-ann.csv"
    expected = [{**row, "toxic": "yes" if n % 2 else "no"} for n, row in enumerate(sheet)]
    assert path.read_bytes() == rows_to_csv(expected).encode()
    done = blind_labels(path, list(read_rows(path)), key, texts)
    assert [label.toxic for label in done.labels] == [bool(n % 2) for n in range(len(sheet))]
    assert page.evaluate("window.pwned") is None
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("blob:file:")] == [page.url]


@pytest.mark.slow
def test_labels_are_continued_after_a_reload_for_each_annotator(opened):
    page = opened(sample_of("abcdef")[0])
    start(page)
    press(page, ["y", "n", "y"])
    assert "Show the text first" in page.inner_text("#status")
    press(page, [" ", "y", " ", "n", " ", "y", "u", "n"])
    page.reload()
    page.get_by_role("button", name="Continue as ann (3 of 6 labelled)").click()
    assert "3 of 6" in page.inner_text("#count")
    assert page.inner_text("#heading").startswith("Text 4 of 6")
    press(page, ["ArrowLeft"])
    assert page.inner_text("#label") == "labelled: not toxic"
    press(page, ["ArrowRight", "ArrowRight", " ", "y"])
    assert "1 text " in page.inner_text("#gaps")
    page.get_by_role("button", name="Change annotator").click()
    page.fill("#annotator", "bob")
    press(page, ["Enter"])
    assert "0 of 6" in page.inner_text("#count")


@pytest.mark.slow
def test_two_windows_of_one_annotator_have_the_same_labels(opened):
    page = opened(sample_of("abc")[0])
    start(page)
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Continue as ann").click()
    press(other, [" ", "y"])
    page.wait_for_function("document.getElementById('count').textContent.startsWith('1 of 3')")
    press(page, ["ArrowRight", " ", "n"])
    other.wait_for_function("document.getElementById('count').textContent.startsWith('2 of 3')")


@pytest.mark.slow
def test_the_page_of_a_merged_sheet_is_adjudicated(opened, tmp_path):
    sheet, key, texts = sample_of(HOSTILE)
    words = [("yes", "yes" if n % 3 else "no") for n in range(len(sheet))]
    by_id = {row["id"]: tuple(w == "yes" for w in pair) for row, pair in zip(sheet, words)}
    merged = merged_sheet(["ann", "bob"], {row["id"]: row["text"] for row in sheet}, by_id)
    page = opened(merged)
    start(page, "cy")
    assert "of 4" in page.inner_text("#count")
    press(page, [" ", "n"] * 4)
    path = downloaded(page, tmp_path)
    assert (
        path.read_bytes()
        == rows_to_csv([{**r, "toxic": r["toxic"] or "no"} for r in merged]).encode()
    )
    done = blind_labels(path, list(read_rows(path)), key, texts)
    assert sum(label.toxic for label in done.labels) == len(sheet) - 4
    assert done.rows == by_id


@pytest.mark.slow
def test_without_storage_the_page_says_so_and_continues_from_the_file(opened, tmp_path):
    broken = "Storage.prototype.setItem = () => { throw new Error('no storage'); }"
    sheet, _, _ = sample_of(HOSTILE)
    page = opened(sheet, script=broken)
    assert page.locator("#volatile").is_visible()
    start(page)
    press(page, [" ", "y", " ", "n"])
    path = downloaded(page, tmp_path)
    page.reload()
    start(page)
    assert f"0 of {len(sheet)}" in page.inner_text("#count")
    page.set_input_files("#import", path)
    page.wait_for_function("document.getElementById('status').textContent.includes('2 labels')")
    assert page.inner_text("#heading").startswith("Text 3 of")
    press(page, ["u"])
    assert f"0 of {len(sheet)}" in page.inner_text("#count")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda rows: [{**rows[0], "id": "00000000-1"}], 'no id "00000000-1"'),
        (lambda rows: [rows[0], {**rows[1], "text": "other"}], "row 2: this is not the text"),
        (lambda rows: [rows[0], rows[0]], "row 2: the id"),
        (lambda rows: [{**rows[0], "toxic": "maybe"}], '"maybe" under toxic'),
        (lambda rows: [{"id": rows[0]["id"]}], "columns id and toxic"),
    ],
)
def test_another_file_is_not_loaded_and_changes_nothing(opened, tmp_path, damage, said):
    sheet, _, _ = sample_of(["first", "second"])
    page = opened(sheet)
    start(page)
    labelled = [{**row, "toxic": "yes"} for row in sheet]
    page.set_input_files("#import", written(tmp_path, damage(labelled), "other.csv"))
    page.locator("#problem").wait_for()
    assert said in page.inner_text("#problem")
    assert "0 of 2" in page.inner_text("#count")


@pytest.mark.slow
def test_a_phone_shows_the_page_in_its_width_and_every_control_has_a_name(opened):
    page = opened(sample_of(HOSTILE)[0], width=400)
    start(page)
    page.check("#unmask")
    for _ in HOSTILE:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.locator("#text").is_visible()
        press(page, ["ArrowRight"])
    unnamed = """[...document.querySelectorAll("button, input")].filter((one) =>
      !one.textContent.trim() && !one.labels?.length).length"""
    assert page.evaluate(unnamed) == 0
    page.get_by_role("button", name="No, not toxic").focus()
    press(page, [" "])
    assert page.inner_text("#count").startswith("1 of")
    page.uncheck("#keys")
    press(page, ["y"])
    assert page.inner_text("#count").startswith("1 of")
