from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bertloom
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.view import View, view
from bertloom.model.encoder import Encoder
from bertloom.text.vocabulary import train_vocabulary
from tests.conftest import small
from tests.inspect.conftest import DIRECTIONS, loaded, tuned

TEXT = "The [MASK] </script> & <b>cat</b> 🙂 lives in 한국어 שלום {{SCRIPT}}."


def data_of(html: str) -> Any:
    """What a page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def array(made: View, name: str) -> np.ndarray[Any, Any]:
    one = made.arrays[name]
    return np.frombuffer(gzip.decompress(base64.b64decode(one["data"])), one["type"]).reshape(one["shape"])


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_page_holds_what_the_model_does(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name])
    made = view(model, TEXT, "And a second.")
    assert not made.missing
    tokens, insides = model.trace(TEXT, "And a second.")
    assert made.tokens == tokens
    for layer, one in enumerate(insides[1:]):
        weights = (array(made, f"attention-{layer}") / made.about["steps"]) ** 2
        assert np.abs(weights - one.attentions[0].numpy()).max() < 1 / made.about["steps"]
        assert one.queries is not None
        scale = made.about["scales"][layer][0]
        assert np.abs(array(made, f"queries-{layer}") * scale - one.queries.numpy()).max() <= scale / 2 * 1.001
    assert data_of(made.html())["text"] == TEXT
    assert made.html().count("</script>") == 2
    assert not re.findall(r'(?:src|href)="?https?:', made.html())


def test_letters_that_are_several_tokens_are_spelt_once() -> None:
    tokenizer = train_vocabulary(["In the garden a cat sleeps."] * 4, 280, kind="bpe")
    config = small(vocab_size=len(tokenizer), pad_token_id=0)
    model = Model(Encoder(config), torch.nn.ModuleDict(), tokenizer, {}, Path("x"))
    made = view(model, "a 🙂 cat 한", "🙂🙂")
    assert len(made.tokens) > 12, "bytes are tokens"
    spelt = [one for one, alone in zip(made.about["spellings"], made.about["special"]) if not alone]
    assert "".join(spelt).replace(" ", "") == "a🙂cat한🙂🙂"


def test_words_are_spelt_as_the_user_spells_them(model: Model) -> None:
    made = view(model, "Nobody meows Élan.", "한국어 🙂")
    words: dict[int, str] = {}
    for word, spelt in zip(made.about["words"], made.about["spellings"]):
        words[word] = words.get(word, "") + spelt
    assert [*words.values()] == ["[CLS]", "Nobody", "meows", "Élan", ".", "[SEP]", "한국어", "🙂", "[SEP]"]


def test_special_tokens_that_are_written_out_are_the_users(model: Model) -> None:
    made = view(model, "In [CLS] the [SEP] garden.")
    assert [alone for alone in made.about["special"] if alone] == [True, True]
    assert "".join(made.about["spellings"][1:-1]) == "In[CLS]the[SEP]garden."


def test_a_page_stays_within_its_budget(model: Model) -> None:
    text = "The cat lives in the garden and barks loudly. " * 40
    long = " ".join(text.split()[:200])
    whole, little = view(model, long), view(model, long, budget=150_000)
    assert len(little.html()) < 150_000 < len(whole.html())
    assert "no room" in little.missing["neurons"]
    assert "hidden ahead" in little.missing["mask"]
    assert little.about["floor"] > 0


def test_a_model_without_a_head_says_so(minilm: Path) -> None:
    made = view(bertloom.load(minilm), "A text.")
    assert set(made.missing) == {"layers", "mask", "why"}
    assert "no language head" in made.missing["layers"]


def test_texts_that_are_too_long_are_refused_with_the_number(model: Model) -> None:
    with pytest.raises(InputError, match=r"text of 1,201 tokens, at most 509 allowed"):
        view(model, "cat " * 600, "the")


def test_of_a_long_text_a_part_is_shown(model: Model) -> None:
    text = "Nobody hears how the cat meows in the garden. " * 60
    whole = view(model, text).about["parts"]
    assert whole > 1
    parts = [view(model, text, part=number + 1).about for number in range(whole)]
    spelt = [word for one in parts for word, alone in zip(one["spellings"], one["special"]) if not alone]
    assert "".join(spelt) == text.replace(" ", "")
    assert all(one["text"].split()[0] in text.split() for one in parts)
    with pytest.raises(InputError, match=rf"part: {whole + 1} given, 1 to {whole} allowed of a text of"):
        view(model, text, part=whole + 1)
    with pytest.raises(InputError, match="part: 2 given, 1 to 1 allowed"):
        view(model, "The cat.", part=2)


def test_a_fine_tuned_models_answer_is_explained(model: Model) -> None:
    made = view(tuned(model, "classify"), "The cat.")
    assert {one["name"] for one in made.about["reasons"]} == {"no", "yes", "maybe"}
    assert array(made, "added").shape == (3, len(made.tokens))


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("head", [(2, 1), None])
def test_pictures_for_a_paper(model: Model, tmp_path: Path, suffix: str, head: tuple[int, int] | None) -> None:
    view(model, "In the $x$ 한국어 cat.").save(tmp_path / f"p{suffix}", head)
    begins = (tmp_path / f"p{suffix}").read_bytes()[:200]
    assert begins.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in begins
    if suffix == ".svg" and head:
        assert ">the<" in (tmp_path / "p.svg").read_text(encoding="utf-8")


def test_bad_pictures_are_refused(model: Model, tmp_path: Path) -> None:
    made = view(model, "The cat.")
    with pytest.raises(InputError, match=r"layer: 3 given, 1 to 2 allowed"):
        made.save(tmp_path / "p.svg", (3, 1))
    with pytest.raises(InputError, match=r"'p.pdf' given, a name in .html, .svg or .png allowed"):
        made.save(tmp_path / "p.pdf")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_the_page_in_a_frame(model: Model) -> None:
    shown = view(model, 'The "cat".')._repr_html_()
    assert shown.startswith("<iframe")
    assert shown.count('"') % 2 == 0
    assert "<script" not in shown
