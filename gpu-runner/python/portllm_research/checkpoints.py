"""The checkpoints of one training: which of them are whole, and whether they are of the same training."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

# Written last: without it a checkpoint was cut off while it was saved.
_COMPLETE = "portllm.json"
_IDENTITY = "training.sha256"


def prepare(work: Path, identity: dict[str, Any]) -> Path:
    """The folder of the checkpoints, emptied of those of another training. `identity`: all that the result depends on."""
    folder = work / "checkpoints"
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    if os.environ.get("RANK", "0") == "0":
        mark = work / _IDENTITY
        if folder.exists() and (not mark.exists() or mark.read_text() != digest):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest)
        for checkpoint in folder.glob("checkpoint-*"):
            if not (checkpoint / _COMPLETE).exists():
                shutil.rmtree(checkpoint)
    return folder


def last(folder: Path) -> tuple[Path, dict[str, float]] | None:
    """The newest whole checkpoint, and what the training had taken until then."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / _COMPLETE).exists()]
    if not whole:
        return None
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]))
    return newest, json.loads((newest / _COMPLETE).read_text())


def complete(checkpoint: Path, usage: dict[str, Any]) -> None:
    part = checkpoint / f"{_COMPLETE}.part"
    part.write_text(json.dumps(usage))
    part.rename(checkpoint / _COMPLETE)
