"""The manifest inside a file: its position in each format, writing and reading.

A format is detected by its first bytes, not by its name, because a received file may have any name.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from toxtrail.errors import DataError, is_of_the_system
from toxtrail.provenance.identity import Manifest, canonical_json
from toxtrail.regular_files import open_regular, read_text

METADATA_KEY = "toxtrail.manifest"
"""Key in the metadata of Parquet and safetensors files and of PNG's text chunks; `id` in SVG;
`name` in HTML."""
NETCDF_DATASET = "toxtrail_manifest"
"""Separate data set in the netCDF file: HDF5 attributes are limited to 64 KiB."""

PNG_START = b"\x89PNG\r\n\x1a\n"

HEADER_LIMIT = 100 << 20
"""Maximum size of a header in bytes, as in safetensors."""

_SVG = re.compile(rf'<metadata id="{re.escape(METADATA_KEY)}">(.*?)</metadata>', re.DOTALL)
_HTML = re.compile(rf'<meta name="{re.escape(METADATA_KEY)}" content="(.*?)">', re.DOTALL)

_FORMAT_ERRORS = (
    pa.ArrowException, ValidationError, ValueError, OSError, RecursionError, RuntimeError,
    KeyError, AttributeError,
)  # fmt: skip


def manifest_text(manifest: Manifest) -> str:
    """Return the canonical text of a manifest, used in every format."""
    return canonical_json(manifest.to_json())


def in_svg(svg: str, manifest: Manifest) -> str:
    """Return the figure with the manifest in it."""
    head, end, tail = svg.rpartition("</svg>")
    text = html.escape(manifest_text(manifest))
    return f'{head}<metadata id="{METADATA_KEY}">{text}</metadata>\n{end}{tail}'


def in_png(png: bytes, manifest: Manifest) -> bytes:
    """Return the image with the manifest in a text chunk after its header; pixels are unchanged.

    Source: https://www.w3.org/TR/png-3/, sections 5.3 and 11.3.3.4 (iTXt).
    """
    start = len(PNG_START) + 25  # the header chunk has 13 bytes and 12 around them
    body = (
        b"iTXt"
        + METADATA_KEY.encode()
        + b"\0"
        + b"\0\0"
        + b"\0\0"
        + manifest_text(manifest).encode()
    )
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:start] + chunk + png[start:]


def in_safetensors(data: bytes, manifest: Manifest) -> bytes:
    """Return the file with the manifest in its metadata; tensors are unchanged.

    safetensors writes several metadata keys in an order that differs between runs; this function
    gives equal bytes for equal input.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    kept = {**header.pop("__metadata__", {}), METADATA_KEY: manifest_text(manifest)}
    metadata = {key: kept[key] for key in sorted(kept)}
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants its tensors aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def strip_svg_manifest(svg: str) -> str:
    """Return the figure without its manifest, for a page that has its own."""
    return _SVG.sub("", svg)


def read_embedded_manifest(path: Path) -> Manifest | None:
    """Return the manifest inside a Parquet, netCDF, safetensors, JSON, PNG, SVG or HTML file; None
    if there is none, or if the format is another.

    Raises:
        DataError: the file or its manifest is damaged.
        OSError: the file cannot be read.
    """
    try:
        text = _text(path)
        return Manifest.model_validate_json(text) if text else None
    except _FORMAT_ERRORS as error:
        if is_of_the_system(error):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path.name}: its manifest cannot be read: {first}") from None


def _text(path: Path) -> str | None:
    with open_regular(path) as file:
        start = file.read(16)
    if start.startswith(b"PAR1"):
        metadata = pq.read_schema(path).metadata or {}
        return (
            metadata[METADATA_KEY.encode()].decode() if METADATA_KEY.encode() in metadata else None
        )
    if start.startswith(b"\x89HDF"):
        return _netcdf(path)
    if start.startswith(PNG_START):
        return _png(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < HEADER_LIMIT:
        return _safetensors(path)
    if start.lstrip()[:1] in (b"{", b"<"):
        return _readable(path)
    return None


def _netcdf(path: Path) -> str | None:
    import h5py

    with h5py.File(path) as file:
        stored = file.get(NETCDF_DATASET)
        return bytes(stored[()]).decode() if stored is not None else None


def _png(path: Path) -> str | None:
    chunk_prefix = METADATA_KEY.encode() + b"\0\0\0\0\0"
    with open_regular(path) as file:
        file.seek(len(PNG_START))
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind != b"iTXt":
                file.seek(length + 4, 1)
                continue
            body, check = file.read(length), file.read(4)
            if body.startswith(chunk_prefix):
                if zlib.crc32(kind + body).to_bytes(4, "big") != check:
                    raise ValueError("the checksum of its text chunk is wrong")
                return body[len(chunk_prefix) :].decode()
    return None


def _safetensors(path: Path) -> str | None:
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    text = header.get("__metadata__", {}).get(METADATA_KEY)
    return str(text) if text else None


def _readable(path: Path) -> str | None:
    text = read_text(path)
    if text.lstrip().startswith("<"):
        match = _SVG.search(text) or _HTML.search(text)
        return html.unescape(match[1]) if match else None
    value = json.loads(text)
    manifest = value.get("manifest", value.get("predicate")) if isinstance(value, dict) else None
    return json.dumps(manifest) if manifest else None
