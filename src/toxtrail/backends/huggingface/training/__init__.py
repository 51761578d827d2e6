"""Fine-tuning with LoRA."""
