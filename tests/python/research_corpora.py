"""What the configurations in gpu-runner/python/configs learn from rows of their datasets, as JSON on stdout.

    PYTHONPATH=gpu-runner/python python tests/python/research_corpora.py MODEL DATA

DATA holds `<name of the dataset>/train.jsonl`. {configuration: {"lora", "rows": [{"context", "learned"}, …], "left_out"}}.
"""

import json
import sys
import tempfile
from pathlib import Path

from portllm_research.axolotl import read_config
from portllm_research.corpora import read_corpus
from portllm_research.encoding import IGNORED
from portllm_research.local_data import LocalData
from portllm_research.models import load_tokenizer
from portllm_research.task_file import OURS


def main() -> None:
    tokenizer = load_tokenizer(Path(sys.argv[1]))
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for file in sorted((OURS.parent / "configs").glob("*.yaml")):
            config = read_config(file)
            corpus = read_corpus(config, tokenizer, LocalData(Path(sys.argv[2]), "folder"), Path(cache))
            rows = []
            for row in corpus.rows:
                learned = [token for token, label in zip(row["input_ids"], row["labels"]) if label != IGNORED]
                rest = [token for token, label in zip(row["input_ids"], row["labels"]) if label == IGNORED]
                rows.append({"context": tokenizer.decode(rest), "learned": tokenizer.decode(learned)})
            found[file.stem] = {"lora": config.lora is not None, "rows": rows, "left_out": corpus.left_out}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
