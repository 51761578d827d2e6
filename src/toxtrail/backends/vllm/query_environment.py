"""Print the versions and the hardware of a vLLM installation as JSON; run by its own Python.

    PYTHON -I query_environment.py

This file imports nothing from toxtrail, which is not installed there.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version


def main() -> None:
    """Print one JSON object of strings as the last line of standard output."""
    import torch
    import vllm
    from vllm.platforms import current_platform

    is_cuda = current_platform.is_cuda()
    major, minor = torch.cuda.get_device_capability() if is_cuda else (0, 0)
    facts = {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "platform": current_platform.device_type,
        "device": current_platform.get_device_name() if is_cuda else current_platform.device_type,
        "capability": f"{major}.{minor}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
