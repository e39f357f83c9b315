"""Axolotl's configuration of a continued pretraining: the keys that are honoured here, by name; all others are refused."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml

from .failure import Failure
from .fields import Fields

# Taken where they are empty or off, as most files have them; what they would turn on is not done here.
_EMPTY = (
    "load_in_8bit", "load_in_4bit", "fp16", "trust_remote_code", "push_dataset_to_hub", "hub_model_id", "hub_strategy", "hub_token",
    "deepspeed", "fsdp", "fsdp_config", "debug", "local_rank", "resume_from_checkpoint", "auto_resume_from_checkpoints", "early_stopping_patience",
    "xformers_attention", "s2_attention", "eager_attention", "eval_table_size", "eval_max_new_tokens", "wandb_project", "wandb_entity", "wandb_watch",
    "wandb_name", "wandb_run_id", "wandb_log_model", "mlflow_experiment_name", "lora_model_dir", "lora_modules_to_save", "tokens", "strict",
    "revision_of_model", "rl", "plugins", "gptq", "group_by_length", "eval_sample_packing", "save_safetensors", "lora_on_cpu", "test_datasets",
)  # fmt: skip
# Say how Axolotl's own run is done or where it keeps things, and change nothing about the model.
_WITHOUT_EFFECT = (
    "output_dir", "dataset_prepared_path", "dataset_processes", "logging_steps", "is_llama_derived_model", "is_mistral_derived_model",
    "is_falcon_derived_model", "is_qwen_derived_model", "flash_attention", "sdp_attention", "pad_to_sequence_len", "tf32", "save_total_limit",
    "save_only_model", "eval_batch_size", "shuffle_merged_datasets", "model_type", "tokenizer_type", "gradient_checkpointing_kwargs",
)  # fmt: skip

DatasetType = Literal["completion", "alpaca", "alpaca_w_system.load_open_orca", "sharegpt", "chat_template"]
DATASET_TYPES = ("completion", "alpaca", "alpaca_w_system.load_open_orca", "sharegpt", "chat_template")
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")


@dataclass(frozen=True)
class DatasetEntry:
    """`path`: the Hub's name, or in a folder with data the name of a folder. `name`: the Hub's configuration of the dataset."""

    path: str
    name: str | None
    split: str
    type: DatasetType
    # completion: column of the text.
    field: str
    # sharegpt and chat_template: column of the messages, and the keys of one.
    field_messages: str
    field_role: str
    field_content: str


@dataclass(frozen=True)
class Lora:
    r: int
    alpha: float
    dropout: float
    # None: those that PEFT takes for the architecture.
    target_modules: list[str] | None


@dataclass(frozen=True)
class EvolveConfig:
    base_model: str
    datasets: list[DatasetEntry]
    # None: the tokenizer's own.
    chat_template: str | None
    train_on_inputs: bool
    # None: every weight is trained.
    lora: Lora | None
    sequence_len: int
    sample_packing: bool
    # Part (below 1) or number of the rows that is held out.
    val_set_size: float
    micro_batch_size: int
    gradient_accumulation_steps: int
    num_epochs: float
    max_steps: int | None
    learning_rate: float
    lr_scheduler: str
    optimizer: str
    # A number, or below 1 a part of all steps.
    warmup: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    bf16: bool
    gradient_checkpointing: bool
    seed: int
    # Steps, or below 1 a part of all steps.
    save_steps: float
    eval_steps: float | None
    special_tokens: dict[str, str]
    # Keys of the file that change nothing here.
    without_effect: list[str]


def read_config(file: Path) -> EvolveConfig:
    try:
        value = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure("bad_config", f"The configuration {file} cannot be read: {' '.join(str(error).split())}") from error
    fields = Fields(value, file.name)
    _check_empty(fields)
    fields.ignore(*_WITHOUT_EFFECT)
    base_model = fields.text("base_model")
    for key in ("tokenizer_config", "base_model_config"):
        if fields.has(key) and fields.text(key) != base_model:
            raise fields.wrong(f"{key} of {file.name} names another model than base_model: patches for the base would not fit what comes out.")
    entries = fields.any("datasets")
    if not isinstance(entries, list) or not entries:
        raise fields.wrong(f"datasets of {file.name} has to be a list of at least one dataset.")
    config = EvolveConfig(
        base_model=base_model,
        datasets=[_dataset(Fields(entry, f"dataset {number + 1} of {file.name}")) for number, entry in enumerate(entries)],
        chat_template=_chat_template(fields),
        train_on_inputs=fields.flag("train_on_inputs", False),
        lora=_lora(fields),
        sequence_len=fields.whole("sequence_len", least=8),
        sample_packing=fields.flag("sample_packing", False),
        val_set_size=fields.number("val_set_size", 0.0),
        micro_batch_size=fields.whole("micro_batch_size", 1, least=1),
        gradient_accumulation_steps=fields.whole("gradient_accumulation_steps", 1, least=1),
        num_epochs=fields.number("num_epochs", 1.0),
        max_steps=fields.whole("max_steps", None, least=1),
        learning_rate=fields.number("learning_rate"),
        lr_scheduler=fields.choice("lr_scheduler", SCHEDULERS, "cosine"),
        optimizer=_optimizer(fields),
        warmup=_warmup(fields),
        weight_decay=fields.number("weight_decay", 0.0),
        adam_beta1=fields.number("adam_beta1", 0.9),
        adam_beta2=fields.number("adam_beta2", 0.999),
        adam_epsilon=fields.number("adam_epsilon", 1e-8),
        max_grad_norm=fields.number("max_grad_norm", 1.0),
        bf16=_bf16(fields),
        gradient_checkpointing=fields.flag("gradient_checkpointing", False),
        seed=fields.whole("seed", 42),
        save_steps=_interval(fields, "save_steps", "saves_per_epoch", 500.0) or 500.0,
        eval_steps=_interval(fields, "eval_steps", "evals_per_epoch", None),
        special_tokens=_special_tokens(fields),
        without_effect=[key for key in _WITHOUT_EFFECT if fields.has(key)],
    )
    fields.end(" It may be a key of Axolotl's, but leaving it out of account would train another model than the file says. Remove it, or use Axolotl itself.")
    return config


def _check_empty(fields: Fields) -> None:
    fields.ignore(*_EMPTY)
    for key in _EMPTY:
        if fields.has(key) and fields.any(key) not in (False, "", [], {}, "false"):
            raise fields.wrong(f"{key} of {fields.where} is {fields.any(key)!r}. What it turns on is not done here: leave it empty, or use Axolotl itself.")


def _dataset(fields: Fields) -> DatasetEntry:
    kind = fields.any("type")
    if kind not in DATASET_TYPES:
        raise fields.wrong(f"The type of {fields.where} is {kind!r}; known are {', '.join(DATASET_TYPES)}.")
    path = fields.text("path")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path):
        raise fields.wrong(
            f"The path of {fields.where} is {path!r}. It has to be a name, as the Hub's are (owner/name); with a folder of data it is looked up there."
        )
    mappings = fields.any("message_property_mappings", {"role": None, "content": None})
    if not isinstance(mappings, dict) or not set(mappings) <= {"role", "content"}:
        raise fields.wrong(f"message_property_mappings of {fields.where} has to name role and content.")
    default = "conversations" if kind == "sharegpt" else "messages"
    entry = DatasetEntry(
        path=path,
        name=fields.text("name", None),
        split=fields.text("split", "train"),
        type=kind,
        field=fields.text("field", "text"),
        field_messages=fields.text("field_messages", default),
        field_role=fields.text("message_field_role", mappings.get("role") or ("from" if kind == "sharegpt" else "role")),
        field_content=fields.text("message_field_content", mappings.get("content") or ("value" if kind == "sharegpt" else "content")),
    )
    if fields.has("roles_to_train") and fields.texts("roles_to_train") not in (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]):
        raise fields.wrong(f"roles_to_train of {fields.where} has to be [assistant].")
    fields.ignore("roles_to_train")
    fields.choice("conversation", ("chatml",), None)
    fields.end(" Local files are not named here: give a folder with data.")
    return entry


def _chat_template(fields: Fields) -> str | None:
    name = fields.choice("chat_template", ("tokenizer_default", "chatml", "jinja"), "tokenizer_default")
    jinja = fields.text("chat_template_jinja", None)
    if name == "jinja" and jinja is None:
        raise fields.wrong(f"chat_template of {fields.where} is jinja, but there is no chat_template_jinja.")
    return {"tokenizer_default": jinja, "chatml": CHATML, "jinja": jinja}[name]


def _lora(fields: Fields) -> Lora | None:
    adapter = fields.choice("adapter", ("lora", ""), "")
    linear = fields.flag("lora_target_linear", False)
    modules = fields.any("lora_target_modules", None)
    if isinstance(modules, str):
        modules = [modules]
    fields.flag("lora_fan_in_fan_out", False)
    lora = Lora(
        r=fields.whole("lora_r", 8, least=1),
        alpha=fields.number("lora_alpha", 16.0),
        dropout=fields.number("lora_dropout", 0.0),
        target_modules=["all-linear"] if linear else modules,
    )
    return lora if adapter == "lora" else None


def _optimizer(fields: Fields) -> str:
    name = fields.text("optimizer", "adamw_torch")
    if name not in OPTIMIZERS:
        raise fields.wrong(
            f"optimizer of {fields.where} is {name!r}, which is not installed here; adamw_torch stands for AdamW in any form. Known: {', '.join(OPTIMIZERS)}."
        )
    return str(name)


def _warmup(fields: Fields) -> float:
    steps, ratio = fields.whole("warmup_steps", None), fields.number("warmup_ratio", None)
    if steps is not None and ratio is not None:
        raise fields.wrong(f"{fields.where} has both warmup_steps and warmup_ratio; keep one.")
    if ratio is not None and ratio >= 1:
        raise fields.wrong(f"warmup_ratio of {fields.where} is {ratio:g}; it has to be less than 1.")
    return float(steps if steps is not None else ratio or 0.0)


def _bf16(fields: Fields) -> bool:
    value = fields.choice("bf16", (True, False, "auto", "true", "false"), False)
    # On a CPU it is slower than float32.
    if value == "auto":
        return torch.cuda.is_available()
    return value in (True, "true")


def _interval(fields: Fields, steps: str, times: str, default: float | None) -> float | None:
    """In steps; where it is said as a number of times in each epoch, as a negative number of times."""
    if fields.has(steps) and fields.has(times):
        raise fields.wrong(f"{fields.where} has both {steps} and {times}; keep one.")
    if fields.has(times):
        return -float(fields.whole(times, least=1))
    value = fields.number(steps, None)
    return default if not value else value


def _special_tokens(fields: Fields) -> dict[str, str]:
    tokens = fields.any("special_tokens", {})
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise fields.wrong(f"special_tokens of {fields.where} has to be a mapping of names to tokens.")
    return tokens


# ChatML, in Hugging Face's template form.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
