"""Trains twice in one work folder, as where a runner is lost after the last step; {"steps", "same"} on stdout.

PYTHONPATH=gpu-runner/python python tests/python/research_ended.py SPEC.json
"""

import json
import os
import sys
from pathlib import Path

from portllm_research.finetune import finetune, finetune_spec
from portllm_research.report import Report


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # The report's lines are for another reader.
    os.dup2(2, 1)
    spec = finetune_spec(json.loads(Path(sys.argv[1]).read_text()))
    report = Report()
    made = []
    for _ in range(2):
        training = finetune(spec, report)["training"]
        made.append((training["steps"], training["curve"], (spec.output / "adapter_model.safetensors").read_bytes()))
    print(json.dumps({"steps": [steps for steps, _, _ in made], "same": made[0] == made[1]}), file=out)


if __name__ == "__main__":
    main()
