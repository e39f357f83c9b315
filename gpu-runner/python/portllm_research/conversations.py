"""Conversations as tokens, of which those that the assistant says are learned."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from .encoding import IGNORED, Row
from .failure import Failure

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def messages_of(turns: Any, role_key: str, content_key: str) -> list[dict[str, str]]:
    """Turns as the Hub's datasets have them, in the words of chat templates."""
    messages = []
    for turn in turns:
        role = _ROLES.get(turn[role_key])
        if role is None:
            raise Failure("no_data", f"A conversation has the role {turn[role_key]!r}; known are {', '.join(_ROLES)}.")
        messages.append({"role": role, "content": turn[content_key]})
    return messages


def encode_conversation(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, template: str | None, learn_all: bool) -> Row:
    """{"input_ids", "labels"}; `template`: None for the tokenizer's own."""

    def render(count: int, asks: bool) -> str:
        return str(tokenizer.apply_chat_template(messages[:count], chat_template=template, tokenize=False, add_generation_prompt=asks))

    whole = render(len(messages), False)
    said = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = render(index, True), render(index + 1, False)
            if not (end.startswith(start) and whole.startswith(end)):
                raise Failure(
                    "bad_config",
                    "The chat template writes earlier turns anew when a turn is added, so that it cannot be told which tokens the assistant says. Use chat_template: chatml.",
                )
            said.append((len(start), len(end)))
    tokens = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(tokens["input_ids"]), tokens["offset_mapping"]
    is_said = [any(begin <= start < end for begin, end in said) for start, _ in offsets]
    if ids[-1:] != [tokenizer.eos_token_id] and not whole.rstrip().endswith(str(tokenizer.eos_token)):
        ids.append(tokenizer.eos_token_id)
        is_said.append(messages[-1]["role"] == "assistant")
    return {"input_ids": ids, "labels": [token if learn_all or learned else IGNORED for token, learned in zip(ids, is_said)]}
