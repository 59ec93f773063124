"""Vectors of a whole file, in pieces that survive a stop, and one file at the end."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bertloom import embedding
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.files import read_json, refuse_existing, whole_file, write_json
from bertloom.sentence import Sentence
from bertloom.text.sources import extra

SUFFIXES = (".npy", ".parquet")
# Texts of a piece: what a stop may cost.
PIECE = 4 * embedding.WINDOW
STATE = "state.json"
Told = Callable[[int], None]


def embed(
    model: Model,
    texts: Iterable[str],
    output: Path,
    sentence: Sentence,
    by_token: bool,
    tokens: int,
    source: str,
    told: Told = lambda done: None,
) -> tuple[int, int]:
    """Write vectors of texts to `output`, and give how many there are, and how many of them an earlier call had made.

    A `.npy` is (n, D) float32; a `.parquet` has the texts too, and takes vectors of tokens with their places
    (`by_token`). The same call again goes on behind the last whole piece, unless the source can be read but once.
    """
    require_output(output, by_token)
    pieces = _pieces(model, output, sentence, by_token, source)
    stream = iter(texts)
    files = sorted(pieces.glob(f"*{output.suffix}"))
    done = found = sum(_length(file) for file in files)
    if done and sum(1 for _ in islice(stream, done)) < done:
        raise InputError(
            f"has fewer texts than the {done:,} whose vectors are in {pieces}, which can be removed", source
        )
    while some := list(islice(stream, PIECE)):
        file = pieces / f"{len(files):08d}{output.suffix}"
        with whole_file(file) as beside:
            _write(beside, output.suffix, model, some, sentence, by_token, tokens, partial(_further, told, done))
        files.append(file)
        done += len(some)
    with whole_file(output) as beside:
        _joined(files, beside, output.suffix, _width(model, sentence))
    shutil.rmtree(pieces)
    return done, found


def require_output(output: Path, by_token: bool) -> None:
    """Raise unless a file of that name can be made."""
    if output.suffix not in SUFFIXES:
        raise InputError(
            f"output ending in {output.suffix or 'nothing'!r} given, {' or '.join(SUFFIXES)} allowed", output
        )
    if by_token and output.suffix != ".parquet":
        raise InputError("texts have as many vectors as tokens, a .parquet needed", output)
    if output.suffix == ".parquet":
        extra("pyarrow", "data")
    if output.is_dir() or output.exists():
        refuse_existing(output)


def _pieces(model: Model, output: Path, sentence: Sentence, by_token: bool, source: str) -> Path:
    """The folder of pieces beside an output; one of another call is refused, of a stream it begins anew."""
    folder = output.with_name(f"{output.name}.pieces")
    file = Path(source)
    told: dict[str, Any] = {
        "model": model.fingerprint,
        "sentence": hashlib.sha256(repr((sentence, by_token)).encode()).hexdigest()[:16],
        "source": [source, file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None,
    }
    if any(folder.glob(f"*{output.suffix}")):
        state = read_json(folder / STATE) if (folder / STATE).is_file() else None
        if told["source"] is None and state is not None and state.get("source") is None:
            shutil.rmtree(folder)
        elif state != told:
            raise InputError("holds vectors of another model, file or setting; remove it to begin anew", folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STATE, told)
    return folder


def _further(told: Told, done: int, now: int) -> None:
    told(done + now)


def _write(
    file: Path, kind: str, model: Model, texts: list[str], sentence: Sentence, by_token: bool, tokens: int, told: Told
) -> None:
    if by_token:
        made = embedding.token_vectors(model.encoder, model.tokenizer, sentence, texts, tokens)
        _parquet(file, {"text": texts, **_columns(made, len(texts), told)}, model.config.hidden_size)
        return
    rows = np.empty((len(texts), _width(model, sentence)), np.float32)
    start = 0
    for part in embedding.vectors(model.encoder, model.tokenizer, sentence, texts, tokens):
        rows[start : start + len(part)] = part
        start += len(part)
        told(start)
    if kind == ".npy":
        with file.open("wb") as stream:
            np.save(stream, rows)
    else:
        _parquet(file, {"text": texts, "vector": rows}, rows.shape[1])


def _columns(made: Iterator[embedding.TokenVectors], count: int, told: Told) -> dict[str, Any]:
    found = []
    for number, one in enumerate(made, 1):
        found.append(one)
        if number % embedding.WINDOW == 0 or number == count:
            told(number)
    return {
        "tokens": [one.tokens for one in found],
        "starts": [one.spans[:, 0].tolist() for one in found],
        "ends": [one.spans[:, 1].tolist() for one in found],
        "vectors": [one.vectors for one in found],
    }


def _parquet(file: Path, columns: dict[str, Any], width: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(name: str, values: Any) -> Any:
        if name == "vector":
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
        if name == "vectors":
            ends = np.cumsum([0, *map(len, values)])
            rows = np.concatenate([one.reshape(-1, width) for one in values])
            return pa.ListArray.from_arrays(ends, pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width))
        kinds = {"text": pa.string(), "tokens": pa.list_(pa.string())}
        return pa.array(values, kinds.get(name, pa.list_(pa.int32())))

    pq.write_table(pa.table({name: column(name, values) for name, values in columns.items()}), file)


def _length(file: Path) -> int:
    if file.suffix == ".npy":
        return len(np.load(file, mmap_mode="r"))
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def _joined(files: list[Path], output: Path, kind: str, width: int) -> None:
    """One file of all pieces, a piece in memory at a time."""
    if kind == ".npy":
        with output.open("wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (sum(map(_length, files)), width)}
            np.lib.format.write_array_header_1_0(stream, header)
            for file in files:
                stream.write(np.load(file, mmap_mode="r").data)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files:
        empty = pa.list_(pa.float32(), width)
        pq.write_table(pa.table({"text": pa.array([], pa.string()), "vector": pa.array([], empty)}), output)
        return
    with pq.ParquetWriter(output, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


def _width(model: Model, sentence: Sentence) -> int:
    return sentence.width(model.config.hidden_size)
