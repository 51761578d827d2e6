"""Pins: written into params.yaml without touching anything else."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.assets.resolve_pins import resolve_pins
from toxtrail.backends.protocols import Asset
from toxtrail.config.edit_params import Pin, write_pins
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import ConfigError

SHA, OTHER, COMMIT = "a" * 64, "b" * 64, "c" * 40

FILE = f"""# head comment
models:   # weights
  base:
    uri: 'file:x'   # quoted

    adapter: {{uri: "hf:o/n@main", note: "keep"}}  # flow
  other:
    sha256: {OTHER} # old
    uri: file:y
"""


def written(tmp_path, text, *pins):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    write_pins(path, pins)
    return path.read_bytes().decode()


def pin(place, uri, sha256, new_uri=None):
    return Pin(place, uri, new_uri or uri, sha256, True)


def test_a_hash_goes_under_its_uri_and_everything_else_stays(tmp_path):
    after = written(tmp_path, FILE, pin("models.base", "file:x", SHA))
    assert after == FILE.replace("# quoted\n", f"# quoted\n    sha256: {SHA}\n")


def test_a_flow_mapping_gets_it_inside(tmp_path):
    new = f"hf:o/n@{COMMIT}"
    after = written(tmp_path, FILE, pin("models.base.adapter", "hf:o/n@main", SHA, new))
    assert after == FILE.replace('"hf:o/n@main"', f'"{new}", sha256: {SHA}')


def test_an_old_hash_is_replaced_in_place(tmp_path):
    assert written(tmp_path, FILE, pin("models.other", "file:y", SHA)) == FILE.replace(OTHER, SHA)


def test_windows_line_ends_are_kept(tmp_path):
    text = FILE.replace("\n", "\r\n")
    after = written(tmp_path, text, pin("models.base", "file:x", SHA))
    assert after.count("\r\n") == after.count("\n") == FILE.count("\n") + 1


def test_a_pin_that_did_not_change_writes_nothing(tmp_path):
    assert (
        written(tmp_path, FILE, pin("models.base", "file:x", SHA)._replace(changed=False)) == FILE
    )


def test_a_shared_mapping_is_refused_and_the_file_left_alone(tmp_path):
    text = "a: &one\n  uri: file:x\nb:\n  <<: *one\n  n: 3\n"
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be edited safely"):
        write_pins(path, [pin("a", "file:x", SHA)])
    assert path.read_text() == text


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True).filter(
    lambda name: isinstance(yaml.safe_load(name), str)  # `on` is true in YAML, and no key
)
COMMENTS = st.sampled_from(["", "  # why", "   # uri: file:not-this", "\n", "\n  # alone"])


@given(
    entries=st.dictionaries(NAMES, st.tuples(st.booleans(), COMMENTS), min_size=1, max_size=5),
    data=st.data(),
)
def test_only_the_pinned_places_change(entries, data, tmp_path_factory):
    lines = ["models:"]
    for name, (flow, comment) in entries.items():
        lines.append(
            f"  {name}: {{n: 1, uri: 'file:{name}'}}{comment}"
            if flow
            else f"  {name}:\n    uri: file:{name}{comment}\n    n: 1"
        )
    text = "\n".join(lines) + "\n"
    chosen = data.draw(st.sets(st.sampled_from(sorted(entries))))
    pins = [pin(f"models.{name}", f"file:{name}", SHA) for name in chosen]
    after = written(tmp_path_factory.mktemp("pins"), text, *pins)
    assert after.replace(f", sha256: {SHA}", "").replace(f"\n    sha256: {SHA}", "") == text
    meant = yaml.safe_load(text)
    for name in chosen:
        meant["models"][name]["sha256"] = SHA
    assert yaml.safe_load(after) == meant


class Known:
    """Assets whose content is known."""

    def __init__(self):
        self.asked = []

    def fetch(self, uri, sha256):
        self.asked.append((uri, sha256))
        return Asset(uri, None, COMMIT, SHA, ())


def test_a_branch_becomes_a_commit_and_a_files_pin_follows_the_file():
    known = Known()
    sources = [
        ("models.a", PinnedAsset(uri="hf:o/n@main")),
        ("models.b", PinnedAsset(uri="file:x", sha256=OTHER)),
        ("models.c", PinnedAsset(uri="pypi:p==1/x", sha256=SHA)),
    ]
    hub, local, wheel = resolve_pins(sources, known)
    assert (hub.new_uri, hub.sha256, hub.changed) == (f"hf:o/n@{COMMIT}", None, True)
    assert (local.sha256, local.changed) == (SHA, True)
    assert not wheel.changed
    assert known.asked == [("hf:o/n@main", None), ("file:x", None), ("pypi:p==1/x", SHA)]
