"""Rows of tokens as tensors, padded on the right, where a causal model cannot see it."""

from collections.abc import Sequence
from typing import Any

import torch

from .encoding import IGNORED, Row


def pad(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """(rows, longest) input_ids, labels and attention_mask."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED), "attention_mask": mask}


def pad_choices(rows: Sequence[Row]) -> dict[str, Any]:
    """All choices of all rows below one another, with `counts` of them and the `right` one of each."""
    flat = [choice for row in rows for choice in row["choices"]]
    return {**pad(flat), "counts": torch.tensor([len(row["choices"]) for row in rows]), "right": torch.tensor([row["right"] for row in rows])}
