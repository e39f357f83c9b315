"""How many elements of a merge of several adapters are misrounded: ours, and PEFT's one adapter after another.

python several_patches.py MODEL OURS ADAPTER…

The truth is W + sum of s * B @ A in float64, and its nearest bfloat16 (ties to even), by way of the float32 beside it that
is rounded to odd, so that the second rounding is the only one that shows. Prints JSON.
"""

import json
import sys

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

model_folder, ours_folder, *adapters = sys.argv[1:]


def to_bfloat16(truth):
    narrow = truth.astype(np.float32)
    bits = narrow.view(np.uint32)
    toward_zero = np.where(np.abs(narrow.astype(np.float64)) > np.abs(truth), bits - 1, bits)
    odd = np.where(narrow.astype(np.float64) != truth, toward_zero | 1, bits).astype(np.uint32)
    return ((odd + 0x7FFF + ((odd >> 16) & 1)) >> 16).astype(np.uint16)


def bits_of(tensor):
    return tensor.view(torch.uint16).numpy()


base = load_file(f"{model_folder}/model.safetensors")
ours = load_file(f"{ours_folder}/model.safetensors")
peft = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
for adapter in adapters:
    peft = PeftModel.from_pretrained(peft, adapter).merge_and_unload()
theirs = peft.state_dict()

factors = [load_file(f"{adapter}/adapter_model.safetensors") for adapter in adapters]
scales = []
for adapter in adapters:
    with open(f"{adapter}/adapter_config.json") as config:
        settings = json.load(config)
    scales.append(settings["lora_alpha"] / settings["r"])

elements = ours_wrong = peft_wrong = 0
for name, w in base.items():
    key = f"base_model.model.{name.removesuffix('.weight')}"
    if f"{key}.lora_A.weight" not in factors[0]:
        continue
    truth = w.double().numpy()
    for scale, tensors in zip(scales, factors):
        truth = truth + scale * (tensors[f"{key}.lora_B.weight"].double().numpy() @ tensors[f"{key}.lora_A.weight"].double().numpy())
    right = to_bfloat16(truth)
    elements += right.size
    ours_wrong += int((bits_of(ours[name]) != right).sum())
    peft_wrong += int((bits_of(theirs[name]) != right).sum())
print(json.dumps({"elements": elements, "ours": ours_wrong / elements, "peft": peft_wrong / elements}))
