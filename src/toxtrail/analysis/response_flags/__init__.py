"""Response flags: rules that detect texts with little content. registry.py lists them."""
