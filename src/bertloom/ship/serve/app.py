"""The service: its addresses, what may go wrong with a request, and what is counted and logged of it: no texts."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import orjson
import torch
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertloom.api import Model
from bertloom.errors import InputError, nearest
from bertloom.inspect import live
from bertloom.model.packed import TOKENS_AT_ONCE
from bertloom.model.workers import alone
from bertloom.ship.serve import shapes
from bertloom.ship.serve.batching import Batcher, FullError
from bertloom.ship.serve.served import Served
from bertloom.train.memory import keep_freed_memory

log = logging.getLogger("bertloom.serve")
# Addresses that need no key: whether the service lives.
OPEN = ("/health",)
# Seconds until a thread that answers requests lets the one that computes go on.
SWITCH = 5e-4
WELCOME = "Type a text here, and see what the model does with it."
Found = TypeVar("Found")


@dataclass(frozen=True)
class Limits:
    """What a request may have, and what may wait: tokens of a batch and of the queue, texts and bytes of a request,
    seconds until it is answered, the key that it must show, and origins whose pages may ask."""

    tokens: int = TOKENS_AT_ONCE
    waiting: int = 65_536
    texts: int = 512
    bytes: int = 1_000_000
    seconds: float = 60.0
    key: str = ""
    origins: tuple[str, ...] = ()
    page: bool = True

    def __post_init__(self) -> None:
        for name in ("tokens", "waiting", "texts", "bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given, at least 1 allowed")
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds: {self.seconds} given, above 0 allowed")


class Refused(HTTPException):
    """A request that cannot be answered, by no fault of ours."""


class Counts:
    """What `/metrics` tells, in Prometheus' form."""

    def __init__(self, batcher: Batcher):
        self.registry = registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("bertloom_requests", "Requests answered.", labels, registry=registry)
        self.seconds = Histogram(
            "bertloom_request_seconds", "Until a request was answered.", ("path",), registry=registry
        )
        self.batches = Histogram("bertloom_batch_seconds", "Until a batch was computed.", registry=registry)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.texts = Histogram("bertloom_batch_texts", "Texts of a batch.", registry=registry, buckets=sizes)
        self.tokens = Counter("bertloom_tokens", "Tokens computed.", registry=registry)
        waiting = Gauge("bertloom_waiting_tokens", "Tokens that wait.", registry=registry)
        waiting.set_function(lambda: batcher.size)
        batcher.batched = self.batched

    def batched(self, texts: int, tokens: int, seconds: float) -> None:
        """A batch was computed."""
        self.texts.observe(texts)
        self.tokens.inc(tokens)
        self.batches.observe(seconds)


def application(models: Sequence[tuple[str, Model]], limits: Limits = Limits()) -> FastAPI:
    """The ASGI application of some models by name."""
    # As in `side_by_side`: as many batches at once as there are threads, each computed by one.
    workers = 1 if torch.cuda.is_available() else torch.get_num_threads()
    batcher = Batcher(limits.tokens, limits.waiting, workers=workers, begin=alone if workers > 1 else lambda: None)
    counts, served = Counts(batcher), {name: Served(name, model, batcher) for name, model in models}

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
    app.add_exception_handler(InputError, lambda request, error: _error(request, 422, str(error)))
    app.add_exception_handler(RequestValidationError, lambda request, error: _error(request, 422, _reason(error)))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(FullError, _full)
    app.add_exception_handler(UnicodeError, lambda request, error: _error(request, 400, "the body is not UTF-8"))
    if limits.origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=list(limits.origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(_Guard, limits=limits, counts=counts)

    def chosen(asked: shapes.Asked, can: Callable[[Served], bool], what: str) -> Served:
        """The model that a request names, or the first that can answer it."""
        if asked.model is not None:
            if asked.model not in served:
                raise Refused(404, f"model: {nearest(asked.model, served)}")
            if not can(served[asked.model]):
                raise Refused(400, f"model: {asked.model} {what}")
            return served[asked.model]
        # Models that are not fine-tuned first: their vectors are of more than one task.
        found = next(filter(can, sorted(served.values(), key=lambda one: one.task is not None)), None)
        if found is None:
            raise Refused(400, f"no model here {what.replace('is not', 'is')}")
        return found

    async def answer(request: Request, work: Awaitable[Found], texts: int = 1) -> Found:
        """What comes of some work, which ends when nobody waits for it any more, or for too long."""
        doing: asyncio.Future[Found] = asyncio.ensure_future(work)
        if texts > limits.texts:
            doing.cancel()
            raise Refused(413, f"{texts} texts given, at most {limits.texts} allowed in a request")
        leaving = asyncio.ensure_future(_left(request))
        both: set[asyncio.Future[Any]] = {doing, leaving}
        try:
            await asyncio.wait(both, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if leaving.done():
                raise Refused(499, "nobody waits for it")
            raise Refused(504, f"not answered in {limits.seconds:g} seconds")
        finally:
            doing.cancel(), leaving.cancel()

    @app.post("/embed", tags=["vectors"])
    async def embed(asked: shapes.Embed, request: Request) -> Response:
        """Vectors of texts, as text-embeddings-inference has it."""
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        one = chosen(asked, lambda one: True, "")
        found, _ = await answer(request, one.embed(texts, asked.truncate, asked.normalize), len(texts))
        return _json(found)

    @app.post("/v1/embeddings", tags=["vectors"])
    async def embeddings(asked: shapes.OpenAIEmbeddings, request: Request) -> Response:
        """Vectors of texts or of tokens' ids, as OpenAI has it."""
        given: Any = asked.input
        if isinstance(given, str) or isinstance(given[0], int):
            given = [given]
        one = chosen(asked, lambda one: True, "")
        width = one.model.how.width(one.model.config.hidden_size)
        if asked.dimensions not in (None, width):
            raise Refused(400, f"dimensions: {asked.dimensions} given, {width} allowed")
        found, tokens = await answer(request, one.embed(given, asked.truncate, True), len(given))
        if asked.encoding_format == "base64":
            found = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in found]  # type: ignore[misc]
        data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(found)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": one.name, "usage": usage})

    @app.post("/predict", tags=["answers"])
    async def predict(asked: shapes.Predict, request: Request) -> Response:
        """Labels with scores, best first; several texts are lists of one text or two each."""
        one = chosen(asked, lambda one: _does(one, "classify"), "is not fine-tuned to classify")
        single = isinstance(asked.inputs, str) or isinstance(asked.inputs[0], str)
        rows: list[Any] = [asked.inputs] if single else list(asked.inputs)
        task: Any = one.task
        pairs = task.pair not in ("", "none")
        given = [_row(task, [row] if isinstance(row, str) else row, pairs) for row in rows]
        found, logits, _ = await answer(request, one.predict(given), len(given))
        said = [_labels(task, *two, asked.raw_scores) for two in zip(found, logits)]
        return _json(said[0] if single else said)

    @app.post("/rerank", tags=["answers"])
    async def rerank(asked: shapes.Rerank, request: Request) -> Response:
        """Texts by a model of pairs, or by the cosine of their vectors with the query's, best first."""

        def can(one: Served) -> bool:
            return one.task is None or (_does(one, "classify") and getattr(one.task, "pair", "") not in ("", "none"))

        one = chosen(asked, can, "is not one of pairs or vectors")
        if one.task is None:
            work = one.embed([asked.query, *asked.texts], asked.truncate, True)
            (query, *others), _ = await answer(request, work, 1 + len(asked.texts))
            scores = [float(query @ other) for other in others]
        else:
            rows = [_row(one.task, [asked.query, text], pairs=True) for text in asked.texts]
            found, logits, _ = await answer(request, one.predict(rows), len(rows))
            # The last label is that of what belongs together, as 1 is in 0 and 1; a score is its own.
            raw = [float(np.mean([each[0, -1] for each in own])) for own in logits]
            scores = raw if asked.raw_scores else [_share(each, value) for each, value in zip(found, raw)]
        order = sorted(range(len(scores)), key=lambda number: -scores[number])
        return _json([
            {"index": number, "score": scores[number], **({"text": asked.texts[number]} if asked.return_text else {})}
            for number in order
        ])  # fmt: skip

    @app.post("/fill", tags=["answers"])
    async def fill(asked: shapes.Fill, request: Request) -> Response:
        """The likeliest words for each [MASK]."""
        one = chosen(asked, lambda one: "mlm" in one.model.trained, "is not one with a language head")
        found = await answer(request, one.fill(asked.inputs, asked.top))
        return _json([[vars(candidate) for candidate in best] for best in found])

    @app.post("/tag", tags=["answers"])
    async def tag(asked: shapes.Tag, request: Request) -> Response:
        """Entities, or every token's label, with their places in the text."""
        one = chosen(asked, lambda one: _does(one, "tag"), "is not fine-tuned to tag")
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        task: Any = one.task
        found, _, _ = await answer(request, one.predict([{task.plain: text} for text in texts]), len(texts))
        return _json(found[0] if isinstance(asked.inputs, str) else found)

    @app.post("/answer", tags=["answers"])
    async def answered(asked: shapes.Question, request: Request) -> Response:
        """The best answer to a question in a text, or none."""
        one = chosen(asked, lambda one: _does(one, "answer"), "is not fine-tuned to answer")
        task: Any = one.task
        row = {task.question or "question": asked.question, task.context or "context": asked.context}
        found, _, _ = await answer(request, one.predict([row]))
        return _json(found[0])

    @app.get("/info", tags=["service"])
    async def info() -> Response:
        """What is served, and what a request may have."""
        told = [_told(one) for one in served.values()]
        return _json({
            **told[0], "models": told, "version": version("bertloom"), "max_batch_tokens": limits.tokens,
            "max_client_batch_size": limits.texts, "max_waiting_tokens": limits.waiting,
            "max_request_bytes": limits.bytes,
        })  # fmt: skip

    @app.get("/v1/models", tags=["service"])
    async def listed() -> Response:
        """The models' names, as OpenAI has it."""
        return _json(
            {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "here"} for name in served]}
        )

    @app.get("/health", tags=["service"])
    async def health() -> Response:
        """Whether the service lives."""
        return Response()

    @app.get("/metrics", tags=["service"])
    async def metrics() -> Response:
        """Counts in Prometheus' form."""
        return Response(generate_latest(counts.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    if limits.page and not limits.key:
        first = models[0][1]
        try:
            page = live.application(first, WELCOME, None, hosts=["*"])
        except InputError:
            log.info(json.dumps({"page": "none", "model": models[0][0]}))
        else:
            app.mount("/", page)
    return app


def _does(one: Served, name: str) -> bool:
    return one.task is not None and one.task.name == name


def _row(task: Any, texts: Sequence[str], pairs: bool) -> dict[str, str]:
    """A request's text, or two, under the columns of the task."""
    if pairs != (len(texts) == 2):
        wanted = "two texts each" if pairs else "one text each"
        raise Refused(422, f"inputs: {len(texts)} texts given, {wanted} allowed by the model")
    return {task.plain: texts[0], **({task.pair: texts[1]} if pairs else {})}


def _labels(task: Any, said: dict[str, Any], logits: Sequence[Any], raw: bool) -> list[dict[str, Any]]:
    """Labels with their scores, best first."""
    if "score" in said:
        return [{"label": "score", "score": said["score"]}]
    scores = said["probabilities"]
    if raw:
        scores = dict(zip(task.labels, np.concatenate(logits).mean(0).tolist()))
    return sorted(({"label": name, "score": score} for name, score in scores.items()), key=lambda one: -one["score"])


def _share(said: dict[str, Any], raw: float) -> float:
    """The probability of the last label; a score is its own."""
    shares = said.get("probabilities")
    return float(list(shares.values())[-1]) if shares else raw


def _told(one: Served) -> dict[str, Any]:
    """What `/info` says of a model."""
    config, task = one.model.config, one.task
    kind: dict[str, Any] = {"embedding": {"pooling": "+".join(one.model.how.pooling)}}
    if task is not None:
        kind = {task.name: {"labels": list(getattr(task, "labels", ()))}}
    return {
        "model_id": one.name, "model_type": kind, "family": config.model_type, "max_input_length": one.longest,
        "hidden_size": config.hidden_size, "num_hidden_layers": config.num_hidden_layers,
    }  # fmt: skip


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers, "application/json")


def _error(request: Request, status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """A reason as text-embeddings-inference says it, or under `/v1` as OpenAI does."""
    kind = {401: "unauthorized", 404: "not_found", 413: "too_large", 429: "overloaded"}.get(status, "validation")
    # What was given is said in the reason, and may be no text that JSON can hold.
    reason = reason.encode("utf-8", "backslashreplace").decode()
    if request.url.path.startswith("/v1/"):
        told: Any = {"message": reason, "type": "invalid_request_error", "param": None, "code": kind}
        return _json({"error": told}, status, headers)
    return _json({"error": reason, "error_type": kind}, status, headers)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _full(request: Request, error: Exception) -> Response:
    assert isinstance(error, FullError)
    said = f"too much waits already; again in {error.seconds} seconds"
    return _error(request, 429, said, {"Retry-After": str(error.seconds)})


def _reason(error: RequestValidationError) -> str:
    """What is wrong with a request, in a line, without what was given."""
    said: dict[str, None] = {}
    for one in error.errors():
        # The field, and which of several it is; what is between are names of ours.
        parts = [part for part in one["loc"][1:3] if isinstance(part, int) or part.isidentifier()]
        where = "" if one["type"] == "json_invalid" else ".".join(map(str, parts))
        said[f"{where or 'body'}: {one['msg']}"] = None
    return "; ".join(list(said)[:3])


async def _left(request: Request) -> None:
    """Until who asked is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Guard:
    """Around every request: its key, its size, its time, a line of log, and a count."""

    def __init__(self, app: ASGIApp, limits: Limits, counts: Counts):
        self.app, self.limits, self.counts = app, limits, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, size = time.perf_counter(), 500, 0
        headers = dict(scope["headers"])

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limits.bytes:
                raise Refused(413, f"more than {self.limits.bytes:,} bytes given")
            return message

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if refused := self._refused(scope, headers):
                await refused(scope, receive, told)
                return
            await self.app(scope, limited, told)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("route")
            path = getattr(route, "path", "") or "other"
            self.counts.requests.labels(path, status).inc()
            self.counts.seconds.labels(path).observe(seconds)
            if log.isEnabledFor(logging.INFO):
                line = {"at": round(time.time(), 3), "method": scope["method"], "path": path, "status": status,
                        "milliseconds": round(1000 * seconds, 1), "bytes": size}  # fmt: skip
                log.info(json.dumps(line))

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """The answer to a request that goes no further."""
        request = Request(scope)
        if self.limits.key and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self.limits.key}".encode()):
                said = {"WWW-Authenticate": "Bearer"}
                return _error(request, 401, "an Authorization: Bearer header with the service's key needed", said)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.bytes:
            return _error(request, 413, f"{int(length):,} bytes given, at most {self.limits.bytes:,} allowed")
        return None
