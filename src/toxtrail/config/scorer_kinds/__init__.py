"""The kinds of scorers: options in params.yaml, limitations, and the module that loads them."""
