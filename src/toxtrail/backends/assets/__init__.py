"""Addresses to verified local files: hf:, pypi:, file: and detoxify: through one resolver."""

from toxtrail.backends.assets.store import AssetStore, default_cache

__all__ = ["AssetStore", "default_cache"]
