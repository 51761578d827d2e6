"""What quantized weights are computed with is known, and what cannot be loaded is refused."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

from toxtrail.backends.huggingface.weights import quantization
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.backends.huggingface.weights.quantization import (
    quantization_in_memory,
    quantization_problem,
)
from toxtrail.errors import BackendError


@pytest.fixture
def quantized(tiny_folder, copy_of):
    """The tiny model with other settings of quantization over its plain weights."""

    def made(**settings):
        folder = copy_of(tiny_folder, "quantized")
        path = folder / "config.json"
        values = {**json.loads(path.read_text()), "quantization_config": settings}
        path.write_text(json.dumps(values))
        return folder

    return made


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"quant_method": "gptq"}, "gptq.*not installed: optimum, gptqmodel.*unquantized"),
        ({"quant_method": "awq", "bits": 4}, "awq.*gptqmodel"),
        ({"quant_method": "compressed-tensors"}, "compressed_tensors"),
        ({"load_in_4bit": True}, "bitsandbytes.*not installed"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "'modelopt'.*does not load"),
        ({"quant_method": ["x"]}, "does not load"),
        ({}, "'None'.*does not load"),
        ([], "does not load"),
    ],
    ids=str,
)
def test_what_cannot_be_loaded_is_named(settings, problem, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    assert re.search(problem, quantization_problem(settings))


def test_what_can_be_loaded_is_no_problem(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: SimpleNamespace())
    assert quantization_problem(None) is None
    for method in ("fp8", "mxfp4", "gptq", "bitsandbytes"):
        assert quantization_problem({"quant_method": method}) is None


def test_an_unknown_method_is_refused_when_it_is_loaded(quantized):
    with pytest.raises(BackendError, match="quantized by the method 'modelopt'"):
        load_base(quantized(quant_method="modelopt"), "mine", "float32", "cpu")


def test_weights_that_a_cpu_dequantizes_are_plain(quantized, tiny_folder):
    fp8 = {"weight_block_size": [16, 16], "activation_scheme": "dynamic"}
    model = load_base(quantized(quant_method="fp8", **fp8), "mine", "float32", "cpu")
    assert quantization_in_memory(model) is None
    assert quantization_in_memory(load_base(tiny_folder, "tiny", "bfloat16", "cpu")) is None


def test_weights_that_stay_quantized_are_named_with_their_method(tiny_folder):
    model = load_base(tiny_folder, "tiny", "float32", "cpu")
    up = model.model.layers[0].mlp.up_proj
    up.weight = torch.nn.Parameter(up.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    assert quantization_in_memory(model) == "float8_e4m3fn"
    model.config.quantization_config = {"quant_method": "fp8"}
    assert quantization_in_memory(model) == "fp8 float8_e4m3fn"


def test_weights_in_buffers_are_known_by_the_flag_of_transformers(tiny_folder):
    model = load_base(tiny_folder, "tiny", "float32", "cpu")
    model.is_quantized = True
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert quantization_in_memory(model) == "gptq"
