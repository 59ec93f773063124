"""OpenVINO's own form, in fp32 unless a runtime is told otherwise."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bertloom.ship.export import onnx
from bertloom.ship.export.form import Form

FILE = "model.xml"
NEEDS = ("openvino",)
MAKES = (*onnx.MAKES, "openvino")
_OPENS = """
# In fp32: on some CPUs OpenVINO would compute in bfloat16.
compiled = openvino.compile_model(HERE / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run(feeds):
    return list(compiled(feeds).values())
"""


def opens(form: Form) -> str:
    """Python that defines `run`, from inputs by name to outputs."""
    return _OPENS


def write(form: Form, folder: Path) -> None:
    """`model.xml` and `model.bin`, made of the ONNX form, whose names and shapes they keep."""
    import openvino

    with tempfile.TemporaryDirectory() as beside:
        onnx.write(form, Path(beside))
        openvino.save_model(openvino.convert_model(Path(beside) / onnx.FILE), folder / FILE, compress_to_fp16=False)
