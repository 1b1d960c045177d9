"""`aixcoder-operator --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from aixcoder_operator import logs
from aixcoder_operator.cluster.connection import NoCluster
from aixcoder_operator.process import run
from aixcoder_operator.reconcile import reconcile
from aixcoder_operator.settings import OperatorSettings, SettingsError, read_key, read_settings


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit status: 2 where the settings cannot be used."""
    parser = argparse.ArgumentParser(
        prog="aixcoder-operator", description="Turns AixcoderDeployments into running completion services."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the operator's settings, YAML")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config)
        key = read_key(settings.key_file)
        data_key = read_key(settings.data_key_file, "the data key")
    except SettingsError as error:
        print(f"aixcoder-operator: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    try:
        return asyncio.run(_run(settings, key, data_key))
    except (NoCluster, OSError) as error:
        print(f"aixcoder-operator: {error}", file=sys.stderr)
        return 1


async def _run(settings: OperatorSettings, key: bytes, data_key: bytes) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run(settings, key, data_key, reconcile, stop)


if __name__ == "__main__":
    sys.exit(main())
