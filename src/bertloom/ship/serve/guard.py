"""Around every request: its key, its size, its time; what is said of those refused, counted and logged: no texts."""

from __future__ import annotations

import hmac
import json
import logging
import time
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertloom.errors import InputError
from bertloom.ship.serve.batching import Batcher, FullError
from bertloom.ship.serve.limits import Limits

log = logging.getLogger("bertloom.serve")
# Addresses that need no key: whether the service lives.
OPEN = ("/health",)


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

    def told(self) -> Response:
        """All of it."""
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class Guard:
    """Around every request: its key, its size, its time, a line of log, and a count."""

    def __init__(self, app: ASGIApp, limits: Limits, counts: Counts):
        self.app, self.limits, self.counts = app, limits, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's beginning and end."""
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


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer; arrays are lists."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers, "application/json")


def explain(app: FastAPI) -> None:
    """Have an application give its reason for whatever it refuses."""
    app.add_exception_handler(InputError, lambda request, error: _error(request, 422, str(error)))
    app.add_exception_handler(RequestValidationError, lambda request, error: _error(request, 422, _reason(error)))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(FullError, _full)


def _error(request: Request, status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """A reason as text-embeddings-inference says it, or under `/v1` as OpenAI does."""
    kind = {401: "unauthorized", 404: "not_found", 413: "too_large", 429: "overloaded"}.get(status, "validation")
    # What was given is said in the reason, and may be no text that JSON can hold.
    reason = reason.encode("utf-8", "backslashreplace").decode()
    if request.url.path.startswith("/v1/"):
        told: Any = {"message": reason, "type": "invalid_request_error", "param": None, "code": kind}
        return as_json({"error": told}, status, headers)
    return as_json({"error": reason, "error_type": kind}, status, headers)


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
