"""toxtrail: how fine-tuning changes a language model's toxicity, and which fine-tune did it."""

__version__ = "0.2.0"
