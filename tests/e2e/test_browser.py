"""The MLflow UI and the report of a finished experiment, in a real browser, by the real server."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import pytest
from browsing import chromium, opened_browser

pytestmark = pytest.mark.slow
WAIT = 60_000
SCROLL_ON = """document.querySelectorAll("*").forEach((one) => {
  if (one.scrollHeight > one.clientHeight + 5) one.scrollTop += 250;
})"""


@pytest.fixture(scope="module")
def address(finished):
    """Where `toxtrail ui` listens; it is stopped like a person would."""
    chromium()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = finished.start("ui", "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health")
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(url):
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def runs(finished):
    return {run["name"]: run for run in finished.json("runs")}


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as own:
        yield own


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    own = context.new_page()
    own.set_default_timeout(WAIT)
    yield own
    context.close()


@pytest.fixture(scope="module")
def experiment(address):
    """Its id in MLflow."""
    query = json.dumps({"max_results": 10}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search", query, {"Content-Type": "application/json"}
    )
    found = json.loads(urllib.request.urlopen(request).read())["experiments"]
    return next(one for one in found if one["name"] == "toxtrail")


def visit(page, url, text):
    """Open a page of the UI and wait for a text on it. On a busy machine the server may drop one of
    the page's scripts; a person would load it again."""
    from playwright.sync_api import TimeoutError as TookTooLong

    page.goto(url)
    for _ in range(2):
        try:
            page.get_by_text(text).first.wait_for(timeout=WAIT / 2)
        except TookTooLong:
            page.reload()
        else:
            return
    page.get_by_text(text).first.wait_for()


def link(address, experiment, *parts):
    return "/".join([f"{address}/#/experiments/{experiment['experiment_id']}", *parts])


def test_the_primary_metric_is_set(experiment):
    tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
    assert tags["mlflow.experiment.primaryMetric.name"] == "judge/all/rate_pct"


def test_the_saved_view_shows_rate_and_difference(page, address, experiment, runs):
    view = "runs?viewStateShareKey=toxtrail&workflowType=machine_learning"
    visit(page, link(address, experiment, view), runs["tuned"]["tags"]["difference"])
    shown = page.inner_text("body")
    for name in ("base", "tuned"):
        assert runs[name]["tags"]["rate"] in shown


def test_three_runs_side_by_side_show_their_metrics(page, address, experiment, runs):
    ids = [runs[name]["run_id"] for name in ("base", "tuned", "tiny comparison")]
    compared = json.dumps(ids)
    url = f"{address}/#/compare-runs?runs={compared}&experiments="
    visit(page, url + json.dumps([experiment["experiment_id"]]), "Comparing 3 Runs")
    for _ in range(120):  # the page makes rows only as they are scrolled into view
        shown = page.inner_text("body")
        if "judge/all/rate_pct" in shown:
            break
        page.evaluate(SCROLL_ON)
        page.wait_for_timeout(400)
    assert "judge/all/rate_pct" in shown
    for name in ("base", "tuned"):
        assert f"{runs[name]['metrics']['judge/all/rate_pct']:.4g}" in shown


def test_a_runs_page_says_headline_verdict_lineage_and_commands(page, address, experiment, runs):
    visit(page, link(address, experiment, "runs", runs["tuned"]["run_id"]), "toxicity rate")
    if page.get_by_text("Show more").count():
        page.get_by_text("Show more").first.click()
    page.get_by_text("toxtrail audit tuned --verify").first.wait_for()
    shown = page.inner_text("body")
    for text in ("toxtrail audit tuned --reproduce 8", "dvc repro track@tuned", "adapter tuned",
                 "file:assets/pairs.jsonl", "verdict"):  # fmt: skip
        assert text in shown, text
    assert "not decisive" in runs["tuned"]["tags"]["verdict"]


def test_a_comparisons_page_leads_to_the_runs_that_it_compares(page, address, experiment, runs):
    visit(
        page, link(address, experiment, "runs", runs["tiny comparison"]["run_id"]), "Runs compared"
    )
    if page.get_by_text("Show more").count():
        page.get_by_text("Show more").first.click()
    link_to = page.get_by_role("link", name="tuned", exact=True).first.get_attribute("href")
    visit(page, f"{address}/{link_to}", "1 matching run")
    assert runs["tuned"]["tags"]["toxtrail.key"] in link_to
    assert "tuned" in page.inner_text("body")


@pytest.mark.parametrize("name", ["differences.svg", "rates.png"])
def test_a_figure_is_previewed(page, address, experiment, runs, name):
    run_id = runs["tiny comparison"]["run_id"]
    visit(page, link(address, experiment, "runs", run_id, "artifacts", name), name)
    page.wait_for_function(
        "[...document.images].some((image) => image.complete && image.naturalWidth > 300)"
    )


def test_a_runs_generations_are_previewed_as_a_table(page, address, experiment, runs):
    run_id = runs["tuned"]["run_id"]
    visit(
        page,
        link(address, experiment, "runs", run_id, "artifacts", "tables/generations.json"),
        "continuation",
    )
    assert "toxicity" in page.inner_text("body")


def test_generations_of_two_runs_stand_side_by_side(page, address, experiment, finished, runs):
    visit(
        page, link(address, experiment, "runs?compareRunsMode=ARTIFACT"), "tables/generations.json"
    )
    page.get_by_text("continuation").first.wait_for()
    page.wait_for_function(
        "['base', 'tuned'].every((name) => document.body.innerText.includes(name))"
    )


def test_the_report_of_a_real_run_renders_with_its_figures(page, finished):
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((finished.root / "report/index.html").as_uri())
    assert page.locator("figure svg").count() >= 4
    assert page.locator("figure svg").first.bounding_box()["height"] > 100
    assert "flips" in page.inner_text(".status")
    assert problems == []
