"""A small data set for every task, in the toy language, and how its gold answers look as logits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from bertloom.tasks import TASKS, Task
from bertloom.tasks.task import Array, Feature, Record
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts
from tests.conftest import ANIMALS, PLACES

NAMES = [
    "classify",
    "classify-pairs",
    "classify-multi",
    "classify-score",
    "tag",
    "tag-spans",
    "tag-plain",
    "answer",
    "choose",
]


def row(name: str, rng: random.Random) -> dict[str, Any]:
    """One record whose answer can be told from its text."""
    animal, other = rng.sample(list(ANIMALS), 2)
    place = rng.choice(PLACES)
    text = f"The {animal} lives in the {place}."
    match name:
        case "classify":
            return {"text": f"{text} {rng.choice(['it sleeps', 'loudly'])}", "label": animal}
        case "classify-pairs":
            same = rng.random() < 0.5
            return {
                "text1": text,
                "text2": f"{ANIMALS[animal if same else other]}",
                "label": "same" if same else "other",
            }
        case "classify-multi":
            found = rng.sample(list(ANIMALS), rng.randint(0, 3))
            return {"text": " ".join(["the", *found]), "labels": found}
        case "classify-score":
            return {"text": text, "score": f"{PLACES.index(place) + 0.5}"}
        case "tag":
            words = [*text.rstrip(".").split(), "."]
            kinds = {animal: "B-ANIMAL", place: "B-PLACE"}
            return {"tokens": words, "ner_tags": [kinds.get(word, "O") for word in words]}
        case "tag-spans":
            spans = [(text.index(word), word, kind) for word, kind in ((animal, "ANIMAL"), (place, "PLACE"))]
            return {
                "text": text,
                "entities": [{"start": at, "end": at + len(word), "label": kind} for at, word, kind in spans],
            }
        case "tag-plain":
            words = text.rstrip(".").split()
            return {"tokens": words, "tags": ["NOUN" if word in (animal, place) else "OTHER" for word in words]}
        case "answer":
            asked, answer = rng.choice([("place", place), ("animal", animal)])
            start = text.index(answer)
            given = {"text": [answer], "answer_start": [start]}
            if rng.random() < 0.25:
                asked, given = "sound", {"text": [], "answer_start": []}
            return {"id": str(rng.random()), "question": f"which {asked}", "context": text, "answers": given}
        case _:
            choices = [ANIMALS[one] for one in rng.sample(list(ANIMALS), rng.choice([2, 4]))]
            right = rng.randrange(len(choices))
            choices[right] = ANIMALS[animal]
            choices = list(dict.fromkeys(choices))
            return {"context": text, "choices": choices, "label": choices.index(ANIMALS[animal])}


def rows(name: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """So many of them."""
    rng = random.Random(seed)
    made = [row(name, rng) for _ in range(count)]
    if name == "choose":
        made = [one for one in made if len(one["choices"]) > 1]
    return made


def made(name: str, count: int = 16, seed: int = 0, **options: Any) -> tuple[Task, list[Record]]:
    """A task that has learned from its records, and they."""
    given = rows(name, count, seed)
    task = TASKS[name.partition("-")[0]](**options)
    task = task.shown(given[0], Place("toy", 1))
    records = list(task.made(((Place("toy", number), one) for number, one in enumerate(given, 1)), ReadCounts()))
    return task.learn(records), records


def learned(task: Task, records: list[Record]) -> Task:
    """The task as training has it: learned from records, each of which is usable."""
    found = task.learn(records)
    found.usable(records, ReadCounts())
    return found


def perfect(task: Task, feature: Feature) -> Array:
    """Logits that are sure of a feature's gold labels."""
    _, labels = feature.targets["labels"]
    problem = getattr(task, "problem", "")
    if problem == "regression":
        return labels[:, None].astype(np.float32)
    if problem == "multi":
        return (20 * labels - 10).astype(np.float32)
    if task.name == "answer":
        return (20 * labels - 10).astype(np.float32)
    if task.name == "choose":
        return (20 * labels[:, None] - 10).astype(np.float32)
    return (20 * np.eye(len(task.labels))[labels] - 10).astype(np.float32)  # type: ignore[attr-defined]
