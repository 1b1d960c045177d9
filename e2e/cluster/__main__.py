"""`python -m e2e.cluster up|down|status|env|forward|clean`."""

import argparse
import json
import shlex
import sys
import time

from e2e.cluster import progress
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import DEFAULT_NAME
from e2e.cluster.local import DEFAULT_GPUS, LocalCluster, clean


def main() -> int:
    """Run the command line; the exit status."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "clean":
            clean(unused_days=arguments.unused_days)
        else:
            _act(LocalCluster(arguments.name), arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default: {DEFAULT_NAME})")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[named], help="bring it up; nothing to do where it is up")
    up.add_argument("--gpus", type=int, default=DEFAULT_GPUS, help=f"fake GPUs of a node (default: {DEFAULT_GPUS})")
    commands.add_parser("down", parents=[named], help="take it away")
    status = commands.add_parser("status", parents=[named], help="what runs, where its logs and its audit log are")
    status.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("env", parents=[named], help='shell variables: eval "$(python -m e2e.cluster env)"')
    clean_up = commands.add_parser("clean", help="take all clusters away and empty the cache of what is not used")
    clean_up.add_argument("--unused-days", type=float, default=14, help="since when (default: 14; 0: everything)")
    forward = commands.add_parser("forward", parents=[named], help="forward a port of 127.0.0.1 into the cluster")
    forward.add_argument("forward", metavar="FORWARD", help="its name; `gateway` sets AIXCODER_URL")
    forward.add_argument("target", metavar="TARGET", help="ADDRESS:PORT or SERVICE.NAMESPACE.svc:PORT")
    forward.add_argument("--port", type=int, help="the local port (default: the same each time for a name)")
    return parser


def _act(cluster: LocalCluster, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "up":
            start = time.monotonic()
            cluster.up(gpus=arguments.gpus)
            progress.say(f"Cluster {arguments.name} is up: {time.monotonic() - start:.1f} s")
        case "down":
            start = time.monotonic()
            cluster.down()
            progress.say(f"Cluster {arguments.name} is gone: {time.monotonic() - start:.1f} s")
        case "status":
            status = cluster.status()
            print(json.dumps(status, indent=1) if arguments.json else _readable(status))
        case "env":
            for name, value in cluster.environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case "forward":
            print(cluster.forward(arguments.forward, arguments.target, port=arguments.port))


def _readable(status: dict[str, object]) -> str:
    lines = []
    for key, value in status.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {name}: {item}" for name, item in value.items())]
        elif key == "processes" and isinstance(value, list):
            lines += ["processes:"]
            lines += [f"  {p['program']} {p['pid']}: {p['resident_bytes'] / 2**20:.0f} MiB" for p in value]
        elif key != "steps":
            lines.append(f"{key}: {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
