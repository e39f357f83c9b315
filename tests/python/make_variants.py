"""Writes every variant in every dtype below OUT, with what PEFT and float64 make of it, and OUT/variants.json:
{"versions", "variants": [{"name", "feature", "dtype", "refused", "warned", "peftRoundsMore", "peftIsWrong",
"peftIsWrongOn", "peftRaises", "options", "adapters": [[folder, weight]], "merges": [{"on", "model", "peft",
"peftRoundedOnce", "truth"}]}]}.

`truth`, in float64, and `peft` are safetensors files with the tensors that change, or that only PEFT changes;
`peftRoundedOnce`, in float16 and bfloat16 where PEFT is right, is `peft`, or where PEFT rounds more than once the same of its
merge in float32, rounded to the dtype at the end.
"""

import copy
import json
import multiprocessing
import shutil
import warnings
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import peft
import torch
import transformers
from models import BASE, DTYPES, EVOLVED, add_noise, is_fp8, model, save_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from truth import applied_update, exact, expect_merge_is_forward, peft_merge, peft_merge_in_float32, trained_update
from variants import VARIANTS, Variant

WORKERS = 2


def make_variants(out: Path, only: list[str] | None) -> dict:
    unknown = set(only or []) - {variant.name for variant in VARIANTS}
    if unknown:
        raise SystemExit(f"no variant named {sorted(unknown)}; there are {[variant.name for variant in VARIANTS]}")
    chosen = sorted((variant.model, dtype, variant.name) for variant in VARIANTS if not only or variant.name in only for dtype in variant.dtypes)
    groups = [(out, dtype, [name for *_, name in group]) for (_, dtype), group in groupby(chosen, lambda task: task[:2])]
    groups.sort(key=lambda group: -len(group[2]))
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        rows = [row for group in pool.imap_unordered(write_group, groups, chunksize=1) for row in group]
    order = [variant.name for variant in VARIANTS]
    rows.sort(key=lambda row: (order.index(row["name"]), [*DTYPES].index(row["dtype"])))
    index = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}, "variants": rows}
    (out / "variants.json").write_text(json.dumps(index, indent=1, default=str) + "\n")
    return {"variants": len(rows)}


def write_group(task: tuple[Path, str, list[str]]) -> list[dict]:
    """All variants of one architecture in one dtype, so that each model is made once."""
    out, dtype, names = task
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # The README that PEFT writes beside an adapter takes as long as all the rest.
    PeftModel.create_or_update_model_card = lambda *arguments: None
    return [write_variant(variant_named(name), dtype, out) for name in names]


def variant_named(name: str) -> Variant:
    return next(variant for variant in VARIANTS if variant.name == name)


def write_variant(variant: Variant, dtype: str, out: Path) -> dict:
    folder = out / dtype / variant.name
    weights = dict(variant.together) or {variant.name: 1.0}
    parts = [(variant_named(name), folder / f"adapter-{name}", weight) for name, weight in weights.items()]
    models = {on: model_folder(variant, dtype, on, out) for on in (BASE, EVOLVED)}
    trained = [write_adapter(part, dtype, adapter) for part, adapter, _ in parts]
    if dtype == "f32" and not variant.together and not variant.handmade and not variant.refused:
        expect_merge_is_forward(trained[0], model(variant.model, dtype, BASE), variant)
    updates = [update_of(part, dtype, adapter, peft_model) for (part, adapter, _), peft_model in zip(parts, trained)]
    merges = []
    for on in (EVOLVED,) if variant.refused else (BASE, EVOLVED):
        row = {"on": on, "model": models[on], "peft": None, "peftRoundedOnce": None, "truth": None}
        if not variant.refused:
            before = exact(model(variant.model, dtype, on), variant)
            truth = {}
            for update, (*_, weight) in zip(updates, parts):
                for name, difference in update(on).items():
                    truth[name] = truth.get(name, before[name]) + weight * difference
            row["truth"] = write_tensors(truth, folder / f"{on}.truth.safetensors")
            if not variant.peft_raises and not is_fp8(dtype):
                weighted = [(adapter, weight) for _, adapter, weight in parts]
                theirs = peft_merge(model(variant.model, dtype, on), weighted, dtype, variant)
                if "lm_head.weight" not in theirs and "lm_head.weight" in before:
                    theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"].clone()
                changed = {name: tensor for name, tensor in theirs.items() if name in truth or not torch.equal(tensor.double(), before[name])}
                row["peft"] = write_tensors(changed, folder / f"{on}.peft.safetensors")
                is_right = not variant.peft_is_wrong or on not in variant.peft_is_wrong_on
                if is_right and DTYPES[dtype].itemsize == 2:
                    row["peftRoundedOnce"] = row["peft"]
                    if variant.peft_rounds_more:
                        wide = peft_merge_in_float32(model(variant.model, dtype, on), weighted, variant)
                        once = {name: wide[name].to(tensor.dtype) for name, tensor in changed.items()}
                        row["peftRoundedOnce"] = write_tensors(once, folder / f"{on}.once.safetensors")
        merges.append(row)
    return {
        "name": variant.name,
        "feature": variant.feature,
        "dtype": dtype,
        "refused": variant.refused,
        "warned": variant.warned,
        "peftRoundsMore": variant.peft_rounds_more,
        "peftIsWrong": variant.peft_is_wrong,
        "peftIsWrongOn": variant.peft_is_wrong_on if variant.peft_is_wrong else (),
        "peftRaises": variant.peft_raises or ("torch has no sums of fp8" if is_fp8(dtype) else ""),
        "options": [models[BASE] if option == "BASE" else option for option in variant.options],
        "adapters": [(adapter, weight) for _, adapter, weight in parts],
        "merges": merges,
    }


def update_of(variant: Variant, dtype: str, adapter: Path, trained: PeftModel | None) -> Callable[[str], dict[str, torch.Tensor]]:
    """What the adapter changes of the base or the evolved model."""
    if variant.truth == "applied":
        return lambda on: applied_update(model(variant.model, dtype, on), adapter, variant)
    update = {} if variant.refused else trained_update(trained, model(variant.model, dtype, BASE), variant)
    return lambda on: update


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> Path:
    save_file(tensors, file)
    return file


def model_folder(variant: Variant, dtype: str, on: str, out: Path) -> Path:
    """Written when first needed."""
    own = variant.saved or (on == EVOLVED and (variant.target or variant.target_config))
    architecture = variant.target if on == EVOLVED and variant.target else variant.model
    folder = out / dtype / variant.name / on if own else out / dtype / "models" / architecture / on
    if not folder.exists():
        save_model(model(architecture, dtype, on), folder, dtype, variant.saved)
        if on == EVOLVED and variant.target_config:
            config = {**json.loads((folder / "config.json").read_text()), **variant.target_config}
            (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def write_adapter(variant: Variant, dtype: str, folder: Path) -> PeftModel | None:
    """Trains, which here means noise on all that can be trained, so that nothing is left at an initial value such as
    a zero B. Returns the trained model."""
    shutil.rmtree(folder, ignore_errors=True)
    if variant.handmade is not None:
        config, tensors = variant.handmade()
        folder.mkdir(parents=True)
        config.save_pretrained(folder)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return None
    torch.manual_seed(sum(variant.name.encode()))
    task = "CAUSAL_LM" if hasattr(model(variant.model, dtype, BASE), "lm_head") else None
    config = variant.config() if variant.config else LoraConfig(task_type=task, **copy.deepcopy(variant.lora))
    trained = get_peft_model(copy.deepcopy(model(variant.model, dtype, BASE)), config).eval()
    for layer in trained.modules():
        # With ensure_weight_tying, views of the embedding's factors, which cannot be copied.
        getattr(layer, "kwargs", {}).pop("tied_adapter", None)
    # With no name PEFT does not ask the Hub whether the vocabulary was resized.
    config.base_model_name_or_path = None
    initial = folder.parent / "initial"
    if variant.convert:
        trained.save_pretrained(initial)
    too = [parameter for name, parameter in trained.named_parameters() if variant.trains_too and name.endswith(variant.trains_too)]
    add_noise([parameter.data for parameter in trained.parameters() if parameter.requires_grad] + [parameter.data for parameter in too], 0.05)
    kept = keep_dtype(variant, dtype, trained)
    arguments = {"path_initial_model_for_weight_conversion": str(initial)} if variant.convert else {"save_embedding_layers": variant.keep_embedding_copies}
    trained.save_pretrained(folder, **arguments)
    rewrite(variant, kept, folder)
    return trained


def keep_dtype(variant: Variant, dtype: str, trained: PeftModel) -> torch.dtype | None:
    """Adapters are float32 at most, so that their values in memory have to fit the dtype in which they are written."""
    kept = variant.adapter_dtype or (torch.float32 if dtype == "f64" else None)
    if kept is not None:
        for name, parameter in trained.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(kept).to(parameter.dtype)
    return kept


def rewrite(variant: Variant, kept: torch.dtype | None, adapter: Path) -> None:
    config_file, tensors_file = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    config, tensors = json.loads(config_file.read_text()), load_file(tensors_file)
    if kept is not None:
        tensors = {name: tensor.to(kept) if "lora_" in name else tensor for name, tensor in tensors.items()}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    if variant.edit is not None:
        variant.edit(config, tensors)
    config_file.write_text(json.dumps(config, indent=2))
    save_file(tensors, tensors_file, metadata={"format": "pt"})
