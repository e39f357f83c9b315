"""Evaluates a model, with or without a patch that PEFT applies while it runs, by lm-eval."""

import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from .fields import Fields
from .language_model import LanguageModel
from .lm_eval_task import evaluation_task, hub_tasks, manager_of
from .report import Report
from .task_file import TaskFile, named_task, own_task
from .usage import device_name
from .versions import versions


@dataclass(frozen=True)
class EvaluateSpec:
    model: Path
    peft: Path | None
    tasks: list[TaskFile]
    # None: the tasks' own data from the Hub.
    data: Path | None
    # None: as each task says.
    num_fewshot: int | None
    batch_size: int
    # Questions of each task; None: all.
    limit: int | None
    seed: int
    # "auto": as the model is stored.
    dtype: str
    output: Path


def evaluate_spec(value: dict[str, Any]) -> EvaluateSpec:
    fields = Fields(value, "the spec")
    fields.ignore("verb", "num_processes")
    include = fields.text("include", None)
    own = [own_task(file) for file in sorted(Path(include).glob("*.yaml"))] if include is not None else []
    by_name = {task.name: task for task in own}
    spec = EvaluateSpec(
        model=Path(fields.text("model")),
        peft=Path(fields.text("peft")) if fields.has("peft") else fields.any("peft", None),
        tasks=[by_name.get(name) or named_task(name) for name in fields.texts("tasks")],
        data=Path(fields.inner("data").text("folder")) if fields.has("data") else fields.any("data", None),
        num_fewshot=fields.whole("num_fewshot", None),
        batch_size=fields.whole("batch_size", least=1),
        limit=fields.whole("limit", None, least=1),
        seed=fields.whole("seed"),
        dtype=fields.choice("dtype", ("auto", "float32", "bfloat16", "float16"), "auto"),
        output=Path(fields.text("output")),
    )
    fields.end()
    return spec


def evaluate(spec: EvaluateSpec, report: Report) -> dict[str, Any]:
    """Writes `samples_<task>.jsonl` and `results.json` into `spec.output`."""
    started = time.monotonic()
    report.progress("reading the data", 0, 1, "steps")
    with tempfile.TemporaryDirectory() as cache:
        tasks = _tasks(spec, Path(cache))
        report.progress("loading the model", 0, 1, "steps")
        model = LanguageModel(spec.model, spec.peft, spec.dtype, spec.batch_size, report)
        found: Any = simple_evaluate(
            model=model,
            tasks=tasks,
            # Built above; without a manager of its own it would read all of lm-eval's tasks again.
            task_manager=TaskManager(include_defaults=False),
            num_fewshot=spec.num_fewshot,
            batch_size=spec.batch_size,
            limit=spec.limit,
            random_seed=spec.seed,
            numpy_random_seed=spec.seed,
            torch_random_seed=spec.seed,
            fewshot_random_seed=spec.seed,
            log_samples=True,
        )
    if found is None:
        return {}
    result = {
        "results": scores(found, report),
        "versions": versions(),
        "config": {
            "num_fewshot": found["n-shot"],
            "batch_size": spec.batch_size,
            "limit": spec.limit,
            "seed": spec.seed,
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "data": "folder" if spec.data is not None else "hub",
        },
        "device": device_name(),
        "wall_seconds": round(time.monotonic() - started, 3),
    }
    _write(spec.output, found["samples"], result)
    return result


def _tasks(spec: EvaluateSpec, cache: Path) -> list[Any]:
    manager = manager_of(spec.tasks)
    if spec.data is None:
        return hub_tasks(manager, spec.tasks)
    return [evaluation_task(manager, task, _folder(spec, spec.data, task), spec.num_fewshot, cache) for task in spec.tasks]


def _folder(spec: EvaluateSpec, data: Path, task: TaskFile) -> Path:
    """`<data>/<task>`; where there is one task alone, its splits may lie in the folder itself."""
    own = data / task.name
    return data if len(spec.tasks) == 1 and not own.is_dir() else own


def scores(found: Any, report: Report) -> list[dict[str, Any]]:
    """One entry for each figure of each task, and of each group that lm-eval sums up."""
    entries = []
    for task, figures in {**found["results"], **found.get("groups", {})}.items():
        for key, value in figures.items():
            metric, comma, kind = key.partition(",")
            if comma == "" or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            if not math.isfinite(value):
                report.note(f"{metric} of {task} is {value} on these questions, and left out.")
                continue
            stderr = figures.get(f"{metric}_stderr,{kind}")
            better = found["higher_is_better"].get(task, {}).get(metric)
            entries.append({
                "task": task,
                "version": str(found["versions"].get(task)),
                "metric": metric,
                "filter": kind,
                "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, (int, float)) and math.isfinite(stderr) else None,
                "samples": _count(found, task),
                "higher_is_better": True if better is None else bool(better),
            })  # fmt: skip
    return entries


def _count(found: Any, task: str) -> int:
    """Questions of a task, or of all tasks of a group."""
    counts = found["n-samples"]
    if task in counts:
        return int(counts[task]["effective"])
    return sum(_count(found, member) for member in found["group_subtasks"].get(task, []))


def _write(output: Path, samples: dict[str, list[Any]], result: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for task, rows in samples.items():
        with (output / f"samples_{task}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, default=handle_non_serializable, ensure_ascii=False) + "\n")
    (output / "results.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
