"""toxtrail: how fine-tuning changes a language model's toxicity, and which fine-tune did it."""

import importlib

__version__ = "0.2.0"
__all__ = ["__version__", "audit", "compare_texts", "gate", "load"]

FUNCTIONS = {"audit": "audit", "compare_texts": "texts", "gate": "gate", "load": "load"}
"""Function -> its module in `toxtrail.api`, imported on first use."""


def __getattr__(name: str) -> object:
    """Import a function of the API."""
    if name not in FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"toxtrail.api.{FUNCTIONS[name]}"), name)
