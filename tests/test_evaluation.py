from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bertloom import hub
from bertloom.api import Model, load
from bertloom.corpus import Corpus
from bertloom.errors import InputError
from bertloom.evaluation import Measure, blimp, guessing, held_out, interval, log_likelihoods, read_pairs
from bertloom.objectives import Combined
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.test_hub import whole_state


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Model:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("model")
    config = small(vocab_size=len(tokenizer), pad_token_id=0)
    hub.write(folder, config, whole_state(config))
    tokenizer.save(folder)
    return load(folder)


def test_scores_equal_masking_one_at_a_time_with_transformers(model: Model) -> None:
    texts = ["The cat meows.", "Every dog always barks before it sleeps.", "cow"]
    theirs = transformers.BertForMaskedLM.from_pretrained(model.path).eval()
    special = model.tokenizer.special
    want = []
    for ids in model.tokenizer.ids(texts):
        total = 0.0
        for place in range(len(ids)):
            masked = [special.cls, *ids, special.sep]
            masked[place + 1] = special.mask
            with torch.no_grad():
                logits = theirs(torch.tensor([masked])).logits[0, place + 1]
            total += float(logits.log_softmax(-1)[ids[place]])
        want.append(total)
    made = log_likelihoods(model, texts)
    assert np.allclose(made, want, atol=1e-4)


def test_a_tie_is_wrong_and_shares_are_by_phenomenon(model: Model) -> None:
    texts = ["The cat meows.", "The dog barks in the house.", "Every sheep bleats."]
    scores = log_likelihoods(model, texts)
    best, worst = texts[int(scores.argmax())], texts[int(scores.argmin())]
    pairs = [
        {"good": best, "bad": worst, "paradigm": "p1", "phenomenon": "one"},
        {"good": worst, "bad": best, "paradigm": "p1", "phenomenon": "one"},
        {"good": best, "bad": best, "paradigm": "p2", "phenomenon": "tie"},
        {"good": best, "bad": worst, "paradigm": "p3", "phenomenon": "right"},
    ]
    shares = blimp(model, pairs)
    assert {name: one.share for name, one in shares.items()} == {
        "one": 0.5, "tie": 0.0, "right": 1.0, "mean over paradigms": pytest.approx(0.5),
    }  # fmt: skip
    assert all(0 <= one.low <= one.high <= 1 for one in shares.values())
    # Shares drawn to the middle: 2/4, 1/3, 2/3; the mean's variance is a ninth of the sum of theirs.
    half = 1.96 * math.sqrt(1 / 4 / 2 + 2 / 9 + 2 / 9) / 3
    mean = shares["mean over paradigms"]
    assert (mean.low, mean.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_wilsons_interval() -> None:
    made = interval(40, 50)
    assert (made.low, made.high) == (pytest.approx(0.6696, abs=1e-3), pytest.approx(0.8876, abs=1e-3))
    assert interval(0, 10).low == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"pairs\.jsonl:2: is not JSON"),
        ('{"good": "a"}', r"pairs\.jsonl:2: no text in field 'bad'"),
        ("[]", r"pairs\.jsonl:2: no text"),
    ],
)
def test_malformed_pairs(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "pairs.jsonl"
    good = json.dumps({"good": "a", "bad": "b", "paradigm": "p", "phenomenon": "q"})
    file.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=said):
        read_pairs(file)


def test_files_without_pairs(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    with pytest.raises(InputError, match="no such file"):
        read_pairs(file)
    file.write_text("\n")
    with pytest.raises(InputError, match="no pairs"):
        read_pairs(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_pairs(file)


def test_texts_that_cannot_be_scored(model: Model) -> None:
    for text, count in (("", 0), ("cat " * 60, 120)):
        with pytest.raises(InputError, match=f"text of {count} tokens, 1 to 48 allowed"):
            log_likelihoods(model, ["cat", text])


def test_guessing_knows_frequencies_alone(corpus: Corpus) -> None:
    made = guessing(corpus, Combined(small(), "mlm+nsp"))
    shares = corpus.frequencies / corpus.frequencies.sum()
    assert made["mlm"].loss == pytest.approx(-sum(p * math.log(p) for p in shares if p))
    assert made["mlm"].accuracy == pytest.approx(shares.max())
    assert (made["nsp"].loss, made["nsp"].accuracy) == (pytest.approx(math.log(2)), 0.5)


def test_guessing_of_what_was_replaced_is_calling_it_all_the_texts_own(corpus: Corpus) -> None:
    objective = Combined(small(), "rtd", generator=1.0)
    assert guessing(corpus, objective).keys() == {"mlm"}
    made = guessing(corpus, objective, {"rtd": Measure(0.5, 0.9, 200), "replaced": Measure(3.0, 0.1, 20)})
    assert made["rtd"].accuracy == 0.9
    assert made["rtd"].loss == pytest.approx(-0.1 * math.log(0.1) - 0.9 * math.log(0.9))


def test_held_out_is_deterministic_and_weighs_labels_alike(model: Model, corpus: Corpus) -> None:
    objective = Combined(model.config, "mlm+nsp")
    objective.load_state_dict(model.heads.state_dict())
    first, again = (held_out(model.encoder, objective.eval(), corpus, examples=40, length=32) for _ in range(2))
    assert first == again
    assert first["nsp"].count == 40
    assert first["mlm"].perplexity == pytest.approx(math.exp(first["mlm"].loss))


def test_real_pairs(data: Path, minilm: Path) -> None:
    pairs = read_pairs(data / "evaluate" / "blimp.jsonl")
    assert len(pairs) == 6700
    assert len({pair["paradigm"] for pair in pairs}) == 67
