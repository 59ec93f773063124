"""PyTorch's own program (`torch.export`), which needs torch and none of this package."""

from __future__ import annotations

from pathlib import Path

import torch

from bertloom.ship.export.form import Form

FILE = "model.pt2"
NEEDS = ("torch",)
MAKES: tuple[str, ...] = ()
_OPENS = """
program = torch.export.load(HERE / "model.pt2").module()


def run(feeds):
    with torch.no_grad():
        found = program(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    return [one.numpy() for one in found]
"""


def opens(form: Form) -> str:
    """Python that defines `run`, from inputs by name to outputs."""
    return _OPENS


def write(form: Form, folder: Path) -> None:
    """`model.pt2` in a folder."""
    torch.export.save(form.program, folder / FILE)
