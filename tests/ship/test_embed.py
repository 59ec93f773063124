"""Vectors of files: whole, in order, and gone on with after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bertloom.api import Model
from bertloom.cli import main
from bertloom.errors import InputError
from bertloom.ship import embed as work
from bertloom.text.records import texts
from bertloom.text.sources import ReadCounts, ReadOptions

LINES = [f"line {number} " + "of words " * (number % 9) for number in range(40)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(work, "PIECE", 16)
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "lines.txt"


def embed(model: Model, file: Path, output: Path, given: Iterator[str] | None = None, by_token: bool = False) -> None:
    stream = texts(str(file), "text", ReadOptions(), ReadCounts()) if given is None else given
    work.embed(model, stream, output, model.how, by_token, 1024, str(file))


def test_an_array_as_encode_gives_it(golden: Model, file: Path, tmp_path: Path) -> None:
    embed(golden, file, tmp_path / "a.npy")
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    assert np.abs(found - golden.encode(LINES)).max() < 1e-5
    assert not (tmp_path / "a.npy.pieces").exists()
    with pytest.raises(InputError, match="is there already"):
        embed(golden, file, tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_stop_costs_no_more_than_a_piece(golden: Model, file: Path, tmp_path: Path, suffix: str) -> None:
    class StopError(Exception):
        pass

    def stopping() -> Iterator[str]:
        yield from LINES[:36]
        raise StopError

    output, whole = tmp_path / f"a{suffix}", tmp_path / f"whole{suffix}"
    with pytest.raises(StopError):
        embed(golden, file, output, stopping())
    assert not output.exists()
    assert len(list((tmp_path / f"a{suffix}.pieces").glob(f"*{suffix}"))) == 2
    asked: list[str] = []
    real = golden.tokenizer.ids

    def counting(given: list[str]) -> list[list[int]]:
        asked.extend(given)
        return real(given)

    golden.tokenizer.ids = counting  # type: ignore[method-assign, assignment]
    try:
        embed(golden, file, output)
    finally:
        del golden.tokenizer.ids
    assert asked == LINES[32:]
    embed(golden, file, whole)
    assert output.read_bytes() == whole.read_bytes()


def test_another_call_is_not_gone_on_with(golden: Model, file: Path, tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from LINES[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(golden, file, tmp_path / "a.npy", broken())
    stream = texts(str(file), "text", ReadOptions(), ReadCounts())
    with pytest.raises(InputError, match="of another model, file or setting; remove it"):
        work.embed(golden, stream, tmp_path / "a.npy", golden.how.asked("max"), False, 1024, str(file))
    with pytest.raises(InputError, match="has fewer texts than the 16"):
        embed(golden, file, tmp_path / "a.npy", iter(LINES[:5]))
    # Standard input can be read but once, and is begun anew.
    for given in (broken(), iter(LINES)):
        try:
            work.embed(golden, given, tmp_path / "b.npy", golden.how, False, 1024, "-")
        except KeyboardInterrupt:
            continue
    assert len(np.load(tmp_path / "b.npy")) == 40


def test_tokens_in_parquet(golden: Model, file: Path, tmp_path: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet")
    embed(golden, file, tmp_path / "a.parquet", by_token=True)
    rows = table.read_table(tmp_path / "a.parquet").to_pylist()
    for row, one in zip(rows, golden.token_vectors(LINES), strict=True):
        assert row["tokens"] == one.tokens
        assert [row["text"][start:end] for start, end in zip(row["starts"], row["ends"])] == one.tokens
        assert np.abs(np.array(row["vectors"]) - one.vectors).max() < 1e-5
    with pytest.raises(InputError, match=r"a \.parquet needed"):
        embed(golden, file, tmp_path / "a.npy", by_token=True)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_nothing_in_nothing_out(golden: Model, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    embed(golden, tmp_path / "empty.txt", tmp_path / f"a{suffix}")
    assert work._length(tmp_path / f"a{suffix}") == 0
    if suffix == ".npy":
        assert np.load(tmp_path / "a.npy").shape == (0, 384)


def test_as_users_type_it(minilm: Path, golden: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"body": text, "id": number} for number, text in enumerate(LINES)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [str(minilm), "--data", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "a.parquet")]

    def run(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["embed", *flags, *more])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    code, _, err = run()
    assert code == 2
    assert "rows.jsonl:1: no column 'text', --column names one of body, id" in err
    code, out, _ = run("--column", "body", "--pooling", "mean+max", "--no-normalize", "--json")
    assert code == 0
    assert json.loads(out)["texts"] == 40
    assert json.loads(out)["width"] == 768
    found = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "a.parquet").to_pylist()
    wanted = golden.encode(LINES, "mean+max", normalize=False)
    assert np.abs(np.array([row["vector"] for row in found]) - wanted).max() < 1e-4
    for more, said in (
        (["--tokens", "0"], "tokens: 0 given"),
        (["--by-token", "--pooling", "max"], "by-token given beside"),
        (["--pooling", "sum"], "is there already"),
    ):
        code, _, err = run("--column", "body", *more)
        assert (code, said in err) == (2, True)
