from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.corpus import Corpus, Draw
from bertloom.corpus.prepare import prepare
from bertloom.corpus.segments import pair
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.model.encoder import Encoder
from bertloom.model.packed import pack
from bertloom.objectives import Combined
from tests.conftest import random_examples, small

draws = st.builds(Draw, st.integers(0, 2**40), st.integers(0, 10**7), st.integers(8, 100))


@settings(max_examples=200, deadline=None)
@given(draw=draws, name=st.sampled_from(["mlm", "mlm+nsp"]), mask=st.sampled_from(["tokens", "words"]))
def test_examples(corpus: Corpus, draw: Draw, name: str, mask: str) -> None:
    objective = Combined(small(), name, mask=mask)
    made, again = (objective.example(corpus, draw) for _ in range(2))
    assert np.array_equal(made.input_ids, again.input_ids), "a pure function of the draw"
    special = corpus.special
    ids, places, labels = made.input_ids, *made.targets["mlm"]
    assert len(ids) <= draw.length
    assert ids[0] == special["cls"]
    assert ids[-1] == special["sep"]
    assert np.count_nonzero(ids == special["sep"]) == 1 + (name == "mlm+nsp")
    original = ids.copy()
    original[places] = labels
    assert special["mask"] not in original
    assert not set(labels.tolist()) & {special[role] for role in ("cls", "sep", "pad", "mask", "unk")}, "specials stay"
    assert len(places) >= 1
    ordinary = np.count_nonzero(~np.isin(original, [special[role] for role in ("cls", "sep", "unk")]))
    if mask == "tokens":
        assert len(places) == max(1, round(0.15 * ordinary))
    segments = np.flatnonzero(np.diff(made.segment_ids))
    assert len(segments) == (name == "mlm+nsp")
    if name == "mlm+nsp":
        assert ids[segments[0]] == special["sep"]
        assert made.targets["nsp"][0].tolist() == [0]
        assert int(made.targets["nsp"][1][0]) in (0, 1)
    else:
        assert "nsp" not in made.targets


@given(index=st.integers(0, 10**6))
def test_label_0_means_is_next_as_in_every_published_checkpoint(corpus: Corpus, index: int) -> None:
    draw = Draw(3, index, 40)
    label = Combined(small()).example(corpus, draw).targets["nsp"][1].tolist()
    assert label == [0 if pair(corpus, draw, draw.rng()).is_next else 1]


@pytest.mark.parametrize("mask", ["tokens", "words"])
def test_what_no_vocabulary_knows_is_never_hidden(tokenizer_folder: Path, tmp_path: Path, mask: str) -> None:
    words = ["cat", "meows", "🙂", "🙃"] * 5
    (tmp_path / "text.txt").write_text(" ".join(words) + "\n\n" + "🙂 " * 9 + "\n", encoding="utf-8")
    made = prepare([tmp_path / "text.txt"], tokenizer_folder, tmp_path / "c")
    objective = Combined(small(), "mlm", mask=mask)
    counts = set()
    for index in range(200):
        places, labels = objective.example(made, Draw(0, index, 60)).targets["mlm"]
        assert made.special["unk"] not in labels
        counts.add(len(places))
    assert 0 in counts, "a text of unknown words has nothing to hide"
    assert max(counts) >= 2


def test_the_share_that_is_hidden_can_be_named(corpus: Corpus) -> None:
    for share in (0.15, 0.4):
        made = Combined(small(), "mlm", mask_share=share).example(corpus, Draw(0, 1, 64))
        assert len(made.targets["mlm"][0]) == round(share * (len(made) - 2))


def test_masks_are_new_every_epoch(corpus: Corpus) -> None:
    objective = Combined(small(), "mlm", segments="sentence")
    epoch = objective.epoch(corpus, 64)
    seen: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for index in range(3 * epoch):
        made = objective.example(corpus, Draw(0, index, 64))
        places, labels = made.targets["mlm"]
        made.input_ids[places] = labels
        seen.setdefault(tuple(made.input_ids), set()).add(tuple(places))
    assert max(map(len, seen.values())) > 3


def test_whole_words_hide_whole_words(corpus: Corpus) -> None:
    objective = Combined(small(), "mlm", mask="words")
    starts = np.array([not token.startswith("##") for token in _vocabulary(corpus)])
    for index in range(100):
        made = objective.example(corpus, Draw(0, index, 64))
        places, labels = made.targets["mlm"]
        original = made.input_ids.copy()
        original[places] = labels
        hidden = set(places.tolist())
        for place in hidden:
            if not starts[original[place]]:
                assert place - 1 in hidden or place == 1
            following = original[place + 1]
            if not starts[following] and following not in corpus.special.values():
                assert place + 1 in hidden


def _vocabulary(corpus: Corpus) -> list[str]:
    return (corpus.tokenizer_folder / "vocab.txt").read_text(encoding="utf-8").splitlines()


def test_losses_by_hand() -> None:
    config = small(num_hidden_layers=1)
    encoder, objective = Encoder(config).eval(), Combined(config).eval()
    examples = random_examples(config, [9, 4])
    losses, counts = objective(encoder, pack(examples)), objective.counts(pack(examples))
    assert counts == {"mlm": 2, "nsp": 2}
    plain = pack([Example(one.input_ids, one.segment_ids) for one in examples])
    states = encoder(plain)
    logits = objective.heads["mlm"](states, encoder.embeddings.word.weight).log_softmax(-1)
    rows = [int(examples[0].targets["mlm"][0][0]), 9 + int(examples[1].targets["mlm"][0][0])]
    labels = [int(one.targets["mlm"][1][0]) for one in examples]
    want = -sum(float(logits[row, label].detach()) for row, label in zip(rows, labels))
    assert float(losses["mlm"].detach()) == pytest.approx(want, rel=1e-5)
    pooled = objective.heads["nsp"](encoder.pooler(states[[0, 9]])).log_softmax(-1)
    want = -sum(float(pooled[row, int(one.targets["nsp"][1][0])].detach()) for row, one in enumerate(examples))
    assert float(losses["nsp"].detach()) == pytest.approx(want, rel=1e-5)


def test_empty_label_sets_give_zero() -> None:
    config = small()
    encoder, objective = Encoder(config), Combined(config)
    none = (np.empty(0, np.int64), np.empty(0, np.int64))
    (one,) = random_examples(config, [9])
    for targets in (
        {"mlm": none, "nsp": one.targets["nsp"]},
        {"mlm": one.targets["mlm"], "nsp": none},
        {"mlm": none, "nsp": none},
    ):
        batch = pack([Example(one.input_ids, one.segment_ids, targets)])
        losses = objective(encoder, batch)
        for name in ("mlm", "nsp"):
            assert (float(losses[name].detach()) == 0) == (targets[name] is none)
        sum(losses.values()).backward()  # type: ignore[union-attr,no-untyped-call]
        measured = objective.measured(encoder, batch)
        assert measured["mlm"][2] == len(targets["mlm"][0])
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in encoder.parameters())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "mlmm"}, "did you mean 'mlm'"),
        ({"name": "nsp"}, "joined with . to a part that predicts tokens"),
        ({"name": "mlm+mlm"}, "each part once"),
        ({"mask": "word"}, "did you mean 'words'"),
        ({"segments": "fulll"}, "did you mean 'full'"),
    ],
)
def test_what_cannot_be_combined(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Combined(small(), **arguments)


def test_accuracy_counts_first_choices() -> None:
    config = small(num_hidden_layers=1)
    encoder, objective = Encoder(config).eval(), Combined(config).eval()
    examples = random_examples(config, [9, 4])
    with torch.no_grad():
        states = encoder(pack([Example(one.input_ids, one.segment_ids) for one in examples]))
        best = objective.heads["mlm"](states, encoder.embeddings.word.weight).argmax(1)
    for at, one in zip((0, 9), examples):
        places, _ = one.targets["mlm"]
        one.targets["mlm"] = (places, best[at + places].numpy())
    assert objective.measured(encoder, pack(examples))["mlm"][1] == 2
