"""What portllm_research learns from rows of each task, as JSON on stdout.

    PYTHONPATH=gpu-runner/python python tests/python/research_prompts.py MODEL DATA

DATA holds a folder with train.jsonl for each task. {task: {"loss", "rows": [[{"context", "learned"}, …], …]}}: for each row
the text of the tokens that are seen only, and of those that carry the loss; one pair, or with `contrast` one for each choice.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from portllm_research.encoding import IGNORED, Encoder, encode
from portllm_research.examples import loss_of, training_examples
from portllm_research.lm_eval_task import training_task
from portllm_research.models import load_model, load_tokenizer
from portllm_research.task_file import named_task


def main() -> None:
    model, data = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizer = load_tokenizer(model)
    encoder = Encoder(load_model(model, torch.float32), tokenizer)
    tasks = {}
    with tempfile.TemporaryDirectory() as cache:
        for folder in sorted(data.iterdir()):
            named = named_task(folder.name)
            task = training_task(named, folder, Path(cache))
            loss = loss_of(task, named.loss)
            encoded = encode((example for _, example in training_examples(task, named.name)), encoder, loss, 256)
            rows = [row["choices"] if loss == "contrast" else [row] for row in encoded.rows]
            tasks[folder.name] = {"loss": loss, "rows": [[texts(choice, tokenizer) for choice in row] for row in rows]}
    json.dump(tasks, sys.stdout)


def texts(row: dict, tokenizer) -> dict:
    learned = [token for token, label in zip(row["input_ids"], row["labels"]) if label != IGNORED]
    context = row["input_ids"][: len(row["input_ids"]) - len(learned)]
    return {"context": tokenizer.decode(context), "learned": tokenizer.decode(learned)}


if __name__ == "__main__":
    main()
