"""One log line per request, as text or JSON.

Each record carries what a reader would search for in fields: `request_id`, `api`, `model`, `version`, `signature`,
`code`, `milliseconds`, `peer`, `entrypoint`, `text`. The formatters here show them; others find them in
the dictionary `record.request`.
"""

import json
import logging
import random
import re
import time

from keraslight_serving.server.base.call import Call

PACKAGE = "keraslight_serving"
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

requests = logging.getLogger(f"{PACKAGE}.server.requests")

REQUEST_ID = "x-request-id"  # in gRPC's metadata, as in HTTP's headers

# Codes that are the server's fault, or that its operator can fix. The others are the clients' fault.
_SERVERS_FAULT = {"UNKNOWN", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_MAX_TEXT = 300

# Controls, line and paragraph separators, and marks that change the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_random = random.Random()  # ids are not secret; uuid4 makes a system call for each, which takes 10 us


def configure(log_format: str = "text", log_level: str = "info") -> None:
    """Sends the log of this package to stderr; a second call replaces the first.

    `debug` adds a line for each successful request; `info` has failed requests and loaded versions; `warning` only what
    an operator should see.
    """
    package = logging.getLogger(PACKAGE)
    package.handlers[:] = [handler(log_format)]
    package.setLevel(log_level.upper())
    package.propagate = False  # otherwise a program with its own handlers would show every line twice


def configure_process(log_format: str = "text") -> None:
    """Sends what libraries log, and Python's warnings, to stderr in this format, from INFO on."""
    root = logging.getLogger()
    root.handlers[:] = [handler(log_format)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)


def handler(log_format: str = "text") -> logging.Handler:
    """A handler that writes to stderr, as `text`, or as `json` with one object per line."""
    made = logging.StreamHandler()
    made.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    return made


def request_id(sent: str | None) -> str:
    """The id that the caller sent, if it is a word of at most 128 characters; otherwise a new one."""
    if isinstance(sent, str) and re.fullmatch(r"[!-~]{1,128}", sent):
        return sent
    return f"{_random.getrandbits(64):016x}"


def log_request(
    call: Call,
    api: str,
    code: str,
    seconds: float,
    *,
    model: str = "",
    version: int | str = "",
    signature: str = "",
    text: str = "",
    callers_fault: bool = False,
) -> None:
    """Logs the end of a request: at DEBUG if it succeeded, at WARNING if the server is at fault, otherwise at INFO.

    The model is the one that answered or that was requested, and the version its number or label. With `callers_fault`,
    the caller is at fault, whatever the code.
    """
    serious = code in _SERVERS_FAULT and not callers_fault
    level = logging.DEBUG if code == "OK" else logging.WARNING if serious else logging.INFO
    if not requests.isEnabledFor(level):
        return
    fields = {
        "request_id": call.id,
        "api": api,
        "model": model,
        "version": version,
        "signature": signature,
        "code": code,
        "milliseconds": round(seconds * 1e3, 3),
        "peer": call.peer,
        "entrypoint": call.entrypoint,
        "text": text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "...",
    }
    requests.log(level, "%s %s", api, code, extra={"request": {k: v for k, v in fields.items() if v != ""}})


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO [7] Predict NOT_FOUND request_id=ab12 model=digits ...`, one record per line.

    The number in brackets is the process id. Values that clients sent are quoted if they contain blanks, quotes or line
    ends, and control characters of messages are escaped, so that they can't be mistaken for another line; the lines of
    a traceback are indented. No character gets through that changes what a terminal shows.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = (f" {name}={_quoted(str(value))}" for name, value in getattr(record, "request", {}).items())
        line = f"{_time(record)} {record.levelname} [{record.process}] {escaped(record.getMessage())}{''.join(fields)}"
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            line = "\n  ".join([line, *map(escaped, traceback)])
        return line


class JsonFormatter(logging.Formatter):
    """One object per line: `time` (UTC), `level`, `process`, `logger`, `message`, a request's fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def escaped(text: str) -> str:
    """A text on one line: its control characters, line ends among them, as in a Python string."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _quoted(text: str) -> str:
    plain = text.isascii() and text.isprintable() and not set(text) & set(' ="\\')
    return text if plain else json.dumps(text)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
