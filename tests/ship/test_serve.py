"""The service: every address answers as the model does, what cannot be answered gets a reason, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.ship.serve import named
from bertloom.ship.serve.app import application
from bertloom.ship.serve.batching import Batcher, FullError
from bertloom.ship.serve.limits import Limits
from tests.inspect.conftest import loaded
from tests.ship.test_export import tuned
from tests.ship.test_quantize import SENTENCES

KEY = "secret"


@pytest.fixture(scope="module")
def models(golden: Model, runs: dict[str, Path]) -> dict[str, Model]:
    made = {"minilm": golden, "words": loaded(runs["mlm+nsp"])}
    for kind in ("classify", "classify-pairs", "classify-score", "tag", "answer"):
        made[kind] = tuned(kind, loaded(runs["mlm+nsp"]))[0]
    return made


@pytest.fixture(scope="module")
def client(models: dict[str, Model]) -> Iterator[TestClient]:
    with TestClient(application(list(models.items())), raise_server_exceptions=False) as client:
        yield client


def in_a_loop(work: Any) -> None:
    """Run in a thread of its own: a browser's tests leave a loop running in theirs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def example(length: int) -> Example:
    return Example(np.arange(length), np.zeros(length, np.int64))


def test_vectors_in_both_shapes(client: TestClient, golden: Model) -> None:
    wanted = golden.encode(SENTENCES[:7], normalize=True)
    assert np.array(client.post("/embed", json={"inputs": SENTENCES[:7]}).json()) == pytest.approx(wanted, abs=1e-5)
    assert np.array(client.post("/embed", json={"inputs": SENTENCES[0]}).json()) == pytest.approx(wanted[:1], abs=1e-5)
    said = client.post("/v1/embeddings", json={"input": SENTENCES[:7], "model": "minilm"}).json()
    assert [one["index"] for one in said["data"]] == list(range(7))
    assert np.array([one["embedding"] for one in said["data"]]) == pytest.approx(wanted, abs=1e-5)
    tokens = sum(len(one) for one in golden.examples(SENTENCES[:7]))
    assert said["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    ids = golden.tokenizer.ids(SENTENCES[:2], special=False)
    coded = client.post("/v1/embeddings", json={"input": ids, "encoding_format": "base64"}).json()
    found = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in coded["data"]]
    assert np.array(found) == pytest.approx(wanted[:2], abs=1e-5)


def test_answers_are_the_models(client: TestClient, models: dict[str, Model]) -> None:
    text, other = "The cat lives in the house.", "meows"
    (wanted,) = models["classify"].predict([text])
    said = client.post("/predict", json={"inputs": text, "model": "classify"}).json()
    assert {one["label"]: one["score"] for one in said} == pytest.approx(wanted["probabilities"], abs=1e-5)
    assert said[0]["label"] == wanted["label"]
    several = client.post("/predict", json={"inputs": [[text], [text]], "model": "classify"}).json()
    assert [one[0]["label"] for one in several] == [wanted["label"]] * 2
    raw = client.post("/predict", json={"inputs": text, "model": "classify", "raw_scores": True}).json()
    shares = np.exp([one["score"] for one in raw])
    assert shares / shares.sum() == pytest.approx([one["score"] for one in said], abs=1e-4)
    pair = models["classify-pairs"]
    task: Any = pair.require_task()
    (wanted,) = pair.predict([{task.plain: text, task.pair: other}])
    said = client.post("/predict", json={"inputs": [text, other], "model": "classify-pairs"}).json()
    assert {one["label"]: one["score"] for one in said} == pytest.approx(wanted["probabilities"], abs=1e-5)
    (wanted,) = models["classify-score"].predict([text])
    said = client.post("/predict", json={"inputs": text, "model": "classify-score"}).json()
    assert said == [{"label": "score", "score": pytest.approx(wanted["score"], abs=1e-4)}]
    (wanted,) = models["tag"].predict([{models["tag"].require_task().plain: text}])
    said = client.post("/tag", json={"inputs": text}).json()
    places = [[(one["start"], one["end"], one["label"]) for one in each["entities"]] for each in (said, wanted)]
    assert places[0] == places[1]
    assert places[0]
    (wanted,) = models["answer"].predict([{"question": "which place", "context": text}])
    said = client.post("/answer", json={"question": "which place", "context": text}).json()
    assert said.keys() == wanted.keys()
    assert said["answer"] == wanted["answer"]
    found = client.post("/fill", json={"inputs": "The [MASK] sleeps.", "top": 3}).json()
    assert [one["token"] for one in found[0]] == [one.token for one in models["words"].fill("The [MASK] sleeps.", 3)[0]]


def test_reranking(client: TestClient, models: dict[str, Model]) -> None:
    """By vectors where the model has them, by the last label of pairs where it judges these."""
    query, texts = "Which animal meows?", ["The bank has lost money.", "A cat meows.", "It rains on Monday."]
    said = client.post("/rerank", json={"query": query, "texts": texts, "return_text": True}).json()
    assert said[0]["text"] == "A cat meows."
    vectors = models["minilm"].encode([query, *texts], normalize=True)
    assert [one["score"] for one in said] == pytest.approx(sorted(vectors[1:] @ vectors[0], reverse=True), abs=1e-5)
    pair = models["classify-pairs"]
    task: Any = pair.require_task()
    wanted = pair.predict([{task.plain: query, task.pair: text} for text in texts])
    said = client.post("/rerank", json={"query": query, "texts": texts, "model": "classify-pairs"}).json()
    shares = {one["index"]: one["score"] for one in said}
    assert [shares[n] for n in range(3)] == pytest.approx(
        [one["probabilities"][task.labels[-1]] for one in wanted], abs=1e-5
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/embed", "{bad", 422, "JSON decode error"),
        ("/embed", b'{"inputs": "\xff\xfe"}', 400, "parsing the body"),
        ("/embed", {}, 422, "inputs: Field required"),
        ("/embed", {"inputs": ""}, 422, "inputs: String should have at least 1 character"),
        ("/embed", {"inputs": []}, 422, "inputs: List should have at least 1 item"),
        ("/embed", {"inputs": 7}, 422, "inputs: Input should be a valid string"),
        ("/embed", '{"inputs": "\\ud800"}', 422, "unable to parse raw data as a unicode string"),
        ("/embed", {"inputs": "a", "model": "minilmm"}, 404, "model: unknown 'minilmm'"),
        ("/embed", {"inputs": "word " * 300}, 422, "text 1: 300 tokens given, at most 254 allowed unless truncate"),
        ("/embed", {"inputs": ["a"] * 600}, 413, "600 texts given, at most 512 allowed in a request"),
        ("/embed", {"inputs": "a" * 1_000_001}, 413, "at most 1,000,000 allowed"),
        ("/v1/embeddings", {"input": [[1, 99999]], "model": "minilm"}, 422, "text 1: ids from 0 to 30521 allowed"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, 400, "dimensions: 3 given, 384 allowed"),
        ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "model: unknown 'gpt'"),
        ("/predict", {"inputs": "a", "model": "minilm"}, 400, "model: minilm is not fine-tuned to classify"),
        ("/predict", {"inputs": ["a", "b"], "model": "classify"}, 422, "2 texts given, one text each allowed"),
        ("/predict", {"inputs": "a", "model": "classify-pairs"}, 422, "1 texts given, two texts each allowed"),
        ("/fill", {"inputs": "no mask"}, 422, "no \\[MASK\\] in the text"),
        ("/fill", {"inputs": "a [MASK]", "top": 0}, 422, "top: Input should be greater than or equal to 1"),
        ("/nowhere", {}, 404, "Not Found"),
    ],
)
def test_reasons(path: str, body: Any, status: int, said: str, client: TestClient) -> None:
    given = body if isinstance(body, str | bytes) else json.dumps(body)
    found = client.post(path, content=given, headers={"content-type": "application/json"})
    assert found.status_code == status, found.text
    reason = found.json()["error"] if path != "/nowhere" else "Not Found"
    reason = reason["message"] if isinstance(reason, dict) else reason
    import re

    assert re.search(said, reason), reason


def test_long_texts_are_cut_where_that_is_asked(client: TestClient, golden: Model) -> None:
    long = "word " * 300
    found = np.array(client.post("/embed", json={"inputs": long, "truncate": True}).json())
    assert found == pytest.approx(golden.encode([long], normalize=True), abs=1e-5)


def test_what_is_told_of_the_service(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["model_id"] == "minilm"
    assert [one["model_id"] for one in info["models"]][1] == "words"
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models").json()["data"][0]["id"] == "minilm"
    client.post("/embed", json={"inputs": "a text that stands in no metric"})
    metrics = client.get("/metrics").text
    assert 'bertloom_requests_total{path="/embed",status="200"}' in metrics
    assert "bertloom_batch_texts_bucket" in metrics
    assert "stands in no metric" not in metrics
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/embeddings", "/embed", "/predict", "/rerank", "/fill", "/tag", "/answer"} <= paths.keys()
    assert "<html" in client.get("/", headers={"host": "localhost"}).text


def test_a_key_is_asked_for(golden: Model) -> None:
    with TestClient(application([("minilm", golden)], Limits(key=KEY))) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": KEY}):
            found = client.post("/embed", json={"inputs": "a"}, headers=headers)
            assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
        right = {"authorization": f"Bearer {KEY}"}
        assert client.post("/embed", json={"inputs": "a"}, headers=right).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/", headers=right).status_code == 404


def test_other_pages_may_ask_only_if_told(golden: Model) -> None:
    asked = {"origin": "https://else.where", "access-control-request-method": "POST"}
    for origins, allowed in (((), False), (("https://else.where",), True)):
        with TestClient(application([("minilm", golden)], Limits(origins=origins, page=False))) as client:
            assert ("access-control-allow-origin" in client.options("/embed", headers=asked).headers) is allowed


# The queue


def asking(*lengths: int, tokens: int = 10, most: int = 1000, gate: threading.Event | None = None) -> list[Any]:
    """What is computed of examples that are asked for one by one, batch by batch."""
    seen: list[list[int]] = []

    def compute(examples: Any) -> list[int]:
        if gate:
            gate.wait()
        seen.append([len(one) for one in examples])
        return [10 * len(one) for one in examples]

    async def main() -> None:
        batcher = Batcher(tokens, most)
        waiting = [asyncio.ensure_future(batcher.ask(compute, [example(length)])) for length in lengths]
        await asyncio.sleep(0.01)
        batcher.start()
        assert [one for (one,) in await asyncio.gather(*waiting)] == [10 * length for length in lengths]
        batcher.stop()

    in_a_loop(main())
    return seen


def test_batches_are_the_oldest_and_what_is_like_it() -> None:
    assert asking(3, 9, 2, 8, 3, 1) == [[3, 3, 2, 1], [9], [8]]
    assert asking(50, 4, tokens=10) == [[50], [4]], "a longer one stands alone"


def test_more_than_may_wait_is_refused_and_what_nobody_waits_for_leaves() -> None:
    computed: list[int] = []

    async def main() -> None:
        batcher = Batcher(10, 20)

        def compute(examples: Any) -> list[int]:
            computed.extend(len(one) for one in examples)
            return [0] * len(examples)

        first = asyncio.ensure_future(batcher.ask(compute, [example(9), example(9)]))
        await asyncio.sleep(0)
        with pytest.raises(FullError) as full:
            await batcher.ask(compute, [example(5)])
        assert full.value.seconds >= 1
        first.cancel()
        await asyncio.sleep(0)
        batcher.start()
        assert await batcher.ask(compute, [example(2)]) == [0]
        assert batcher.size == 0
        batcher.stop()

    in_a_loop(main())
    assert computed == [2]


def test_an_error_is_theirs_who_asked_and_no_others() -> None:
    async def main() -> None:
        batcher = Batcher(100, 1000)

        def bad(examples: Any) -> list[int]:
            raise ValueError("bad")

        batcher.start()
        waiting = asyncio.ensure_future(batcher.ask(lambda examples: [len(one) for one in examples], [example(3)]))
        with pytest.raises(ValueError, match="bad"):
            await batcher.ask(bad, [example(3)])
        assert await waiting == [3]
        batcher.stop()

    in_a_loop(main())


def test_stopping_computes_what_waits() -> None:
    done: list[int] = []

    async def main() -> None:
        batcher = Batcher(10, 1000)
        slow = threading.Event()

        def compute(examples: Any) -> list[int]:
            slow.wait()
            return [len(one) for one in examples]

        batcher.start()
        waiting = [asyncio.ensure_future(batcher.ask(compute, [example(8)])) for _ in range(5)]
        await asyncio.sleep(0.01)
        slow.set()
        await asyncio.to_thread(batcher.stop)
        done.extend(one for (one,) in await asyncio.gather(*waiting))

    in_a_loop(main())
    assert done == [8] * 5


def test_full_is_429_and_late_is_504(golden: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(application([("minilm", golden)], Limits(waiting=20, seconds=0.3, page=False))) as client:
        gate = threading.Event()
        from bertloom.ship.serve.served import Served

        real = Served._vectors

        def slow(self: Served, examples: Any) -> Any:
            gate.wait(5)
            return real(self, examples)

        monkeypatch.setattr(Served, "_vectors", slow)
        with contextlib.ExitStack() as stack:
            found: list[Any] = []
            threads = [
                threading.Thread(
                    target=lambda: found.append(client.post("/embed", json={"inputs": "a text of tokens"}))
                )
                for _ in range(8)
            ]
            stack.callback(gate.set)
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        codes = {one.status_code for one in found}
        assert codes == {429, 504}
        assert all(int(one.headers["retry-after"]) >= 1 for one in found if one.status_code == 429)


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_nothing_is_found_that_is_ours(mode: str, models: dict[str, Model]) -> None:
    """schemathesis asks every address what the schema allows, and what it does not: no 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    app = application(list(models.items()), Limits(page=False))
    seen: set[int] = set()
    for operation in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        made = operation.ok()
        if mode == "NEGATIVE" and made.method.upper() == "GET":
            continue

        @settings(
            max_examples=8, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=made.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def asked(case: Any) -> None:
            seen.add(case.call().status_code)

        asked()
    assert max(seen) < 500
    assert (200 if mode == "POSITIVE" else 422) in seen


# A process of its own


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(port: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bertloom", "serve", *words, "--port", str(port)], stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def test_openais_client_and_a_stop_under_load(tiny_model: Path, port: int) -> None:
    """The real client asks; asked from many sides, a SIGTERM loses nothing that was accepted; no text is logged."""
    openai = pytest.importorskip("openai")
    with running(port, f"tiny={tiny_model}") as process:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        found = client.embeddings.create(model="tiny", input=["The cat sleeps.", "A dog."])
        assert np.linalg.norm(found.data[0].embedding) == pytest.approx(1, abs=1e-5)
        assert found.usage.total_tokens > 4
        with pytest.raises(openai.NotFoundError, match="unknown 'other'"):
            client.embeddings.create(model="other", input="a")
        codes: list[int | str] = []
        stop = threading.Event()

        def ask() -> None:
            body = json.dumps({"inputs": ["a secret text " * 9] * 40, "truncate": True}).encode()
            while not stop.is_set():
                asked = urllib.request.Request(
                    f"http://127.0.0.1:{port}/embed", body, {"content-type": "application/json"}
                )
                try:
                    with urllib.request.urlopen(asked, timeout=30) as said:
                        codes.append(said.status if len(json.loads(said.read())) == 40 else "short")
                except urllib.error.URLError as error:
                    # Nobody listens any more, which is no request that was accepted.
                    if not isinstance(error.reason, ConnectionRefusedError | ConnectionResetError):
                        codes.append(repr(error))
                    return
                except ConnectionError:
                    return

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for one in threads:
            one.start()
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        stop.set()
        for one in threads:
            one.join()
        assert code == 143
        assert len(codes) > 8
        assert set(codes) == {200}
        assert process.stderr
        lines = process.stderr.read()
        assert '"path": "/embed", "status": 200' in lines
        assert "secret text" not in lines


def test_names_and_ports(tiny_model: Path, tmp_path: Path, port: int) -> None:
    assert [name for name, _ in named([str(tiny_model), f"other={tiny_model}"])] == ["tiny", "other"]
    with pytest.raises(InputError, match="model: tiny given twice"):
        named([str(tiny_model), str(tiny_model)])
    with pytest.raises(InputError, match="none given"):
        named([])
    with pytest.raises(InputError, match="waiting: 0 given"):
        Limits(waiting=0)
