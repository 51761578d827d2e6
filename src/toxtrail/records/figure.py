"""A figure as bytes."""

from __future__ import annotations

from typing import NamedTuple


class RenderedFigure(NamedTuple):
    """A figure."""

    svg: str
    png: bytes
