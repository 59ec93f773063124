"""`bertloom embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import AModel, AnEncoding, AsJson, OnBad, Whole


def embed(
    model: AModel,
    *,
    data: Annotated[
        str,
        Parameter(
            help="Texts: the lines of a .txt or of - (standard input), a column of .jsonl, .csv, .tsv or .parquet.",
            allow_leading_hyphen=True,
        ),
    ],
    output: Annotated[Path, Parameter(help="File to make: .npy, or .parquet, which has the texts too.")],
    pooling: Annotated[
        str | None,
        Parameter(
            help="mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken or last-four; mean+max side by side. "
            "As the model's folder says unless given, else mean."
        ),
    ] = None,
    normalize: Annotated[bool | None, Parameter(help="Vectors of length 1; as the folder says unless given.")] = None,
    prompt: Annotated[str | None, Parameter(help="Name of one of the folder's prompts, put before every text.")] = None,
    by_token: Annotated[bool, Parameter(help="Vectors of tokens with their places, into a .parquet.")] = False,
    column: Annotated[str, Parameter(help="Column that holds the text.")] = "text",
    tokens: Annotated[Whole, Parameter(help="Tokens that go through the model at once.")] = 1024,
    encoding: AnEncoding = "utf-8",
    on_bad: OnBad = "error",
    json: AsJson = False,
) -> None:
    """Turn every text of a file into a vector; stopped, the same command goes on where it was."""
    import time

    from bertloom.api import load
    from bertloom.cli.show import embedding_progress, print_json, say, say_counts
    from bertloom.errors import InputError
    from bertloom.ship import embed as work
    from bertloom.text.records import texts
    from bertloom.text.sources import ReadCounts, ReadOptions

    if tokens < 1:
        raise InputError(f"tokens: {tokens} given, at least 1 allowed")
    if by_token and (pooling or normalize is not None or prompt):
        raise InputError("by-token given beside --pooling, --normalize or --prompt, which are of whole texts")
    work.require_output(output, by_token)
    counts = ReadCounts()
    stream = texts(data, column, ReadOptions(encoding=encoding, on_bad=on_bad), counts)
    loaded = load(model)
    sentence = loaded.how.asked(pooling, normalize, prompt)
    began = time.perf_counter()
    with embedding_progress(data, counts) as told:
        done, found = work.embed(loaded, stream, output, sentence, by_token, tokens, data, told)
    seconds = time.perf_counter() - began
    say_counts(counts)
    if json:
        print_json({"output": str(output), "texts": done, "resumed": found, "seconds": round(seconds, 2),
                    "width": sentence.width(loaded.config.hidden_size), "mended": dict(+counts.mended)})  # fmt: skip
        return
    again = f", {found:,} of them made before" if found else ""
    say(f"{done:,} texts in {output}{again}; {(done - found) / max(seconds, 1e-9):,.0f} a second")
