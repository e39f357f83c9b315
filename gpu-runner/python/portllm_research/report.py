"""The lines that the program which started this one reads: one JSON object each, on what was stdout."""

import json
import os
import sys
import time
from typing import Any, TextIO

from .failure import Failure

_SECONDS_BETWEEN = 0.5


class Report:
    """Progress, notes and the end. Of several processes only the first reports progress; any may report its failure."""

    def __init__(self) -> None:
        # Whatever a library prints goes to stderr from here on.
        self._out: TextIO = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._speaks = os.environ.get("RANK", "0") == "0"
        self._phase = ""
        self._next = 0.0

    def progress(self, phase: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if phase == self._phase and now < self._next and done < total:
            return
        self._phase, self._next = phase, now + _SECONDS_BETWEEN
        self._speak({"progress": {"phase": phase, "done": done, "total": total, "unit": unit}})

    def note(self, text: str) -> None:
        """A sentence for the user that is no failure."""
        self._speak({"note": text})

    def result(self, result: dict[str, Any]) -> None:
        self._speak({"result": result})

    def failure(self, failure: Failure) -> None:
        self._write({"failure": {"code": failure.code, "message": failure.message, "retryable": failure.retryable}})

    def _speak(self, line: dict[str, Any]) -> None:
        if self._speaks:
            self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line, allow_nan=False) + "\n")
