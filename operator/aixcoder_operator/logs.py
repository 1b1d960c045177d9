"""One JSON object a line on standard error: what a log collector reads without a rule of its own."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


def configure(level: str) -> None:
    """Send the logs of this process to standard error as JSON lines, from `level` (a name such as info) up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Kopf tells of each handler it calls, and that it leaves the signals to us.
    logging.getLogger("kopf").setLevel(logging.ERROR)


class JsonFormatter(logging.Formatter):
    """Writes a record's time, level, logger, message and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
