"""transformers and PEFT as oracle for the tests. Every command prints one JSON object on stdout.

    oracle.py merge --base DIR --adapter DIR --out DIR
    oracle.py compare --merged DIR --base DIR --adapter DIR[:WEIGHT] [--adapter …] [--text …]
    oracle.py logits --model DIR [--text …]
    oracle.py load --model DIR
    oracle.py make-variants --out DIR [--only NAME …]
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

started = time.monotonic()
import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

IMPORT_SECONDS = time.monotonic() - started
TEXT = "aardvark: nocturnal burrowing mammal of the grasslands of Africa that feeds on termites"
TOKENIZER_FILES = "tokenizer*"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("merge", help="PEFT's default merge of one adapter, saved as safetensors")
    command.add_argument("--base", type=Path, required=True)
    command.add_argument("--adapter", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("compare", help="a merged folder against PEFT's own merge")
    command.add_argument("--merged", type=Path, required=True)
    command.add_argument("--base", type=Path, required=True)
    command.add_argument("--adapter", action="append", required=True, metavar="DIR[:WEIGHT]")
    command.add_argument("--text", default=TEXT)
    command = commands.add_parser("logits", help="logits of a folder after a text, in the stored dtype")
    command.add_argument("--model", type=Path, required=True)
    command.add_argument("--text", default=TEXT)
    command = commands.add_parser("load", help="whether transformers loads a folder whole, with the numbers of its files")
    command.add_argument("--model", type=Path, required=True)
    command = commands.add_parser("make-variants", help="tiny models, adapters of every variety, and what PEFT and float64 make of them")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--only", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(2)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.command == "make-variants":
        from make_variants import make_variants

        result = make_variants(options.out, options.only)
    elif options.command == "merge":
        result = merge(options.base, options.adapter, options.out)
    elif options.command == "compare":
        result = compare(options.merged, options.base, options.adapter, options.text)
    elif options.command == "load":
        result = load_whole(options.model)
    else:
        result = logits_of_folder(options.model, options.text)
    json.dump(result, sys.stdout)
    print()


def load(folder: Path, **arguments):
    """The model with its weights in the dtype they are stored in."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager", **arguments)


def load_whole(folder: Path) -> dict:
    model, loading = load(folder, output_loading_info=True)
    stored = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    loaded = model.state_dict()
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    return {
        "loading": named_problems(loading),
        "tie_word_embeddings": model.config.tie_word_embeddings,
        "shares_head": head.data_ptr() == embedding.data_ptr(),
        "tensors": len(stored),
        "differing": sorted(name for name, tensor in stored.items() if not torch.equal(tensor, loaded[name])),
    }


def named_problems(loading: dict) -> dict:
    return {key: sorted(str(name) for name in loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def merge(base: Path, adapter: Path, out: Path) -> dict:
    began = time.monotonic()
    model = PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    model.save_pretrained(out)
    for file in base.glob(TOKENIZER_FILES):
        shutil.copy(file, out)
    return {
        "out": str(out),
        "seconds": round(time.monotonic() - began, 3),
        "import_seconds": round(IMPORT_SECONDS, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def compare(merged: Path, base: Path, adapters: list[str], text: str) -> dict:
    """How `merged` differs from two oracles, where each applies:

    peft_merge   PEFT's merge_and_unload of one adapter at weight 1. For linear layers PEFT rounds once; for
                 embeddings it rounds the delta to the base's dtype first, so many elements differ by a rounding.
    peft_deltas  PEFT's get_delta_weight of every adapter times its weight, summed in float32, rounded once.
    """
    ours, loading = load(merged, output_loading_info=True)
    chosen = [parse_adapter(adapter) for adapter in adapters]
    before = load(base).state_dict()
    result = {"loading": named_problems(loading)}
    our_logits = logits(ours, merged, text)
    for name, oracle in (("peft_merge", peft_merge), ("peft_deltas", peft_deltas)):
        theirs = oracle(base, chosen)
        if theirs is not None:
            result[name] = {**state_difference(ours.state_dict(), theirs.state_dict(), before), "logits": logits_difference(our_logits, logits(theirs, merged, text))}
    return result


def state_difference(ours: dict, theirs: dict, before: dict) -> dict:
    shared = [name for name in theirs if name in ours]
    differing = []
    for name in shared:
        difference = tensor_difference(ours[name], theirs[name], before.get(name))
        if difference["differing_elements"]:
            differing.append({"name": name, **difference})
    return {
        "missing": sorted(set(theirs) - set(ours)),
        "unexpected": sorted(set(ours) - set(theirs)),
        "tensors": len(shared),
        "tensors_changed_by_patch": sum(name not in before or not torch.equal(theirs[name], before[name]) for name in shared),
        "elements": sum(theirs[name].numel() for name in shared),
        "differing_elements": sum(d["differing_elements"] for d in differing),
        "max_ulp": max((d["max_ulp"] for d in differing), default=0),
        "max_operand_ulp": max((d["max_operand_ulp"] for d in differing), default=0.0),
        "differing": differing,
    }


def logits_difference(ours: torch.Tensor, theirs: torch.Tensor) -> dict:
    return {
        "positions": ours.shape[0],
        "max_abs": float(theirs.abs().max()),
        "max_abs_difference": float((ours - theirs).abs().max()),
        "same_argmax": bool(torch.equal(ours.argmax(-1), theirs.argmax(-1))),
    }


def parse_adapter(argument: str) -> tuple[Path, float]:
    folder, colon, weight = argument.rpartition(":")
    if colon and not Path(argument).exists():
        return Path(folder), float(weight)
    return Path(argument), 1.0


def peft_merge(base: Path, adapters: list[tuple[Path, float]]):
    if len(adapters) != 1 or adapters[0][1] != 1.0:
        return None
    return PeftModel.from_pretrained(load(base), adapters[0][0]).merge_and_unload()


def peft_deltas(base: Path, adapters: list[tuple[Path, float]]):
    wrapped = PeftModel.from_pretrained(load(base), adapters[0][0], adapter_name="0")
    for index, (folder, _) in enumerate(adapters[1:], start=1):
        wrapped.load_adapter(folder, adapter_name=str(index))
    with torch.no_grad():
        for module in [m for m in wrapped.modules() if isinstance(m, LoraLayer)]:
            weight = module.get_base_layer().weight
            names = [n for n in range(len(adapters)) if str(n) in module.lora_A or str(n) in module.lora_embedding_A]
            deltas = [module.get_delta_weight(str(n)).float() * adapters[n][1] for n in names]
            weight.copy_((weight.float() + sum(deltas)).to(weight.dtype))
    return wrapped.unload()


def tensor_difference(ours: torch.Tensor, theirs: torch.Tensor, before: torch.Tensor | None = None) -> dict:
    """`max_ulp` counts representable values between the two, which is large where a sum nearly cancels;
    `max_operand_ulp` is the distance in ulps of the larger of old and new value, which bounds a rounding."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        described = [f"{tensor.dtype} {list(tensor.shape)}" for tensor in (ours, theirs)]
        return {"elements": theirs.numel(), "differing_elements": theirs.numel(), "max_ulp": 2**31, "max_operand_ulp": 2.0**31, "kinds": described}
    if theirs.numel() == 0:
        return {"elements": 0, "differing_elements": 0, "max_ulp": 0, "max_operand_ulp": 0.0}
    operand = theirs.abs() if before is None or before.shape != theirs.shape else torch.maximum(theirs.abs(), before.abs())
    ulp = torch.finfo(theirs.dtype).eps * 2.0 ** torch.floor(torch.log2(operand.double().clamp_min(1e-38)))
    return {
        "elements": theirs.numel(),
        "differing_elements": int((bits(ours) != bits(theirs)).sum()),
        "max_ulp": int((ordered(ours) - ordered(theirs)).abs().max()),
        "max_operand_ulp": float(((ours.double() - theirs.double()).abs() / ulp).max()),
    }


def bits(tensor: torch.Tensor) -> torch.Tensor:
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(integer).to(torch.int64)


def ordered(tensor: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the floating-point values, neighbours one apart; ±0 coincide."""
    raw = bits(tensor)
    sign = 1 << (8 * tensor.element_size() - 1)
    return torch.where(raw < 0, -(raw + sign), raw)


@torch.inference_mode()
def logits(model, folder: Path, text: str) -> torch.Tensor:
    """(positions, vocabulary) in float32; without a tokenizer in the folder, a fixed run of token ids."""
    if any(folder.glob(TOKENIZER_FILES)):
        ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    else:
        ids = (torch.arange(24) * 7 % model.config.vocab_size).unsqueeze(0)
    return model(input_ids=ids).logits[0].float()


def logits_of_folder(folder: Path, text: str) -> dict:
    values = logits(load(folder), folder, text)
    return {"positions": values.shape[0], "vocabulary": values.shape[1], "last": values[-1].tolist(), "argmax": values.argmax(-1).tolist()}


if __name__ == "__main__":
    main()
