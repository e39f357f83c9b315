"""Data in a folder: a file for each split, `<folder>/<split>.jsonl|json|csv|parquet`."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from .failure import Failure
from .fields import Fields

_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class LocalData:
    folder: Path
    # What records call it.
    name: str


def local_data(fields: Fields) -> LocalData | None:
    """None: the data are the Hub's."""
    fields.ignore("hub")
    data = LocalData(Path(fields.text("folder")), fields.text("name", "folder")) if fields.has("folder") else None
    fields.end()
    return data


def load_folder(folder: Path, cache: Path) -> DatasetDict:
    """Every split of a folder. `cache` takes the library's copies."""
    if not folder.is_dir():
        raise Failure("no_data", f"There is no folder {folder} with data.")
    files = sorted(path for path in folder.iterdir() if path.suffix in _BUILDERS)
    if not files:
        raise Failure("no_data", f"{folder} holds no data: it has to have train.jsonl, validation.jsonl or the like (.jsonl, .json, .csv, .parquet).")
    splits = DatasetDict()
    for file in files:
        if file.stem in splits:
            raise Failure("no_data", f"{folder} holds the split {file.stem} twice; keep one of its files.")
        splits[file.stem] = _load(file, cache)
    return splits


def load_split(folder: Path, split: str, cache: Path) -> Dataset:
    splits = load_folder(folder, cache)
    if split not in splits:
        raise Failure("no_data", f"{folder} has no {split}.jsonl (or .json, .csv, .parquet); it has {', '.join(sorted(splits))}.")
    return splits[split]


def digest(rows: Iterable[Any]) -> str:
    """`sha256:…` of the rows' JSON, one a line with sorted keys: the same for the same rows, whatever file they came in."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"


def _load(file: Path, cache: Path) -> Dataset:
    try:
        data = load_dataset(_BUILDERS[file.suffix], data_files={"train": str(file)}, split="train", cache_dir=str(cache))
    except Exception as error:  # the library wraps whatever pandas or pyarrow raise
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        raise Failure(
            "no_data", f"{file} cannot be read as {file.suffix[1:]}: {str(cause).strip().splitlines()[0] if str(cause) else type(cause).__name__}"
        ) from error
    if len(data) == 0:
        raise Failure("no_data", f"{file} has no rows.")
    return data
