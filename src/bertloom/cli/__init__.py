"""The command line: one file per command, imported when it is called; errors are one line and exit code 2."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from bertloom.errors import InputError

app = App(
    name="bertloom",
    help="The whole life of a BERT encoder: raw text, vocabulary, corpus, pretraining, and on.",
    version_flags=["--version"],
    help_format="plaintext",
    result_action="return_value",
)
COMMANDS = {
    "demo": "Raw text to a pretrained and fine-tuned tiny BERT, in five minutes, on text that is at hand.",
    "vocab": "Train a vocabulary on text, or extend a model's.",
    "prepare": "Turn text into a prepared corpus.",
    "pretrain": "Pretrain a BERT on a prepared corpus, or go on where it stopped.",
    "finetune": "Fine-tune a model for a task, or go on where it stopped.",
    "predict": "Ask a fine-tuned model of every record of a file.",
    "evaluate": "Measure a model: held-out text, minimal pairs, or a task's data.",
    "fill": "Fill each [MASK] of a text.",
    "embed": "Turn every text of a file into a vector.",
    "compress": "Make a model smaller and faster, and say what it costs.",
    "export": "Write a model as another runtime opens it, compared before it is done.",
    "serve": "Answer requests over HTTP: vectors, labels, tags, answers.",
    "view": "Show what a model does with a text: heads, neurons, layers, hidden words, and why.",
    "probe": "What a model's heads look at, of the relations in a treebank.",
    "bias": "What a model prefers where people differ, before and after.",
    "plan": "Say what a run will take before it is started.",
}
for _name, _help in COMMANDS.items():
    # A command of several commands is asked for help itself.
    _flags = {"help_flags": ()} if _name in ("finetune", "vocab", "compress") else {}
    app.command(f"bertloom.cli.{_name}:{_name}", name=_name, help=_help, **_flags)


def commands(name: str, text: str) -> App:
    """A command that is made of several."""
    return App(
        name=f"bertloom {name}", help=text, help_format="plaintext", result_action="return_value", version_flags=()
    )


# Whatever stands after such a command is for its own parser.
Words = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code: 0 done, 2 the user's mistake, 130 or 143 stopped by a signal,
    130 by either where a run was saved first."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        fail("standard output is closed, where results go; > /dev/null leaves them unseen")
    # Stopped by `kill`, a command leaves as by Ctrl-C, through every clean-up on its way.
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show is spelt out.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        code = app(sys.argv[1:] if arguments is None else arguments, exit_on_error=False, print_error=False)
    except (InputError, CycloptsError) as error:
        fail(" ".join(str(error).split()))
    except BrokenPipeError:
        # Whoever read our output has enough; nothing is to be said to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        # A full disk, a folder without permission, a name too long: the machine's word on what the user gave.
        if error.errno is None:
            raise
        fail(f"{error.filename or 'output'}: {os.strerror(error.errno)}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str) -> None:
    """Say what is wrong in one line and leave with exit code 2."""
    # File names may hold bytes that are no text.
    print(f"bertloom: error: {message}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(2)
