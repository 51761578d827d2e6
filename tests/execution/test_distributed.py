"""The network interface through which several machines connect."""

from __future__ import annotations

import pytest

from toxtrail.execution.distributed import interface_of, own_address

INTERFACES = {
    "lo": ["127.0.0.1", "::1"],
    "eth7": ["02:42:ac:11:00:02", "10.9.0.1", "fe80::2%eth7"],
    "eth8": ["10.8.0.1"],
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("127.0.0.1", None), ("::1", None), (None, None), ("10.7.0.1", None),
        ("10.9.0.1", "eth7"), ("fe80::2", "eth7"), ("10.8.0.1", "eth8"),
    ],
)  # fmt: skip
def test_only_an_address_in_a_network_has_an_interface(address, interface):
    assert interface_of(address, INTERFACES) == interface


def test_a_host_of_this_machine_is_reached_from_its_own_address():
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("") is None
