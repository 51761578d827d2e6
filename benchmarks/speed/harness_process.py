"""Run by the harness's own Python: lm-evaluation-harness's hf backend, controlled line by line.

The first line of standard input names the model; after each further line all prompts are continued,
and one line of standard output contains [prompt tokens, new tokens] of every row.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    asked = json.loads(sys.stdin.readline())
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(asked["threads"])
    lm = HFLM(
        pretrained=asked["folder"], dtype=asked["dtype"], device="cpu", batch_size=asked["batch"]
    )
    settings = {"until": [], "max_gen_toks": asked["new_tokens"], "do_sample": False}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(text, dict(settings)), idx=i)
        for i, text in enumerate(asked["prompts"])
    ]
    rows: list[tuple[list[int], list[int]]] = []
    generate = lm._model_generate

    def recorded(context, attention_mask, **rest):
        produced = generate(context=context, attention_mask=attention_mask, **rest)
        for ids, mask, row in zip(context, attention_mask, produced, strict=True):
            rows.append((ids[mask.bool()].tolist(), row[len(ids) :].tolist()))
        return produced

    lm._model_generate = recorded
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        rows.clear()
        lm.generate_until(requests, disable_tqdm=True)
        print(json.dumps(rows), file=answers, flush=True)


if __name__ == "__main__":
    main()
