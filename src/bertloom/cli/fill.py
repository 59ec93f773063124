"""`bertloom fill`."""

from __future__ import annotations

from bertloom.cli.options import AModel, AsJson, Whole


def fill(model: AModel, text: str, *, top: Whole = 5, json: AsJson = False) -> None:
    """Fill each [MASK] of a text with the most probable tokens.

    Parameters
    ----------
    text
        Text with at least one [MASK].
    top
        Candidates for each.
    """
    from dataclasses import asdict

    from bertloom.api import load
    from bertloom.cli.show import print_json, print_table

    filled = load(model).fill(text, top)
    if json:
        print_json({"text": text, "masks": [[asdict(one) for one in candidates] for candidates in filled]})
        return
    for number, candidates in enumerate(filled, 1):
        title = text if len(filled) == 1 else f"{text} (mask {number})"
        rows = [(one.token, f"{100 * one.probability:.1f} %", one.text) for one in candidates]
        print_table(title, ("token", "probability", "text"), rows)
