"""What a run takes: seconds by the clock, seconds of devices, and memory at its peak, added up over interruptions."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch


@dataclass
class Usage:
    """`earlier`: what the runs before an interruption took, as `totals` gave it."""

    earlier: dict[str, float]

    def totals(self) -> dict[str, Any]:
        """Of all processes together.

        peak_memory_bytes: of the GPUs, as PyTorch reserved it; without a GPU of the process, resident, the libraries included.
        wall_seconds: from the start of the process. device_seconds: on GPUs the seconds that they were held; without a GPU
        the seconds of all cores together.
        """
        wall = time.time() - psutil.Process().create_time()
        if torch.cuda.is_available():
            memory, device = float(torch.cuda.max_memory_reserved()), wall
        else:
            memory, device = float(_resident_peak()), time.process_time()
        memory, device = _sum_over_processes(memory, device)
        return {
            "peak_memory_bytes": int(max(memory, self.earlier.get("peak_memory_bytes", 0))),
            "wall_seconds": round(wall + self.earlier.get("wall_seconds", 0), 3),
            "device_seconds": round(device + self.earlier.get("device_seconds", 0), 3),
        }


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({_cpu_model()})"


def _resident_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _sum_over_processes(*values: float) -> list[float]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(values)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return total.tolist()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
