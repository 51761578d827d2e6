"""Response flags: rules that find texts which say little. registry.py lists them."""
