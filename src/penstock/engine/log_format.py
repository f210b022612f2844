"""How the log is written: for people, or one JSON object a line for machines."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOG_FORMATS = ("text", "json")


def set_up_logging(log_format: str, *, level: str = "INFO") -> None:
    """Have everything that this process logs written to standard error in this format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def about(**fields: Any) -> dict[str, dict[str, Any]]:
    """What a log line is about, as `extra` of a call: `log.info("ready", extra=about(url=url))`.

    In text it follows the message; in JSON each is a field of its own.
    """
    return {"about": fields}


class TextLines(logging.Formatter):
    """When, who, what; then what it is about."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, as logging names it
        fields = "".join(f" {name}={value}" for name, value in _about(record).items())
        return (super().formatMessage(record) + fields).translate(_ESCAPES)


_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}
"""What would begin a line, or steer a terminal: errors may quote what somebody has sent."""


class JsonLines(logging.Formatter):
    """One JSON object a line, whatever is in the message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "about", {})
