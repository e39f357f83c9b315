"""PEFT's own merge, timed without its imports: load, merge_and_unload, save_pretrained. Prints JSON."""

import json
import sys
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model_folder, adapter_folder, output = sys.argv[1:4]
start = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, adapter_folder).merge_and_unload()
model.save_pretrained(output)
seconds = time.perf_counter() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
print(json.dumps({"seconds": seconds, "peakBytes": peak}))
