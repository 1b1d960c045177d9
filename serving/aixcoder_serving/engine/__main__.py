"""The engine's process, started by `client.EngineClient`: `python -m aixcoder_serving.engine SOCKET HEARTBEAT`."""

import logging
import os
import sys

from aixcoder_serving.engine.process import main

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
main(int(sys.argv[1]), int(sys.argv[2]))
# Everything is closed; taking torch down module by module would only hold up whoever waits for the end.
sys.stderr.flush()
os._exit(0)
