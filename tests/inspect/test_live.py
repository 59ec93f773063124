from __future__ import annotations

import socket

import pytest

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.live import _looked, application, serve
from bertloom.inspect.view import view

TEXT = "In the garden."


@pytest.fixture
def client(model: Model) -> object:
    from starlette.testclient import TestClient

    return TestClient(application(model, TEXT, None), base_url="http://127.0.0.1")


def test_a_text_is_looked_at_again(client) -> None:  # type: ignore[no-untyped-def]
    page = client.get("/")
    assert page.status_code == 200
    assert '"live":true' in page.text
    found = client.post("/look", json={"text": "A dog.", "second": "It barks."}).json()
    assert found["second"] == "It barks."
    assert "attention-0" in found["arrays"]


def test_what_a_page_has_no_room_for_is_answered(client, model: Model) -> None:  # type: ignore[no-untyped-def]
    found = client.post("/hidden", json={"text": TEXT, "place": 2}).json()
    want = model.fill("In [MASK] garden.", top=3)[0]
    assert [token for token, _ in found["best"][:3]] == [one.token for one in want]
    said = client.post("/ranked", json={"text": TEXT, "place": 2, "word": want[0].token}).json()["said"]
    assert said.startswith(f"number 1 of {model.config.vocab_size:,}, ")
    assert "tokens" in client.post("/ranked", json={"text": TEXT, "place": 2, "word": "a b"}).json()["said"]


def test_what_is_put_for_a_hidden_token_is_explained(client, model: Model) -> None:  # type: ignore[no-untyped-def]
    found = client.post("/why", json={"text": TEXT, "place": 2}).json()
    filled = view(model, "In [MASK] garden.")
    want = filled.about["reasons"][0]
    assert (found["name"], found["places"]) == (want["name"], [2])
    assert (found["before"], found["after"]) == pytest.approx((want["before"], want["after"]), abs=1e-4)
    assert sum(found["added"]) == pytest.approx(found["after"] - found["before"], abs=0.05)
    assert sum(found["rollout"]) == pytest.approx(1, abs=1e-4)
    assert client.post("/why", json={"text": TEXT, "place": 99}).status_code == 422


def test_bad_questions_are_answered_in_one_line(client) -> None:  # type: ignore[no-untyped-def]
    long = client.post("/look", json={"text": "cat " * 600, "second": "the"})
    assert (long.status_code, long.json()["detail"].split(":")[0]) == (422, "text of 1,201 tokens, at most 509 allowed")
    for place in (0, 99):
        refused = client.post("/hidden", json={"text": TEXT, "place": place})
        assert refused.status_code == 422
        assert f"place: {place} given" in refused.json()["detail"]


def test_any_token_of_a_long_text_can_be_hidden(model: Model) -> None:
    long = "Nobody hears the garden. " * 30
    made = _looked(model, long, None)
    assert len(made.tokens) > 128
    assert "mask" not in made.missing
    assert "mask" in view(model, long).missing


def test_a_port_that_cannot_be_had_is_refused(model: Model) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port: {port} given: Address already in use"):
            serve(model, TEXT, None, port, print)
    with pytest.raises(InputError, match="port: 99999 given: 0 to 65535 allowed"):
        serve(model, TEXT, None, 99999, print)


def test_pages_of_elsewhere_are_not_answered(model: Model) -> None:
    from starlette.testclient import TestClient

    other = TestClient(application(model, TEXT, None), base_url="http://evil.example")
    assert other.get("/").status_code == 400
