"""The application of some models: its queue, its addresses, the page, and how it begins and ends."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

import torch
from fastapi import FastAPI

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect import live
from bertloom.model.workers import alone
from bertloom.ship.serve.batching import Batcher
from bertloom.ship.serve.desk import Desk
from bertloom.ship.serve.guard import Counts, Guard, explain, log
from bertloom.ship.serve.limits import Limits
from bertloom.ship.serve.routes import router
from bertloom.ship.serve.served import Served
from bertloom.train.memory import keep_freed_memory

# Seconds until a thread that answers requests lets the one that computes go on.
SWITCH = 5e-4
WELCOME = "Type a text here, and see what the model does with it."


def application(models: Sequence[tuple[str, Model]], limits: Limits | None = None) -> FastAPI:
    """The ASGI application of some models by name."""
    limits = limits or Limits()
    # As in `side_by_side`: as many batches at once as there are threads, each computed by one.
    workers = 1 if torch.cuda.is_available() else torch.get_num_threads()
    batcher = Batcher(limits.tokens, limits.waiting, workers=workers, begin=alone if workers > 1 else lambda: None)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        # Requests are answered in one thread and computed in another, whose every step waits for the first.
        sys.setswitchinterval(SWITCH)
        keep_freed_memory()
        batcher.start()
        yield
        # Requests in flight were answered before.
        batcher.stop()

    app = FastAPI(title="bertloom", version=version("bertloom"), lifespan=living, redoc_url=None)
    served = {name: Served(name, model, batcher) for name, model in models}
    app.state.desk = desk = Desk(served, limits, Counts(batcher))
    app.include_router(router)
    explain(app)
    if limits.origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=list(limits.origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Guard, limits=limits, counts=desk.counts)
    if limits.page and not limits.key:
        name, first = models[0]
        try:
            page = live.application(first, WELCOME, None, hosts=["*"])
        except InputError:
            log.info(json.dumps({"page": "none", "model": name}))
        else:
            app.mount("/", page)
    return app
