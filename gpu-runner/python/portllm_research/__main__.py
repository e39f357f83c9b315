"""`python -m portllm_research finetune|evolve|evaluate --spec SPEC.json`.

stdout: one JSON object a line: {"progress"}, {"note"}, at the end {"result"} or {"failure"}. stderr: the log of the
libraries. Exit code 0 with a result, 1 with a failure, 143 after SIGTERM.
"""

import argparse
import fcntl
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from . import processes, stop
from .failure import Failure, failure_of
from .report import Report

VERBS = ("finetune", "evolve", "evaluate")


def main() -> int:
    arguments = argparse.ArgumentParser(prog="portllm_research", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("verb", choices=VERBS)
    arguments.add_argument("--spec", type=Path, required=True, help="a JSON file; gpu-runner/python.ts says what it holds")
    options = arguments.parse_args()
    stop.watch()
    report = Report()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        spec = json.loads(options.spec.read_text("utf-8"))
        hold(spec, report)
        wanted = processes.wanted(spec)
        if wanted > 1 and not processes.is_one_of_several():
            return processes.launch(wanted, options.verb, options.spec)
        report.result(run(options.verb, spec, report))
        return 0
    except stop.Stopped:
        return stop.EXIT
    except Exception as error:  # noqa: BLE001 (whatever it is, the other side is told)
        traceback.print_exc()
        report.failure(failure_of(error))
        return 1


def hold(spec: dict[str, Any], report: Report) -> None:
    """One run at a time has a folder for its work: after a kill, the one before may still be saving its checkpoint."""
    if "work" not in spec or processes.is_one_of_several():
        return
    work = Path(spec["work"])
    work.mkdir(parents=True, exist_ok=True)
    # Open, and so locked, as long as the process lives.
    lock = os.open(work / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        report.note("Waiting for the run before, which is still saving its checkpoint.")
        fcntl.flock(lock, fcntl.LOCK_EX)


def run(verb: str, spec: dict[str, Any], report: Report) -> dict[str, Any]:
    # Each verb's libraries take seconds to import, so only one verb's are.
    report.progress("starting", 0, 1, "steps")
    if verb == "finetune":
        from .finetune import finetune, finetune_spec

        return finetune(finetune_spec(spec), report)
    if verb == "evolve":
        from .evolve import evolve, evolve_spec

        return evolve(evolve_spec(spec), report)
    if verb == "evaluate":
        from .evaluate import evaluate, evaluate_spec

        return evaluate(evaluate_spec(spec), report)
    raise Failure("bad_config", f"There is no verb {verb}; there are {', '.join(VERBS)}.")


if __name__ == "__main__":
    sys.exit(main())
