"""The page served, so that its text can be edited; whatever it has no room for is computed when it is asked for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.inspect import named, why
from bertloom.inspect.page import page
from bertloom.inspect.view import TOP_HIDDEN, View, view

# Bytes of one look: what a browser holds with ease, and a machine sends itself at once.
LIVE_BUDGET = 100_000_000
HOST = "127.0.0.1"


@dataclass
class Look:
    """A text, or two."""

    text: str
    second: str | None = None


@dataclass
class Hide(Look):
    """A place in it that is hidden."""

    place: int = 0


@dataclass
class Rank(Hide):
    """A word that is wanted there."""

    word: str = ""


def application(model: Model, text: str, second: str | None, hosts: Sequence[str] = (HOST, "localhost")) -> Any:
    """The ASGI application: the page, and its questions, for those who call this machine by one of some names."""
    try:
        from fastapi import FastAPI, HTTPException, Request
        from fastapi.responses import HTMLResponse, JSONResponse
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError:
        raise InputError("port: no fastapi here; pip install 'bertloom[serve]' brings it") from None

    first = _looked(model, text, second)
    app = FastAPI(title="bertloom view", openapi_url=None)
    # A page of elsewhere whose name was made to mean this machine is none of ours.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(InputError)
    def refused(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get("/", response_class=HTMLResponse)
    def start() -> str:
        return page(first.about, first.arrays, live=True)

    @app.post("/look")
    def look(asked: Look) -> dict[str, Any]:
        made = _looked(model, asked.text, asked.second)
        return {**made.about, "arrays": made.arrays}

    @app.post("/hidden")
    def hidden(asked: Hide) -> dict[str, Any]:
        found = _hidden(asked)
        shown = model.tokenizer.shown(found.candidates.ids[0].tolist())
        return {
            "best": list(zip(shown, found.candidates.probabilities[0].tolist())),
            "rank": int(found.own_rank[0]),
            "share": float(found.own_probability[0]),
        }

    @app.post("/why")
    def explained(asked: Hide) -> dict[str, Any]:
        found = why.hidden_reasons(model, _placed(asked), asked.place)
        return {
            "name": found.name, "places": found.places, "before": found.before, "after": found.after,
            "added": found.added.tolist(), "rollout": found.rollout.tolist(),
        }  # fmt: skip

    @app.post("/ranked")
    def ranked(asked: Rank) -> dict[str, str]:
        ids = model.tokenizer.ids([asked.word])[0]
        if len(ids) != 1:
            pieces = " ".join(model.tokenizer.shown(ids))
            return {"said": f"is {len(ids)} tokens: {pieces}; one is allowed"}
        found = _hidden(asked)
        rank = int(found.ranks[0][ids[0]])
        share = float(found.share_of(rank)[0])
        return {"said": f"number {rank:,} of {model.config.vocab_size:,}, {100 * share:.2g} %"}

    def _hidden(asked: Hide) -> named.Hidden:
        return named.hidden(model, _placed(asked), [asked.place], TOP_HIDDEN)

    def _placed(asked: Hide) -> Example:
        example = model.whole(asked.text, asked.second)
        if not 0 < asked.place < len(example) - 1:
            raise HTTPException(422, f"place: {asked.place} given, 1 to {len(example) - 2} allowed")
        return example

    return app


def _looked(model: Model, text: str, second: str | None) -> View:
    """A view for a page that is answered: any token of it can be hidden."""
    made = view(model, text, second, LIVE_BUDGET)
    if "places" in made.about:
        made.about["missing"].pop("mask", None)
    return made


def serve(model: Model, text: str, second: str | None, port: int, say: Callable[[str], None]) -> None:
    """Answer on this machine alone until Ctrl-C; raises where the port cannot be had."""
    app = application(model, text, second)
    import uvicorn

    with listening(HOST, port, f"port: {port}") as (opened, where):
        say(f"{where} until Ctrl-C")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[opened])


@contextmanager
def listening(host: str, port: int, given: str) -> Iterator[tuple[socket.socket, str]]:
    """A socket at a port, and its address for a browser; raises naming what was `given` where none can be had."""
    six = ":" in host
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or "0 to 65535 allowed"
            raise InputError(f"{given} given: {said}") from None
        yield opened, f"http://{f'[{host}]' if six else host}:{opened.getsockname()[1]}/"
