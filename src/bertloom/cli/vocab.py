"""`bertloom vocab TEXT…`, and `bertloom vocab extend MODEL TEXT…`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bertloom.cli import Words, commands
from bertloom.cli.options import AModel, AsJson, Reading, Texts, Whole
from bertloom.errors import InputError

_app = commands("vocab", "Train a vocabulary on text, or extend a model's.")
# How often a pair stands in the text, where nothing is given.
FREQUENT = 2


def vocab(*words: Words) -> int | None:
    """Train a vocabulary on text, or extend a model's."""
    return _app(words or ("--help",), exit_on_error=False, print_error=False)  # type: ignore[no-any-return]


@_app.default
def _train(
    text: Texts,
    *,
    size: Whole,
    output: Path,
    kind: Annotated[
        Literal["wordpiece", "bpe", "unigram"],
        Parameter(help="BERT's word pieces, RoBERTa's byte pairs (which change no text), or ALBERT's sentence pieces."),
    ] = "wordpiece",
    cased: bool = False,
    strip_accents: bool = False,
    min_frequency: Annotated[Whole, Parameter(help="How often a pair must stand in the text to be joined.")] = FREQUENT,
    exponent: Annotated[
        float, Parameter(help="Each TEXT counts by its share of the characters to this power, as 0.7 for languages.")
    ] = 1.0,
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),  # noqa: B008
    json: AsJson = False,
) -> None:
    """Train a vocabulary on text: the same files give the same bytes.

    Parameters
    ----------
    text
        Files, folders, globs, - for standard input, or hf:NAME[:CONFIG][:SPLIT].
    size
        Number of tokens.
    output
        Folder to make.
    cased
        Keep upper case.
    strip_accents
        Take accents off, which tears Hangul and kana apart.
    """
    from bertloom.cli.show import command, print_json, reading_progress, say, say_counts
    from bertloom.files import refuse_existing, whole_folder
    from bertloom.text.readers import passages
    from bertloom.text.shares import MOST_EXPONENT, balanced
    from bertloom.text.sources import ReadCounts
    from bertloom.text.vocabulary import train_vocabulary

    refuse_existing(output)
    unused = {
        "bpe": ({"cased": cased, "strip-accents": strip_accents}, "it keeps every text as it is"),
        "unigram": ({"min-frequency": min_frequency != FREQUENT}, "it joins no pairs"),
    }
    flags, reason = unused.get(kind, ({}, ""))
    for flag in filter(flags.get, flags):
        raise InputError(f"kind: {kind} given beside --{flag}: {reason}")
    if not 0 <= exponent <= MOST_EXPONENT:
        raise InputError(f"exponent: {exponent} given, from 0 to {MOST_EXPONENT} allowed")
    if exponent != 1 and "-" in text:
        raise InputError(f"exponent: {exponent} given beside -, which cannot be read twice; files allowed")
    counts = ReadCounts()
    with reading_progress("Reading") as progress:

        def paragraphs(sources: Sequence[str], counts: ReadCounts) -> Iterator[str]:
            for passage in passages(sources, reading.options, counts):
                progress(counts)
                yield from passage.paragraphs

        lines = paragraphs(text, counts)
        if exponent != 1:
            # Of what is read twice, the first time counts.
            firsts = iter([counts] * len(text))
            each = [partial(lambda one: paragraphs([one], next(firsts, ReadCounts())), one) for one in text]
            lines = balanced(each, exponent)
        tokenizer = train_vocabulary(lines, size, not cased, strip_accents, min_frequency, kind)
    with whole_folder(output) as folder:
        tokenizer.save(folder)
    say_counts(counts)
    if json:
        print_json(
            {
                "size": len(tokenizer),
                "fingerprint": tokenizer.fingerprint,
                "output": str(output),
                "mended": counts.mended,
            }
        )
    else:
        then = command("prepare", *text, "--tokenizer", output, "--output", "CORPUS")
        say(f"{len(tokenizer):,} tokens in {output}; next: {then}")


@_app.command
def extend(
    model: AModel,
    text: Texts,
    *,
    size: Whole,
    output: Path,
    min_frequency: Annotated[Whole, Parameter(help="How often a word must stand in the text.")] = 5,
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),  # noqa: B008
    json: AsJson = False,
) -> None:
    """Add a domain's words to a model: those that save most pieces, each beginning as the mean of its old pieces.

    Parameters
    ----------
    text
        Files, folders, globs, - for standard input, or hf:NAME[:CONFIG][:SPLIT].
    size
        Number of words to add.
    output
        Folder to make.
    """
    from bertloom.api import load
    from bertloom.cli.show import command, print_json, say, say_counts
    from bertloom.files import refuse_existing
    from bertloom.text.readers import passages
    from bertloom.text.sources import ReadCounts

    refuse_existing(output)
    before = load(model)
    counts = ReadCounts()
    texts = (paragraph for passage in passages(text, reading.options, counts) for paragraph in passage.paragraphs)
    made, words = before.extended(texts, size, min_frequency)
    made.save(output)
    say_counts(counts)
    if json:
        found = {"output": str(output), "words": words, "vocab_size": made.config.vocab_size}
        print_json({**found, "mended": dict(+counts.mended)})
        return
    say(f"{len(words):,} words more in {output}: {', '.join(words[:12])}{' …' if len(words) > 12 else ''}")
    say(f"Next: {command('pretrain', '--from', output, '--text', text[0], '--output', 'RUN')}")
