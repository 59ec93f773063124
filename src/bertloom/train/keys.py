"""Keys of recipes: each is a flag and a line of TOML, the same in both directions."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from bertloom.errors import InputError, nearest
from bertloom.files import read_text, whole_file


def key(default: Any, text: str, *, shapes: bool = True, name: str = "") -> Any:
    """A field with its help; `shapes` is whether it decides what is computed, `name` what users call it."""
    return field(default=default, metadata={"help": text, "shapes": shapes, "name": name})


def name_of(one: Field[Any]) -> str:
    """What users call a field."""
    return one.metadata.get("name") or one.name


class Keys:
    """What recipes share; a subclass is a frozen dataclass of `key` fields that calls `check` before its own checks."""

    def values(self) -> dict[str, Any]:
        """Every key with its value."""
        return {name_of(one): getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

    def shaping(self) -> dict[str, Any]:
        """Those that decide what is computed."""
        return {name_of(one): getattr(self, one.name) for one in fields(self) if one.metadata["shapes"]}  # type: ignore[arg-type]

    def check(
        self,
        least: Mapping[str, float] | None = None,
        shares: Sequence[str] = (),
        known: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Raise `InputError` naming a key whose value cannot be: of another kind, under its least, unknown."""
        hints = get_type_hints(type(self))
        for one in fields(self):  # type: ignore[arg-type]
            name, kind, value = name_of(one), hints[one.name], getattr(self, one.name)
            if kind in (str, int, float, bool):
                check_kind(name, kind, value)
        for name, names in (known or {}).items():
            if getattr(self, name) not in names:
                raise InputError(f"{name}: {nearest(getattr(self, name), names)}")
        for name, limit in (least or {}).items():
            if not getattr(self, name) >= limit:
                raise InputError(f"{name}: {getattr(self, name)} given, at least {limit} allowed")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: {getattr(self, name)} given, a share from 0 to 1 allowed")

    def differing(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """The keys that decide what is computed and in which two recipes differ, with both values."""
        mine, theirs = self.shaping(), other.shaping()
        names = {**mine, **theirs}
        return {one: (mine.get(one), theirs.get(one)) for one in names if mine.get(one) != theirs.get(one)}

    def write(self, path: Path) -> None:
        """The recipe as TOML, every key there."""
        # A TOML string, number or boolean of these types is spelt as in JSON.
        lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in self.values().items())
        with whole_file(path) as beside:
            beside.write_text("".join(lines), encoding="utf-8")


def check_kind(name: str, kind: type, value: Any) -> None:
    """Raise unless a value is of a kind, and can be written down."""
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name}: {value!r} given, a {kind.__name__} allowed")
    # Names of files may hold bytes that are no text, and TOML is text.
    if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value):
        raise InputError(f"{name}: {value!r} given, a text without control characters allowed")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name}: {value!r} given, a finite number allowed")


def read_keys(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """The keys that a TOML file gives; an unknown one raises and names the nearest, with file and line."""
    text = read_text(path)
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML: {error}", path) from None
    for name in given:
        if name not in known:
            raise InputError(f"key {nearest(name, known)}", path, _line_of(name, text))
    return given


def blamed(error: InputError, path: Path) -> InputError:
    """An error that begins with a key's name, with the recipe's file and the key's line in it."""
    return InputError(str(error), path, _line_of(str(error).partition(":")[0], read_text(path)))


def _line_of(name: str, text: str) -> int | None:
    """The line of TOML on which a key stands."""
    parts = enumerate((one.partition("=")[0].strip(" \t[]\"'") for one in text.splitlines()), 1)
    return next((number for number, part in parts if part.replace("-", "_") == name.replace("-", "_")), None)
