"""What a model is once an adapter is merged into it: by PEFT, in the model's dtype, and in truth, in float64.

All functions give tensors by the names of the model's files, which differ from those in memory for some models.
"""

import copy
import tempfile
from functools import cache
from pathlib import Path

import torch
from models import outputs, read_tensors, save_model
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from variants import Variant

Tensors = dict[str, torch.Tensor]


def files_of(model: torch.nn.Module, dtype: str, saved: tuple) -> Tensors:
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder), dtype, saved)
        return read_tensors(Path(folder))


def peft_merge(model: torch.nn.Module, adapters: list[tuple[Path, float]], dtype: str, variant: Variant) -> Tensors:
    """PEFT's default merge. Several adapters are merged one after the other."""
    [(first, _), *others] = adapters
    wrapped = PeftModel.from_pretrained(copy.deepcopy(model), first, adapter_name="0")
    for index, (folder, _) in enumerate(others, start=1):
        wrapped.load_adapter(folder, adapter_name=str(index))
    for layer in wrapped.modules():
        for index, (_, weight) in enumerate(adapters):
            if weight != 1 and isinstance(layer, LoraLayer) and str(index) in layer.scaling:
                layer.set_scale(str(index), weight)
    return files_of(wrapped.merge_and_unload(adapter_names=[str(index) for index in range(len(adapters))]), dtype, variant.saved)


def peft_merge_in_float32(model: torch.nn.Module, adapters: list[tuple[Path, float]], variant: Variant) -> Tensors:
    """The same of the very same weights in float32, where nothing is rounded to the dtype on the way."""
    return peft_merge(copy.deepcopy(model).float(), adapters, "f32", variant)


def exact(model: torch.nn.Module, variant: Variant) -> Tensors:
    return exact_files(model, "untie" in variant.options, variant.saved)


@cache
def exact_files(model: torch.nn.Module, untie: bool, saved: tuple) -> Tensors:
    return files_of(in_float64(model, untie), "f64", saved)


def applied_update(model: torch.nn.Module, adapter: Path, variant: Variant) -> Tensors:
    """What PEFT's loader and merge change of a model, in float64."""
    merged = PeftModel.from_pretrained(in_float64(model), adapter).merge_and_unload()
    return less(files_of(merged, "f64", variant.saved), exact(model, variant))


def trained_update(trained: PeftModel, base: torch.nn.Module, variant: Variant) -> Tensors:
    """What training changed of the base: PEFT's merge in float64 of the very model that was trained, less the base."""
    merged = trained_in_float64(trained, base, variant).merge_and_unload()
    return less(files_of(merged, "f64", variant.saved), exact(base, variant))


def trained_in_float64(trained: PeftModel, base: torch.nn.Module, variant: Variant) -> PeftModel:
    doubled = copy.deepcopy(trained).double()
    restore_initial_factors(doubled, in_float64(base), variant)
    if "untie" in variant.options:
        untie_head(doubled.get_base_model())
    return doubled


def expect_merge_is_forward(trained: PeftModel, base: torch.nn.Module, variant: Variant) -> None:
    """PEFT's merge is taken for what the adapter means. This holds only where it computes what training computed."""
    doubled = trained_in_float64(trained, base, variant)
    before = outputs(doubled)
    if before is None:
        return
    after, without = outputs(doubled.merge_and_unload()), outputs(in_float64(base))
    effect, error = (after - without).abs().max(), (after - before).abs().max()
    if effect == 0 or error > 1e-9 * effect:
        raise AssertionError(f"{variant.name}: PEFT's merge is off by {error} from what was trained, where the adapter changes {effect}")


def less(after: Tensors, before: Tensors) -> Tensors:
    return {name: after[name] - tensor for name, tensor in before.items() if not torch.equal(after[name], tensor)}


def in_float64(model: torch.nn.Module, untie: bool = False) -> torch.nn.Module:
    doubled = copy.deepcopy(model).double()
    if untie:
        untie_head(doubled)
    return doubled


def untie_head(model: torch.nn.Module) -> None:
    head = model.get_output_embeddings()
    plain = head.get_base_layer() if isinstance(head, LoraLayer) else head
    plain.weight = torch.nn.Parameter(plain.weight.detach().clone())
    model.config.tie_word_embeddings = False


def restore_initial_factors(trained: PeftModel, base: torch.nn.Module, variant: Variant) -> None:
    """PiSSA and OLoRA took B₀A₀ from the base and rounded what was left to its dtype. Here both are done exactly."""
    method = variant.lora.get("init_lora_weights")
    if method not in ("pissa", "olora"):
        return
    for name, layer in trained.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer) or not layer.lora_A:
            continue
        stored = base.get_submodule(name).weight.detach()
        weight = stored.T if layer.fan_in_fan_out else stored
        rank = layer.r["default"]
        if method == "pissa":
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
            initial = (u[:, :rank] * s[:rank]) @ v[:rank]
        else:
            q, r = torch.linalg.qr(weight)
            initial = layer.scaling["default"] * q[:, :rank] @ r[:rank]
        layer.get_base_layer().weight.data = stored - (initial.T if layer.fan_in_fan_out else initial)
