"""The page in a real browser: what a person does is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bertloom.api import Model
from bertloom.inspect.view import view
from tests.inspect.conftest import tuned

TEXT = "The [MASK] </script> & <b>cat</b> 🙂 lives in 한국어 שלום."
SECOND = "Nobody meows."
Opener = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opener]:
    """Opens a view in a browser; whatever the page's script fails at fails the test."""
    errors: list[str] = []

    def open_view(model: Model, text: str = TEXT, second: str | None = SECOND, **settings: Any) -> Any:
        file = tmp_path / "page.html"
        file.write_text(view(model, text, second).html(), encoding="utf-8")
        page = browser.new_context(offline=True, **settings).new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(file.as_uri())
        ready(page, "heads")
        return page

    yield open_view
    assert errors == []


def ready(page: Any, name: str) -> None:
    page.wait_for_function(f"document.documentElement.dataset.ready === '{name}'")


def turn(page: Any, name: str) -> None:
    page.click(f"#tab-{name}")
    ready(page, name)


def percent_of(text: str) -> float:
    return float(text.split(":")[-1].replace("%", "").strip())


def test_a_head_is_chosen_pointed_at_and_filtered(opened: Opener, model: Model) -> None:
    page = opened(model)
    tokens, insides = model.trace(TEXT.replace("[MASK]", model.tokenizer.spelt["mask"]), SECOND)
    page.click('[data-layer="1"][data-head="0"]')
    page.wait_for_selector("text=Layer 2, head 1")
    weights = insides[2].attentions[0][0]
    page.hover('[data-row="3"]')
    best = int(weights[3].argmax())
    said = page.inner_text("#weight")
    assert percent_of(said) == pytest.approx(100 * float(weights[3, best]), abs=1)
    assert page.locator("svg .lines path").count() == int((weights[3] >= 0.05).sum())
    page.mouse.move(0, 0)
    page.fill("#floor", "0.2")
    assert page.locator("svg .lines path").count() == pytest.approx(int((weights >= 0.2).sum()), abs=2)
    page.uncheck("#special")
    assert page.locator("svg g[data-row]").count() == len(tokens) - 3
    assert "[CLS]" not in page.text_content("#large svg")
    page.check("#joined")
    shown = [one.strip() for one in page.locator("svg g[data-row] text").all_text_contents()]
    assert {"한국어", "🙂", "Nobody", "meows"} <= set(shown)
    page.fill("#floor", "0")
    page.select_option("#part", "0-1")
    units = page.evaluate("units().map((unit) => unit.segment)")
    lines = page.locator("svg .lines path").count()
    assert 0 < lines <= units.count(0) * units.count(1)


def test_words_are_sums_to_and_means_from_their_pieces(opened: Opener, model: Model) -> None:
    page = opened(model)
    page.check("#joined")
    found = page.evaluate("weights(units()).then((all) => Array.from(all))")
    units = page.evaluate("units().map((unit) => unit.of)")
    _, insides = model.trace(TEXT.replace("[MASK]", model.tokenizer.spelt["mask"]), SECOND)
    own = insides[1].attentions[0][0]
    want = [float(own[one][:, other].sum(1).mean()) for one in units for other in units]
    assert found == pytest.approx(want, abs=0.02)
    assert max(map(len, units)) > 1


def test_everything_by_the_keyboard(opened: Opener, model: Model) -> None:
    page = opened(model)
    page.focus('[data-layer="0"][data-head="0"]')
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=Layer 2, head 1")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=Layer 2, head 2")
    page.focus('[data-row="0"]')
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.row") == "1"
    page.keyboard.press("Enter")
    assert page.locator("svg g.chosen").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("svg g.chosen").count() == 0
    page.focus("#heat")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#weight").startswith("from [CLS] to ")
    page.focus("#tab-heads")
    for name in ("neurons", "layers", "mask", "why"):
        page.keyboard.press("ArrowRight")
        ready(page, name)
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"


def test_neurons_add_up_to_the_weight(opened: Opener, model: Model) -> None:
    page = opened(model)
    turn(page, "neurons")
    page.select_option("#query", "4")
    page.locator("#products button").nth(6).click()
    _, insides = model.trace(TEXT.replace("[MASK]", model.tokenizer.spelt["mask"]), SECOND)
    one = insides[1]
    assert one.queries is not None
    assert one.keys is not None
    score = float(one.queries[4, 0] @ one.keys[6, 0]) / model.config.head_size**0.5
    page.wait_for_selector("#products tr.chosen >> nth=0")
    said = page.inner_text("#score")
    assert float(said.split(": ")[1].split(";")[0]) == pytest.approx(score, abs=0.1 + 0.02 * abs(score))
    page.hover("table.strips canvas >> nth=0")
    assert page.inner_text("#cell").startswith("query, neuron ")


def test_what_each_layer_would_put(opened: Opener, model: Model) -> None:
    page = opened(model)
    turn(page, "layers")
    assert page.locator("table.said tbody tr").count() == model.config.num_hidden_layers + 1
    page.hover("table.said tbody tr >> nth=0 >> td >> nth=1")
    said = page.inner_text("#layer-said")
    assert said.startswith("layer 2, [MASK]: ")


def test_a_token_is_hidden_and_a_word_looked_for(opened: Opener, model: Model) -> None:
    page = opened(model, "In the garden.", None)
    turn(page, "mask")
    page.click('[data-place="2"]')
    page.wait_for_selector("ol.best li")
    (want,) = model.fill("In [MASK] garden.", top=model.config.vocab_size)
    tokens = [one.token for one in want]
    assert page.locator("ol.best b").all_inner_texts() == tokens[:20]
    assert f"the itself is number {tokens.index('the') + 1}," in page.inner_text("#answer")
    page.fill("#wanted", "In")
    page.wait_for_function("document.getElementById('rank').textContent !== ''")
    assert page.inner_text("#rank").startswith(f"number {tokens.index('in') + 1} of {len(tokens)}")
    page.fill("#wanted", "nosuchword")
    page.wait_for_function("document.getElementById('rank').textContent === 'is no token of the vocabulary'")


def test_why_a_class_was_given(opened: Opener, model: Model) -> None:
    page = opened(tuned(model, "classify"))
    turn(page, "why")
    assert page.locator("#target option").count() == 3
    page.hover("#reasons .token >> nth=3")
    assert page.inner_text("#why-said") != "Point at a token."
    page.select_option("#way", "rollout")
    ready(page, "why")
    page.wait_for_selector("text=if attention is all that moves it")


def test_why_a_hidden_token_was_put(opened: Opener, model: Model) -> None:
    page = opened(model, "In the garden.", None)
    tokens = page.evaluate("data.tokens")
    assert len(tokens) <= 16
    turn(page, "mask")
    page.click('[data-place="2"]')
    page.click("#ask-why")
    page.wait_for_selector("#reasons .token >> nth=0")
    best = model.fill("In [MASK] garden.", top=1)[0][0].token
    assert page.inner_text("#why-hidden").startswith(f"why {best}")
    chips = page.locator("#reasons .token").all_text_contents()
    assert chips[2] == "[MASK]"
    assert [one for n, one in enumerate(chips) if n != 2] == [one for n, one in enumerate(tokens) if n != 2]
    page.select_option("#way", "rollout")
    page.hover("#reasons .token >> nth=3")
    assert "%" in page.inner_text("#why-said")
    turn(page, "why")
    page.select_option("#target", "1")
    assert f"{best}, at 2 {tokens[2]}, hidden" in page.inner_text("#target")
    assert "[MASK]" in page.inner_text("#reasons")


def test_light_dark_and_a_phones_width(opened: Opener, model: Model) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = opened(model, color_scheme=scheme, viewport={"width": 380, "height": 700}, has_touch=True)
        for name in ("neurons", "layers", "mask", "why", "heads"):
            turn(page, name)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is as wide as a phone"
        page.tap('[data-row="2"]')
        assert page.locator("svg g.chosen").count() == 1
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_a_view_that_is_missing_says_why(opened: Opener, model: Model) -> None:
    page = opened(model, "No mask in this rather long text.", None)
    turn(page, "why")
    assert "Nothing to ask of this text" in page.inner_text("#panel")


def test_a_head_is_saved_as_a_picture(opened: Opener, model: Model) -> None:
    page = opened(model)
    with page.expect_download() as waiting:
        page.click("text=Save lines as SVG")
    assert waiting.value.suggested_filename == "head-1-1.svg"
    content = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert content.startswith("<svg")
    assert "한국어" in content or "##" in content
    with page.expect_download() as waiting:
        page.click("text=Save map as PNG")
    assert Path(waiting.value.path()).read_bytes().startswith(b"\x89PNG")


def test_the_page_is_served_and_its_text_edited(browser: Any, model: Model) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    from bertloom.inspect.live import application

    server = uvicorn.Server(uvicorn.Config(application(model, "The cat.", None), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        ready(page, "heads")
        page.fill('[name="text"]', "In the garden.")
        page.fill('[name="second"]', "한국어")
        page.click("#texts button")
        page.wait_for_function("data.second === '한국어'")
        turn(page, "mask")
        page.click('[data-place="2"]')
        page.wait_for_selector("ol.best li")
        page.fill("#wanted", "in")
        page.wait_for_function("document.getElementById('rank').textContent.startsWith('number ')")
        page.fill('[name="text"]', "cat " * 600)
        page.click("#texts button")
        page.wait_for_function("document.getElementById('said').textContent.includes('at most')")
        page.fill('[name="second"]', "")
        page.click("#texts button")
        page.wait_for_selector("#part-of >> text=Part 1 of 3")
    finally:
        server.should_exit = True
        thread.join(10)
