"""Part `gpu`: models of 1 and 8 billion random weights, compared with plain `generate` and with the
time for reading the weights."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from speed.given import Given, config, tell
from speed.limit import settled, watched
from speed.rounds import Turn, Way, ratio, spread, take_turns
from speed.ways import BATCH, batched
from speed.written import Written, share_equal, until_stop
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.generation.generate_engine import GenerateEngine
from toxtrail.backends.huggingface.generation.packed_engine import EngineRequest, PackedEngine
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.silence import silence_libraries

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Shape = dict[str, Any]
SHAPES: dict[str, Shape] = {
    "1B (Llama 3.2's shape)": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8B (Llama 3.1's shape)": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
QUICK: dict[str, Shape] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "tie_word_embeddings": True,
    }
}  # fmt: skip
PROMPTS = 512
LOOP, OURS, MORE, PLAIN = (
    "reference loop",
    "toxtrail",
    "toxtrail, 8 x batch_tokens",
    "toxtrail plain",
)
WARM = 4
"""Prompts of the untimed call."""


def measure(given: Given) -> dict[str, Any]:
    """Return the section `generation_gpu` of the results."""
    import torch

    if not torch.cuda.is_available():
        return {"not_measured": "there is no CUDA device on this machine."}
    return on_device(torch.device("cuda"), torch.cuda.get_device_name(), given)


def on_device(device: torch.device, name: str, given: Given) -> dict[str, Any]:
    """Run the measurement on any device."""
    shapes = QUICK if given.quick else SHAPES
    count = given.prompt_count if given.quick else PROMPTS
    gigabytes = bandwidth(device, 2**22 if given.quick else 2**33) / 1e9
    models = {}
    for model_name, shape in shapes.items():
        tell(f"{model_name} on {name}")
        models[model_name] = one_model(shape, device, count, gigabytes, given)
    return {
        "gpu": name,
        "prompts": count,
        "max_new_tokens": given.new_tokens,
        "gigabytes_per_second": gigabytes,
        "models": models,
    }


def one_model(
    shape: Shape, device: torch.device, count: int, gigabytes: float, given: Given
) -> dict[str, Any]:
    """Return tokens per second of every method, and the share of the memory's speed that toxtrail
    reaches."""
    model = random_model(shape, device)
    rng = random.Random(3)
    prompts = [
        tuple(rng.randrange(shape["vocab_size"]) for _ in range(rng.randint(8, 40)))
        for _ in range(count)
    ]
    runs, at_once = _ways(model, given.new_tokens)
    for run in runs.values():
        run(prompts[:WARM])
    turns = take_turns(
        [Way(n, partial(run, prompts), given.rounds) for n, run in runs.items()], tell
    )
    rates = _rates(turns)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    reading = weights / (gigabytes * 1e9)
    shares = {
        name: spread(
            [_steps(turn.made, at_once[name]) * reading / turn.seconds for turn in turns[name]]
        )
        for name in at_once
    }
    apart: list[Any] = list(prompts)
    for first in (0, 1):
        apart[first::2] = runs[OURS](prompts[first::2])
    ratios = {name: ratio(own, rates[LOOP]) for name, own in rates.items()}
    return {
        "weights_gb": weights / 1e9,
        "at_once": dict(at_once),
        "ratio_vs_reference_loop": ratios[OURS].median,
        "tokens_per_second": {name: spread(own).plain() for name, own in rates.items()},
        "ratios": {name: own.plain() for name, own in ratios.items()},
        "share_of_bandwidth_limit": {name: own.plain() for name, own in shares.items()},
        "equal_rows_other_neighbours": share_equal(turns[OURS][0].made, apart),
        "equal_rows_vs_reference_loop": share_equal(turns[OURS][0].made, turns[LOOP][0].made),
    }


def _rates(turns: dict[str, list[Turn]]) -> dict[str, list[float]]:
    return {
        name: [sum(row.drawn for row in turn.made) / turn.seconds for turn in own]
        for name, own in turns.items()
    }


def _steps(rows: Sequence[Written], at_once: int) -> float:
    """Return the minimum number of times that the weights must be read, with `at_once` rows in
    parallel."""
    return sum(row.drawn for row in rows) / at_once


def random_model(shape: Shape, device: torch.device) -> PreTrainedModel:
    """Return a Llama of this size in bfloat16 whose texts never end."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = LlamaConfig(
        **shape, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None,
        dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(5)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = LlamaForCausalLM(settings)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def bandwidth(device: torch.device, size: int) -> float:
    """Return bytes per second read from the device's memory: a sum over `size` bytes, the best of
    five."""
    import torch

    values = torch.ones(size // 4, dtype=torch.float32, device=device)
    times = []
    for _ in range(6):
        settled(device)
        start = time.perf_counter()
        values.sum()
        settled(device)
        times.append(time.perf_counter() - start)
    return size / min(times[1:])


Run = Callable[[Sequence[tuple[int, ...]]], list[Written]]


def _ways(model: PreTrainedModel, new_tokens: int) -> tuple[dict[str, Run], dict[str, int]]:
    """Return runs by name, and the numbers of rows that each of toxtrail's decoded in parallel,
    filled in as they run."""
    budget, at_once = config().runtime.batch_tokens, dict[str, int]()
    decoding = Decoding(new_tokens, 0.0, 1.0, "none")

    def ours(name: str, batch_tokens: int, prompts: Sequence[tuple[int, ...]]) -> list[Written]:
        engine = PackedEngine(model, (), decoding, batch_tokens, tell)
        with packed_forward.packed_attention(model), watched(model) as rows:
            made = _in_order(engine, prompts)
        at_once[name] = min(max(rows), len(prompts))
        return made

    def plain(prompts: Sequence[tuple[int, ...]]) -> list[Written]:
        return _in_order(GenerateEngine(model, 0, (), decoding, budget, tell), prompts)

    runs: dict[str, Run] = {
        LOOP: partial(_loop, model, new_tokens),
        OURS: partial(ours, OURS, budget),
        MORE: partial(ours, MORE, 8 * budget),
        PLAIN: plain,
    }
    return runs, at_once


def _in_order(
    engine: PackedEngine | GenerateEngine, prompts: Sequence[tuple[int, ...]]
) -> list[Written]:
    asks = [EngineRequest(number, prompt, 0) for number, prompt in enumerate(prompts)]
    done = {answer.number: answer.tokens for answer in engine.run(asks)}
    return [until_stop(done[number], ()) for number in range(len(prompts))]


def _loop(
    model: PreTrainedModel, new_tokens: int, prompts: Sequence[tuple[int, ...]]
) -> list[Written]:
    """Generate in batches of 16 in prompt order, padded on the left."""
    import torch
    from transformers import GenerationConfig

    settings = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)
    written = []
    for batch in batched(prompts, BATCH):
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        with silence_libraries():
            produced = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
            )
        written += [until_stop(row, ()) for row in produced[:, width:].tolist()]
    return written
