"""Models as other runtimes open them, each compared with the model itself before it is done."""

from __future__ import annotations

import importlib
import runpy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError, nearest
from bertloom.files import refuse_existing, whole_folder, write_json
from bertloom.ship.export import usage
from bertloom.ship.export.form import COMPARED, KINDS, LONG, Form, padded
from bertloom.text.tokenizer import FILES

__all__ = ["FORMATS", "KINDS", "Report", "export"]

# Modules with `FILE`, `NEEDS` to run and `MAKES` to make, `opens(form)` and `write(form, folder)`.
FORMATS = {"onnx": "onnx", "openvino": "openvino", "ctranslate2": "ctranslate2", "torch.export": "program"}
# How far outputs may lie from ours, as a share of the largest.
FAR = 2e-4
USAGE = "usage.py"


@dataclass
class Report:
    """What was exported: the format, what of the model, names of inputs and outputs, bytes of the folder, and how far
    outputs lie from the model's own at most, as a share of the largest, over so many batches of other sizes."""

    format: str
    what: str
    inputs: list[str]
    outputs: list[str]
    size: int
    difference: float
    batches: int


def export(model: Model, to: str, folder: str | Path, what: str = "") -> Report:
    """Write a model's folder for a runtime, with its tokenizer and `usage.py`, which need neither bertloom nor torch.

    `what` is one of `KINDS`, told by the model unless given. Raises, and leaves nothing, where outputs differ.
    """
    if to not in FORMATS:
        raise InputError(f"to: {nearest(to, FORMATS)}")
    folder = Path(folder)
    refuse_existing(folder)
    runtime = importlib.import_module(f"{__name__}.{FORMATS[to]}")
    for name in {*runtime.MAKES, *runtime.NEEDS}:
        _require_module(name, to)
    # Runtimes have int8 of their own, made of fp32.
    form = Form.of(model.require_learning(), what)
    with whole_folder(folder) as beside:
        # Its settings first: runtimes have files of the same names.
        model.tokenizer.save(beside, form.longest, "token_type_ids" in form.inputs)
        for file in beside.iterdir():
            if file.name not in FILES:
                file.unlink()
        runtime.write(form, beside)
        (beside / USAGE).write_text(usage.page(form, runtime), encoding="utf-8")
        difference, batches = compare(form, beside)
        if not difference <= FAR:
            raise InputError(f"outputs of {to} differ from the model's by {difference:.2g}, at most {FAR:g} allowed")
        report = Report(to, form.kind, form.inputs, form.outputs, 0, difference, batches)
        report.size = sum(file.stat().st_size for file in beside.rglob("*") if file.is_file())
        write_json(beside / "bertloom.json", vars(report))
    return report


def compare(form: Form, folder: Path) -> tuple[float, int]:
    """How far a folder's outputs lie from the model's at most, and over how many batches."""
    run = runpy.run_path(str(folder / USAGE))["run"]
    longest = min(form.longest, LONG)
    sizes = [[min(one, longest) for one in lengths] for lengths in (*COMPARED, (longest, 2))]
    worst = 0.0
    for lengths in sizes:
        examples = form.texts(lengths)
        found = run(padded(examples, form.inputs))
        for theirs, ours in zip(found, form.ours(examples), strict=True):
            for row, (one, length) in enumerate(zip(ours, lengths)):
                other = theirs[row] if form.by_text else theirs[row][:length]
                if other.shape != one.shape:
                    return float("inf"), len(sizes)
                # Not a number is not near.
                worst = float(np.maximum(worst, np.abs(one - other).max() / max(1e-6, np.abs(one).max())))
    return worst, len(sizes)


def _require_module(name: str, to: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"to: {to} given, for which {name} is needed; pip install {name}") from None
