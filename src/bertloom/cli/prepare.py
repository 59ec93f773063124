"""`bertloom prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bertloom.cli.options import AsJson, Reading, Texts, Whole
from bertloom.errors import InputError


def prepare(
    text: Texts,
    *,
    tokenizer: Path,
    output: Path,
    held_out: Annotated[float, Parameter(help="Share of the documents set aside in OUTPUT/held-out.")] = 0.0,
    language: Annotated[str, Parameter(help="Language of the sentences; auto tells by script.")] = "auto",
    counterfactual: Annotated[
        Path | None, Parameter(help="Pairs of words, one a line, as he and she; changed copies stand beside documents.")
    ] = None,
    names: Annotated[Path | None, Parameter(help="Pairs of names to exchange in those copies too.")] = None,
    workers: Annotated[Whole | None, Parameter(help="Processes; as many as there are cores unless given.")] = None,
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),  # noqa: B008
    json: AsJson = False,
) -> None:
    """Turn text into a prepared corpus: sentences and tokens as plain arrays.

    Parameters
    ----------
    text
        Files, folders, globs, - for standard input, or hf:NAME[:CONFIG][:SPLIT].
    tokenizer
        Folder with tokenizer.json or vocab.txt, a model's, or a run.
    output
        Folder to make.
    """
    from bertloom.cli.show import command, print_json, reading_progress, say
    from bertloom.corpus import prepare as work
    from bertloom.corpus.arrays import default_workers
    from bertloom.text.counterfactual import Swapper

    if workers is not None and workers < 1:
        raise InputError(f"workers: {workers} given, at least 1 allowed")
    settings: dict[str, Any] = {"options": reading.options, "language": language, "held_out": held_out}
    settings["counterfactual"] = Swapper.of_files(counterfactual, names)
    with reading_progress("Preparing") as progress:
        corpus = work.prepare(
            text, tokenizer, output, **settings, workers=workers or default_workers(), progress=progress
        )
    aside = corpus.held_out
    if json:
        sizes = {name: aside.manifest[name] for name in ("documents", "sentences", "tokens")} if aside else None
        print_json({"output": str(output), "held_out": sizes, **corpus.manifest})
        return
    show_report(corpus.manifest)
    beside = f", {aside.manifest['documents']:,} more documents in {aside.path}" if aside else ""
    then = command("pretrain", "--corpus", output, "--model", "mini", "--steps", 2000, "--output", "RUN")
    say(f"Corpus in {output}{beside}; next: {then}")


def show_report(manifest: dict[str, Any]) -> None:
    """The corpus's report as tables."""
    from bertloom.cli.show import percent, print_table

    report = manifest["report"]
    rows = [(name, f"{manifest[name]:,}") for name in ("documents", "sentences", "tokens")]
    rows += [
        ("[UNK] rate", f"{100 * report['unk_rate']:.3f} %"),
        ("unused tokens", f"{report['unused_tokens']:,} of {manifest['vocabulary']['size']:,}"),
        *((what, f"{number:,}") for what, number in manifest["mended"].items()),
        *(("changed copies", f"{swaps['documents']:,}") for swaps in [manifest.get("counterfactual")] if swaps),
    ]
    print_table("Corpus", ("", ""), rows)
    total = sum(report["sentence_lengths"].values())
    most = max(report["sentence_lengths"].values())
    print_table(
        "Sentence lengths in tokens",
        ("tokens", "sentences", "share", ""),
        [
            (bounds, f"{count:,}", percent(count / total), "█" * round(24 * count / most))
            for bounds, count in report["sentence_lengths"].items()
        ],
    )
