"""Pins: what an address means is written into params.yaml, and nothing else in it changes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.assets.resolve_pins import resolve_pins
from toxtrail.backends.protocols import Asset, NoProgress
from toxtrail.config.edit_params import Pin, write_pins
from toxtrail.config.sections import PinnedAsset
from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import sha256_text

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD, NEW = "a" * 64, "b" * 64


class Remote:
    """Assets that say what they were asked, and mean one content each."""

    def __init__(self, resolved: str = COMMIT) -> None:
        self.resolved = resolved
        self.asked: list[tuple[str, str | None]] = []

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        self.asked.append((uri, sha256))
        return Asset(uri, Path("x"), self.resolved, NEW, ())


def pin(place: str, uri: str, new_uri: str | None = None, sha256: str | None = NEW) -> Pin:
    return Pin(place, uri, new_uri or uri, sha256, changed=True)


def written(tmp_path: Path, text: str, *pins: Pin) -> str:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("utf-8"))
    write_pins(path, pins)
    return path.read_bytes().decode("utf-8")


# --- resolving ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "new_uri", "sha256"),
    [
        ("hf:o/n", f"hf:o/n@{COMMIT}", None),
        ("hf:o/n@main", f"hf:o/n@{COMMIT}", None),
        ("hf:o/n@v1/a/b.gguf", f"hf:o/n@{COMMIT}/a/b.gguf", None),
        ("hf:datasets/o/n@main/d.jsonl", f"hf:datasets/o/n@{COMMIT}/d.jsonl", None),
        ("pypi:a==1/b.txt", "pypi:a==1/b.txt", NEW),
        ("file:b.txt", "file:b.txt", NEW),
        ("detoxify:original", "detoxify:original", NEW),
    ],
)
def test_a_hub_address_gets_a_commit_and_any_other_a_hash(uri, new_uri, sha256):
    (found,) = resolve_pins([("models.m", PinnedAsset(uri=uri))], Remote())
    assert found == Pin("models.m", uri, new_uri, sha256, changed=True)


@pytest.mark.parametrize(
    "source",
    [PinnedAsset(uri=f"hf:o/n@{COMMIT}"), PinnedAsset(uri="pypi:a==1/b", sha256=NEW)],
)
def test_what_is_pinned_right_stays_as_it_is(source):
    (found,) = resolve_pins([("models.m", source)], Remote())
    assert found == Pin("models.m", source.uri, source.uri, source.sha256, changed=False)


def test_a_remote_asset_is_held_against_the_pin_it_has_and_a_local_one_is_not():
    remote, assets = PinnedAsset(uri="pypi:a==1/b", sha256=OLD), Remote()
    resolve_pins([("a", remote), ("b", PinnedAsset(uri="file:b", sha256=OLD))], assets)
    assert assets.asked == [("pypi:a==1/b", OLD), ("file:b", None)]


def test_an_edited_local_file_gets_its_new_hash(tmp_path):
    (tmp_path / "a.txt").write_text("new")
    store = AssetStore(tmp_path / "cache", tmp_path, NoProgress())
    (found,) = resolve_pins([("m", PinnedAsset(uri="file:a.txt", sha256=OLD))], store)
    assert (found.sha256, found.changed) == (sha256_text("new"), True)


def test_a_hub_that_names_no_commit_is_not_believed():
    with pytest.raises(BackendError, match="resolved to 'main'.*40-hex"):
        resolve_pins([("models.m", PinnedAsset(uri="hf:o/n"))], Remote("main"))


# --- writing -----------------------------------------------------------------------------------

BLOCK = """\
# head

models:   # kept
    m:
        uri: 'hf:o/n@main'   # why this one

        n: 0x10
other: "\u00e9"
"""


def test_a_block_gets_a_line_below_its_uri_and_keeps_comments_quotes_and_blank_lines(tmp_path):
    after = written(tmp_path, BLOCK, pin("models.m", "hf:o/n@main", f"hf:o/n@{COMMIT}"))
    uri = f"        uri: 'hf:o/n@{COMMIT}'   # why this one\n"
    old = "        uri: 'hf:o/n@main'   # why this one\n"
    assert after == BLOCK.replace(old, f"{uri}        sha256: {NEW}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("m: {uri: 'file:a', n: 3}  # c\n", f"m: {{uri: 'file:a', sha256: {NEW}, n: 3}}  # c\n"),
        ('m: {n: 3, uri: "file:a"}\n', f'm: {{n: 3, uri: "file:a", sha256: {NEW}}}\n'),
        (
            f"m: {{uri: 'file:a', sha256: '{OLD}', n: 3}}\n",
            f"m: {{uri: 'file:a', sha256: '{NEW}', n: 3}}\n",
        ),
        (f"m:\n  sha256: {OLD} # c\n  uri: file:a\n", f"m:\n  sha256: {NEW} # c\n  uri: file:a\n"),
        ("m:\n  uri: file:a\n  sha256: # c\n", f"m:\n  uri: file:a\n  sha256: {NEW} # c\n"),
        ("m:\n  uri: file:a\n  sha256: null\n", f"m:\n  uri: file:a\n  sha256: {NEW}\n"),
        ("m:\n  uri: file:a", f"m:\n  uri: file:a\n  sha256: {NEW}"),
        ("m:\r\n  uri: file:a\r\nb: 1\r\n", f"m:\r\n  uri: file:a\r\n  sha256: {NEW}\r\nb: 1\r\n"),
    ],
)
def test_every_form_of_an_asset_is_edited_in_place(tmp_path, before, after):
    assert written(tmp_path, before, pin("m", "file:a")) == after


def test_an_adapter_inside_a_model_gets_its_own_pin(tmp_path):
    before = "models:\n  m:\n    uri: file:a\n    adapter:\n      uri: file:b\n"
    after = written(tmp_path, before, pin("models.m.adapter", "file:b"))
    assert after == before + f"      sha256: {NEW}\n"


@pytest.mark.parametrize(
    "text",
    [
        "x: &a {uri: 'file:a'}\nm: *a\n",
        "x: &a {uri: 'file:a'}\nm:\n  <<: *a\n  n: 1\n",
        "x: &a {m: {uri: 'file:a'}}\n<<: *a\n",
        "m:\n  uri: &u file:a\n  sha256: &s null\nx: [*u, *s]\n",
        "m:\n  ? uri\n  : file:a\n",
    ],
)
def test_a_form_that_cannot_be_edited_safely_is_left_alone_and_the_pins_are_shown(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="by hand:\n  m: uri: file:a, sha256: bbb"):
        write_pins(path, [pin("m", "file:a")])
    assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]


def test_one_asset_under_two_names_is_pinned_where_it_is_written_out(tmp_path):
    before = "x: &a {uri: 'file:a'}\nm: *a\n"
    after = written(tmp_path, before, pin("x", "file:a"), pin("m", "file:a"))
    assert after == f"x: &a {{uri: 'file:a', sha256: {NEW}}}\nm: *a\n"


def test_an_address_over_several_lines_is_pinned_too(tmp_path):
    after = written(tmp_path, "m:\n  uri: >-\n    file:a\n  n: 1\n", pin("m", "file:a"))
    assert yaml.safe_load(after) == {"m": {"uri": "file:a", "n": 1, "sha256": NEW}}


def test_nothing_to_write_does_not_touch_the_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("m: {uri: 'file:a'}\n")
    before = path.stat().st_mtime_ns, path.stat().st_ino
    write_pins(path, [pin("m", "file:a")._replace(changed=False)])
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_the_file_keeps_its_mode(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("m: {uri: 'file:a'}\n")
    path.chmod(0o640)
    write_pins(path, [pin("m", "file:a")])
    assert path.stat().st_mode & 0o777 == 0o640


def is_name(key):
    """Whether it is text without quotes, for every reader of YAML."""
    try:
        return isinstance(yaml.safe_load(key), str) and isinstance(parse_yaml(key), str)
    except YamlError:
        return False


KEYS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,6}", fullmatch=True).filter(
    lambda key: is_name(key) and key not in ("uri", "sha256")
)
COMMENTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=9)
URIS = st.sampled_from(
    ["file:a b.txt", "pypi:a==1/b.txt", "hf:o/n@main", "hf:o/n", "detoxify:original"]
)
QUOTES = st.sampled_from(["", "'", '"'])


@st.composite
def assets(draw):
    """One asset as text, at an indent of two; and its old uri."""
    uri, quote, comment = draw(URIS), draw(QUOTES), draw(COMMENTS)
    fields = [f"uri: {quote}{uri}{quote}", "n: 1_007"]
    if draw(st.booleans()):
        fields.append(f"sha256: {draw(QUOTES.map(lambda q: f'{q}{OLD}{q}'))}")
    fields = draw(st.permutations(fields))
    if draw(st.booleans()):
        inside = [field.replace(uri, f"'{uri}'") if quote == "" else field for field in fields]
        return f" {{{', '.join(inside)}}}  # {comment}\n", uri
    gap = draw(st.sampled_from(["", "\n", f"  # {comment}\n"]))
    return f"  # {comment}\n{gap}" + "".join(
        f"    {field}   # {comment}\n" for field in fields
    ), uri


@given(st.dictionaries(KEYS, assets(), min_size=1, max_size=4), COMMENTS, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_only_the_lines_of_the_pins_change_and_they_mean_what_they_should(
    tmp_path, found, comment, data
):
    before = f"# {comment}\nmodels:\n" + "".join(
        f"  {key}:{text}" for key, (text, _) in found.items()
    )
    before += f"rest: [1,  2.50,\n  'x']  # {comment}\n"
    chosen = data.draw(st.sets(st.sampled_from(sorted(found)), min_size=1))
    pins = resolve_pins(
        [(f"models.{key}", PinnedAsset(uri=found[key][1])) for key in chosen], Remote()
    )
    after = written(tmp_path, before, *pins)

    wanted = yaml.safe_load(before)
    for one in pins:
        entry = wanted["models"][one.place.removeprefix("models.")]
        entry["uri"] = one.new_uri
        if one.sha256 is not None:
            entry["sha256"] = one.sha256
    assert yaml.safe_load(after) == wanted
    assert untouched(after) == untouched(before)


def untouched(text: str) -> list[str]:
    """Every line without an asset's address or hash."""
    lines = text.splitlines(keepends=True)
    return list(itertools.filterfalse(lambda line: "uri:" in line or "sha256:" in line, lines))
