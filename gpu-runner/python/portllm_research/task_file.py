"""What a task is: one of ours (tasks/*.yaml), any of lm-eval's by its name, or one file of a user's own."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from .failure import Failure
from .fields import Fields

Loss = Literal["answer", "contrast"]

OURS = Path(__file__).resolve().parent.parent / "tasks"

# What a user's file may say: no key of lm-eval's that names code, another file, or arguments of a loader.
_KEYS = (
    "task", "task_alias", "tag", "dataset_path", "dataset_name", "training_split", "validation_split", "test_split", "fewshot_split",
    "output_type", "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter", "fewshot_delimiter", "gen_prefix",
    "num_fewshot", "generation_kwargs", "repeats", "filter_list", "metric_list", "metadata",
)  # fmt: skip
_GENERATION_KEYS = ("until", "do_sample", "temperature", "top_k", "top_p", "max_gen_toks", "max_new_tokens", "num_beams", "repetition_penalty")
_METRIC_KEYS = ("metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore", "multi_token")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class TaskFile:
    name: str
    # Where lm-eval keeps it; None: its index of all tasks is asked, which takes seconds.
    folder: str | None = None
    # What carries the loss; None: as the form of the task says.
    loss: Loss | None = None
    # lm-eval's configuration where the task is a user's own.
    config: dict[str, Any] | None = None


def named_task(name: str) -> TaskFile:
    file = OURS / f"{name}.yaml"
    if not re.fullmatch(r"[\w.-]+", name) or not file.is_file():
        return TaskFile(name)
    fields = Fields(yaml.safe_load(file.read_text("utf-8")), str(file), "bad_task")
    task = TaskFile(fields.text("lm_eval_task"), fields.text("lm_eval_folder"), fields.choice("loss", ("answer", "contrast")))
    fields.end()
    return task


def own_task(file: Path) -> TaskFile:
    """A user's own task: one lm-eval YAML of data and templates, without code."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("bad_task", f"The task file {file} cannot be read: {error}.") from error
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        about = " A file of one's own holds templates; !function, which runs code, is not taken." if "!function" in text else ""
        raise Failure("bad_task", f"The task file {file} is not plain YAML: {' '.join(str(error).split())}.{about}") from error
    fields = Fields(config, str(file), "bad_task")
    name = fields.text("task")
    fields.ignore(*_KEYS)
    fields.end(f" A task of one's own may have: {', '.join(_KEYS)}.")
    path = fields.text("dataset_path", None)
    if path is not None and not _HUB_NAME.fullmatch(path):
        raise fields.wrong(f"dataset_path of {file} is {path!r}, which is no dataset of the Hub (owner/name). Leave it out and name a folder with data.")
    _check_generation(fields)
    _check_metrics(fields)
    config.pop("tag", None)
    return TaskFile(name, config=config)


def _check_generation(fields: Fields) -> None:
    if fields.has("generation_kwargs"):
        inner = fields.inner("generation_kwargs")
        inner.ignore(*_GENERATION_KEYS)
        inner.end(f" Known: {', '.join(_GENERATION_KEYS)}.")


def _check_metrics(fields: Fields) -> None:
    import lm_eval.api.metrics  # noqa: F401 (registers lm-eval's own)
    from lm_eval.api.registry import METRIC_REGISTRY

    metrics = fields.any("metric_list", [])
    if not isinstance(metrics, list):
        raise fields.wrong(f"metric_list of {fields.where} has to be a list.")
    for metric in metrics:
        inner = Fields(metric, f"metric_list of {fields.where}", "bad_task")
        # Any other name would be fetched from the Hub as code.
        name = inner.text("metric")
        if name not in METRIC_REGISTRY:
            raise fields.wrong(f"metric_list of {fields.where} names {name!r}, which is no metric of lm-eval's: {', '.join(sorted(METRIC_REGISTRY))}.")
        inner.ignore(*_METRIC_KEYS)
        inner.end(f" Known: {', '.join(_METRIC_KEYS)}.")
