"""A merge by another tool, timed without its imports. Prints JSON with seconds and the peak of resident memory.

python other_mergers.py peft|axolotl MODEL ADAPTER OUTPUT
"""

import importlib.util
import json
import sys
import time


def prepare_peft():
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def merge(model_folder, adapter_folder, output):
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
        PeftModel.from_pretrained(model, adapter_folder).merge_and_unload().save_pretrained(output)

    return merge


def prepare_axolotl():
    # The module alone: the package's command line would import trainers that need not be installed.
    folder = importlib.util.find_spec("axolotl").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("lora_merge", f"{folder}/cli/utils/lora_merge.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.merge_lora_sharded_efficient


merge = {"peft": prepare_peft, "axolotl": prepare_axolotl}[sys.argv[1]]()
start = time.perf_counter()
merge(*sys.argv[2:5])
seconds = time.perf_counter() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
print(json.dumps({"seconds": seconds, "peakBytes": peak}))
