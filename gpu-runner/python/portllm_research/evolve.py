"""Trains a model further on text: all its weights, or a LoRA that is merged into them in the end."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from . import checkpoints
from .axolotl import EvolveConfig, read_config
from .collate import pad
from .corpora import Corpus, read_corpus
from .failure import Failure
from .fields import Fields
from .local_data import LocalData, local_data
from .models import check_tokenizer, load_model, load_tokenizer, make_readable, stored_dtype, weights_digest
from .packing import collate_packs, pack
from .processes import count, first_process_first
from .report import Report
from .training import Trained, arguments, train, trainable_share
from .usage import device_name
from .versions import versions

# Beside the weights, what makes the parent usable and stays as it is. Its README would describe another model.
_KEPT = (
    "tokenizer*",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
)


@dataclass(frozen=True)
class EvolveSpec:
    parent: Path
    output: Path
    work: Path
    config: EvolveConfig
    # None: the datasets that the configuration names, from the Hub.
    data: LocalData | None


def evolve_spec(value: dict[str, Any]) -> EvolveSpec:
    fields = Fields(value, "the spec")
    fields.ignore("verb", "num_processes")
    spec = EvolveSpec(
        parent=Path(fields.text("parent")),
        output=Path(fields.text("output")),
        work=Path(fields.text("work")),
        config=read_config(Path(fields.inner("config").text("file"))),
        data=local_data(fields.inner("data")),
    )
    fields.end()
    return spec


def evolve(spec: EvolveSpec, report: Report) -> dict[str, Any]:
    """Writes the evolved model into `spec.output` and gives its training record. Goes on at the last checkpoint under `spec.work`."""
    config = spec.config
    report.progress("reading the data", 0, 1, "steps")
    spec.work.mkdir(parents=True, exist_ok=True)
    if config.without_effect:
        report.note(f"Without effect here: {', '.join(config.without_effect)}.")
    tokenizer = load_tokenizer(spec.parent)
    _check_special_tokens(config, tokenizer)
    with first_process_first():
        corpus = read_corpus(config, tokenizer, spec.data, spec.work / "datasets")
    if corpus.left_out > 0:
        report.note(
            f"{corpus.left_out} of {corpus.examples} texts are left out: they are longer than sequence_len ({config.sequence_len} tokens), or have nothing to learn."
        )

    report.progress("loading the model", 0, 1, "steps")
    dtype = stored_dtype(spec.parent)
    # Weights that are trained are float32: to bfloat16 most steps would be too small to see.
    model = load_model(spec.parent, torch.bfloat16 if config.bf16 and config.lora is not None else torch.float32)
    check_tokenizer(model, tokenizer, spec.parent)
    # With a cache the texts of a pack would see each other.
    model.config.use_cache = False
    set_seed(config.seed)
    trained_model: Any = model if config.lora is None else _with_lora(model, config)
    report.note(trainable_share(trained_model))

    data = {"source": corpus.source, "digest": corpus.digest, "examples": corpus.examples}
    base_digest = weights_digest(spec.parent)
    folder = checkpoints.prepare(spec.work, {"options": asdict(config), "processes": count(), "data": data, "base": base_digest, "versions": versions()})
    trained = _train(trained_model, corpus, config, folder, report)

    training = {
        "task": None,
        "base": {"name": config.base_model, "weights": base_digest},
        "data": data | {"left_out": corpus.left_out},
        "options": asdict(config) | {"processes": count()},
        "versions": versions(),
        "curve": trained.curve,
        "validation": trained.validation,
        "steps": trained.steps,
        **trained.usage,
        "device": device_name(),
    }
    report.progress("saving", 0, 1, "steps")
    if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
        return {}
    whole: PreTrainedModel = model if config.lora is None else trained_model.merge_and_unload()
    whole.to(dtype)  # type: ignore[arg-type]
    _save(whole, spec, training)
    return {"training": training}


def _train(model: PreTrainedModel | PeftModel, corpus: Corpus, config: EvolveConfig, folder: Path, report: Report) -> Trained:
    rows, held_out = corpus.rows, None
    if config.val_set_size > 0:
        size = config.val_set_size if config.val_set_size < 1 else int(config.val_set_size)
        if len(rows) < 2 or size >= len(rows):
            raise Failure("no_data", f"val_set_size ({size}) leaves nothing of {len(rows)} texts to learn from.")
        parts = rows.train_test_split(test_size=size, seed=config.seed)
        rows, held_out = parts["train"], parts["test"]
    if config.sample_packing:
        rows = pack(rows.shuffle(seed=config.seed), config.sequence_len)
        held_out = None if held_out is None else pack(held_out, config.sequence_len)
    steps_in_epoch = -(-len(rows) // (config.micro_batch_size * config.gradient_accumulation_steps))
    settings = arguments(
        folder,
        seed=config.seed,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.micro_batch_size,
        per_device_eval_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        gradient_checkpointing=config.gradient_checkpointing,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        optim=config.optimizer,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        save_steps=_steps(config.save_steps, steps_in_epoch),
        eval_strategy="no" if held_out is None else "epoch" if config.eval_steps is None else "steps",
        eval_steps=None if config.eval_steps is None else _steps(config.eval_steps, steps_in_epoch),
        prediction_loss_only=True,
    )
    return train(model, rows, collate_packs if config.sample_packing else pad, settings, report, held_out=held_out)


def _steps(interval: float, steps_in_epoch: int) -> float:
    """A negative interval is a number of times in each epoch."""
    return max(1, steps_in_epoch // int(-interval)) if interval < 0 else interval


def _with_lora(model: PreTrainedModel, config: EvolveConfig) -> Any:
    lora = config.lora
    assert lora is not None
    targets: Any = "all-linear" if lora.target_modules == ["all-linear"] else lora.target_modules
    try:
        return get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.r,
                lora_alpha=lora.alpha,  # type: ignore[arg-type]
                lora_dropout=lora.dropout,
                target_modules=targets,
            ),
        )
    except ValueError as error:
        raise Failure("bad_config", f"The LoRA cannot be made: {error} Name modules with lora_target_modules, or lora_target_linear: true.") from error


def _check_special_tokens(config: EvolveConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Patches for the parent fit what comes out only where no token is added."""
    vocabulary = tokenizer.get_vocab()
    for name, token in config.special_tokens.items():
        if token not in vocabulary:
            raise Failure(
                "tokenizer_mismatch",
                f"special_tokens names {token!r} as {name}, which the tokenizer does not have. To add tokens would change the embeddings, and patches for the parent would no longer fit.",
            )
        if name in ("bos_token", "eos_token", "unk_token") and getattr(tokenizer, name) != token:
            raise Failure(
                "tokenizer_mismatch",
                f"special_tokens names {token!r} as {name}, but the parent's is {getattr(tokenizer, name)!r}. The tokenizer stays the parent's.",
            )


def _save(model: PreTrainedModel, spec: EvolveSpec, training: dict[str, Any]) -> None:
    spec.output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(spec.output)
    # The Trainer turned the cache off in it; nothing else is other than the parent's.
    shutil.copyfile(spec.parent / "config.json", spec.output / "config.json")
    for pattern in _KEPT:
        for file in spec.parent.glob(pattern):
            shutil.copyfile(file, spec.output / file.name)
    (spec.output / "training.json").write_text(json.dumps(training, indent=2) + "\n", "utf-8")
    (spec.output / "README.md").write_text(_card(spec, training), "utf-8")
    make_readable(spec.output)


def _card(spec: EvolveSpec, training: dict[str, Any]) -> str:
    how = "a LoRA, merged into the weights" if spec.config.lora is not None else "all weights"
    return f"""---
base_model: {json.dumps(spec.config.base_model)}
library_name: transformers
---

# Evolved from {spec.config.base_model}

Trained further on {", ".join(entry.path for entry in spec.config.datasets)} ({training["data"]["examples"]} texts): {how}, {training["steps"]} steps.
Settings, versions, the digest of the data and the losses are in `training.json`.
"""
