"""Loads models and tokenizers from folders: safetensors, no code, and nothing made up for what is missing."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .failure import Failure


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    _require_model(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise Failure(
            "bad_model", f"The tokenizer in {folder} cannot be loaded: {_first_line(error)} A model needs the tokenizer's files beside its weights."
        ) from error


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that a model's configuration names; where it names none, that of its first tensor."""
    _require_model(folder)
    dtype = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).dtype
    if isinstance(dtype, torch.dtype):
        return dtype
    first = min(folder.glob("*.safetensors"), default=None)
    if first is None:
        raise Failure("bad_model", f"{folder} has no weights (*.safetensors).")
    with safe_open(first, "pt") as opened:
        return opened.get_tensor(next(iter(opened.keys()))).dtype


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """On the CPU. Refuses weights that are missing or do not fit, which transformers would fill with random numbers."""
    _require_model(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Failure("bad_model", f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    model, loading = loaded
    wrong = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if wrong:
        raise Failure(
            "bad_model", f"The weights in {folder} lack {wrong[0]}{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''}, which its configuration asks for."
        )
    return model  # type: ignore[no-any-return]


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    if len(tokenizer) > rows:
        raise Failure(
            "tokenizer_mismatch",
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, but the model has embeddings for {rows}. It is another model's tokenizer.",
        )
    if tokenizer.eos_token_id is None:
        raise Failure("tokenizer_mismatch", f"The tokenizer in {folder} names no end-of-text token (eos_token).")


def weights_digest(folder: Path) -> str:
    """`sha256:…` of the names and bytes of all weights."""
    whole = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            whole.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def make_readable(folder: Path) -> None:
    """safetensors leaves its files to their owner alone; the umask says who else may read."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def _require_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise Failure("bad_model", f"{folder} is no model: it has no config.json. Name a folder that save_pretrained wrote, or that `portllm get` fetched.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
