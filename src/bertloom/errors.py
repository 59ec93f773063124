"""The one error that is the user's to mend: what is wrong, the value given, what is allowed, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, said in one line; the command line prints it and leaves with exit code 2."""

    def __init__(self, message: str, where: object = None, line: int | None = None):
        place = "" if where is None else f"{where}: " if line is None else f"{where}:{line}: "
        super().__init__(f"{place}{message}")
        self.where = where


@contextmanager
def blaming(where: object, what: str = "is damaged", again: bool = False) -> Iterator[None]:
    """Whatever a library makes of a bad file becomes the user's, in one line; for the borders where files are read.

    Input errors have their place; with `again` those have none, and are given this one.
    """
    try:
        yield
    except InputError as error:
        if again:
            raise InputError(f"{what}: {error}", where) from None
        raise
    except BaseException as error:
        # A panic of a library in Rust is no `Exception`, though what it stumbled over is as bad.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = str(error).strip().splitlines() or [""]
        raise InputError(f"{what}: {type(error).__name__} {said[0]}".rstrip(), where) from error


def nearest(name: object, known: Iterable[str]) -> str:
    """`name` beside the known name nearest to it, for an error about a name nobody knows."""
    names = sorted(known)
    low = {one.lower(): one for one in names}
    close = difflib.get_close_matches(str(name).lower(), low, n=1, cutoff=0.6)
    return (
        f"unknown {name!r}, did you mean {low[close[0]]!r}?"
        if close
        else f"unknown {name!r}, known: {', '.join(names)}"
    )
