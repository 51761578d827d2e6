"""Models, adapters and tokenizers: resolved, checked, loaded."""
