"""What can go wrong, as a code that a program tells apart and a sentence that says what to do."""

import errno
import traceback
from typing import Literal

Code = Literal[
    "no_data",
    "bad_task",
    "bad_config",
    "bad_model",
    "tokenizer_mismatch",
    "nan_loss",
    "disk_full",
    "out_of_memory",
    "internal",
]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# What safetensors and torch say instead of raising OSError.
_DISK_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "os error 28", "PytorchStreamWriter failed writing", "iostream error")
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory")


class Failure(Exception):
    """An end that is the user's to know about, not a defect of this program."""

    def __init__(self, code: Code, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.retryable = retryable


def failure_of(error: BaseException) -> Failure:
    """What any exception means to the user."""
    for cause in _chain(error):
        if isinstance(cause, Failure):
            return cause
        text = str(cause)
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL or any(part in text for part in _DISK_FULL_TEXTS):
            where = f" ({cause.filename})" if isinstance(cause, OSError) and cause.filename else ""
            return Failure("disk_full", f"The disk is full{where}. Free some space and run it again: it goes on at the last checkpoint.", True)
        if isinstance(cause, MemoryError) or any(part in text for part in _MEMORY_TEXTS):
            return Failure(
                "out_of_memory",
                "Memory ran out. Use a smaller batch_size with more gradient_accumulation_steps, a smaller max_length, "
                f"or turn gradient_checkpointing on. ({_first_line(text)})",
            )
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {last[0].filename}:{last[0].lineno}" if last else ""
    return Failure("internal", f"{type(error).__name__}: {error}{where}")


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:200]
