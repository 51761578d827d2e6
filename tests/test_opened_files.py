"""Nothing but regular_files opens a file that somebody else may have put there.

The test reads the source: a call of `open`, `os.open`, `.open`, `.read_text` or `.read_bytes` needs
a reason here, or is to be `open_regular`, `read_text` or `read_bytes` of regular_files. What
a library opens by its name (Parquet, HDF5, SQLite, zip) is not seen by it.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import toxtrail

SOURCE = Path(toxtrail.__file__).parent
CALLS = {"read_text", "read_bytes", "open"}

DEVICES, REPORT = "backends/compute/devices.py", "reporting/html_report.py"
PERMITTED = {
    ("preflight/bfloat16.py", "Path('/proc/cpuinfo').read_text"): "system",
    ("auditing/bundle/bundle.py", "archive.open"): "a member of a zip, written",
    ("auditing/bundle/signing.py", "path.open"): "a key that a person names, which may be a pipe",
    ("backends/assets/hub_info.py", "Path(path).read_text"): "a download in a new temporary folder",
    ("backends/assets/download.py", "part.open"): "written, in the cache",
    ("backends/assets/pip.py", "report.read_text"): "a report of pip in a new temporary folder",
    ("backends/assets/wheels.py", "archive.open"): "a member of a zip",
    ("backends/assets/wheels.py", "target.open"): "written, in the cache",
    (DEVICES, "(folder / 'core_id').read_text"): "system",
    (
        "backends/compute/devices.py",
        "(folder / 'physical_package_id').read_text",
    ): "system",
    (
        "backends/compute/devices.py",
        "Path('/sys/fs/cgroup/memory.max').read_text",
    ): "system",
    (DEVICES, "limit.read_text"): "system",
    ("backends/mlflow/create_store.py", "os.open"): "a draft of ours, written to disk",
    ("execution/run_lock.py", "path.open"): "written, after refuse_irregular",
    ("config/scorer_presets.py", "path.read_text"): "of the package",
    ("backends/subprocesses.py", "log.open"): "written, after what was there was deleted",
    ("console.py", "os.open"): "the null device",
    ("storage/atomic_writes.py", "path.open"): "a draft of ours, written to disk",
    ("storage/row_journal.py", "self._path.open"): "written, after refuse_irregular",
    ("scaffold.py", "(TEMPLATE_DIR / 'README.md').read_text"): "of the package",
    ("scaffold.py", "(TEMPLATE_DIR / 'pipeline.yaml').read_text"): "of the package",
    ("scaffold.py", "(TEMPLATE_DIR / 'requirements.txt').read_bytes"): "of the package",
    ("scaffold.py", "(TEMPLATE_DIR / model).read_bytes"): "of the package",
    ("scaffold.py", "path.read_bytes"): "of the package",
    ("scaffold.py", "preset_path(preset).read_text"): "of the package",
    (
        "reporting/html_report.py",
        "files('toxtrail').joinpath(f'templates/{name}').read_text",
    ): "package",
}
"""(module, call) -> why it may open a file itself."""
AFTER_A_LOOK = {
    ("execution/run_lock.py", "path.open"),
    ("storage/row_journal.py", "self._path.open"),
}


def raw_calls(source: str) -> list[str]:
    """Calls that open a file, as they are written; our own helpers are plain names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            found.append(ast.unparse(node.func))
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append("open")
    return found


def test_every_other_module_opens_files_through_it():
    found = {
        (path.relative_to(SOURCE).as_posix(), call)
        for path in SOURCE.rglob("*.py")
        if path.name != "regular_files.py"
        for call in raw_calls(path.read_text("utf-8"))
    }
    assert found - PERMITTED.keys() == set()
    assert PERMITTED.keys() - found == set()  # a reason without a call is out of date


def test_what_is_written_to_is_looked_at_before():
    for name, call in AFTER_A_LOOK:
        text = (SOURCE / name).read_text("utf-8")
        assert text.index("refuse_irregular(", text.index("def ")) < text.index(call)


def test_the_search_sees_each_way():
    source = "open(a)\nos.open(a)\np.open()\np.read_text()\nPath(a).read_bytes()\nread_text(p)"
    assert Counter(raw_calls(source)) == Counter(
        ["open", "os.open", "p.open", "p.read_text", "Path(a).read_bytes"]
    )
