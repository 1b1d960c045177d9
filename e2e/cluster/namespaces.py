"""The kernel's namespaces, entered: a cluster's processes see their own network, mounts and processes."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from e2e.cluster.layout import CONTROL_PLANE_IP, NODE_NETWORK, Layout

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def unshare_command(program: list[str]) -> list[str]:
    """The command that runs `program` as process 1 of a new process namespace with mounts of its own.

    Whatever way process 1 ends, the kernel ends all others in the namespace, and the mounts go with the last.
    """
    options = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    return ["unshare", *options, "--", *program]


def network_commands() -> list[list[str]]:
    """What makes an empty network namespace the nodes' network. No uplink: nothing leaves the machine.

    The default route leads nowhere but must be there: without one the kernel refuses an address outside the nodes'
    network before kube-proxy's rules could translate it.
    """
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "nodes0", "type", "bridge"],
        ["ip", "address", "add", f"{CONTROL_PLANE_IP}/{NODE_NETWORK.partition('/')[2]}", "dev", "nodes0"],
        ["ip", "link", "set", "nodes0", "up"],
        ["ip", "route", "add", "default", "dev", "nodes0"],
    ]


def enter_new_network() -> None:
    """Give the calling thread a network namespace of its own, set up as the nodes' network.

    Call it before other threads start: they inherit the namespace of the thread that starts them.
    """
    _check(_libc.unshare(_CLONE_NEWNET))
    for command in network_commands():
        subprocess.run(command, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def mount_own_folders(layout: Layout) -> None:
    """Lay the cluster's folders over the fixed paths that its programs use, seen by nobody outside the namespace."""
    # Shared among the cluster's own namespaces: kubelet and containerd hand mounts on to containers.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for target, source in layout.mounts().items():
        source.mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", source, target], check=True)
    resolver = Path("/etc/resolv.conf")
    if resolver.is_file():  # the machine's own servers are out of reach; ask one that refuses at once
        subprocess.run(["mount", "--bind", layout.folder / "resolv.conf", resolver.resolve()], check=True)


class HostNetwork:
    """The network namespace that the process was started in, remembered."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def listen(self, port: int, *, tries: int = 50) -> socket.socket:
        """A socket that listens on the host's 127.0.0.1, at `port` or the first free one of `tries` from it on.

        Raises OSError where none is free.
        """
        return self._inside(lambda: _listen(port, tries))

    def _inside(self, act: Callable[[], _T]) -> _T:
        results: list[_T] = []
        errors: list[BaseException] = []

        def enter_and_act() -> None:
            try:
                _check(_libc.setns(self._descriptor, _CLONE_NEWNET))
                results.append(act())
            except BaseException as error:
                errors.append(error)

        # A thread of its own, since setns changes one thread; a socket stays in the namespace it was opened in.
        thread = threading.Thread(target=enter_and_act)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def _listen(port: int, tries: int) -> socket.socket:
    for candidate in range(port, port + tries):
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(("127.0.0.1", candidate))
        except OSError:
            opened.close()
            continue
        opened.listen(1024)
        return opened
    raise OSError(f"Ports {port} to {port + tries - 1} of 127.0.0.1 are all taken; name another.")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
