"""One process for each GPU. Trainer and lm-eval find each other through accelerate, however they were started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from . import stop


def wanted(spec: dict[str, Any]) -> int:
    """`num_processes` of the spec; where it is null, one for each GPU."""
    named = spec.get("num_processes")
    if named is not None:
        return int(named)
    if is_one_of_several() or not Path("/dev/nvidiactl").exists():
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def is_one_of_several() -> bool:
    return "WORLD_SIZE" in os.environ


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch(number: int, verb: str, spec: Path) -> int:
    """Runs the verb in `number` processes, which report for themselves, and gives their exit code.

    This is what `accelerate launch --multi_gpu` runs; accelerate itself starts several processes on a CPU by MPI alone.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // number))}
    child = subprocess.Popen([*command, "-m", "portllm_research", verb, "--spec", str(spec)], env=environment)
    is_stopped = False

    def forward(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        child.terminate()

    signal.signal(signal.SIGTERM, forward)
    code = child.wait()
    return stop.EXIT if is_stopped else code


@contextmanager
def first_process_first() -> Iterator[None]:
    """What the first process has put into a cache, the others find there."""
    import torch
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        yield
