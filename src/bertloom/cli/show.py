"""What a command shows: tables and progress for a terminal, one JSON object for a program."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bertloom.files import json_line
from bertloom.text.sources import ReadCounts

# Progress and remarks go to stderr, so that stdout holds results alone.
remarks = Console(stderr=True, highlight=False)
results = Console(highlight=False, soft_wrap=True)
# Tables of more labels are for the picture.
MOST_LABELS = 12


def say(text: str) -> None:
    """A remark for whoever watches; never broken into lines, for commands in it are copied."""
    remarks.print(text, markup=False, soft_wrap=True)


def say_counts(counts: ReadCounts) -> None:
    """What was left out or mended while data was read."""
    for what, number in (+counts.mended).items():
        say(f"{number:,} × {what}")


def score(value: float) -> str:
    """A metric, or a count."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def command(*words: object) -> str:
    """A command of ours as a shell reads it."""
    return shlex.join(["bertloom", *map(str, words)])


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json_line(value, sys.stdout))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; after the first, columns whose first cell is a figure are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=Text(title), title_justify="left", title_style="bold", show_header=any(columns))
    for number, column in enumerate(columns):
        figures = number > 0 and bool(cells) and cells[0][number][:1].isdigit()
        table.add_column(Text(column), justify="right" if figures else "left")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    results.print(table)


def show_confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    """How often each gold label was given each label, where there are few enough for a terminal."""
    if len(labels) > MOST_LABELS:
        return
    cells = [[f"{count:,}" for count in row] for row in matrix]
    widths = [max(map(len, (label, *column))) + 3 for label, column in zip(labels, zip(*cells))]
    rows, columns = list(labels), list(labels)
    if sum(widths) + max(map(len, labels)) + 4 > results.width:
        # On a narrow terminal columns go by numbers.
        rows, columns = [f"{n} {label}" for n, label in enumerate(labels, 1)], [str(n + 1) for n in range(len(labels))]
    title = "Gold labels (rows) by given ones (columns)"
    print_table(title, ("", *columns), [(label, *row) for label, row in zip(rows, cells)])


@contextmanager
def reading_progress(what: str) -> Iterator[Any]:
    """A live line of megabytes read, given a `ReadCounts`."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.1f} MB"), TimeElapsedColumn())
    # Where nobody watches, a line that comes and goes would leave an empty one.
    with Progress(*columns, console=remarks, transient=True, disable=not remarks.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda counts: progress.update(task, completed=counts.bytes / 1e6)


def training_progress() -> Progress:
    """A live bar with loss, speed and time left."""
    said = TextColumn("{task.fields[said]}")
    left = TimeRemainingColumn(compact=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), said, left)
    return Progress(*columns, TextColumn("left"), console=remarks, refresh_per_second=4)


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.1f} %"


@contextmanager
def embedding_progress(source: str, counts: ReadCounts) -> Iterator[Any]:
    """A live bar of a file's share that is read, with texts done and time left, given how many are done."""
    said, left = TextColumn("{task.fields[said]}"), TimeRemainingColumn(compact=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), said, left)
    size = os.path.getsize(source) if os.path.isfile(source) else None
    with Progress(*columns, console=remarks, transient=True, disable=not remarks.is_terminal) as progress:
        task = progress.add_task("Embedding", total=size, said="")
        yield lambda done: progress.update(task, completed=counts.bytes, said=f"{done:,} texts")
