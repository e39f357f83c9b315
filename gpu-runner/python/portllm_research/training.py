"""The loop of both finetune and evolve: transformers' Trainer with progress, checkpoints that can be trusted, and refusals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from . import checkpoints, stop
from .failure import Failure
from .report import Report
from .usage import Usage

# Points of a curve at most, so that a long training has a record of bounded size.
_CURVE_POINTS = 500


@dataclass
class Trained:
    steps: int
    # {"step", "epoch", "loss", "learning_rate"} each.
    curve: list[dict[str, float]]
    # {"step", "epoch", "loss"} of held-out data.
    validation: list[dict[str, float]]
    usage: dict[str, Any]


def arguments(folder: Path, *, seed: int, max_steps: int | None, **settings: Any) -> TrainingArguments:
    """What both verbs have in common. `max_steps`: None to end with the epochs."""
    has_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder), seed=seed, data_seed=seed, max_steps=max_steps or -1, use_cpu=not has_gpu,
        logging_strategy="steps", logging_nan_inf_filter=False,
        save_strategy="steps", save_total_limit=2, report_to=[], disable_tqdm=True, remove_unused_columns=False,
        gradient_checkpointing_kwargs={"use_reentrant": False}, dataloader_pin_memory=has_gpu, ddp_find_unused_parameters=False,
        **settings,
    )  # fmt: skip


def train(
    model: PreTrainedModel | PeftModel,
    rows: Any,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    settings: TrainingArguments,
    report: Report,
    *,
    held_out: Any = None,
    contrast: bool = False,
) -> Trained:
    """Trains in place, from the last whole checkpoint on where there is one. Raises stop.Stopped, or Failure with nan_loss."""
    if settings.gradient_checkpointing:
        # Below the first patch nothing else would ask for a gradient. Of a patched model it is the base's.
        model.enable_input_require_grads()  # type: ignore[operator]
    found = checkpoints.last(Path(str(settings.output_dir)))
    usage = Usage(found[1] if found else {})
    kind = _ContrastTrainer if contrast else _Trainer
    trainer = kind(model=model, args=settings, train_dataset=rows, eval_dataset=held_out, data_collator=collate, callbacks=[_Watch(report, usage)])
    if found and (ended := _ended(found[0])):
        trainer._load_from_checkpoint(str(found[0]))
        return _trained(ended, usage)
    stop.defer(True)
    try:
        if found:
            report.note(f"Going on at step {found[0].name.split('-')[1]}, where the last run was interrupted.")
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    finally:
        is_stopped = stop.requested()
    if is_stopped:
        raise stop.Stopped
    stop.defer(False)
    return _trained(trainer.state, usage)


def _ended(checkpoint: Path) -> TrainerState | None:
    """The state of a checkpoint after the last step, from which the Trainer would take one more."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.global_step >= state.max_steps else None


class _Trainer(Trainer):
    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise Failure(
                "nan_loss",
                f"The loss became {loss.item()} at step {self.state.global_step + 1}. A smaller learning rate is the usual remedy (it is "
                f"{self.args.learning_rate:g}); after that look for values in the data or the base that are not finite.",
            )
        return loss


class _ContrastTrainer(_Trainer):
    """Cross-entropy over the log-likelihoods of an example's choices, which are what lm-eval compares."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # The loss is a mean over examples, so that the Trainer has to divide by the accumulation's steps.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        counts, right, labels = inputs.pop("counts"), inputs.pop("right"), inputs.pop("labels")
        outputs = model(**inputs)
        likelihoods = _log_likelihoods(outputs.logits, labels)
        losses = [F.cross_entropy(choices[None], index[None]) for choices, index in zip(likelihoods.split(counts.tolist()), right)]
        loss = torch.stack(losses).mean()
        return (loss, outputs) if return_outputs else loss


def _log_likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(rows,) sums of the log-probabilities of the labelled tokens."""
    losses = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
    return -losses.sum(1)


class _Watch(TrainerCallback):
    def __init__(self, report: Report, usage: Usage) -> None:
        self._report = report
        self._usage = usage

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.logging_steps = max(1, -(-state.max_steps // _CURVE_POINTS))
        self._report.progress("training", state.global_step, state.max_steps, "steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._report.progress("training", state.global_step, state.max_steps, "steps")
        if _any_process(stop.requested()):
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        usage = self._usage.totals()
        if state.is_world_process_zero:
            checkpoints.complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", usage)


def _any_process(is_true: bool) -> bool:
    """All processes have to stop at the same step, or they would wait for each other."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return is_true
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(is_true), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


def _trained(state: TrainerState, usage: Usage) -> Trained:
    curve = [
        {"step": entry["step"], "epoch": round(entry["epoch"], 6), "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        for entry in state.log_history
        if "loss" in entry
    ]
    validation = [{"step": entry["step"], "epoch": round(entry["epoch"], 6), "loss": entry["eval_loss"]} for entry in state.log_history if "eval_loss" in entry]
    return Trained(state.global_step, curve, validation, usage.totals())


def trainable_share(model: torch.nn.Module) -> str:
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return f"{trainable:,} of {total:,} weights are trained."
