"""A Detoxify checkpoint for scoring: a given one, or one with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

CLASSES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Checkpoint(NamedTuple):
    """Checkpoint in the format of the detoxify package."""

    name: str
    file: Path
    encoder: Path
    """Folder with config.json and the tokenizer."""


def own(folder: Path, scratch: Path) -> Checkpoint:
    """Return the checkpoint in a folder (one .ckpt beside config.json and tokenizer files).

    The package queries a hub for the encoder that the checkpoint names, so a copy names the folder.
    """
    import torch

    found = sorted(folder.glob("*.ckpt"))
    if len(found) != 1 or not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} needs one .ckpt file and a config.json; it has {len(found)}.")
    content = torch.load(found[0], map_location="cpu", weights_only=False)  # as the package does
    content["config"]["arch"]["args"]["model_type"] = str(folder.resolve())
    torch.save(content, scratch / "model.ckpt")
    return Checkpoint(folder.resolve().name, scratch / "model.ckpt", folder.resolve())


def at_random(texts: Sequence[str], scratch: Path, layers: int) -> Checkpoint:
    """Return a BERT of a typical small size, 384 wide. Its scores are meaningless; its time is
    not."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = _tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=layers,
        num_attention_heads=12, intermediate_size=1536, num_labels=len(CLASSES),
    )  # fmt: skip
    torch.manual_seed(1)
    model = BertForSequenceClassification(config)
    encoder = scratch / "encoder"
    config.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    made = {
        "model_type": str(encoder),
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "PreTrainedTokenizerFast",
        "num_classes": len(CLASSES),
    }
    classes = {"args": {"classes": CLASSES}}
    content = {
        "config": {"arch": {"args": made}, "dataset": classes},
        "state_dict": model.state_dict(),
    }
    torch.save(content, scratch / "model.ckpt")
    return Checkpoint("random weights", scratch / "model.ckpt", encoder)


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=4000, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.BertProcessing(
        ("[SEP]", made.token_to_id("[SEP]")), ("[CLS]", made.token_to_id("[CLS]"))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=512, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
