"""`bertloom view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import AModel, AsJson, Whole
from bertloom.errors import InputError


def _head(given: str) -> tuple[int, int]:
    """`3-2` as a layer and a head."""
    parts = given.split("-")
    if len(parts) != 2 or not all(one.isascii() and one.isdecimal() for one in parts):
        raise InputError(f"head: {given!r} given, a layer and a head allowed, as 3-2")
    return int(parts[0]), int(parts[1])


def view(
    model: AModel,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    second: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    output: Path = Path("view.html"),
    head: str = "",
    part: Whole = 1,
    port: Whole | None = None,
    json: AsJson = False,
) -> None:
    """Show what a model does with a text, or with two: heads, neurons, layers, hidden words, and why.

    Parameters
    ----------
    text
        Text to look at; [MASK] in it is filled and explained.
    second
        A second text beside it.
    output
        Page to make, or a picture in .svg or .png; one that is there is not written over.
    head
        Layer and head, from 1, as 3-2, that a picture shows; all of them unless given.
    part
        Which part of a text that is longer than the model reads at once, from 1.
    port
        Serve the page at this port, where the text can be edited, and write none.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, say
    from bertloom.files import TAKEN
    from bertloom.inspect.view import view as look

    chosen = _head(head) if head else None
    if chosen and (output.suffix == ".html" or port is not None):
        raise InputError("head: given, an output in .svg or .png needed")
    if port is not None:
        if json or part != 1:
            raise InputError(f"port: given beside --{'json' if json else 'part'}, one of them allowed")
        from bertloom.inspect.live import serve

        serve(load(model), text, second, port, say)
        return
    if output.exists():
        raise InputError(TAKEN, output)
    made = look(load(model), text, second, part=part)
    made.save(output, chosen)
    size, parts = output.stat().st_size, made.about["parts"]
    if json:
        print_json(
            {"output": str(output), "bytes": size, "tokens": len(made.tokens), "parts": parts, "missing": made.missing}
        )
        return
    if parts > 1:
        say(f"Part {part} of {parts} of a text that is longer than the model reads at once; --part shows another")
    if output.suffix == ".html":
        for name, reason in made.missing.items():
            say(f"{name}: {reason}")
    say(f"{len(made.tokens)} tokens, {size / 1e6:.1f} MB in {output}")
