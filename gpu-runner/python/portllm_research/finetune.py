"""Trains a LoRA patch for a task on a frozen base."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.task import Task
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed

from . import checkpoints
from .collate import pad, pad_choices
from .encoding import Encoded, Encoder, encode
from .examples import loss_of, training_examples
from .failure import Failure
from .fields import Fields
from .lm_eval_task import training_task
from .local_data import LocalData, digest, local_data
from .models import check_tokenizer, load_model, load_tokenizer, make_readable, weights_digest
from .processes import count, first_process_first
from .report import Report
from .task_file import TaskFile, named_task, own_task
from .training import arguments, train, trainable_share
from .usage import device_name
from .versions import versions


@dataclass(frozen=True)
class Options:
    """By the names of the paper's scripts."""

    # Tokens of an example; of longer ones the beginning of the context is cut, as lm-eval does.
    max_length: int
    # Examples at a time on each device.
    batch_size: int
    num_workers: int
    rank: int
    # Times the rank, the scale of the LoRA.
    lora_alpha: float
    lora_dropout: float
    lr: float
    num_epochs: float
    seed: int
    # None: those that PEFT takes for the architecture.
    target_modules: list[str] | None
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    # Base in bfloat16 and mixed precision; else everything in float32.
    bf16: bool
    # Ends the training before its epochs.
    max_steps: int | None
    # Steps from one checkpoint to the next.
    save_steps: int


@dataclass(frozen=True)
class FinetuneSpec:
    base: Path
    # What the patch's files call the base; its folder where None.
    base_name: str | None
    output: Path
    work: Path
    task: TaskFile
    # None: the task's own data from the Hub.
    data: LocalData | None
    options: Options


def finetune_spec(value: dict[str, Any]) -> FinetuneSpec:
    fields = Fields(value, "the spec")
    fields.ignore("verb", "num_processes")
    task = fields.inner("task")
    spec = FinetuneSpec(
        base=Path(fields.text("base")),
        base_name=fields.text("base_name", None),
        output=Path(fields.text("output")),
        work=Path(fields.text("work")),
        task=own_task(Path(task.text("file"))) if task.has("file") else named_task(task.text("name")),
        data=local_data(fields.inner("data")),
        options=_options(fields.inner("options")),
    )
    fields.end()
    return spec


def _options(fields: Fields) -> Options:
    options = Options(
        max_length=fields.whole("max_length", least=2),
        batch_size=fields.whole("batch_size", least=1),
        num_workers=fields.whole("num_workers"),
        rank=fields.whole("rank", least=1),
        lora_alpha=fields.number("lora_alpha"),
        lora_dropout=fields.number("lora_dropout"),
        lr=fields.number("lr"),
        num_epochs=fields.number("num_epochs"),
        seed=fields.whole("seed"),
        target_modules=fields.texts("target_modules", None),
        gradient_accumulation_steps=fields.whole("gradient_accumulation_steps", least=1),
        gradient_checkpointing=fields.flag("gradient_checkpointing"),
        bf16=fields.flag("bf16"),
        max_steps=fields.whole("max_steps", None, least=1),
        save_steps=fields.whole("save_steps", least=1),
    )
    fields.end()
    return options


def finetune(spec: FinetuneSpec, report: Report) -> dict[str, Any]:
    """Writes the patch into `spec.output` and gives its training record. Goes on at the last checkpoint under `spec.work`."""
    options = spec.options
    report.progress("reading the data", 0, 1, "steps")
    spec.work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(spec.base)
    with first_process_first():
        task = training_task(spec.task, spec.data.folder if spec.data is not None else None, spec.work / "datasets")
    read = list(training_examples(task, spec.task.name))
    data = {
        "source": _source(spec, task),
        "digest": digest(row for row, _ in read),
        "examples": len(read),
    }

    report.progress("loading the model", 0, 1, "steps")
    base = load_model(spec.base, torch.bfloat16 if options.bf16 else torch.float32)
    check_tokenizer(base, tokenizer, spec.base)
    loss = loss_of(task, spec.task.loss)
    encoded = encode((example for _, example in read), Encoder(base, tokenizer), loss, options.max_length)
    _tell(encoded, len(read), options, report)
    set_seed(options.seed)
    model = _with_lora(base, options)
    report.note(trainable_share(model))

    base_digest = weights_digest(spec.base)
    identity = {"options": asdict(options), "processes": count(), "data": data, "loss": loss, "base": base_digest, "versions": versions()}
    folder = checkpoints.prepare(spec.work, identity)
    settings = arguments(
        folder,
        seed=options.seed,
        num_train_epochs=options.num_epochs,
        max_steps=options.max_steps,
        learning_rate=options.lr,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        gradient_checkpointing=options.gradient_checkpointing,
        bf16=options.bf16,
        save_steps=options.save_steps,
        dataloader_num_workers=options.num_workers,
        lr_scheduler_type="linear",
        optim="adamw_torch",
    )
    collate = pad_choices if loss == "contrast" else pad
    trained = train(model, encoded.rows, collate, settings, report, contrast=loss == "contrast")

    lora: Any = model.peft_config["default"]
    training = {
        "task": spec.task.name,
        "base": {"name": spec.base_name or str(spec.base), "weights": base_digest},
        "data": data | {"cut": encoded.cut, "left_out": encoded.left_out},
        "options": asdict(options)
        | {"loss": loss, "lr_scheduler": "linear", "optimizer": "adamw_torch", "processes": count(), "target_modules": sorted(lora.target_modules)},
        "versions": versions(),
        "curve": trained.curve,
        "steps": trained.steps,
        **trained.usage,
        "device": device_name(),
    }
    report.progress("saving", 0, 1, "steps")
    if settings.process_index == 0:
        _save(model, spec, training)
    return {"training": training}


def _source(spec: FinetuneSpec, task: Task) -> str:
    if spec.data is not None:
        return spec.data.name
    return "/".join(["hub:" + str(task.DATASET_PATH), *([task.DATASET_NAME] if task.DATASET_NAME else [])])


def _tell(encoded: Encoded, count: int, options: Options, report: Report) -> None:
    if not encoded.rows:
        raise Failure("no_data", f"No example is left to learn from: of all {count} the answer alone is longer than max_length ({options.max_length} tokens).")
    if encoded.cut > 0:
        report.note(f"{encoded.cut} of {count} examples are longer than {options.max_length} tokens and lose the beginning of their context (max_length).")
    if encoded.left_out > 0:
        report.note(f"{encoded.left_out} of {count} examples are left out: their answer alone is longer than {options.max_length} tokens (max_length).")


def _with_lora(base: PreTrainedModel, options: Options) -> PeftModel:
    targets: Any = "all-linear" if options.target_modules == ["all-linear"] else options.target_modules
    # A whole number as one, as PEFT itself writes it.
    alpha: Any = int(options.lora_alpha) if options.lora_alpha.is_integer() else options.lora_alpha
    config = LoraConfig(task_type="CAUSAL_LM", r=options.rank, lora_alpha=alpha, lora_dropout=options.lora_dropout, target_modules=targets)
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise Failure("bad_config", f"The patch cannot be made: {error} Name modules of the base with target_modules, or all-linear.") from error


def _save(model: PeftModel, spec: FinetuneSpec, training: dict[str, Any]) -> None:
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = spec.base_name or str(spec.base)
    # A set, in an order that changes from run to run.
    config.target_modules = sorted(config.target_modules)
    spec.output.mkdir(parents=True, exist_ok=True)
    # PEFT would ask the Hub for the base's configuration, to see whether tokens were added to it.
    model.save_pretrained(str(spec.output), save_embedding_layers=False)
    (spec.output / "README.md").write_text(_card(config, spec, training), "utf-8")
    (spec.output / "training.json").write_text(json.dumps(training, indent=2) + "\n", "utf-8")
    make_readable(spec.output)


def _card(config: Any, spec: FinetuneSpec, training: dict[str, Any]) -> str:
    options, data = spec.options, training["data"]
    return f"""---
base_model: {json.dumps(config.base_model_name_or_path)}
library_name: peft
tags: [lora]
---

# {spec.task.name}

A LoRA patch, trained for the task `{spec.task.name}` of lm-eval: rank {options.rank}, alpha {options.lora_alpha:g}, on {", ".join(config.target_modules)};
{training["steps"]} steps on {data["examples"]} examples. Settings, versions, the digest of the data and the losses are in `training.json`.
"""
