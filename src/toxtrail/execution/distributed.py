"""Stages started by a launcher such as srun, or distributed over processes with accelerate."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.backends.subprocesses import run_foreground
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from accelerate import PartialState

    from toxtrail.config.schema import RuntimeConfig


class ProcessGroup:
    """Processes that share a stage; a single process is a group too."""

    def __init__(self, device: str, number: int, of: int, here: int, state: object) -> None:
        """Args:
        number: rank of this process, from 0.
        here: number of processes on this machine.
        """
        self.device = device
        self.number = number
        self.of = of
        self.here = here
        self._state = state

    def wait(self) -> None:
        """Wait for all processes of the group."""
        state: PartialState | None = self._state
        if state is not None:
            state.wait_for_everyone()


LAUNCHED = "TOXTRAIL_LAUNCHED"
"""Environment variable of a stage that `runtime.launcher` started: its name and key."""


def relaunch(
    root: Path, runtime: RuntimeConfig, arguments: Sequence[str], distributed: bool = True
) -> bool:
    """Run this stage under `runtime.launcher`, then under `accelerate launch`, if it is not yet.

    Args:
        arguments: name and key of the stage.
        distributed: whether `runtime.processes` can share the stage.

    Returns:
        Whether it was run; the work is then finished.

    Raises:
        BackendError: the launcher, or one of the processes, failed.
    """
    return _relaunch_with_launcher(root, runtime.launcher or (), arguments) or (
        distributed and _relaunch_distributed(root, runtime.processes, arguments)
    )


def _relaunch_with_launcher(root: Path, launcher: Sequence[str], arguments: Sequence[str]) -> bool:
    """Run this stage with a prefix, for example `srun --gres=gpu:1`.

    Raises:
        BackendError: the launcher does not exist, or ended with an error.
    """
    stage = " ".join(arguments)
    if not launcher or os.environ.get(LAUNCHED) == stage:
        return False
    if shutil.which(launcher[0]) is None:
        raise BackendError(
            f"runtime.launcher: the command {launcher[0]} does not exist here. Install it, or "
            "remove the setting on this machine."
        )
    command = [*launcher, sys.executable, "-m", "toxtrail", "-C", str(root), "stage", *arguments]
    code = run_foreground(command, root, {**os.environ, LAUNCHED: stage})
    if code != 0:
        raise BackendError(
            f"`{shlex.join(launcher)}` (runtime.launcher) ended with the exit code {code}; see its "
            "message above. Finished work is kept: run again to resume."
        )
    return True


def _relaunch_distributed(root: Path, processes: int, arguments: Sequence[str]) -> bool:
    """Run this stage under `accelerate launch`, if it is to be distributed and is not yet.

    Returns:
        Whether it was run; the work is then finished.

    Raises:
        BackendError: one of the processes failed.
    """
    if processes == 1 or is_distributed():
        return False
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--multi_gpu"),  # torchrun; without a GPU its group is gloo's
        *("--module", "toxtrail", "-C", str(root), "stage", *arguments),
    ]
    if run_foreground(command, root, dict(os.environ)) != 0:
        raise BackendError(
            f"A process of {processes} (runtime.processes) failed; see its message above. "
            "Finished work is kept: run again to resume."
        )
    return True


def is_distributed() -> bool:
    """Return whether `accelerate launch` (or torchrun) started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group(setting: str) -> Iterator[ProcessGroup]:
    """Return the group of this process, and its device.

    Args:
        setting: runtime.device; with several GPUs, each process uses its own.
    """
    from toxtrail.backends.compute.devices import pick_device

    device = pick_device(setting)
    if not is_distributed():
        yield ProcessGroup(device, 0, 1, 1, None)
        return
    from accelerate import PartialState

    _select_network_interface()
    try:
        state = PartialState(cpu=device == "cpu")
    except RuntimeError as error:
        raise BackendError(_no_connection(error)) from error
    own_device = f"cuda:{state.local_process_index}" if device == "cuda" else device
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
    try:
        yield ProcessGroup(own_device, state.process_index, state.num_processes, local_size, state)
    finally:
        state.destroy_process_group()


def _select_network_interface() -> None:
    """Name the network interface of the connections between machines in GLOO_SOCKET_IFNAME: the one
    that reaches the first machine.

    A variable set by the user is kept. Without it, Gloo uses the address of the host name, which on
    many machines is the loopback address.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    import psutil

    interfaces = {
        name: [str(entry.address) for entry in entries]
        for name, entries in psutil.net_if_addrs().items()
    }
    if interface := interface_of(own_address(os.environ.get("MASTER_ADDR", "")), interfaces):
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def interface_of(address: str | None, interfaces: Mapping[str, Sequence[str]]) -> str | None:
    """Return the network interface of an address; None for a loopback address or an unknown one.

    Args:
        interfaces: name of an interface -> its addresses.
    """
    if address is None or ip_address(address).is_loopback:
        return None
    for name, addresses in interfaces.items():
        if address in [other.partition("%")[0] for other in addresses]:
            return name
    return None


def own_address(host: str) -> str | None:
    """Return the address of this machine in connections to a host; None if the host is unknown.

    Nothing is sent.
    """
    try:
        (family, kind, _, _, target), *_ = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return address.partition("%")[0]


def _no_connection(error: RuntimeError) -> str:
    lines = re.sub(r"\[\S*/\S*\] ", "", str(error)).splitlines() or [type(error).__name__]
    return (
        f"The processes of this stage cannot connect to each other ({lines[0]}). Check that "
        f"{os.environ.get('MASTER_ADDR', 'the first machine')} (--main_process_ip) is reachable "
        "from each machine and no firewall blocks their ports; if a machine has several networks, "
        "set GLOO_SOCKET_IFNAME (with GPUs also NCCL_SOCKET_IFNAME) to the interface that "
        "connects them."
    )
