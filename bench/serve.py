"""Requests over loopback: 64 connections with a text each, ours beside `encode` itself and beside other services.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/serve.py [closed latency soak] [--rounds R] [--minutes M]

`closed`: each of 64 connections asks for the vector of one text of news (56 tokens in the mean, all lengths to 256) at
`/v1/embeddings` as soon as it has the last answer; texts per second of 1,000. Peers: `encode` of the same texts in one
call, which the service should come near to, and sentence-transformers behind FastAPI, an endpoint that encodes what it
is given, as its users write one. `latency`: texts arrive by chance at a half and at nine tenths of what `closed` gave;
milliseconds of the median and of 99 %. `soak`: `closed` for some minutes, and what the service's memory was after a
tenth of the time and at the end. The client has a process of its own on the same two cores, and is counted in.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encode import paragraphs
from finetune import minilm
from side_by_side import Apart, finish, row

CONNECTIONS, TEXTS = 64, 1000
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
# A service as sentence-transformers' users write one.
NAIVE = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app, model = FastAPI(), SentenceTransformer(sys.argv[1])


class Asked(BaseModel):
    input: str
    model: str = ""


@app.post("/v1/embeddings")
def embeddings(asked: Asked):
    return {"data": [{"index": 0, "embedding": model.encode([asked.input], normalize_embeddings=True)[0].tolist()}]}


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


class Service:
    """A service in its own process, ready to be asked; it ends with the benchmark, however that ends."""

    def __init__(self, kind: str, port: int):
        self.port = port
        words = {
            "ours": ["-m", "bertloom", "serve", f"minilm={minilm()}", "--port", str(port), "--no-logs", "--no-page"],
            "sentence-transformers-fastapi": ["-c", NAIVE, str(minilm()), str(port)],
        }[kind]
        self.process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        asyncio.run(self._ready())

    async def _ready(self) -> None:
        for _ in range(600):
            try:
                await Connection(self.port).ask("ready?")
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return
        raise SystemExit("the service did not come up")

    @property
    def memory(self) -> float:
        """Megabytes that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def close(self) -> None:
        """End it as a supervisor does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Connection:
    """HTTP by hand, so that the client costs little of the cores that it shares with the service."""

    def __init__(self, port: int):
        self.port = port
        self.reader: Any = None
        self.writer: Any = None

    async def ask(self, text: str) -> bytes:
        """The body of an answer; raises where it is not 200."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps({"input": text, "model": "minilm", "truncate": True}).encode()
        self.writer.write(HEAD % len(body) + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        found = await self.reader.readexactly(size)
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise RuntimeError(f"{answer.decode()}{found[:200].decode()}")
        return found


async def closed(port: int, texts: list[str], seconds: float = 0.0) -> float:
    """Texts per second of 64 connections that ask again and again, once through the texts or for some seconds."""
    began, count = time.perf_counter(), 0
    waiting = iter(texts)

    async def one() -> None:
        nonlocal count, waiting
        connection = Connection(port)
        while True:
            text = next(waiting, None)
            if text is None:
                if time.perf_counter() - began > seconds:
                    return
                waiting = iter(texts)
                continue
            await connection.ask(text)
            count += 1

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - began)


async def opened(port: int, texts: list[str], rate: float) -> tuple[float, float]:
    """Milliseconds of the median and of 99 % where texts arrive by chance, so many a second."""
    rng, times = random.Random(0), list[float]()
    free = [Connection(port) for _ in range(CONNECTIONS)]

    async def one(text: str) -> None:
        began = time.perf_counter()
        connection = free.pop() if free else Connection(port)
        await connection.ask(text)
        free.append(connection)
        times.append(1000 * (time.perf_counter() - began))

    asking, due = [], time.perf_counter()
    for text in texts:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.append(asyncio.create_task(one(text)))
    await asyncio.gather(*asking)
    times.sort()
    return statistics.median(times), times[int(0.99 * len(times))]


class Encode:
    """`encode` of the texts, in its process."""

    def __init__(self) -> None:
        from bertloom.api import load

        self.model, self.texts = load(minilm()), paragraphs()[:TEXTS]
        self.model.encode(self.texts[:50], normalize=True)

    def turn(self) -> float:
        """Texts per second."""
        began = time.perf_counter()
        self.model.encode(self.texts, normalize=True)
        return len(self.texts) / (time.perf_counter() - began)


def main() -> None:
    """Measure the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["closed", "latency"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    texts = paragraphs()[:TEXTS]
    ours = Service("ours", 8701)
    rows: list[dict[str, Any]] = []
    speed = 0.0
    if {"closed", "latency"} & set(given.cases):
        naive, encode = Service("sentence-transformers-fastapi", 8702), Apart(Encode)
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: asyncio.run(closed(ours.port, texts)),
            "encode": lambda: encode.call("turn"),
            "sentence-transformers-fastapi": lambda: asyncio.run(closed(naive.port, texts)),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(given.rounds + 1):
            for name, side in sides.items():
                one = side()
                # The first warms up.
                if turn:
                    found[name].append(one)
                print(f"{name} {one:.1f} texts/s", file=sys.stderr)
        speed = statistics.median(found["ours"])
        for name in list(sides)[1:]:
            rows.append(row("closed-64", speed, name, statistics.median(found[name]), "texts/s"))
        naive.close(), encode.close()
    if "latency" in given.cases:
        for share in (0.5, 0.9):
            median, most = asyncio.run(opened(ours.port, texts * 2, share * speed))
            rows.append({"case": f"load-{round(100 * share)}", "ours": round(most, 1), "median": round(median, 1),
                         "unit": "ms of 99 %", "rate": round(share * speed, 1)})  # fmt: skip
    if "soak" in given.cases:
        seconds = 60 * given.minutes
        asyncio.run(closed(ours.port, texts, seconds / 10))
        before = ours.memory
        rate = asyncio.run(closed(ours.port, texts, 0.9 * seconds))
        rows.append({"case": "soak", "ours": round(ours.memory, 1), "before": round(before, 1), "unit": "MB",
                     "minutes": given.minutes, "texts_per_second": round(rate, 1)})  # fmt: skip
    ours.close()
    finish("serve", rows, "fastapi", "uvicorn", "sentence-transformers", "torch")


if __name__ == "__main__":
    main()
