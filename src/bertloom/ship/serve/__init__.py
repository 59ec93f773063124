"""Models as a service on this machine's network, until a signal stops it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from bertloom.api import Model, load
from bertloom.errors import InputError
from bertloom.inspect.live import listening
from bertloom.ship.serve.limits import Limits

EXTRA = "pip install 'bertloom[serve]' brings it"


def named(folders: Sequence[str]) -> list[tuple[str, Model]]:
    """Models by the names of their folders or Hub ids, `NAME=FOLDER` for another; no name twice."""
    made: list[tuple[str, Model]] = []
    for given in folders:
        name, equals, folder = given.partition("=")
        if not equals:
            name, folder = (given if not Path(given).exists() else Path(given).resolve().name), given
        if name in dict(made):
            raise InputError(f"model: {name} given twice, NAME=FOLDER names one otherwise")
        made.append((name, load(folder)))
    if not made:
        raise InputError("model: none given, at least one needed")
    return made


def serve(
    folders: Sequence[str], host: str, port: int, limits: Limits, say: Callable[[str], None], logs: bool = True
) -> None:
    """Answer until SIGTERM or Ctrl-C, after which what was accepted is answered still; a port that is taken raises."""
    try:
        import uvicorn

        from bertloom.ship.serve.app import application
    except ImportError as error:
        raise InputError(f"no {error.name} here; {EXTRA}") from None
    app = application(named(folders), limits)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("bertloom.serve").setLevel(logging.INFO if logs else logging.WARNING)
    with listening(host, port, f"host, port: {host} {port}") as (opened, where):
        say(f"{where} until Ctrl-C")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[opened])
