"""Weights that a server holds (vLLM and the like), asked over OpenAI's completions API."""
