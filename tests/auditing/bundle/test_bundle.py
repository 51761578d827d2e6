"""Bundles come from strangers."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile

import pytest

from toxtrail import __version__
from toxtrail.auditing.bundle.bundle import (
    LISTING,
    bundle_lineage,
    is_bundle,
    open_bundle,
    read_listing,
    verify_bundle,
    write_bundle,
)
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import ConfigError, DataError

ABOUT = {"group": "variants", "name": "v"}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_bytes(b"\x00\r\n")
    (tmp_path / "in/b").write_text("b")
    return {"data/a": tmp_path / "in/a", "b": tmp_path / "in/b"}


@pytest.mark.parametrize("name", ["out.zip", "out"])
def test_what_goes_in_comes_out_to_the_byte(tmp_path, files, name):
    write_bundle(files, ABOUT, tmp_path / name)
    assert is_bundle(tmp_path / name)
    with open_bundle(tmp_path / name) as root:
        assert read_listing(root)["files"].keys() == files.keys()
        assert all((root / name).read_bytes() == path.read_bytes() for name, path in files.items())


def test_equal_files_give_equal_bundles(tmp_path, files):
    for name in ("one.zip", "two.zip"):
        write_bundle(files, ABOUT, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path, files):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_bundle(files, ABOUT, tmp_path / "kept")
    with pytest.raises(OSError, match="none"):
        write_bundle({**files, "c": tmp_path / "none"}, ABOUT, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "kept"]


def archive(path, *entries):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(LISTING, json.dumps({"schema_version": 1, **ABOUT, "files": {}}))
        for entry, content in entries:
            made.writestr(entry, content)
    return path


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize("entry", ["../out", "/etc/out", "a/../../out", link("inside")])
def test_a_zip_that_reaches_outside_is_refused(tmp_path, entry):
    path = archive(tmp_path / "x.zip", (entry, "/etc/hostname"))
    with pytest.raises(DataError, match="path outside"), open_bundle(path):
        pass


def test_a_zip_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("toxtrail.auditing.bundle.bundle.MAX_UNPACKED_BYTES", 1000)
    path = archive(tmp_path / "x.zip", ("bomb", b"\x00" * 2000))
    with pytest.raises(DataError, match="would unpack to more"), open_bundle(path):
        pass


def test_a_zip_of_almost_nothing_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("toxtrail.auditing.bundle.bundle.SUSPICIOUS_BYTES", 1000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(LISTING, "{}")
        made.writestr("bomb", b"\x00" * 1_000_000)
    with pytest.raises(DataError, match="no bundle does"), open_bundle(path):
        pass


def test_a_damaged_zip_gives_the_same_files_or_is_named(tmp_path, files):
    path = tmp_path / "x.zip"
    write_bundle(files, ABOUT, path)
    whole = path.read_bytes()
    named = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        named += damaged(path, files)
    assert named > 20


def damaged(path, files):
    if not is_bundle(path):
        return True
    try:
        with open_bundle(path) as root:
            for found in root.rglob("*"):
                name = found.relative_to(root).as_posix()
                if name in files:
                    assert found.read_bytes() == files[name].read_bytes()
    except DataError as error:
        return str(error).startswith("x.zip")
    return False


@pytest.mark.parametrize(
    "listing",
    ["", "[]", "{}", '{"files": []}', '{"files": {}, "schema_version": 9, "group": "variants"}',
     '{"files": {}, "schema_version": 1, "group": "../x"}'],
)  # fmt: skip
def test_what_is_no_listing_is_refused(tmp_path, listing):
    (tmp_path / LISTING).write_text(listing)
    with pytest.raises(DataError):
        read_listing(tmp_path)


@pytest.mark.parametrize("name", [LISTING, "dvc.lock", "results/x/summary.json", "data"])
def test_a_link_or_a_pipe_in_a_bundles_folder_is_named_and_nothing_is_opened(tmp_path, name):
    for number, make in enumerate((lambda p: p.symlink_to("/etc/passwd"), os.mkfifo)):
        root = tmp_path / str(number)
        (root / "results/x").mkdir(parents=True)
        make(root / name)
        checks = verify_bundle(root, NoProgress(), [])
        assert [(check.outcome, check.name) for check in checks] == [("BROKEN", name)]
        with pytest.raises(DataError, match=name):
            bundle_lineage(root)


def test_a_name_leads_nowhere_outside_of_the_bundle(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "summary.json").write_text("{}")
    listing = {"schema_version": 1, "group": "families", "name": "../../..", "files": {}}
    (tmp_path / "b" / LISTING).write_text(json.dumps(listing))
    with pytest.raises(DataError, match=r"no summary\.json"):
        bundle_lineage(tmp_path / "b")


@pytest.mark.parametrize(("stage", "cure"), [("track", "toxtrail run v"), ("score", "dvc pull")])
def test_what_is_missing_is_named_with_a_cure_that_works(stage, cure):
    """DVC keeps no copy of a receipt: to pull it brings nothing."""
    from toxtrail.auditing.bundle.bundle import _cure
    from toxtrail.pipeline import StageRun, get_stage

    said = _cure(StageRun(get_stage(stage), "v", (), (), ()))
    assert cure in said
    assert ("dvc pull" in said) == (stage == "score")


@pytest.mark.parametrize(("exported_by", "outcome"), [("0.1.0", "unread"), (__version__, "BROKEN")])
def test_settings_of_another_version_are_not_called_damaged(tmp_path, exported_by, outcome):
    params = b"posterior: {threshold: 0.5}\n"
    (tmp_path / "params.yaml").write_bytes(params)
    files = {"params.yaml": hashlib.sha256(params).hexdigest()}
    listing = {"schema_version": 1, "toxtrail": exported_by, **ABOUT, "files": files}
    (tmp_path / LISTING).write_text(json.dumps(listing))
    *listed, check = verify_bundle(tmp_path, NoProgress(), ())
    assert [c.outcome for c in listed] == ["ok"] * len(listed)
    assert (check.outcome, "posterior" in check.detail) == (outcome, True)
    assert ("toxtrail 0.1.0" in check.detail) == (outcome == "unread")
