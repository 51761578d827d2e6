"""Devices, threads and the arithmetic on them."""
