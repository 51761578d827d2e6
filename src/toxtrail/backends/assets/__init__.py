"""Resolve hf:, pypi:, file: and detoxify: addresses to verified local files."""

from toxtrail.backends.assets.cache_folder import default_cache
from toxtrail.backends.assets.store import AssetStore

__all__ = ["AssetStore", "default_cache"]
