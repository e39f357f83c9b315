"""Several texts in one row of tokens, each of which sees itself alone."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .encoding import IGNORED, Row

# Rows that are open at a time: a text goes into the first that has room for it.
_OPEN = 64

Pack = list[Row]


def pack(rows: Iterable[Row], length: int) -> list[Pack]:
    """Texts of at most `length` tokens, put together into packs of at most `length`. Depends on nothing but the order."""
    done: list[Pack] = []
    opened: list[tuple[int, Pack]] = []
    for row in rows:
        size = len(row["input_ids"])
        place = next((index for index, (used, _) in enumerate(opened) if used + size <= length), None)
        if place is None:
            if len(opened) == _OPEN:
                done.append(opened.pop(max(range(_OPEN), key=lambda index: opened[index][0]))[1])
            opened.append((size, [row]))
        else:
            used, texts = opened[place]
            opened[place] = (used + size, [*texts, row])
    return done + [texts for _, texts in opened]


def collate_packs(packs: Sequence[Pack]) -> dict[str, Any]:
    """(packs, longest) input_ids, labels and position_ids. transformers tells by positions that begin anew, where there is no
    attention mask, that another text begins; the padding is such a text too. No text is asked to foretell the next one's start."""
    longest = max(sum(len(text["input_ids"]) for text in texts) for texts in packs)
    ids, labels, positions = [], [], []
    for texts in packs:
        flat = [token for text in texts for token in text["input_ids"]]
        padding = longest - len(flat)
        ids.append(flat + [0] * padding)
        labels.append([label for text in texts for label in (IGNORED, *text["labels"][1:])] + [IGNORED] * padding)
        positions.append([position for text in texts for position in range(len(text["input_ids"]))] + list(range(padding)))
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "position_ids": torch.tensor(positions)}
