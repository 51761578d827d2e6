"""Package versions of results against the installed ones."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.compute.devices import environment_info
from toxtrail.pipeline import SOURCE, installed_versions, manifest_of
from toxtrail.preflight.result_packages import (
    PACKAGES,
    PYTHON,
    OtherVersion,
    installed_packages,
    other_versions,
    other_versions_note,
    result_packages,
)
from toxtrail.storage.artifacts import ArtifactStore

names = st.sampled_from([PYTHON, *PACKAGES, "device", "vllm", "vllm_torch", "matplotlib"])
versions = st.sampled_from(["1.0", "1.1", "2.0", "2.0+cpu", "2.0+cu130"])
environments = st.dictionaries(
    st.sampled_from(["generate@a", "score@a", "generate@b", "compare@f"]),
    st.dictionaries(names, versions),
)
compared = {PYTHON, *PACKAGES}


def release(version):
    return version and version.split("+")[0]


@given(environments, st.dictionaries(st.sampled_from(sorted(compared)), versions))
def test_every_other_version_is_listed_once_with_all_its_results(recorded, installed):
    others = other_versions(recorded, installed)
    pairs = [(other.package, other.recorded) for other in others]
    assert pairs == sorted(set(pairs))
    listed = {(o.package, o.recorded, name) for o in others for name in o.results}
    assert listed == {
        (package, version, name)
        for name, environment in recorded.items()
        for package, version in environment.items()
        if package in compared and release(version) != release(installed.get(package))
    }
    assert all(o.installed == installed.get(o.package) for o in others)
    assert (other_versions_note(others) is None) == (not others)


@given(environments)
def test_results_of_the_installed_versions_are_no_note(recorded):
    merged = {p: v for e in recorded.values() for p, v in e.items() if p in compared}
    same = {name: {p: merged.get(p, v) for p, v in e.items()} for name, e in recorded.items()}
    assert other_versions(same, merged) == []


def test_the_note_has_the_versions_and_counts_variants_and_families():
    note = other_versions_note(
        [
            OtherVersion("numpy", "2.4.6", "2.5.0", ("compare@f", "posterior@a", "posterior@b")),
            OtherVersion("nutpie", "0.16.0", None, ("pool@f",)),
            OtherVersion(PYTHON, "3.11.7", "3.12.1", ("generate@a",)),
        ]
    )
    for part in (
        "2 variants and 1 family",
        "numpy 2.4.6 (installed: 2.5.0)",
        "nutpie 0.16.0 (installed: none)",
        "Python 3.11.7 (installed: 3.12.1)",
    ):
        assert part in note


def test_the_versions_are_those_that_are_installed():
    installed = installed_packages()
    assert installed[PYTHON] == platform.python_version()
    assert {n: installed[n] for n in ("numpy", "torch")} == installed_versions("numpy", "torch")


def test_no_package_is_imported_for_it():
    program = (
        "import sys; from toxtrail.preflight.result_packages import installed_packages; "
        "installed_packages(); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_package_that_a_stage_records_is_compared():
    calls = re.compile(r"installed_versions\(([^)*]*)\)")
    recorded = {
        name
        for path in (*SOURCE.glob("stages/*.py"), *SOURCE.glob("execution/*.py"))
        for call in calls.findall(path.read_text("utf-8"))
        for name in re.findall(r'"([\w-]+)"', call)
    }
    assert {"numpy", "scipy"} <= recorded
    recorded |= environment_info("cpu").keys()
    assert recorded - {"matplotlib", "device", "cpu_capability"} <= compared


def test_outputs_are_read_and_damaged_ones_left_out(tmp_path):
    store = ArtifactStore(tmp_path)
    manifest = manifest_of("generate", "a", {}, {}, {"numpy": "1.0", "device": "cpu"})
    store.write_generations("f", "a", [], manifest)
    store.scores_path("f", "a").parent.mkdir(parents=True)
    store.scores_path("f", "a").write_bytes(b"PAR1 damaged")
    config = SimpleNamespace(
        finetunes={}, variants={"a": SimpleNamespace(family="f")}, families={"f": None}
    )
    (other,) = result_packages(config, store)
    assert other == OtherVersion(
        "numpy", "1.0", installed_versions("numpy")["numpy"], ("generate@a",)
    )
