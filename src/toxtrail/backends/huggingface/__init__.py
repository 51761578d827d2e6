"""Language models through transformers and peft: identity, loading, generation, fine-tuning."""
