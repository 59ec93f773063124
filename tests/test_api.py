from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import bertloom
from bertloom import api
from bertloom.api import Model, _row
from bertloom.config import ALBERT, ELECTRA
from bertloom.errors import InputError
from bertloom.model.encoder import Encoder
from bertloom.model.heads import HEADS
from bertloom.model.packed import computing_device, pack
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small

TEXTS = ["a", "한국어 문장입니다.", "word " * 90, "Élan naïve, 🙂!", "x" * 40, ""]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Model:
    """A small random model with both heads and a tokenizer."""
    from bertloom import hub
    from tests.test_hub import whole_state

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("model")
    config = small(vocab_size=len(tokenizer), pad_token_id=0)
    hub.write(folder, config, whole_state(config))
    tokenizer.save(folder)
    return bertloom.load(folder)


def test_published_embeddings(golden: Model) -> None:
    vectors = golden.encode(["This is an example sentence", "Each sentence is converted"])
    assert vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(unit[0, :5] - [0.06766, 0.0635, 0.04871, 0.07931, 0.03745]).max() < 2e-5
    assert abs(float(unit[0] @ unit[1]) - 0.40456) < 2e-5


def test_any_batch_any_order_the_same_vectors(golden: Model) -> None:
    whole = golden.encode(TEXTS)
    assert whole.shape == (6, 384)
    alone = np.concatenate([golden.encode([text]) for text in TEXTS])
    turned = golden.encode(TEXTS[::-1])[::-1]
    assert np.abs(whole - alone).max() < 1e-5
    assert np.abs(whole - turned).max() < 1e-5
    assert golden.encode([]).shape == (0, 384)


def test_pooling(golden: Model) -> None:
    _, insides = golden.trace(TEXTS[1])
    last = insides[-1].hidden_states.numpy()
    for pooling, want in (("mean", last.mean(0)), ("cls", last[0]), ("max", last.max(0))):
        assert np.allclose(golden.encode([TEXTS[1]], pooling)[0], want / np.linalg.norm(want), atol=1e-5)


def test_trace(golden: Model) -> None:
    tokens, insides = golden.trace("This is it.", "And on.")
    assert tokens == ["[CLS]", "this", "is", "it", ".", "[SEP]", "and", "on", ".", "[SEP]"]
    assert len(insides) == 7
    assert insides[0].attentions == []
    for one in insides[1:]:
        assert one.hidden_states.shape == (10, 384)
        assert one.attentions[0].shape == (12, 10, 10)
        assert torch.allclose(one.attentions[0].sum(-1), torch.ones(12, 10), atol=1e-5)


def test_texts_over_the_limit_are_cut_and_pairs_from_the_longer(golden: Model) -> None:
    (one,) = golden.examples(["word " * 1000])
    assert len(one) == 512
    (pair,) = golden.examples(["word " * 1000], ["two words"])
    assert len(pair) == 512
    assert pair.segment_ids.sum() == 3
    (pair,) = golden.examples(["word " * 1000], ["other " * 1000])
    assert len(pair) == 512
    assert pair.segment_ids.sum() in (255, 256)
    (pair,) = golden.examples(["short"], ["other " * 1000])
    assert (len(pair), int((pair.segment_ids == 0).sum())) == (512, 3)


def test_fill_gives_probabilities_for_each_mask(pretrained: Model) -> None:
    filled = pretrained.fill("The [MASK] lives in the [MASK].", top=3)
    assert len(filled) == 2
    for candidates in filled:
        shares = [one.probability for one in candidates]
        assert shares == sorted(shares, reverse=True)
        assert len(candidates) == 3
    best = filled[0][0]
    assert best.token in pretrained.tokenizer.vocabulary
    everything = pretrained.fill("[MASK]", top=10_000)[0]
    assert sum(one.probability for one in everything) == pytest.approx(1, abs=1e-5)


def test_next_sentence_is_transformers_first_logit(pretrained: Model, tmp_path: Path) -> None:
    pretrained.save(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.BertForNextSentencePrediction.from_pretrained(tmp_path).eval()
    for first, second in (("The cat meows.", "It sleeps."), ("It sleeps.", "The dog barks in the house.")):
        with torch.no_grad():
            want = theirs(**tokenizer(first, second, return_tensors="pt")).logits.softmax(-1)[0, 0]
        assert pretrained.next_sentence(first, second) == pytest.approx(float(want), abs=1e-5)


@pytest.mark.parametrize("direction", ["left-to-right", "two-way"])
def test_a_model_that_sees_one_side_fills_from_there(direction: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(7)
    kind = "two-way" if direction == "two-way" else "bert"
    config = small(vocab_size=len(tokenizer), num_attention_heads=4, direction=direction, model_type=kind)
    encoder = Encoder(config)
    model = Model(encoder, nn.ModuleDict({"mlm": HEADS["mlm"](config)}), tokenizer, {}, tmp_path)
    for parameter in [*encoder.parameters(), *model.heads.parameters()]:
        nn.init.normal_(parameter, 0, 0.3)
    text, word = "the cat [MASK] in the house", encoder.embeddings.word.weight
    (example,) = model.examples([text])
    place = int(np.flatnonzero(example.input_ids == tokenizer.special.mask)[0])
    with torch.no_grad():
        states = encoder(pack([example]))
        sides = [states[place - 1]]
        if direction == "two-way":
            left, right = states.chunk(2, 1)
            sides = [left[place - 1], right[place + 1]]
        want = torch.stack([model.heads["mlm"](side[None], word)[0].log_softmax(0) for side in sides]).sum(0).softmax(0)
    found = model.fill(text, top=len(tokenizer))[0]
    assert found[0].token == tokenizer.tokens([int(want.argmax())])[0]
    assert [one.probability for one in found] == pytest.approx(sorted(want.tolist(), reverse=True), abs=1e-5)
    other = model.fill("the cat [MASK] , dog", top=len(tokenizer))[0]
    same = [one.token for one in other] == [one.token for one in found]
    assert same == (direction == "left-to-right"), "what comes after is seen by the other half alone"


@pytest.mark.parametrize(("objective", "kind"), [("mlm+sop", "AlbertForPreTraining"), ("rtd", "ElectraForPreTraining")])
def test_order_and_replaced_tokens_are_transformers_own(
    objective: str, kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = {"mlm+sop": replace(ALBERT, embedding_size=8), "rtd": replace(ELECTRA, embedding_size=8)}[objective]
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(5)
    config = replace(config, **sizes, intermediate_size=32, max_position_embeddings=20)
    encoder, (name, *_) = Encoder(config), reversed(objective.split("+"))
    heads = nn.ModuleDict({one: HEADS[one](config) for one in objective.split("+")})
    Model(encoder, heads, tokenizer, {}, tmp_path).save(tmp_path / "model")
    model = bertloom.load(tmp_path / "model")
    words, theirs = transformers.AutoTokenizer.from_pretrained(model.path), getattr(transformers, kind)
    theirs = theirs.from_pretrained(model.path).eval()
    with torch.no_grad():
        if name == "sop":
            want = theirs(**words("The cat meows.", "It sleeps.", return_tensors="pt")).sop_logits.softmax(-1)[0, 0]
            assert model.in_order("The cat meows.", "It sleeps.") == pytest.approx(float(want), abs=1e-5)
            with pytest.raises(InputError, match="no trained nsp head"):
                model.next_sentence("The cat meows.", "It sleeps.")
            return
        text = "The CAT  meows, élan 🙂!"
        want = theirs(**words(text, return_tensors="pt")).logits.sigmoid()[0, 1:-1]
    found = model.replaced(text)
    assert [share for _, share in found] == pytest.approx(want.tolist(), abs=1e-5)
    assert "".join(part for part, _ in found) == text.replace(" ", ""), "the user's own letters"
    with pytest.raises(InputError, match="text of 100 tokens, at most 18 allowed"):
        model.replaced("cat " * 50)


def test_what_is_filled_in_stands_in_the_users_own_words(pretrained: Model) -> None:
    everything = pretrained.fill("Ünknown 🙂  CAT[MASK]  [MASK]!", top=10_000)
    whole, rest = ({one.token: one.text for one in candidates} for candidates in everything)
    token = next(token for token in whole if token.isalpha())
    assert whole[token] == f"Ünknown 🙂  CAT{token}  [MASK]!"
    piece = next(token for token in rest if token.startswith("##"))
    assert rest[piece] == f"Ünknown 🙂  CAT[MASK]{piece[2:]}!"
    with pytest.raises(InputError, match="text: None given, a string allowed"):
        pretrained.fill(None)  # type: ignore[arg-type]


def test_a_space_that_is_part_of_a_token_is_filled_in(text_file: Path, tmp_path: Path) -> None:
    from bertloom import hub
    from tests.test_hub import whole_state

    words = bertloom.train_vocabulary(text_file.read_text(encoding="utf-8").splitlines(), 300, kind="bpe")
    config = small(vocab_size=len(words))
    hub.write(tmp_path / "m", config, whole_state(config), words)
    texts = {one.token: one.text for one in bertloom.load(tmp_path / "m").fill("one[MASK] two [MASK].", top=300)[0]}
    begins = next(token for token in texts if token.startswith("▁") and token[1:].isalpha())
    goes_on = next(token for token in texts if token.isalpha())
    assert texts[begins] == f"one {begins[1:]} two [MASK]."
    assert texts[goes_on] == f"one{goes_on} two [MASK]."


def test_what_reads_backwards_is_not_opened(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from bertloom import hub

    config = small(vocab_size=len(tokenizer), model_type="two-way", direction="two-way", num_attention_heads=2)
    hub.write(tmp_path / "m", config, Encoder(config).state_dict(), tokenizer)
    assert bertloom.load(tmp_path / "m" / "left-to-right").config.direction == "left-to-right"
    with pytest.raises(InputError, match="reads texts backwards"):
        bertloom.load(tmp_path / "m" / "right-to-left")


def test_without_a_pooler_no_pair_is_judged_but_one_segment_is_enough(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from bertloom import hub
    from tests.test_hub import whole_state

    config, single = (small(vocab_size=len(tokenizer), type_vocab_size=segments) for segments in (2, 1))
    state = whole_state(config)
    segments = "embeddings.segment.weight"
    hub.write(tmp_path / "single", single, {**state, segments: state[segments][:1]})
    unpooled = {name: tensor for name, tensor in state.items() if not name.startswith("pooler")}
    hub.write(tmp_path / "unpooled", config, unpooled)
    for name in ("single", "unpooled"):
        tokenizer.save(tmp_path / name)
    model = bertloom.load(tmp_path / "unpooled")
    assert model.trained == ["mlm"]
    with pytest.raises(InputError, match="no trained nsp head"):
        model.next_sentence("a", "b")
    tokens, _ = bertloom.load(tmp_path / "single").trace("a", "b")
    assert tokens.count("[SEP]") == 2


def test_dir_names_the_documented_calls() -> None:
    assert {"load", "prepare", "pretrain", "Corpus", "Recipe"} <= set(dir(bertloom))


def test_what_cannot_be_asked(golden: Model, pretrained: Model) -> None:
    with pytest.raises(InputError, match="no trained mlm head"):
        golden.fill("[MASK]")
    with pytest.raises(InputError, match="no trained nsp head"):
        golden.next_sentence("a", "b")
    with pytest.raises(InputError, match=r"no \[MASK\]"):
        pretrained.fill("nothing hidden")
    with pytest.raises(InputError, match="top: 0"):
        pretrained.fill("[MASK]", top=0)
    for ask in (pretrained.fill, pretrained.trace):
        with pytest.raises(InputError, match=r"text of 201 tokens, at most 48 allowed: 'cat"):
            ask("cat " * 100 + "[MASK]")
    with pytest.raises(InputError, match=r"text of 48 tokens, at most 47 allowed: 'cat"):
        pretrained.next_sentence("cat " * 23, "cat")
    with pytest.raises(InputError, match="one text given"):
        golden.encode("a text")
    with pytest.raises(InputError, match="a string of whole characters"):
        golden.encode([("a", "b")])  # type: ignore[list-item]
    with pytest.raises(InputError, match="pooling: unknown 'sum'"):
        golden.encode(["a"], "sum")


def test_saved_with_its_tokenizer_and_card(pretrained: Model, tmp_path: Path) -> None:
    pretrained.save(tmp_path)
    again = bertloom.load(tmp_path)
    assert np.array_equal(again.encode(TEXTS[:2]), pretrained.encode(TEXTS[:2]))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask")
    assert "bertloom.load" in card


def test_importing_brings_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, bertloom, bertloom.cli; bertloom.EncoderConfig; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bertloom.nothing  # noqa: B018
    assert all(getattr(bertloom, name) for name in bertloom.__all__)


@pytest.mark.parametrize(
    ("given", "want"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "a count", "a policy"],
)
def test_threads_sleep_soon_unless_told_otherwise(given: dict[str, str], want: str) -> None:
    import os
    import subprocess
    import sys

    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, bertloom; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == want


def test_an_extended_model_begins_new_words_as_the_mean_of_their_pieces(tiny_model: Path, tmp_path: Path) -> None:
    model = bertloom.load(tiny_model)
    made, words = model.extended(["the cardiologist and the stenosis"] * 6, 2)
    made.save(tmp_path / "m")
    again = bertloom.load(tmp_path / "m")
    assert again.config.vocab_size == model.config.vocab_size + 2
    for number, word in enumerate(words, model.config.vocab_size):
        ids = model.tokenizer.ids([word])[0]
        assert again.tokenizer.ids([word]) == [[number]]
        old, new = (one.encoder.embeddings.word.weight for one in (model, again))
        assert torch.allclose(new[number], old[ids].mean(0))
        assert torch.allclose(again.heads["mlm"].bias[number], model.heads["mlm"].bias[ids].mean(0))
    assert np.allclose(model.encode(["the cat"]), again.encode(["the cat"]), atol=1e-6)
    assert len(again.fill("the [MASK] meows", top=3)[0]) == 3


def test_numpys_values_and_tuples_are_what_they_hold() -> None:
    given = {"a": np.int64(1), "b": ("x", np.str_("y")), "c": np.array([[1, 2]]), "d": {"e": (1.5,)}, "f": "x"}
    assert _row(given, 1, "text") == {"a": 1, "b": ["x", "y"], "c": [[1, 2]], "d": {"e": [1.5]}, "f": "x"}
    assert type(_row(given, 1, "text")["a"]) is int


def test_a_loaded_model_computes_where_training_does(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice alone: there is no GPU here."""
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert computing_device().type == kind
    monkeypatch.setattr(api, "computing_device", lambda: torch.device("meta"))
    assert bertloom.load(minilm).encoder.embeddings.word.weight.is_meta
