"""safetensors, the reference, as oracle: whether it reads a file, and what it finds there.

    read_safetensors.py FOLDER

prints an object from the names of the folder's files to null where it refuses one, else to its tensors: [name, dtype, shape].
"""

import json
import sys
from pathlib import Path

from safetensors import SafetensorError, deserialize


def read(path: Path) -> list | None:
    try:
        return sorted([name, tensor["dtype"], tensor["shape"]] for name, tensor in deserialize(path.read_bytes()))
    except SafetensorError:
        return None


json.dump({path.name: read(path) for path in Path(sys.argv[1]).iterdir()}, sys.stdout)
