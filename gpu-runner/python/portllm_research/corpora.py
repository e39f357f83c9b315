"""The texts that a model evolves on, as tokens, in the forms that Axolotl names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets.exceptions
from datasets import Dataset, concatenate_datasets, load_dataset
from transformers import PreTrainedTokenizerBase

from .axolotl import DatasetEntry, EvolveConfig
from .conversations import encode_conversation, messages_of
from .encoding import IGNORED, Row
from .failure import Failure
from .local_data import LocalData, digest, load_split

# Of Axolotl's prompters, word by word.
_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_OPEN_ORCA_SYSTEM = "### System:\n{system}\n"
_OPEN_ORCA = "### Human:\n{instruction}\n### Assistant:\n"


@dataclass
class Corpus:
    # Rows {"input_ids", "labels"}.
    rows: Dataset
    source: str
    digest: str
    examples: int
    # Longer than sequence_len, or without a token to learn.
    left_out: int


def read_corpus(config: EvolveConfig, tokenizer: PreTrainedTokenizerBase, local: LocalData | None, cache: Path) -> Corpus:
    """All datasets of the configuration, one after another. `local`: in place of the Hub."""
    parts, digests, sources, examples, kept = [], [], [], 0, 0
    for entry in config.datasets:
        data = _load(entry, local.folder if local is not None else None, len(config.datasets), cache)
        encoder = _encoder(entry, config, tokenizer)
        try:
            rows = data.map(_batched(encoder, config.sequence_len), batched=True, remove_columns=data.column_names)
        except KeyError as error:
            raise Failure(
                "no_data", f"The dataset {entry.path} does not fit its type {entry.type}: it has no {error}. It has {', '.join(data.column_names)}."
            ) from error
        parts.append(rows)
        digests.append(digest(data))
        sources.append(local.name if local is not None else "/".join(["hub:" + entry.path, *([entry.name] if entry.name else [])]))
        examples += len(data)
        kept += sum(rows["is_first"])
    rows = concatenate_datasets(parts).remove_columns("is_first")
    if len(rows) == 0:
        raise Failure(
            "no_data",
            f"No text is left to learn from: each of {examples} rows is longer than sequence_len ({config.sequence_len} tokens), or has nothing to learn.",
        )
    return Corpus(rows, ", ".join(dict.fromkeys(sources)), digests[0] if len(digests) == 1 else digest(digests), examples, examples - kept)


def _load(entry: DatasetEntry, folder: Path | None, count: int, cache: Path) -> Dataset:
    if folder is not None:
        places = [folder / entry.path, folder / entry.path.split("/")[-1]]
        place = next((place for place in places if place.is_dir()), folder if count == 1 else places[0])
        return load_split(place, entry.split, cache)
    if "/" not in entry.path:
        raise Failure("bad_config", f"The dataset {entry.path} is no dataset of the Hub (owner/name). Name a folder with the data, or the Hub's name.")
    try:
        return load_dataset(entry.path, name=entry.name, split=entry.split, cache_dir=str(cache))
    except (ConnectionError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise Failure("no_data", f"The dataset {entry.path} cannot be had from the Hub: {error}. Name a folder with the data instead.", True) from error


def _batched(encoder: Callable[[dict[str, Any]], list[Row]], longest: int) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "is_first": []}
        names = list(batch)
        for values in zip(*batch.values()):
            fit = [
                row for row in encoder(dict(zip(names, values))) if len(row["input_ids"]) <= longest and any(label != IGNORED for label in row["labels"][1:])
            ]
            for number, row in enumerate(fit):
                columns["input_ids"].append(row["input_ids"])
                columns["labels"].append(row["labels"])
                columns["is_first"].append(number == 0)
        return columns

    return encode


def _encoder(entry: DatasetEntry, config: EvolveConfig, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], list[Row]]:
    """One row of the data as rows of tokens: several only where a long text is cut into pieces."""
    if entry.type == "completion":
        return lambda row: _completion(row[entry.field], tokenizer, config.sequence_len)
    if entry.type == "alpaca":
        return lambda row: [_answer(_alpaca(row), row["output"], tokenizer, config.train_on_inputs)]
    if entry.type == "alpaca_w_system.load_open_orca":
        return lambda row: [_answer(_open_orca(row), row["response"], tokenizer, config.train_on_inputs)]
    if config.chat_template is None and not tokenizer.chat_template:
        raise Failure("bad_config", f"The dataset {entry.path} holds conversations, but the tokenizer has no chat template. Add chat_template: chatml.")

    def conversation(row: dict[str, Any]) -> list[Row]:
        messages = messages_of(row[entry.field_messages], entry.field_role, entry.field_content)
        return [encode_conversation(messages, tokenizer, config.chat_template, config.train_on_inputs)]

    return conversation


def _completion(text: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Row]:
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    pieces = [ids[start : start + longest] for start in range(0, len(ids), longest)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def _answer(prompt: str, response: str, tokenizer: PreTrainedTokenizerBase, learn_all: bool) -> Row:
    before = list(tokenizer(prompt)["input_ids"])
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {"input_ids": before + after, "labels": (before if learn_all else [IGNORED] * len(before)) + after}


def _alpaca(row: dict[str, Any]) -> str:
    form = _ALPACA_WITH_INPUT if row.get("input") else _ALPACA
    return form.format(instruction=row["instruction"], input=row.get("input"))


def _open_orca(row: dict[str, Any]) -> str:
    system = _OPEN_ORCA_SYSTEM.format(system=row["system_prompt"]) if row["system_prompt"] else ""
    return system + _OPEN_ORCA.format(instruction=row["question"])
