"""One JSON object a line on standard error: what a log collector reads without a rule of its own."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any


def configure(level: str) -> None:
    """Send the logs of this process to standard error as JSON lines, from `level` (a name such as info) up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its start and stop lines say nothing that ours do not.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """Writes a record's time, level, logger, message and traceback, and what it carries as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
