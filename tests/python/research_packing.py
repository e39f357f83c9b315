"""Compares the losses of texts in one pack with those of the same texts alone; {"packed", "alone", "seen_together"} on stdout.

PYTHONPATH=gpu-runner/python python tests/python/research_packing.py MODEL
"""

import json
import sys
from pathlib import Path

import torch
from portllm_research.collate import pad
from portllm_research.models import load_model, load_tokenizer
from portllm_research.packing import collate_packs, pack

TEXTS = ["oak: a tree that bears acorns", "gull: a white bird of the sea that cries", "kiln: an oven for pots", "aunt: the sister of a father"]


@torch.inference_mode()
def main() -> None:
    folder = Path(sys.argv[1])
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, torch.float32)
    # As in the Trainer: with a cache there is no telling the texts apart.
    model.config.use_cache = False
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    rows = [{"input_ids": tokens, "labels": tokens} for tokens in ids]
    longest = sum(map(len, ids))
    packs = pack(rows, longest)
    batch = collate_packs([*packs, [rows[0]]])
    together = model(**{key: value for key, value in batch.items() if key != "position_ids"}).loss
    json.dump(
        {
            "packs": len(packs),
            "packed": model(**batch).loss.item(),
            "alone": model(**pad([*rows, rows[0]])).loss.item(),
            "seen_together": together.item(),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
