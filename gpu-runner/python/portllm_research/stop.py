"""Being stopped: SIGTERM, or the end of the process that started this one."""

import os
import signal
import threading
import time
from types import FrameType

EXIT = 128 + signal.SIGTERM
_SECONDS_BETWEEN_LOOKS = 1.0


class Stopped(Exception):
    """Asked to stop while it was deferred; a checkpoint has been saved."""


_requested = threading.Event()
_deferred = False


def watch() -> None:
    """From now on SIGTERM, or the parent's death, ends the process; while `defer` holds, it only sets `requested`."""
    signal.signal(signal.SIGTERM, _on_signal)
    parent = os.getppid()
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def defer(is_deferred: bool) -> None:
    """Training defers it, to save a checkpoint first."""
    global _deferred
    _deferred = is_deferred
    if not is_deferred and _requested.is_set():
        os._exit(EXIT)


def requested() -> bool:
    return _requested.is_set()


def _on_signal(_signal: int, _frame: FrameType | None) -> None:
    _requested.set()
    if not _deferred:
        os._exit(EXIT)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
