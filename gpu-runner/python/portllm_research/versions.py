"""Versions of what computes, for the record."""

import platform
from importlib.metadata import version

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "lm_eval", "numpy")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
