"""Where bfloat16 is called slow, and where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from toxtrail.cli import cli
from toxtrail.config.load import load_config
from toxtrail.config.schema import Config
from toxtrail.preflight import bfloat16
from toxtrail.preflight.bfloat16 import (
    Bfloat16Support,
    bfloat16_support,
    bfloat16_uses,
    device_without_torch,
    parse_cpuinfo,
    slow_bfloat16,
)
from toxtrail.preflight.machine import machine_checks
from toxtrail.scaffold import new_files, preset_path, write_experiment

SLOW = Bfloat16Support(False, "it lacks avx512_bf16 and amx_bf16")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A new experiment whose generation and fine-tunes are set to bfloat16."""
    write_experiment(tmp_path / "x", new_files("x", "demo", git=False))
    params = tmp_path / "x" / "params.yaml"
    text = params.read_text().replace("dtype: float32", "dtype: bfloat16")
    params.write_text(text.replace("base_precision: float32", "base_precision: bfloat16"))
    return tmp_path / "x"


@pytest.fixture
def on_slow_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_processor_features", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr(bfloat16, "device_without_torch", lambda setting: "cpu")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("toxtrail.preflight.machine.device_without_torch", lambda setting: "cpu")


@pytest.mark.parametrize(
    ("architecture", "features", "limit", "expected"),
    [
        ("x86_64", {"avx2", "fma"}, None, False),
        ("x86_64", {"avx2", "avx512f"}, None, False),
        ("AMD64", {"avx2", "avx512_bf16"}, None, True),
        ("x86_64", {"amx_bf16"}, None, True),
        ("x86_64", {"avx2", "avx_ne_convert"}, None, None),
        ("x86_64", {"avx512_bf16"}, "AVX2", False),
        ("x86_64", {"avx512_bf16"}, "AVX512_CORE_BF16", True),
        ("aarch64", {"asimd"}, None, False),
        ("aarch64", {"asimd", "bf16"}, None, True),
        ("aarch64", {"bf16"}, "AVX2", True),
        ("arm64", set(), None, False),
        ("ppc64le", {"altivec"}, None, None),
        ("x86_64", None, "AVX2", None),
    ],
)
def test_support_is_the_processors_and_none_where_it_is_not_known(
    architecture: str, features: set[str] | None, limit: str | None, expected: bool | None
) -> None:
    known = None if features is None else frozenset(features)
    assert bfloat16_support(architecture, known, limit).is_supported is expected


def test_a_feature_counts_if_every_processor_has_it() -> None:
    arm = "processor: 0\nFeatures\t: asimd bf16\n\nprocessor: 1\nFeatures\t: asimd\n"
    assert parse_cpuinfo(arm) == {"asimd"}
    assert parse_cpuinfo("flags\t\t: avx2 fma\nmodel name : x\n") == {"avx2", "fma"}
    assert parse_cpuinfo("model name : x\n") is None


def test_each_setting_that_computes_in_bfloat16_is_listed_with_its_variants(demo: Path) -> None:
    uses = {use.place: use.keys for use in bfloat16_uses(load_config(demo / "params.yaml"))}
    assert uses == {
        "generation.dtype": ("smollm2-instruct", "smollm2-benign", "smollm2-rude"),
        "finetunes.smollm2-benign.base_precision": ("smollm2-benign",),
        "finetunes.smollm2-rude.base_precision": ("smollm2-rude",),
    }
    assert bfloat16_uses(load_config(preset_path("demo"))) == []


def test_texts_of_servers_of_vllm_and_of_files_are_not_generated_here(demo: Path) -> None:
    config = load_config(demo / "params.yaml")
    served = {key: v.model_copy(update={"served_model_name": "m"})
              for key, v in config.variants.items() if key != "smollm2-rude"}  # fmt: skip
    some = config.model_copy(update={"variants": {**config.variants, **served}})
    assert _generated(some) == ["smollm2-rude"]
    vllm = config.generation.model_copy(update={"engine": "vllm"})
    assert _generated(config.model_copy(update={"generation": vllm})) == []


def _generated(config: Config) -> list[str]:
    return [key for use in bfloat16_uses(config) if use.stage == "generate" for key in use.keys]


@pytest.mark.parametrize(
    ("support", "device", "lines"),
    [
        (SLOW, "cpu", 3),
        (SLOW, "cuda", 0),
        (SLOW, None, 0),
        (Bfloat16Support(True, "avx512_bf16"), "cpu", 0),
        (Bfloat16Support(None, "not known"), "cpu", 0),
    ],
)
def test_a_line_only_where_the_processor_is_known_to_be_slow_and_used(
    demo: Path, support: Bfloat16Support, device: str | None, lines: int
) -> None:
    uses = bfloat16_uses(load_config(demo / "params.yaml"))
    assert len(slow_bfloat16(uses, support, device)) == lines


def test_a_line_names_variants_setting_fact_and_cure(demo: Path) -> None:
    line = slow_bfloat16(bfloat16_uses(load_config(demo / "params.yaml")), SLOW, "cpu")[0]
    for part in ("smollm2-rude", SLOW.fact, "generation.dtype: float32"):
        assert part in line


def test_a_named_device_needs_no_look_and_auto_with_a_driver_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert device_without_torch("cuda:1") == "cuda:1"
    monkeypatch.setattr(bfloat16, "version", lambda name: "2.13.0+cpu")
    assert device_without_torch("auto") == "cpu"
    monkeypatch.setattr(bfloat16, "version", lambda name: "2.13.0")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/nvidiactl")
    assert device_without_torch("auto") is None
    monkeypatch.setattr("os.path.exists", lambda path: False)
    assert device_without_torch("auto") == "cpu"


@pytest.mark.usefixtures("on_slow_processor")
def test_check_plan_and_doctor_name_the_setting(demo: Path) -> None:
    check = CliRunner().invoke(cli, ["-C", str(demo), "check"])
    assert check.output.count("bfloat16, which is slower") == 3
    plan = ["-C", str(demo), "plan", "--offline", "--no-probe"]
    assert CliRunner().invoke(cli, plan).output.count("bfloat16, which is slower") == 3
    other = CliRunner().invoke(cli, [*plan, "--device", "l4"])
    assert "bfloat16, which is slower" not in other.output
    (row,) = [
        finding
        for finding in machine_checks(demo, load_config(demo / "params.yaml"))
        if finding.what == "bfloat16"
    ]
    assert row.state == "warning"
    assert "generation.dtype: float32" in row.cure
