"""Recipe keys as flags: every key is one that is None unless given, so that flags can stand over a recipe's file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, make_dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from bertloom.cli.options import Whole


def flags(name: str, module: str, keys: Iterable[tuple[Field[Any], Any]]) -> Any:
    """A dataclass of flags of fields and their types."""
    made = []
    for one, kind in keys:
        called = one.metadata.get("name") or one.name
        default = one.default if one.default not in ("", ()) else "none"
        how = Parameter(
            name=f"--{called.replace('_', '-')}", help=f"{one.metadata['help']} [{default}]", show_default=False
        )
        made.append((one.name, Annotated[(Whole if kind is int else kind) | None, how], None))
    kind = make_dataclass(name, made, kw_only=True, frozen=True)
    # The hints of a function in that module name it.
    kind.__module__ = module
    return kind


def given(values: Any) -> dict[str, Any]:
    """What the user gave of such flags."""
    return {name: value for name, value in vars(values).items() if value is not None}
