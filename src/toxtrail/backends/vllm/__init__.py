"""Generation with vLLM, which toxtrail starts with the verified files of a model card."""
