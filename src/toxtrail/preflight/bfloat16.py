"""Settings of bfloat16 that are slower than float32 on this processor.

A processor without instructions for bfloat16 products converts each operand to float32 first. The
processor's features are read without torch; where they are not known, nothing is claimed.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from toxtrail.config.schema import Config
from toxtrail.config.scorer_kinds.guard import GuardConfig

INSTRUCTIONS = {"x86_64": ("avx512_bf16", "amx_bf16"), "arm64": ("bf16", "svebf16")}
"""Names, as Linux gives them, of the features with bfloat16 products, by architecture."""
CONVERSION = "avx_ne_convert"
"""A feature that makes the conversion fast; its effect was not measured, so nothing is claimed."""
LIMITS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA with which oneDNN uses no bfloat16 instructions."""
ACCELERATORS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""Devices of drivers of GPUs that torch may use: NVIDIA, its embedded boards, AMD, WSL."""
SHOWN_KEYS = 3
"""Number of variants that a line names."""


class Bfloat16Support(NamedTuple):
    """Whether a processor multiplies bfloat16 numbers."""

    is_supported: bool | None
    """None if it is not known."""
    fact: str
    """The feature that was found, or the features that are missing."""


class Bfloat16Use(NamedTuple):
    """Setting of params.yaml that makes a stage compute in bfloat16."""

    stage: str
    """generate, score or finetune."""
    keys: tuple[str, ...]
    """The variants that are generated, the fine-tune that is trained; for `score`, the scorer."""
    place: str
    """Key path of the setting."""


def bfloat16_support(
    architecture: str, features: frozenset[str] | None, onednn_limit: str | None = None
) -> Bfloat16Support:
    """Tell whether a processor has instructions for bfloat16 products.

    Args:
        architecture: as `platform.machine()` gives it.
        features: names of the processor's features, as in /proc/cpuinfo; None if not known.
        onednn_limit: value of ONEDNN_MAX_CPU_ISA.
    """
    kind = {"amd64": "x86_64", "aarch64": "arm64"}.get(architecture.lower(), architecture.lower())
    names = INSTRUCTIONS.get(kind)
    if names is None or features is None:
        return Bfloat16Support(None, "the processor's features are not known")
    if kind == "x86_64" and onednn_limit is not None and onednn_limit.upper() in LIMITS:
        return Bfloat16Support(False, f"ONEDNN_MAX_CPU_ISA={onednn_limit} turns them off")
    present = [name for name in names if name in features]
    if present:
        return Bfloat16Support(True, present[0])
    if CONVERSION in features:
        return Bfloat16Support(None, f"{CONVERSION} only")
    return Bfloat16Support(False, f"it lacks {' and '.join(names)}")


def bfloat16_uses(config: Config) -> list[Bfloat16Use]:
    """List the settings that make a stage of this experiment compute in bfloat16 here: not those of
    servers, nor those of vLLM, which chooses its device itself."""
    generated = tuple(
        key for key in config.variants if not config.is_served(key) and config.texts_of(key) is None
    )
    generation = config.generation
    in_process = generation.engine is None and generation.dtype == "bfloat16" and generated
    return [
        *([Bfloat16Use("generate", generated, "generation.dtype")] if in_process else []),
        *(
            Bfloat16Use("finetune", (key,), f"finetunes.{key}.base_precision")
            for key, finetune in config.finetunes.items()
            if finetune.base_precision == "bfloat16"
        ),
        *(
            Bfloat16Use("score", (key,), f"scoring.scorers.{key}.dtype")
            for key, scorer in config.scoring.scorers.items()
            if isinstance(scorer, GuardConfig) and scorer.dtype == "bfloat16"
        ),
    ]


def slow_bfloat16(
    uses: Sequence[Bfloat16Use], support: Bfloat16Support, device: str | None
) -> list[str]:
    """Return one line for each setting that is slower than float32; none if that is not known.

    Args:
        device: as torch names it; None if not known.
    """
    if device != "cpu" or support.is_supported is not False:
        return []
    return [
        f"{named_keys(use.keys)}: {use.place} is bfloat16, which is slower than float32 on this "
        f"processor: no bfloat16 instructions ({support.fact}). Set {use.place}: float32."
        for use in uses
    ]


def slow_bfloat16_here(
    config: Config, device: str | None, stage: str | None = None, key: str | None = None
) -> list[str]:
    """Return the lines of `slow_bfloat16` on this machine's processor.

    Args:
        stage: only the settings of this stage.
        key: only for this variant or fine-tune; None for all.
    """
    uses = [use for use in bfloat16_uses(config) if stage in (None, use.stage)]
    if key is not None:
        uses = [use._replace(keys=(key,)) for use in uses if key in use.keys]
    return slow_bfloat16(uses, processor_support(), device) if uses else []


def processor_support() -> Bfloat16Support:
    """Tell whether this machine's processor has instructions for bfloat16 products."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return bfloat16_support(platform.machine(), _processor_features(), limit)


def device_without_torch(setting: str) -> str | None:
    """Return the device of `runtime.device`, without the seconds that importing torch takes; None
    if `auto` may find a GPU."""
    if setting != "auto":
        return setting
    if _is_torch_without_gpu():
        return "cpu"
    has_none = platform.system() == "Linux" and not any(map(os.path.exists, ACCELERATORS))
    return "cpu" if has_none else None


def parse_cpuinfo(text: str) -> frozenset[str] | None:
    """Return the features that all processors in /proc/cpuinfo have; None if it lists none."""
    named = [line.partition(":") for line in text.splitlines()]
    listed = [
        frozenset(value.split())
        for name, _, value in named
        if name.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*listed) if listed else None


def _processor_features() -> frozenset[str] | None:
    try:
        if platform.system() == "Darwin":
            return _apple_features()
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except (OSError, subprocess.SubprocessError):
        return None


def _apple_features() -> frozenset[str] | None:
    """Return the feature bf16, or none; None if macOS does not know it."""
    command = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return {"1": frozenset({"bf16"}), "0": frozenset[str]()}.get(answer.stdout.strip())


def _is_torch_without_gpu() -> bool:
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def named_keys(keys: Sequence[str]) -> str:
    """Name the first keys, and count the others."""
    more = len(keys) - SHOWN_KEYS
    shown = ", ".join(keys[:SHOWN_KEYS])
    return shown if more <= 0 else f"{shown} and {more} more"
