"""Map the module names of an adapter to those of the model that it is applied to.

Image-text classes name the text model `language_model`, in a place that depends on the class:
`model.language_model.layers.0` and `language_model.model.layers.0` are both `model.layers.0` of the
text class. An adapter that was trained on one class therefore does not match the names of another
class with the same weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.checkpoint_files.unexpected_tensors import UNUSED

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import nn
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
"""Prefix of the name of every tensor of an adapter."""
TEXT_MODEL = "language_model"


def match_module_names(
    config: LoraConfig, tensors: Mapping[str, torch.Tensor], model: PreTrainedModel
) -> tuple[LoraConfig, Mapping[str, torch.Tensor]]:
    """Rename an adapter's settings and tensors to the model's module names, where only the name of
    the text model differs. Tensors of encoders that the model does not have (images, audio) are
    left out, as they do not affect a text.

    Tensors that match no module keep their names, so that the adapter is refused.
    """
    modules = [name for name, module in model.named_modules() if _has_parameters(module)]
    plain = {_without_text_model(name): name for name in modules}
    matches = {key: _matching_module(_path(key), plain) for key in tensors}
    unused = {key for key, match in matches.items() if not match and UNUSED.search(_path(key))}
    names = {match.stored: match.actual for match in matches.values() if match}
    if not unused and all(stored == actual for stored, actual in names.items()):
        return config, tensors
    renamed = {
        _renamed(key, matches[key]): tensor for key, tensor in tensors.items() if key not in unused
    }
    return _rename_settings(config, names), renamed


class _Match(NamedTuple):
    """Two names of one module."""

    stored: str
    """Name in the adapter."""
    actual: str
    """Name in the model."""


def _matching_module(path: str, plain: Mapping[str, str]) -> _Match | None:
    """Find the module to which a tensor of an adapter belongs: the longest one.

    Args:
        path: name of the tensor: module, kind of the matrix.
        plain: module name without the text model's -> module name.
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        stored = ".".join(parts[:length])
        if (actual := plain.get(_without_text_model(stored))) is not None:
            return _Match(stored, actual)
    return None


def _rename_settings(config: LoraConfig, names: Mapping[str, str]) -> LoraConfig:
    """Replace patterns of module names by the names that they select, with rank and alpha of each.

    Args:
        names: module name in the adapter -> module name in the model.
    """
    from dataclasses import replace

    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    settings: dict[str, Any] = {
        field: {
            re.escape(actual): values[pattern]
            for stored, actual in names.items()
            if (pattern := get_pattern_key(tuple(values), stored)) in values
        }
        for field in ("rank_pattern", "alpha_pattern")
        if isinstance(values := getattr(config, field), dict)
    }
    targets = {names[stored] for stored in names if check_target_module_exists(config, stored)}
    saved = [_saved_modules(name, names) for name in config.modules_to_save or ()]
    parameters = [_without_text_model(name) for name in config.target_parameters or ()]
    return replace(
        config,
        target_modules=sorted(targets) or config.target_modules,
        target_parameters=parameters or None,
        modules_to_save=[name for group in saved for name in group] or None,
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
        **settings,
    )


def _saved_modules(name: str, names: Mapping[str, str]) -> list[str]:
    """Return the modules that an entry of `modules_to_save` selects; peft compares the ends."""
    if "." not in name:
        return [name]
    matches = [actual for stored, actual in names.items() if stored.endswith(name)]
    return matches or [_without_text_model(name)]


def _renamed(key: str, match: _Match | None) -> str:
    if match is None:
        return key
    return f"{PREFIX}{match.actual}{_path(key).removeprefix(match.stored)}"


def _path(key: str) -> str:
    return key.removeprefix(PREFIX)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _without_text_model(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != TEXT_MODEL)
