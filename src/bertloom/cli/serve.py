"""`bertloom serve`."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from cyclopts import Parameter

from bertloom.cli.options import Whole

KEY = "BERTLOOM_API_KEY"


def serve(
    *models: Annotated[str, Parameter(help="Models' folders, runs or Hub ids; NAME=FOLDER gives one another name.")],
    host: Annotated[str, Parameter(help="Address to listen at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[Whole, Parameter(help="Port; 0 for any that is free.")] = 8000,
    tokens: Annotated[Whole, Parameter(help="Tokens computed at once; 0 for as many as are fastest.")] = 0,
    waiting: Annotated[Whole, Parameter(help="Tokens that may wait; more requests are answered with 429.")] = 65_536,
    texts: Annotated[Whole, Parameter(help="Most texts of a request.")] = 512,
    size: Annotated[Whole, Parameter(help="Most bytes of a request.")] = 1_000_000,
    timeout: Annotated[float, Parameter(help="Seconds in which a request is answered, or refused.")] = 60.0,
    api_key: Annotated[
        str, Parameter(help=f"Key that requests must show; {KEY} in the environment, which no list of processes shows.")
    ] = "",
    cors: Annotated[tuple[str, ...], Parameter(help="Origins of pages that may ask; none unless given.")] = (),
    page: Annotated[bool, Parameter(help="The inspection page at /, never beside a key.")] = True,
    engine: Annotated[Literal["local", "ray"], Parameter(help="This process, or replicas under Ray Serve.")] = "local",
    replicas: Annotated[str, Parameter(help="Under Ray a number, or a range within which it scales, as 1-4.")] = "1",
    logs: Annotated[bool, Parameter(help="A line of JSON on stderr for each request, without its texts.")] = True,
) -> None:
    """Answer requests: vectors in OpenAI's and text-embeddings-inference's shapes, labels, tags, answers, words.

    Texts of all requests are computed together, as many as fit. On SIGTERM what was accepted is answered, then it ends.
    """
    from bertloom.cli.show import say
    from bertloom.ship.serve import serve as work
    from bertloom.ship.serve.limits import Limits

    key = api_key or os.environ.get(KEY, "")
    given = {"tokens": tokens} if tokens else {}
    limits = Limits(
        waiting=waiting, texts=texts, bytes=size, seconds=timeout, key=key, origins=cors, page=page, **given
    )
    if engine == "ray":
        from bertloom.ship.serve.ray import run

        run(models, host, port, limits, say, replicas)
    else:
        work(models, host, port, limits, say, logs)
