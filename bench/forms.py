"""One model in every form it can be shipped in: megabytes, texts per second, and milliseconds of one short text.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/forms.py [--rounds R]

MiniLM's sentence vectors of 500 paragraphs of news (56 tokens in the mean, all lengths to 256), and of one short text
alone. `bertloom` packs texts; the exported folders are run by their own `usage.py` page, texts in order of length,
32 together, as an application without bertloom would; CTranslate2 in fp32 and told to compute in int8. `cosine` is the
mean with the vectors of the model in fp32.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from encode import SHORT, TEXTS, paragraphs
from finetune import minilm
from side_by_side import Apart, finish

TOGETHER = 32


class Form:
    """A form in its process."""

    def __init__(self, name: str, folder: str):
        self.texts, self.ours = paragraphs()[:TEXTS], name.startswith("bertloom")
        if self.ours:
            from bertloom.api import load

            model = load(minilm() if name == "bertloom fp32" else folder)
            self.encode: Any = lambda texts: model.encode(texts, normalize=True)
            return
        page = Path(folder, "usage.py")
        if name == "ctranslate2 int8":
            fast = 'Encoder(str(HERE), compute_type="int8")'
            text = page.read_text(encoding="utf-8").replace("Encoder(str(HERE))", fast)
            page = Path(folder, "int8.py")
            page.write_text(text, encoding="utf-8")
        self.encode = runpy.run_path(str(page))["ask"]

    def vectors(self) -> Any:
        """(n, D), in the order of the texts."""
        order = sorted(range(len(self.texts)), key=lambda number: -len(self.texts[number]))
        found = np.empty((len(order), 384), np.float32)
        for start in range(0, len(order), TOGETHER):
            part = order[start : start + TOGETHER]
            found[part] = self.encode([self.texts[number] for number in part])
        return found

    def speed(self) -> float:
        """Texts per second."""
        began = time.perf_counter()
        self.encode(self.texts) if self.ours else self.vectors()
        return len(self.texts) / (time.perf_counter() - began)

    def latency(self) -> float:
        """Milliseconds of one short text, the median of many."""
        times = []
        for text in SHORT * 25:
            began = time.perf_counter()
            self.encode([text])
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)


def main() -> None:
    """Make every form and measure them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        made = Apart(Making, beside)
        folders = made.call("folders")
        made.close()
        forms = {name: Apart(Form, name, folder) for name, folder in folders.items()}
        wanted = forms["bertloom fp32"].call("vectors")
        speeds: dict[str, list[float]] = {name: [] for name in forms}
        delays: dict[str, list[float]] = {name: [] for name in forms}
        rows: list[dict[str, Any]] = []
        for turn in range(given.rounds + 1):
            for name, form in forms.items():
                one, other = form.call("speed"), form.call("latency")
                # The first warms up.
                if turn:
                    speeds[name].append(one), delays[name].append(other)
        for name, form in forms.items():
            size = sum(file.stat().st_size for file in Path(folders[name]).rglob("*") if file.suffix in WEIGHTS)
            cosine = float((form.call("vectors") * wanted).sum(1).mean())
            speed, delay = (statistics.median(one[name]) for one in (speeds, delays))
            rows.append({
                "case": name, "megabytes": round(size / 1e6, 1), "ours": round(speed, 1), "unit": "texts/s",
                "milliseconds": round(delay, 2), "cosine": round(cosine, 4),
            })  # fmt: skip
            form.close()
        finish("forms", rows, "onnxruntime", "openvino", "ctranslate2")


WEIGHTS = (".safetensors", ".bin", ".onnx", ".xml", ".pt2", ".npz")


class Making:
    """What makes the folders."""

    def __init__(self, beside: str):
        self.beside = Path(beside)

    def folders(self) -> dict[str, str]:
        """By form the folder."""
        from bertloom.api import load
        from bertloom.ship.export import FORMATS, export
        from bertloom.ship.quantize import quantize

        model = load(minilm())
        quantize(model, paragraphs()[TEXTS : 2 * TEXTS])[0].save(self.beside / "int8")
        for name in FORMATS:
            export(model, name, self.beside / name)
        found = {"bertloom fp32": str(minilm()), "bertloom int8": str(self.beside / "int8")}
        found |= {name: str(self.beside / name) for name in FORMATS}
        return {**found, "ctranslate2 int8": found["ctranslate2"]}


if __name__ == "__main__":
    main()
