"""What portllm_research says of wrong configurations and task files, and of what libraries raise: {what: {"code", "message"}}.

PYTHONPATH=gpu-runner/python python tests/python/research_refusals.py FOLDER
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from portllm_research.axolotl import read_config
from portllm_research.failure import failure_of
from portllm_research.lm_eval_task import training_task
from portllm_research.task_file import own_task

CONFIG = """
base_model: lab/tiny
datasets: [{path: lab/notes, type: completion}]
sequence_len: 64
learning_rate: 1e-4
"""
CONFIGS = {
    "unknown key": "bananas: 3",
    "key of Axolotl that is not honoured": "neftune_noise_alpha: 5",
    "turned on, but not done here": "load_in_4bit: true",
    "another optimizer": "optimizer: adamw_bnb_8bit",
    "another scheduler": "lr_scheduler: rex",
    "a number that is none": "weight_decay: much",
    "both warmups": "warmup_steps: 3\nwarmup_ratio: 0.1",
    "another tokenizer": "tokenizer_config: lab/other",
    "no datasets": "datasets: []",
    "another type": "datasets: [{path: lab/notes, type: pygmalion}]",
    "a path of this machine": "datasets: [{path: /etc, type: completion}]",
    "a path upwards": "datasets: [{path: ../../etc, type: completion}]",
    "unknown key of a dataset": "datasets: [{path: lab/notes, type: completion, data_files: x.jsonl}]",
    "not a mapping": None,
}
TASK = {"task": "t", "output_type": "multiple_choice", "doc_to_text": "{{text}}", "doc_to_choice": ["a", "b"], "doc_to_target": "{{label}}"}
TASKS = {
    "code": "task: t\nprocess_docs: !function utils.run",
    "another file": json.dumps(TASK | {"include": "/etc/passwd"}),
    "loader's arguments": json.dumps(TASK | {"dataset_kwargs": {"data_files": "/etc/passwd"}}),
    "a builder that reads files": json.dumps(TASK | {"dataset_path": "json"}),
    "a metric of the Hub": json.dumps(TASK | {"metric_list": [{"metric": "someone/metric"}]}),
    "a metric fetched as code": json.dumps(TASK | {"metric_list": [{"metric": "acc", "hf_evaluate": True}]}),
    "generation with code of the Hub": json.dumps(TASK | {"generation_kwargs": {"custom_generate": "someone/code", "trust_remote_code": True}}),
    "no name": "output_type: multiple_choice",
    "no YAML": "task: [",
}


def main() -> None:
    folder = Path(sys.argv[1])
    found = {}
    for what, text in CONFIGS.items():
        file = folder / "wrong.yaml"
        own = {line.split(":")[0] for line in text.splitlines()} if text else set()
        kept = [line for line in CONFIG.strip().splitlines() if line.split(":")[0] not in own]
        file.write_text("- text" if text is None else "\n".join([*kept, text]))
        found[f"configuration: {what}"] = explained(lambda: read_config(file))
    for what, text in TASKS.items():
        file = folder / "task.yaml"
        file.write_text(text)
        found[f"task: {what}"] = explained(lambda: own_task(file))
    data = folder / "rows"
    data.mkdir()
    (data / "train.jsonl").write_text(json.dumps({"text": "a", "label": 0}))
    file.write_text(json.dumps(TASK | {"training_split": "train", "doc_to_text": "{{ cycler.__init__.__globals__.os.getcwd() }}"}))
    found["task: a template that leaves its sandbox"] = explained(lambda: training_task(own_task(file), data, folder / "cache"))
    found["library: no memory"] = explained(lambda: torch.empty(2**48))
    found["library: no memory on a GPU"] = explained(lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")))
    found["library: no room"] = explained(lambda: Path("/dev/full").write_text("x"))
    found["library: no room for PyTorch"] = explained(lambda: torch.save(torch.ones(9), "/dev/full"))
    json.dump(found, sys.stdout)


def explained(act: Callable[[], Any]) -> dict[str, str]:
    try:
        act()
    except Exception as error:  # noqa: BLE001 (that is what is asked for)
        failure = failure_of(error)
        return {"code": failure.code, "message": failure.message.replace(sys.argv[1], "FOLDER")}
    return {"code": "", "message": "nothing was wrong"}


def fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main()
