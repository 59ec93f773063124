"""Keys of recipes and options of tasks as flags: each is None unless given, so that it can stand over what is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from bertloom.cli.options import Whole
from bertloom.tasks import TASKS


def flags(name: str, module: str, keys: Iterable[tuple[Field[Any], Any]]) -> Any:
    """A dataclass of flags of fields and their types."""
    made = []
    for one, kind in keys:
        called = one.metadata.get("name") or one.name
        default = one.default if one.default not in ("", ()) else "none"
        made.append((one.name, called, kind, f"{one.metadata['help']} [{default}]"))
    return _made(name, module, made)


def data_flags(name: str, module: str) -> Any:
    """A dataclass of flags of what tasks know of a data set, for one that is not as that of training."""
    helps: dict[str, dict[str, list[str]]] = {}
    kinds: dict[str, Any] = {}
    for task in TASKS.values():
        kinds |= get_type_hints(task)
        for one in fields(task):
            if one.metadata.get("of_data"):
                helps.setdefault(one.name, {}).setdefault(one.metadata["help"], []).append(task.name)
    made = []
    for called, texts in helps.items():
        each = [text if len(tasks) == len(TASKS) else f"{', '.join(tasks)}: {text}" for text, tasks in texts.items()]
        made.append((called, called, kinds[called], " ".join(each) + " [as in training]"))
    return _made(name, module, made)


def _made(name: str, module: str, keys: Iterable[tuple[str, str, Any, str]]) -> Any:
    """A dataclass of fields, what users call them, their types and helps."""
    found = []
    for one, called, kind, text in keys:
        how = Parameter(name=f"--{called.replace('_', '-')}", help=text, show_default=False)
        found.append((one, Annotated[(Whole if kind is int else kind) | None, how], None))
    made = make_dataclass(name, found, kw_only=True, frozen=True)
    # The hints of a function in that module name it.
    made.__module__ = module
    return made


def given(values: Any) -> dict[str, Any]:
    """What the user gave of such flags."""
    return {name: value for name, value in vars(values).items() if value is not None}
