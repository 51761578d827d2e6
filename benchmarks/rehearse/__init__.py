"""Tiny stand-ins for what a preset downloads, and the preset that names them."""
