"""Texts per second of MiniLM's sentence vectors, ours beside every runtime that serves encoders on a CPU.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/encode.py [case …] [--rounds R]

Cases: `news-fp32` and `news-int8`, the first 500 paragraphs (headline, lead, body) of BBC articles, 56 tokens in the
mean and of all lengths to 256, int8 calibrated on later articles; `128-fp32` and `256-fp32`, texts of that many tokens
each; `single`, one short text alone, whose figures are calls per second at the median latency. From strings to vectors
on both sides, the same texts and threads, each side in a process of its own, all in turn. ONNX Runtime has its own
optimiser's graph, CTranslate2 two workers of one thread, and both the texts in order of length; `openvino` takes them
as they come, in batches of 32, as its examples and `transformers` do, `openvino-sorted` and `transformers-sorted` by
length. `cosine` and `their_cosine` are the mean cosines of each side's vectors with those of `transformers`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from finetune import minilm
from side_by_side import Apart, data, finish, row

LONGEST, BATCH, TEXTS = 256, 32, 500
HEADS, WIDTH = 12, 384
SHORT = [
    "How do I reset my password?",
    "The film is a quiet wonder.",
    "Flights from Seoul to Berlin in May",
    "Shares fell by a third after the bank's warning.",
]
Array = Any


def texts_of(case: str) -> list[str]:
    """The texts of a case."""
    if case == "single":
        return SHORT
    if case.startswith("news"):
        return paragraphs()[:TEXTS]
    size, tokenizer = int(case.split("-")[0]), tokenizer_of()
    tokenizer.no_truncation()
    cut = []
    for article in articles():
        encoded = tokenizer.encode(article, add_special_tokens=False)
        for start in range(0, len(encoded) - size, size - 2):
            cut.append(article[encoded.offsets[start][0] : encoded.offsets[start + size - 3][1]])
    # A cut may fall into a word, whose pieces are others then.
    return [one for one in cut if len(tokenizer.encode(one)) == size][: TEXTS * 64 // size]


def articles() -> list[str]:
    """News of the BBC."""
    file = data("summarize", "bbc", "train.jsonl")
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def paragraphs() -> list[str]:
    """The first three of each article."""
    return [part for article in articles() for part in article.split("\n\n")[:3]]


def tokenizer_of() -> Any:
    """The tokenizer without its padding, cut where sentence-transformers cuts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


class Side:
    """A side in its process: `turn` encodes a case's texts and gives their number and the seconds."""

    def __init__(self, case: str, folder: str, threads: int):
        self.folder, self.threads, self.int8 = Path(folder), threads, "int8" in case
        self.texts = texts_of(case)
        self.single = case == "single"
        self.open()

    def open(self) -> None:
        """Load the model."""

    def encode(self, texts: list[str]) -> Array:
        """(n, D)."""
        raise NotImplementedError

    def turn(self) -> tuple[int, float]:
        """Texts and seconds; of single ones the median of many calls."""
        if not self.single:
            began = time.perf_counter()
            self.encode(self.texts)
            return len(self.texts), time.perf_counter() - began
        times = []
        for text in self.texts * 40:
            began = time.perf_counter()
            self.encode([text])
            times.append(time.perf_counter() - began)
        return 1, statistics.median(times)

    def vectors(self) -> Array:
        """The vectors at unit length."""
        found = np.asarray(self.encode(self.texts), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class Ours(Side):
    def open(self) -> None:
        from bertloom.api import load

        self.model = load(minilm())
        if self.int8:
            from bertloom.ship.quantize import quantize

            self.model, _ = quantize(self.model, paragraphs()[2 * TEXTS :: 8])

    def encode(self, texts: list[str]) -> Array:
        return self.model.encode(texts)


class Transformers(Side):
    sorts = False

    def open(self) -> None:
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(self.threads)
        self.model = transformers.BertModel.from_pretrained(minilm()).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())

    def encode(self, texts: list[str]) -> Array:
        import torch

        order = sorted(range(len(texts)), key=lambda n: -len(texts[n])) if self.sorts else list(range(len(texts)))
        out = np.empty((len(texts), WIDTH), np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                some = order[start : start + BATCH]
                given = self.tokenizer(
                    [texts[n] for n in some], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
                )
                states = self.model(**given).last_hidden_state.numpy()
                out[some] = mean(states, given["attention_mask"].numpy())
        return out


class TransformersSorted(Transformers):
    sorts = True


class SentenceTransformers(Side):
    def open(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(self.threads)
        self.model = SentenceTransformer(str(minilm()), device="cpu")

    def encode(self, texts: list[str]) -> Array:
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False)


def mean(states: Array, mask: Array) -> Array:
    """(n, D) the means of the rows that are no padding."""
    mask = mask[:, :, None].astype(np.float32)
    return (states * mask).sum(1) / mask.sum(1)


class Runtime(Side):
    """A runtime that takes padded ids."""

    sorts = True

    def open(self) -> None:
        self.tokenizer = tokenizer_of()
        self.start()

    def start(self) -> None:
        """Open the converted model."""

    def states(self, ids: list[list[int]]) -> Array:
        """(n, longest, D) of a batch."""
        raise NotImplementedError

    def padded(self, ids: list[list[int]]) -> dict[str, Array]:
        """What the runtime reads."""
        given = np.zeros((len(ids), max(map(len, ids))), np.int64)
        for line, own in zip(given, ids):
            line[: len(own)] = own
        return {"input_ids": given, "attention_mask": self.mask(ids), "token_type_ids": np.zeros_like(given)}

    @staticmethod
    def mask(ids: list[list[int]]) -> Array:
        """(n, longest) 1 where a token is."""
        sizes = np.array([len(own) for own in ids])
        return (np.arange(sizes.max())[None] < sizes[:, None]).astype(np.int64)

    def encode(self, texts: list[str]) -> Array:
        ids = [one.ids for one in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda n: -len(ids[n])) if self.sorts else list(range(len(ids)))
        out = np.empty((len(ids), WIDTH), np.float32)

        def one(some: list[int]) -> None:
            own = [ids[n] for n in some]
            out[some] = mean(self.states(own), self.mask(own))

        self.all(one, [order[start : start + BATCH] for start in range(0, len(order), BATCH)])
        return out

    def all(self, one: Any, batches: list[list[int]]) -> None:
        """Have every batch computed."""
        for some in batches:
            one(some)


class ONNXRuntime(Runtime):
    def start(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        file = self.folder / ("int8.onnx" if self.int8 else "fused.onnx")
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.kinds = {one.name: np.int32 if "int32" in one.type else np.int64 for one in self.session.get_inputs()}

    def states(self, ids: list[list[int]]) -> Array:
        given = self.padded(ids)
        return self.session.run(None, {name: given[name].astype(kind) for name, kind in self.kinds.items()})[0]


class OpenVINO(Runtime):
    sorts = False

    def start(self) -> None:
        import openvino

        # Without the hint it computes in bf16 where a CPU has AMX.
        hints = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.compiled = openvino.Core().compile_model(self.folder / "openvino.xml", "CPU", hints)

    def states(self, ids: list[list[int]]) -> Array:
        return self.compiled(self.padded(ids))[0]


class OpenVINOSorted(OpenVINO):
    sorts = True


class CTranslate2(Runtime):
    def start(self) -> None:
        import ctranslate2

        # Two workers of a thread each are a tenth faster than one of two; alone a text has all threads.
        workers = 1 if self.single else self.threads
        self.encoder = ctranslate2.Encoder(
            str(self.folder / "ctranslate2"),
            compute_type="int8" if self.int8 else "float32",
            inter_threads=workers,
            intra_threads=self.threads // workers,
        )
        self.pool = ThreadPoolExecutor(workers)

    def states(self, ids: list[list[int]]) -> Array:
        return np.array(self.encoder.forward_batch(ids).last_hidden_state)

    def all(self, one: Any, batches: list[list[int]]) -> None:
        list(self.pool.map(one, batches))


SIDES: dict[str, type[Side]] = {
    "ctranslate2": CTranslate2,
    "onnxruntime": ONNXRuntime,
    "openvino": OpenVINO,
    "openvino-sorted": OpenVINOSorted,
    "sentence-transformers": SentenceTransformers,
    "transformers": Transformers,
    "transformers-sorted": TransformersSorted,
}
FIXED = ["ctranslate2", "onnxruntime", "openvino", "sentence-transformers", "transformers"]
CASES = {
    "news-fp32": list(SIDES),
    "news-int8": ["ctranslate2", "onnxruntime"],
    "128-fp32": FIXED,
    "256-fp32": FIXED,
    "single": FIXED,
}


def convert(folder: Path) -> None:
    """The model as every runtime wants it, made from `transformers`' own."""
    import ctranslate2
    import onnx
    import openvino
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.BertModel.from_pretrained(
                minilm(), add_pooling_layer=False, attn_implementation="eager"
            ).eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.randint(1000, 2000, (2, 7))
    torch.onnx.export(
        States(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), folder / "plain.onnx", input_names=names,
        output_names=["states"], dynamic_axes={name: {0: "n", 1: "length"} for name in [*names, "states"]},
        dynamo=False, opset_version=17,
    )  # fmt: skip
    made = optimizer.optimize_model(str(folder / "plain.onnx"), "bert", num_heads=HEADS, hidden_size=WIDTH, opt_level=1)
    made.save_model_to_file(str(folder / "fused.onnx"))
    quantize_dynamic(
        folder / "fused.onnx", folder / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )  # fmt: skip
    openvino.save_model(openvino.convert_model(folder / "plain.onnx"), folder / "openvino.xml", compress_to_fp16=False)
    ctranslate2.converters.TransformersConverter(str(minilm())).convert(str(folder / "ctranslate2"))


def measure(case: str, folder: Path, rounds: int, threads: int, wanted: Array) -> list[dict[str, Any]]:
    """A row for each peer of a case."""
    sides = {name: Apart(kind, case, str(folder), threads) for name, kind in {"ours": Ours, **SIDES}.items()
             if name in ("ours", *CASES[case])}  # fmt: skip
    cosines, speeds = {}, {name: [] for name in sides}
    for name, side in sides.items():
        cosines[name] = float((side.call("vectors") * wanted).sum(1).mean())
        side.call("turn")
    for _ in range(rounds):
        for name, side in sides.items():
            texts, seconds = side.call("turn")
            speeds[name].append(texts / seconds)
    for side in sides.values():
        side.close()
    found = {name: statistics.median(speed) for name, speed in speeds.items()}
    unit = "calls/s" if case == "single" else "texts/s"
    return [
        row(case, found["ours"], name, found[name], unit, cosine=round(cosines["ours"], 5),
            their_cosine=round(cosines[name], 5))
        for name in CASES[case]
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all unless named")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = Apart(Converter, str(folder))
        maker.call("convert")
        maker.close()
        for case in given.cases or CASES:
            truth = Apart(Transformers, case, str(folder), threads)
            wanted = truth.call("vectors")
            truth.close()
            rows += measure(case, folder, given.rounds, threads, wanted)
    finish("encode", rows, "ctranslate2", "onnxruntime", "openvino", "sentence-transformers", "transformers")


class Converter:
    """`convert` in a process of its own."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def convert(self) -> None:
        convert(self.folder)


if __name__ == "__main__":
    main()
