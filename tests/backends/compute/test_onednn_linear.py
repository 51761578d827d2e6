"""Linear layers whose weights are laid out for the CPU: the same products, in any company."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from toxtrail.backends.compute import onednn_linear
from toxtrail.backends.compute.onednn_linear import OneDnnLinears

DTYPES = [torch.float32, torch.bfloat16]
pytestmark = pytest.mark.skipif(
    not OneDnnLinears(nn.Linear(4, 4)), reason="weights are not laid out on this processor"
)


def layers(*sizes, dtype=torch.float32, bias=False):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = (nn.Linear(k, n, bias=bias) for k, n in pairwise(sizes))
        return nn.Sequential(*made).to(dtype).eval()


def rows(count, width, dtype=torch.float32, seed=1):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def product(model, given, linears=None):
    with torch.inference_mode(), (linears or OneDnnLinears(model)).used():
        return model(given)


@example(width=1536, height=192, first=0, count=29, dtype=torch.bfloat16, bias=False)
@example(width=1536, height=192, first=0, count=33, dtype=torch.bfloat16, bias=False)
@example(width=1536, height=1000, first=0, count=8, dtype=torch.bfloat16, bias=False)
@given(
    width=st.sampled_from([16, 64, 96, 576, 1536]),
    height=st.sampled_from([2, 6, 64, 192, 1000]),
    first=st.integers(0, 40),
    count=st.integers(2, 80),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
)
def test_a_row_has_the_same_bits_in_any_company(width, height, first, count, dtype, bias):
    model = layers(width, height, dtype=dtype, bias=bias)
    linears, everyone = OneDnnLinears(model), rows(160, width, dtype)
    alone = product(model, everyone[first : first + count], linears)
    assert torch.equal(alone, product(model, everyone, linears)[first : first + count])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_on_any_number_of_threads(dtype):
    model, ours = layers(576, 1536, 576, dtype=dtype), rows(48, 576, dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(product(model, ours))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_products_are_those_of_torch(dtype, bias):
    model, ours = layers(96, 320, 64, dtype=dtype, bias=bias), rows(33, 96, dtype)
    with torch.inference_mode():
        expected = model(ours)
    allowed = {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert torch.allclose(product(model, ours), expected, rtol=0, atol=allowed)


def test_the_model_multiplies_as_before_once_it_is_over():
    model = layers(8, 8)
    before = model[0].forward
    changed = []

    def fails():
        with OneDnnLinears(model).used():
            changed.append(model[0].forward != before)
            model(rows(2, 9))

    with torch.inference_mode(), pytest.raises(RuntimeError):
        fails()
    assert changed == [True]
    assert model[0].forward == before


@pytest.mark.parametrize("how", ["in place", "another tensor", "other data"])
def test_weights_that_change_after_all_are_not_those_of_before(how):
    model, ours = layers(16, 16), rows(4, 16)
    linears = OneDnnLinears(model)
    before = product(model, ours, linears)
    with torch.no_grad():
        if how == "in place":
            model[0].weight.mul_(2)
        elif how == "other data":
            model[0].weight.data = model[0].weight.data * 2
        else:
            model[0].weight = nn.Parameter(model[0].weight * 2)
    assert torch.allclose(product(model, ours, linears), 2 * before, atol=1e-5)


def test_an_attached_adapter_keeps_its_effect():
    from peft import LoraConfig, inject_adapter_in_model

    model, ours = layers(32, 48, 16), rows(5, 32)
    with torch.inference_mode():
        without = model(ours)
    config = LoraConfig(r=4, target_modules=["0", "1"], init_lora_weights=False)
    with torch.random.fork_rng():
        adapted = inject_adapter_in_model(config, model).eval()
    with torch.inference_mode():
        expected = adapted(ours)
    found = product(adapted, ours)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, without, atol=1e-2)


class Quantized(nn.Linear):
    """Someone else's kind of layer."""


@pytest.mark.parametrize("kind", ["subclass", "own forward", "float64", "float16"])
def test_what_is_no_plain_layer_is_left_alone(kind):
    layer = Quantized(8, 8) if kind == "subclass" else nn.Linear(8, 8)
    if kind == "own forward":
        layer.forward = lambda given: given
    if kind.startswith("float"):
        layer.to(getattr(torch, kind))
    assert not OneDnnLinears(layer)


def test_a_model_too_large_for_copies_is_left_alone_as_a_whole(monkeypatch):
    model = layers(8, 8, 64)
    monkeypatch.setattr(onednn_linear, "machine_memory", lambda: 4 * model[1].weight.nbytes)
    assert OneDnnLinears(model[1])
    assert not OneDnnLinears(model)
    assert OneDnnLinears(model).name == "torch"
