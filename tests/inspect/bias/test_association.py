from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias import association
from bertloom.inspect.bias.association import ROLES, Association, permuted
from bertloom.inspect.bias.suite import measured
from bertloom.text.sources import ReadCounts, ReadOptions

SETS = {
    "targ1": ["cat", "dog", "horse"],
    "targ2": ["garden", "river", "mountainside"],
    "attr1": ["meows", "barks", "sleeps"],
    "attr2": ["house", "field"],
}


def write(folder: Path, name: str = "weat0", **changes: Any) -> Path:
    sets = {role: {"category": role, "examples": words} for role, words in SETS.items()} | changes
    (folder / f"{name}.jsonl").write_text(json.dumps(sets, indent=1))
    return folder / f"{name}.jsonl"


def by_hand(vectors: dict[str, Any]) -> tuple[float, float]:
    """Caliskan et al.'s effect size, and the exact p over every cut in two."""

    def s(word: str) -> float:
        near = [np.mean([1 - cosine(vectors[word], vectors[one]) for one in SETS[role]]) for role in ROLES[2:]]
        return float(near[0] - near[1])

    of = {word: s(word) for word in SETS["targ1"] + SETS["targ2"]}
    first, second = ([of[word] for word in SETS[role]] for role in ROLES[:2])
    effect = (np.mean(first) - np.mean(second)) / np.std(first + second, ddof=1)
    cuts = [sum(of[word] for word in chosen) for chosen in combinations(of, 3)]
    return float(effect), float(np.mean([cut >= sum(first) - 1e-9 for cut in cuts]))


def test_words_have_the_papers_effect_and_p(model: Model, theirs: tuple[Any, Any], tmp_path: Path) -> None:
    peer, tokenizer = theirs
    table = peer.bert.embeddings.word_embeddings.weight.detach().numpy()
    words = {
        word: table[tokenizer(word, add_special_tokens=False)["input_ids"]].mean(0)
        for role in SETS.values()
        for word in role
    }
    suite = Association(sentences=False)
    items = suite.read([str(write(tmp_path))], ReadOptions(), ReadCounts())
    rows = {(one.group, one.measure): one.figures[0] for one in measured(suite, [model], items)}
    effect, p = by_hand(words)
    assert rows["weat0", "effect"].value == pytest.approx(effect, rel=1e-5)
    assert rows["weat0", "p"].value == pytest.approx(p)
    assert rows["weat0", "effect"].low <= effect <= rows["weat0", "effect"].high


def test_sentences_have_two_effects(model: Model, theirs: tuple[Any, Any], tmp_path: Path) -> None:
    peer, tokenizer = theirs
    states = {}
    for word in (word for role in SETS.values() for word in role):
        with torch.no_grad():
            states[word] = peer.bert(**tokenizer(word, return_tensors="pt")).last_hidden_state[0].numpy()
    suite = Association(sentences=True)
    items = suite.read([str(write(tmp_path))], ReadOptions(), ReadCounts())
    rows = {one.measure: one.figures[0] for one in measured(suite, [model], items)}
    for name, vectors in (
        ("[CLS]", {w: s[0] for w, s in states.items()}),
        ("means", {w: s.mean(0) for w, s in states.items()}),
    ):
        effect, p = by_hand(vectors)
        assert rows[f"effect of {name}"].value == pytest.approx(effect, rel=1e-3)
        assert rows[f"p of {name}"].value == pytest.approx(p)


def test_many_cuts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    near, first = rng.normal(size=12), np.arange(12) < 6
    exact = permuted(first, near, rng)
    monkeypatch.setattr(association, "PARTITIONS", 900)
    assert permuted(first, near, rng) == pytest.approx(exact, abs=0.05)
    extreme = np.sort(near)[::-1]
    assert permuted(first, extreme, rng) == pytest.approx(1 / 900, abs=3 / 900), "what was seen counts as one"
    assert permuted(first, np.zeros(12), rng) == 1.0, "an equal cut counts"


def test_folders_and_several_tests(model: Model, tmp_path: Path) -> None:
    write(tmp_path, "b")
    write(tmp_path, "a", targ1={"examples": ["cat", "dog"]}, targ2={"examples": ["house", "field"]})
    suite = Association(sentences=False)
    rows = measured(suite, [model], suite.read([str(tmp_path)], ReadOptions(), ReadCounts()))
    assert [one.group for one in rows] == ["a", "a", "b", "b"], "small ones too"
    with pytest.raises(InputError, match="a second test 'a' given"):
        suite.read([str(tmp_path), str(tmp_path / "a.jsonl")], ReadOptions(), ReadCounts())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attr1": {"examples": ["one"]}}, "attr1 with a list of two examples"),
        ({"targ2": {"examples": ["one", 2]}}, "targ2 with a list"),
        ({"targ1": ["a", "b"]}, "targ1 with a list"),
        ({"targ1": {"examples": ["a", "b"]}}, "2 and 3 examples of targ1 and targ2 given"),
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        Association(False).read([str(write(tmp_path, **changes))], ReadOptions(), ReadCounts())


def test_what_cannot_be_asked_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder without tests"):
        Association(False).read([str(tmp_path)], ReadOptions(), ReadCounts())
    file = write(tmp_path, attr2={"examples": ["cat", "\u200b"]})
    with pytest.raises(InputError, match=r"word '.*' given, one that the vocabulary makes something of"):
        Association(False).outcomes(model, Association(False).read([str(file)], ReadOptions(), ReadCounts()))
    file = write(tmp_path, attr2={"examples": ["cat", "cat " * 600]})
    with pytest.raises(InputError, match="text of 1,200 tokens"):
        Association(True).outcomes(model, Association(True).read([str(file)], ReadOptions(), ReadCounts()))
