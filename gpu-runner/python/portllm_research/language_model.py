"""lm-eval's model, loaded by our rules and telling how far it is."""

from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .failure import Failure
from .models import check_tokenizer, load_model, load_tokenizer, stored_dtype
from .report import Report


class LanguageModel(HFLM):
    """`peft`: folder of a patch that PEFT applies while the model runs. `dtype`: "auto" as the model is stored."""

    def __init__(self, model: Path, peft: Path | None, dtype: str, batch_size: int, report: Report) -> None:
        self._folder = model
        self._patch = peft
        self._report = report
        super().__init__(
            pretrained=str(model), tokenizer=load_tokenizer(model), peft=None if peft is None else str(peft), dtype=dtype, batch_size=batch_size,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )  # fmt: skip

    def _create_model(self, pretrained: str, dtype: Any = "auto", **_: Any) -> None:
        # lm-eval's own fills missing weights with random numbers, and cuts embeddings down to the tokenizer's size.
        base = load_model(self._folder, stored_dtype(self._folder) if dtype == "auto" else getattr(torch, dtype))
        check_tokenizer(base, self.tokenizer, self._folder)
        if self._patch is not None:
            check_patch_tokenizer(self._patch, self.tokenizer)
        self._model = base if self._patch is None else with_patch(base, self._patch)
        self._model.to(self.accelerator.device if hasattr(self, "accelerator") else self.device)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._count(len(requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self._count(len(requests))
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self._count(len(requests))
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _count(self, total: int) -> None:
        self.set_cache_hook(_Counter(self._report, total))


class _Counter(CacheHook):
    """lm-eval tells every answer to the hook of its cache."""

    def __init__(self, report: Report, total: int) -> None:
        super().__init__(None)
        self._report = report
        self._done = 0
        self._total = total
        report.progress("evaluating", 0, total, "requests")

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._done += 1
        self._report.progress("evaluating", self._done, self._total, "requests")


def check_patch_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A patch may carry the tokenizer that it was trained with; it has to be the model's."""
    if not (folder / "tokenizer_config.json").is_file():
        return
    own = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_vocab()
    others = [token for token, index in tokenizer.get_vocab().items() if own.get(token) != index]
    if others or len(own) != len(tokenizer.get_vocab()):
        example = others[0] if others else next(token for token in own if token not in tokenizer.get_vocab())
        raise Failure(
            "tokenizer_mismatch",
            f"The patch in {folder} was trained with another tokenizer than the model's: they differ at {example!r}. Its tokens would mean other words.",
        )


def with_patch(base: torch.nn.Module, folder: Path) -> PeftModel:
    """The base with the patch of a folder. Refuses tensors of the patch that PEFT would not use, and ones that it lacks."""
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise Failure("bad_model", f"{folder} is no patch: it needs adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained writes them.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        model = PeftModel.from_pretrained(base, folder, config=config)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise Failure("bad_model", f"The patch in {folder} does not fit the model: {str(error).strip().splitlines()[0]}") from error
    with safe_open(weights, "pt") as opened:
        there = set(opened.keys())
    used = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    stray = sorted(there - used - {name for name in there if "embed_tokens.weight" in name or "lm_head.weight" in name})
    lacking = sorted(used - there)
    if stray or lacking:
        what = f"holds {stray[0]}, which has no place in the model" if stray else f"lacks {lacking[0]}"
        raise Failure("bad_model", f"The patch in {folder} does not fit the model: it {what}.")
    return model
