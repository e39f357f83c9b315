"""Examples as tokens, by lm-eval's own tokenisation."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .examples import Example
from .task_file import Loss

IGNORED = -100

Tokens = tuple[list[int], list[int]]
Row = dict[str, Any]


class Encoder(HFLM):
    """lm-eval's model, asked for the tokens that it would score instead of their scores."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=1)
        self._tokens: list[Tokens] = []

    def encode(self, pairs: Iterable[tuple[str, str]]) -> list[Tokens]:
        """(context, continuation) as tokens."""
        self.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
        return self._tokens

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None) -> list[tuple[float, bool]]:
        self._tokens = [(context, continuation) for _, context, continuation in requests]
        return [(0.0, False)] * len(requests)


@dataclass
class Encoded:
    """`rows` are for the Trainer; the counts are for the record."""

    rows: list[Row] = field(default_factory=list)
    # Lost the beginning of their context, as in lm-eval.
    cut: int = 0
    # Not learned from, since a continuation alone is longer than max_length, or holds no token.
    left_out: int = 0


def encode(examples: Iterable[Example], encoder: Encoder, loss: Loss, max_length: int) -> Encoded:
    """Rows {"input_ids", "labels"}, or for `contrast` {"choices": such rows, "right"}. Labels outside of continuations are IGNORED."""
    encoded = Encoded()
    for example in examples:
        pairs = example.pairs if loss == "contrast" else [example.pairs[example.right]]
        end = [encoder.eot_token_id] if example.ends else []
        tokens = [(before, after + end) for before, after in encoder.encode(pairs)]
        if any(not after or len(after) >= max_length for _, after in tokens):
            encoded.left_out += 1
            continue
        encoded.cut += any(len(before) + len(after) > max_length for before, after in tokens)
        rows = [_row(before, after, max_length) for before, after in tokens]
        encoded.rows.append(rows[0] if loss == "answer" else {"choices": rows, "right": example.right})
    return encoded


def _row(before: list[int], after: list[int], max_length: int) -> Row:
    kept = before[-(max_length - len(after)) :]
    return {"input_ids": kept + after, "labels": [IGNORED] * len(kept) + after}
