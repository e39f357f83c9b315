"""lm-eval's tasks, made of a task file and of data from the Hub or a folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets.exceptions
import jinja2
import jinja2.sandbox
import lm_eval.tasks
import lm_eval.utils
from datasets import DatasetDict
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from .failure import Failure
from .local_data import load_folder
from .task_file import TaskFile

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def training_task(task: TaskFile, folder: Path | None, cache: Path) -> Task:
    """The task with nothing but its training split, which also stands for the others."""
    manager = manager_of([task])
    config = _config(manager, task)
    split = config.get("training_split")
    if split is None:
        raise Failure("bad_task", f"The task {task.name} has no training data: it names no training_split.")
    changes: dict[str, Any] = {"validation_split": split, "test_split": None, "fewshot_split": None, "fewshot_config": None}
    if folder is not None:
        splits = load_folder(folder, cache)
        _require(splits, split, task, folder)
        changes |= _local(splits)
    return _build(manager, task, changes)


def evaluation_task(manager: TaskManager, task: TaskFile, folder: Path, num_fewshot: int | None, cache: Path) -> Task:
    """The task with the splits that the folder has; those that evaluating needs must be there."""
    config = _config(manager, task)
    splits = load_folder(folder, cache)
    asked = next((config[key] for key in ("test_split", "validation_split") if config.get(key) in splits), None)
    if asked is None:
        wanted = [config[key] for key in ("validation_split", "test_split") if config.get(key) is not None]
        _require(splits, wanted[0] if wanted else "test", task, folder)
    changes: dict[str, Any] = {key: None for key in _SPLITS if config.get(key) is not None and config[key] not in splits}
    shots = config.get("num_fewshot") or 0 if num_fewshot is None else num_fewshot
    if shots > 0:
        examples = config.get("fewshot_split") or config.get("training_split") or config.get("validation_split") or "train"
        _require(splits, examples, task, folder)
    else:
        changes |= {"fewshot_split": None, "fewshot_config": None}
    return _build(manager, task, changes | _local(splits))


def hub_tasks(manager: TaskManager, tasks: Sequence[TaskFile]) -> list[Any]:
    """The tasks, groups and tags by these names, with the data that they name themselves."""
    with _explained("the tasks"):
        return [manager.load(task.config or task.name) for task in tasks]


def manager_of(tasks: Sequence[TaskFile]) -> TaskManager:
    """Knows these tasks, and where one is lm-eval's and of an unknown folder, all of lm-eval's."""
    _sandbox_templates()
    root = Path(lm_eval.tasks.__file__).parent
    theirs = [task for task in tasks if task.config is None]
    if all(task.folder is not None for task in theirs):
        manager = TaskManager(include_path=[root / str(task.folder) for task in theirs], include_defaults=False)
    else:
        manager = TaskManager()
    for task in theirs:
        if task.name not in manager.task_index:
            raise Failure("bad_task", f"There is no task {task.name} in lm-eval. Its tasks are listed by `python -m lm_eval ls tasks`.")
    return manager


def _config(manager: TaskManager, task: TaskFile) -> dict[str, Any]:
    if task.config is not None:
        return task.config
    entry = manager.task_index[task.name]
    if entry.cfg is None or "task" not in entry.cfg or isinstance(entry.cfg["task"], list):
        raise Failure("bad_task", f"{task.name} is a group of tasks. With data of one's own, name its tasks one by one.")
    return entry.cfg


def _build(manager: TaskManager, task: TaskFile, changes: dict[str, Any]) -> Task:
    with _explained(task.name):
        if task.config is not None:
            spec: dict[str, Any] = {**task.config, **changes}
        else:
            # lm-eval lets the members of a group differ from what their files say.
            spec = {"group": "portllm", "task": [{"task": task.name, **changes}]}
        (built,) = manager.load(spec)["tasks"].values()
        return built


def _local(splits: DatasetDict) -> dict[str, Any]:
    return {"dataset_path": None, "dataset_name": None, "dataset_kwargs": None, "custom_dataset": lambda **_: splits}


def _require(splits: DatasetDict, split: str, task: TaskFile, folder: Path) -> None:
    if split not in splits:
        raise Failure("no_data", f"The task {task.name} needs {split}.jsonl (or .json, .csv, .parquet) in {folder}, which has {', '.join(sorted(splits))}.")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What lm-eval raises where data cannot be had or do not fit the task."""
    try:
        yield
    except (jinja2.UndefinedError, KeyError) as error:
        raise misfit(name, error) from error
    except jinja2.TemplateError as error:
        raise Failure("bad_task", f"A template of {name} is wrong: {error}") from error
    except (ConnectionError, datasets.exceptions.DatasetsError) as error:
        raise Failure("no_data", f"The data of {name} cannot be had from the Hub: {error}. Name a folder with the data instead.", True) from error


def misfit(name: str, error: Exception, columns: Sequence[str] = ()) -> Failure:
    has = f" They have {', '.join(columns)}." if columns else ""
    return Failure("no_data", f"The data do not fit the task {name}: {error}.{has}")


def _sandbox_templates() -> None:
    """A template comes with a task, which may be a stranger's: it may look at the data and at nothing else."""
    theirs = lm_eval.utils.env
    if isinstance(theirs, jinja2.sandbox.SandboxedEnvironment):
        return
    ours = jinja2.sandbox.ImmutableSandboxedEnvironment(
        loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=theirs.keep_trailing_newline
    )
    ours.filters = theirs.filters
    lm_eval.utils.env = ours
