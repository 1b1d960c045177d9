"""The process that a cluster lives in: `python -m e2e.cluster.supervisor NAME`, started by `up` in new namespaces.

Process 1 of the namespace only reaps orphans and waits for its child, the supervisor proper. If either ends, however
it ends, the kernel ends every process of the cluster, and its mounts and its network with them.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path

from e2e.cluster import control, debian, programs
from e2e.cluster.bringup import BringUp, Tools
from e2e.cluster.control import Answer
from e2e.cluster.daemons import Daemons
from e2e.cluster.errors import ClusterError
from e2e.cluster.forwarder import Forwarder, ServiceAddresses
from e2e.cluster.gpus import Keeper
from e2e.cluster.layout import API_PORT, CONTROL_PLANE_IP, Layout, Node, layout, local_port
from e2e.cluster.namespaces import HostNetwork, enter_new_network, mount_own_folders

API_FORWARD = "kubernetes"


class Supervisor:
    """State of a running cluster and the commands on it."""

    def __init__(
        self, cluster: Layout, tools: Tools, host: HostNetwork, api_socket: socket.socket, *, gpus: int
    ) -> None:
        self._layout = cluster
        self._host = host
        self._api_socket = api_socket
        self._gpus = gpus
        self._daemons = Daemons(cluster.logs)
        self._bring_up = BringUp(cluster, tools, self._daemons, local_api_port=api_socket.getsockname()[1])
        self._forwarder = Forwarder(ServiceAddresses(self._bring_up.api))
        self._keeper: Keeper | None = None
        self._error = ""

    async def run(self) -> None:
        """Bring everything up and look after it, for ever."""
        await self._forwarder.add(API_FORWARD, self._api_socket, f"{CONTROL_PLANE_IP}:{API_PORT}")
        threading.Thread(target=self._start, name="bring-up", daemon=True).start()
        await control.serve(self._layout, self._act)

    def _start(self) -> None:
        node = Node(0)
        try:
            self._bring_up.run(node)
            keeper = Keeper(self._bring_up.api, node, self._gpus)
            keeper.set(self._gpus)
        except Exception as error:
            self._error = str(error) or type(error).__name__
            return
        self._keeper = keeper
        self._daemons.watch()

    async def _act(self, message: Answer) -> Answer:
        match message["command"]:
            case "status":
                return self._status()
            case "gpus":
                if self._keeper is None:
                    raise ClusterError("The cluster is still starting.")
                await asyncio.to_thread(self._keeper.set, int(message["count"]))
            case "forward":
                name, target = str(message["name"]), str(message["target"])
                await self._forwarder.remove(name)
                wished = message.get("port")
                listening = self._host.listen(wished, tries=1) if wished else self._listen_for(name)
                await self._forwarder.add(name, listening, target)
            case "unforward":
                await self._forwarder.remove(str(message["name"]))
            case other:
                raise ClusterError(f"There is no command {other!r}.")
        return self._status()

    def _listen_for(self, name: str) -> socket.socket:
        return self._host.listen(local_port(self._layout.name, name))

    def _status(self) -> Answer:
        return {
            "phase": "failed" if self._error else "ready" if self._keeper else "starting",
            "error": self._error,
            "steps": self._bring_up.steps,
            "gpus": self._keeper.count if self._keeper else self._gpus,
            "forwards": self._forwarder.ports(),
            "restarts": self._daemons.restarts(),
        }


def _reap_until_ended(child: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Run the supervisor of the cluster that the one argument names, by the options in its folder."""
    cluster = layout(sys.argv[1])
    host = HostNetwork()
    api_socket = host.listen(local_port(cluster.name, API_FORWARD))
    mount_own_folders(cluster)
    enter_new_network()
    child = os.fork()
    if child:
        api_socket.close()
        sys.exit(_reap_until_ended(child))
    options = json.loads((cluster.folder / "options.json").read_text())
    runc = debian.which("runc")
    if runc is None:
        raise ClusterError("The program runc is missing.")
    tools = Tools(programs.kubernetes_programs(), debian.node_programs(), runc, Path(options["pause_image"]))
    asyncio.run(Supervisor(cluster, tools, host, api_socket, gpus=int(options["gpus"])).run())


if __name__ == "__main__":
    main()
