"""ONNX, as ONNX Runtime and many others open it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch

from bertloom.ship.export.form import Form

FILE = "model.onnx"
NEEDS = ("onnxruntime",)
MAKES = ("onnx", "onnxscript")
# The first with GELU and layer norms as operators of their own.
OPSET = 20
_OPENS = """
session = onnxruntime.InferenceSession(HERE / "model.onnx")


def run(feeds):
    return session.run(None, feeds)
"""


def opens(form: Form) -> str:
    """Python that defines `run`, from inputs by name to outputs."""
    return _OPENS


def write(form: Form, folder: Path) -> None:
    """`model.onnx` in a folder; weights over 2 GB stand beside it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        made = torch.onnx.export(
            form.program, dynamo=True, opset_version=OPSET, verbose=False, input_names=form.inputs,
            output_names=form.outputs,
        )  # fmt: skip
        assert made is not None
        large = sum(one.numel() * one.element_size() for one in form.program.state_dict.values()) > 1 << 30
        made.save(folder / FILE, external_data=large)
