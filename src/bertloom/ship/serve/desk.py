"""Who answers a request: the model that it names, as long as somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

from bertloom.errors import nearest
from bertloom.ship.serve.guard import Counts, Refused
from bertloom.ship.serve.limits import Limits
from bertloom.ship.serve.served import Served
from bertloom.ship.serve.shapes import Asked

Found = TypeVar("Found")


@dataclass(frozen=True)
class Desk:
    """The models by name, what a request may have, and what is counted; an application's state holds it."""

    served: dict[str, Served]
    limits: Limits
    counts: Counts

    @staticmethod
    def of(request: Request) -> Desk:
        """The desk of a request's application."""
        desk: Desk = request.app.state.desk
        return desk

    def chosen(self, asked: Asked, can: Callable[[Served], bool] = lambda one: True, what: str = "") -> Served:
        """The model that a request names, or the first that can answer it."""
        if asked.model is not None:
            if asked.model not in self.served:
                raise Refused(404, f"model: {nearest(asked.model, self.served)}")
            if not can(self.served[asked.model]):
                raise Refused(400, f"model: {asked.model} is not {what}")
            return self.served[asked.model]
        # Models that are not fine-tuned first: their vectors are of more than one task.
        found = next(filter(can, sorted(self.served.values(), key=lambda one: one.task is not None)), None)
        if found is None:
            raise Refused(400, f"no model here is {what}")
        return found

    def tuned(self, asked: Asked, name: str) -> Served:
        """The same of those that are fine-tuned for a task."""
        return self.chosen(asked, lambda one: one.does(name), f"fine-tuned to {name}")

    async def answer(self, request: Request, work: Awaitable[Found], texts: int = 1) -> Found:
        """What comes of some work, which ends when nobody waits for it any more, or for too long."""
        doing: asyncio.Future[Found] = asyncio.ensure_future(work)
        if texts > self.limits.texts:
            doing.cancel()
            raise Refused(413, f"{texts} texts given, at most {self.limits.texts} allowed in a request")
        leaving = asyncio.ensure_future(_left(request))
        both: set[asyncio.Future[Any]] = {doing, leaving}
        try:
            await asyncio.wait(both, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if leaving.done():
                raise Refused(499, "nobody waits for it")
            raise Refused(504, f"not answered in {self.limits.seconds:g} seconds")
        finally:
            doing.cancel(), leaving.cancel()


async def _left(request: Request) -> None:
    """Until who asked is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
