"""Training examples of a task, made of what lm-eval itself would ask and expect, so that training and evaluation agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2
from lm_eval.api.task import Task

from .failure import Failure
from .lm_eval_task import misfit
from .task_file import Loss


@dataclass(frozen=True)
class Example:
    """Pairs of (context, continuation) as lm-eval scores them, and which of them is right."""

    pairs: list[tuple[str, str]]
    right: int
    # The text ends after the continuation.
    ends: bool = False


def loss_of(task: Task, named: Loss | None) -> Loss:
    """Where the choices stand in the context and the continuation is the same, only their contrast can be learned."""
    if named is not None:
        return named
    return "contrast" if task.multiple_input else "answer"


def training_examples(task: Task, name: str) -> Iterator[tuple[dict[str, Any], Example]]:
    """(row of the data, example) for each row of the training split, without few-shot examples before it."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise Failure("bad_task", f"The task {name} scores running text and has no answers to learn. Train on text with evolve.")
    docs = task.training_docs()
    for number, doc in enumerate(docs):
        try:
            yield doc, _example(task, name, number, doc)
        except (jinja2.UndefinedError, KeyError) as error:
            raise misfit(f"{name} (row {number + 1})", error, list(doc)) from error


def _example(task: Task, name: str, number: int, doc: dict[str, Any]) -> Example:
    prefix = task.doc_to_prefix(doc)
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=prefix)
    requests = task.construct_requests(doc=doc, ctx=context, metadata=(name, number, 1))
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(doc)
        pairs = [(request.args[0], request.args[1]) for request in requests[: len(choices)]]
        return Example(pairs, _right(task, name, number, doc, choices))
    if task.OUTPUT_TYPE == "loglikelihood":
        return Example([(requests.args[0], requests.args[1])], 0)
    target = task.doc_to_target(doc)
    if task.config.doc_to_choice is not None and isinstance(target, int):
        target = task.doc_to_choice(doc)[target]
    if isinstance(target, list):
        target = target[0]
    # As in lm-eval's few-shot examples.
    delimiter = " " if prefix else task.config.target_delimiter
    return Example([(requests.args[0], f"{delimiter}{target}")], 0, ends=True)


def _right(task: Task, name: str, number: int, doc: dict[str, Any], choices: list[str]) -> int:
    right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(right, list) and right:
        right = right[0]
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        raise Failure("no_data", f"Row {number + 1} of the training data of {name} has no right answer: {right!r} is none of its {len(choices)} choices.")
    return right
