"""The engine's process, started by `client.EngineClient`.

`python -m aixcoder_serving.engine SOCKET HEARTBEAT LEVEL`: two inherited descriptors, and the least level to log.
"""

import contextlib
import logging
import os
import sys

from aixcoder_serving.engine.process import main

logging.basicConfig(level=int(sys.argv[3]), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
# Without its client there is nobody left to tell.
with contextlib.suppress(EOFError, ConnectionError):
    main(int(sys.argv[1]), int(sys.argv[2]))
# Everything is closed; taking torch down module by module would only hold up whoever waits for the end.
sys.stderr.flush()
os._exit(0)
