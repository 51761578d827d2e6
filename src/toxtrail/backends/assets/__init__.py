"""Resolve hf:, pypi:, file: and detoxify: addresses to verified local files."""

from toxtrail.backends.assets.store import AssetStore, default_cache

__all__ = ["AssetStore", "default_cache"]
