"""What may be asked of the service: vectors, labels, tags, answers, words, and what it is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request, Response

from bertloom.ship.serve import shapes
from bertloom.ship.serve.desk import Desk
from bertloom.ship.serve.guard import Refused, as_json
from bertloom.ship.serve.served import Served
from bertloom.tasks.classify import Classify

router = APIRouter()


@router.post("/embed", tags=["vectors"])
async def embed(asked: shapes.Embed, request: Request) -> Response:
    """Vectors of texts, as text-embeddings-inference has it."""
    desk = Desk.of(request)
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    one = desk.chosen(asked)
    found, _ = await desk.answer(request, one.embed(texts, asked.truncate, asked.normalize), len(texts))
    return as_json(found)


@router.post("/v1/embeddings", tags=["vectors"])
async def embeddings(asked: shapes.OpenAIEmbeddings, request: Request) -> Response:
    """Vectors of texts or of tokens' ids, as OpenAI has it."""
    desk = Desk.of(request)
    given: Any = asked.input
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    one = desk.chosen(asked)
    width = one.model.how.width(one.model.config.hidden_size)
    if asked.dimensions not in (None, width):
        raise Refused(400, f"dimensions: {asked.dimensions} given, {width} allowed")
    found, tokens = await desk.answer(request, one.embed(given, asked.truncate, True), len(given))
    if asked.encoding_format == "base64":
        found = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in found]  # type: ignore[misc]
    data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(found)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return as_json({"object": "list", "data": data, "model": one.name, "usage": usage})


@router.post("/predict", tags=["answers"])
async def predict(asked: shapes.Predict, request: Request) -> Response:
    """Labels with scores, best first; several texts are lists of one text or two each."""
    desk = Desk.of(request)
    one = desk.tuned(asked, "classify")
    single = isinstance(asked.inputs, str) or isinstance(asked.inputs[0], str)
    rows: list[Any] = [asked.inputs] if single else list(asked.inputs)
    task: Any = one.task
    given = [_row(task, [row] if isinstance(row, str) else row) for row in rows]
    found, logits, _ = await desk.answer(request, one.predict(given), len(given))
    said = [_labels(task, *two, asked.raw_scores) for two in zip(found, logits)]
    return as_json(said[0] if single else said)


@router.post("/rerank", tags=["answers"])
async def rerank(asked: shapes.Rerank, request: Request) -> Response:
    """Texts by a model of pairs, or by the cosine of their vectors with the query's, best first."""
    desk = Desk.of(request)

    def can(one: Served) -> bool:
        return one.task is None or (one.does("classify") and cast(Classify, one.task).paired)

    one = desk.chosen(asked, can, "one of pairs or vectors")
    if one.task is None:
        work = one.embed([asked.query, *asked.texts], asked.truncate, True)
        (query, *others), _ = await desk.answer(request, work, 1 + len(asked.texts))
        scores = [float(query @ other) for other in others]
    else:
        rows = [_row(cast(Classify, one.task), [asked.query, text]) for text in asked.texts]
        found, logits, _ = await desk.answer(request, one.predict(rows), len(rows))
        # The last label is that of what belongs together, as 1 is in 0 and 1; a score is its own.
        raw = [float(np.mean([each[0, -1] for each in own])) for own in logits]
        scores = raw if asked.raw_scores else [_share(each, value) for each, value in zip(found, raw)]
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    return as_json([
        {"index": number, "score": scores[number], **({"text": asked.texts[number]} if asked.return_text else {})}
        for number in order
    ])  # fmt: skip


@router.post("/fill", tags=["answers"])
async def fill(asked: shapes.Fill, request: Request) -> Response:
    """The likeliest words for each [MASK]."""
    desk = Desk.of(request)
    one = desk.chosen(asked, lambda one: "mlm" in one.model.trained, "one with a language head")
    found = await desk.answer(request, one.fill(asked.inputs, asked.top))
    return as_json([[vars(candidate) for candidate in best] for best in found])


@router.post("/tag", tags=["answers"])
async def tag(asked: shapes.Tag, request: Request) -> Response:
    """Entities, or every token's label, with their places in the text."""
    desk = Desk.of(request)
    one = desk.tuned(asked, "tag")
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    task: Any = one.task
    found, _, _ = await desk.answer(request, one.predict([{task.plain: text} for text in texts]), len(texts))
    return as_json(found[0] if isinstance(asked.inputs, str) else found)


@router.post("/answer", tags=["answers"])
async def answered(asked: shapes.Question, request: Request) -> Response:
    """The best answer to a question in a text, or none."""
    desk = Desk.of(request)
    one = desk.tuned(asked, "answer")
    task: Any = one.task
    row = {task.question or "question": asked.question, task.context or "context": asked.context}
    found, _, _ = await desk.answer(request, one.predict([row]))
    return as_json(found[0])


@router.get("/info", tags=["service"])
async def info(request: Request) -> Response:
    """What is served, and what a request may have."""
    desk = Desk.of(request)
    told = [_told(one) for one in desk.served.values()]
    return as_json({
        **told[0], "models": told, "version": version("bertloom"), "max_batch_tokens": desk.limits.tokens,
        "max_client_batch_size": desk.limits.texts, "max_waiting_tokens": desk.limits.waiting,
        "max_request_bytes": desk.limits.bytes,
    })  # fmt: skip


@router.get("/v1/models", tags=["service"])
async def listed(request: Request) -> Response:
    """The models' names, as OpenAI has it."""
    desk = Desk.of(request)
    return as_json(
        {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "here"} for name in desk.served]}
    )


@router.get("/health", tags=["service"])
async def health() -> Response:
    """Whether the service lives."""
    return Response()


@router.get("/metrics", tags=["service"])
async def metrics(request: Request) -> Response:
    """Counts in Prometheus' form."""
    return Desk.of(request).counts.told()


def _row(task: Classify, texts: Sequence[str]) -> dict[str, str]:
    """A request's text, or two, under the columns of the task."""
    if task.paired != (len(texts) == 2):
        wanted = "two texts each" if task.paired else "one text each"
        raise Refused(422, f"inputs: {len(texts)} texts given, {wanted} allowed by the model")
    return {task.plain: texts[0], **({task.pair: texts[1]} if task.paired else {})}


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
