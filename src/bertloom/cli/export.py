"""`bertloom export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import AModel, AsJson


def export(
    model: AModel,
    *,
    to: Annotated[str, Parameter(help="onnx, openvino, ctranslate2 or torch.export.")],
    output: Annotated[Path, Parameter(help="Folder to make.")],
    what: Annotated[
        str,
        Parameter(
            help="states of tokens, vectors of texts, task (a fine-tuned model's answers) or mlm (words for tokens); "
            "what the model is for unless given."
        ),
    ] = "",
    json: AsJson = False,
) -> None:
    """Write a model's folder for another runtime, with its tokenizer and a page of Python that uses it.

    Any number and length of texts may be asked; outputs are compared with the model's own on several before it is done.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, remarks, say
    from bertloom.ship.export import USAGE
    from bertloom.ship.export import export as work

    loaded = load(model)
    with remarks.status(f"Exporting to {to}"):
        report = work(loaded, to, output, what)
    if json:
        print_json({"output": str(output), **vars(report)})
        return
    say(
        f"{', '.join(report.outputs)} of {', '.join(report.inputs)} in {output}, {report.size / 1e6:.1f} MB; at most "
        f"{report.difference:.1e} from the model's own in {report.batches} batches of other sizes; next: "
        f"python {output / USAGE}"
    )
