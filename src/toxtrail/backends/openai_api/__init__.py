"""Models on a server (such as vLLM), queried over OpenAI's completions API."""
