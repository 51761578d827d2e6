"""A manifest goes into every format and comes out again, whatever the file is called."""

from __future__ import annotations

import html
import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from result_rows import filled
from safetensors.torch import load_file, save

from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.embedded_manifest import (
    in_png,
    in_safetensors,
    in_svg,
    manifest_text,
    read_embedded_manifest,
    strip_svg_manifest,
)
from toxtrail.provenance.identity import InputFile
from toxtrail.records.analysis_output import AnalysisOutput
from toxtrail.records.results import PoolSummary
from toxtrail.records.rows import Prompt
from toxtrail.storage.artifacts import ArtifactStore

SVG = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><text>a</text></svg>\n'
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.float16)}
HOSTILE = '</metadata></svg><script>alert(1)</script>" onload="x" \x1b[31m \u202e & < >'


def made(note: str = "plain"):
    return manifest_of(
        "generate",
        "v",
        {"generation": {"note": note}},
        {"prompts": InputFile(path="p", sha256="0" * 64, manifest=None)},
        {},
    )


def parquet(path, manifest):
    store = ArtifactStore(path.parent)
    store.write_prompts([Prompt("s-1", "s", "text", "file:x", 0)], manifest)
    store.prompts_path.rename(path)


def safetensors(path, manifest):
    path.write_bytes(in_safetensors(save(TENSORS, metadata={"format": "pt"}), manifest))


def svg(path, manifest):
    path.write_text(in_svg(SVG, manifest), "utf-8")


def page(path, manifest):
    content = html.escape(manifest_text(manifest))
    head = f'<meta name="toxtrail.manifest" content="{content}">'
    path.write_text(f"<!doctype html>\n<html><head>{head}</head><body>b</body></html>", "utf-8")


def summary(path, manifest):
    path.write_text(json.dumps({"rates": [], "manifest": manifest.to_json()}), "utf-8")


def draws(path, manifest):
    import numpy as np
    import xarray as xr

    found = xr.Dataset({"x": ("draw", np.zeros(3))})
    store = ArtifactStore(path.parent)
    store.write_analysis(
        path.parent / "p", AnalysisOutput(filled(PoolSummary), found, {}, {}), manifest
    )
    (path.parent / "p" / "posterior.nc").rename(path)


def image(path, manifest):
    from io import BytesIO

    from PIL import Image

    plain = BytesIO()
    Image.new("RGB", (3, 2), "white").save(plain, "PNG")
    path.write_bytes(in_png(plain.getvalue(), manifest))


FORMATS = {
    "png": image,
    "parquet": parquet,
    "safetensors": safetensors,
    "svg": svg,
    "html": page,
    "json": summary,
    "netcdf": draws,
}
each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)


def read(path):
    """The manifest, or what is said of the file."""
    try:
        return read_embedded_manifest(path)
    except DataError as error:
        return str(error)


@each_format
@pytest.mark.parametrize("note", ["plain", HOSTILE])
def test_a_manifest_is_read_back_whatever_the_file_is_called(tmp_path, write, note):
    path = tmp_path / "attachment.bin"
    write(path, made(note))
    assert read_embedded_manifest(path) == made(note)


@each_format
def test_a_cut_file_is_named_and_gives_no_other_manifest(tmp_path, write):
    path = tmp_path / "cut"
    write(path, made())
    whole = path.read_bytes()
    for length in (len(whole) // 2, 16, 9):
        path.write_bytes(whole[:length])
        found = read(path)
        assert found in (None, made()) or found.startswith("cut: its manifest")


@each_format
def test_no_bit_that_flips_ends_in_another_kind_of_error(tmp_path, write):
    path = tmp_path / "flipped"
    write(path, made())
    whole = bytearray(path.read_bytes())
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        whole[place] ^= 0x10
        path.write_bytes(whole)
        whole[place] ^= 0x10
        found = read(path)
        assert not isinstance(found, str) or found.startswith("flipped: its manifest cannot")


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"PK\x03\x04 a zip", b"a,b\n1,2\n"])
def test_a_file_of_another_format_has_none(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert read_embedded_manifest(tmp_path / "x") is None


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', "<svg></svg>", "<html></html>"])
def test_a_file_of_a_known_format_without_one_has_none(tmp_path, content):
    (tmp_path / "x").write_text(content)
    assert read_embedded_manifest(tmp_path / "x") is None


@pytest.mark.parametrize("content", ['{"manifest": {"kind": "generate"}}', '{"manifest": 7}', "{"])
def test_what_only_looks_like_one_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json: its manifest"):
        read_embedded_manifest(tmp_path / "x.json")


def test_an_svg_stays_a_figure_and_loses_its_manifest_on_a_page():
    from xml.etree import ElementTree

    figure = in_svg(SVG, made(HOSTILE.replace("\x1b", "").replace("\u202e", "")))
    assert "script" not in {
        node.tag.rpartition("}")[2] for node in ElementTree.fromstring(figure).iter()
    }
    assert re.sub(r"\s", "", strip_svg_manifest(figure)) == re.sub(r"\s", "", SVG)


def test_safetensors_keep_their_tensors_and_other_metadata(tmp_path):
    from safetensors import safe_open

    safetensors(tmp_path / "x", made())
    found = load_file(tmp_path / "x")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_equal_adapters_are_equal_bytes():
    """safetensors itself orders metadata differently from one call to the next."""
    metadata = {f"key{i}": str(i) for i in range(8)}
    assert len({in_safetensors(save(TENSORS, metadata=metadata), made()) for _ in range(20)}) == 1


@given(note=st.text(max_size=40), size=st.integers(0, 9))
def test_tensors_stay_aligned_whatever_the_manifest_says(note, size):
    data = in_safetensors(
        save({"a": torch.zeros(size)}), made(note.encode("utf-8", "replace").decode())
    )
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert len(data) == 8 + int.from_bytes(data[:8], "little") + 4 * size
