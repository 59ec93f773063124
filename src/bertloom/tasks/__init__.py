"""What fine-tuning learns, one file a task; a task is known by standing in `TASKS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertloom.errors import InputError, blaming
from bertloom.tasks.answer import Answer
from bertloom.tasks.choose import Choose
from bertloom.tasks.classify import Classify
from bertloom.tasks.tag import Tag
from bertloom.tasks.task import Task

# The key of a config that holds a task's settings.
SETTINGS = "finetuning"
TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (Classify, Tag, Answer, Choose)}

__all__ = ["SETTINGS", "TASKS", "Task", "of_config"]


def of_config(
    settings: Mapping[str, Any], outputs: Mapping[str, int], where: object, classes: str = "Bert"
) -> Task | None:
    """The task a `config.json` was fine-tuned for, ours or another library's; None where it was not.

    `outputs` are the sizes of the heads that are there, by name: labels of default names stand in no config. `classes`
    is what the names of the family's classes begin with.
    """
    given = settings.get(SETTINGS)
    if given is not None:
        if not isinstance(given, dict) or given.get("task") not in TASKS:
            raise InputError(
                f"{SETTINGS}: {given!r} given, a task of {', '.join(TASKS)} with its settings allowed", where
            )
        with blaming(where, f"{SETTINGS}: cannot be used", again=True):
            return TASKS[given["task"]](**{key: value for key, value in given.items() if key != "task"})
    classes_told = settings.get("architectures")
    made_by = classes_told[0] if isinstance(classes_told, list) and classes_told else None
    kind = next((kind for kind in TASKS.values() if classes + kind.architecture == made_by), None)
    if kind is None:
        return None
    with blaming(where, "id2label: cannot be used"):
        named = {int(number): str(label) for number, label in (settings.get("id2label") or {}).items()}
        labels = [named.get(number, f"LABEL_{number}") for number in range(outputs.get(kind().part, len(named)))]
    with blaming(where, "problem_type: cannot be used"):
        return kind.foreign(labels, settings.get("problem_type"))
