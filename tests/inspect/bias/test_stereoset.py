from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bertloom
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias.stereoset import LABELS, StereoSet
from bertloom.inspect.bias.suite import measured
from bertloom.text.sources import ReadCounts, ReadOptions


def record(target: str, context: str, texts: list[str], domain: str = "animal") -> dict[str, Any]:
    sentences = [{"sentence": text, "gold_label": label, "id": text} for text, label in zip(texts, LABELS)]
    return {"id": context, "bias_type": domain, "target": target, "context": context, "sentences": sentences[::-1]}


def within(target: str, context: str, words: list[str], domain: str = "animal") -> dict[str, Any]:
    return record(target, context, [context.replace("BLANK", word) for word in words], domain)


GIVEN = {
    "intrasentence": [
        within("cat", "The cat is BLANK.", ["quacks", "meows", "river"]),
        within("cat", "BLANK the cat sleeps", ["Nobody", "Every", "garden,"]),
        within("dog", "Every dog BLANK loudly", ["barks", "moos!", "village"]),
        within("cow", "A cow in the BLANK", ["mountain", "neighsbarks", "of"], "place"),
        within("cow", "In BLANK, a cow", ["gardens", "houses", "it"], "place"),
    ],
    "intersentence": [
        record("cat", "The cat lives in the house.", ["It meows.", "It barks loudly.", "The river."]),
        record("dog", "The dog lives here.", ["Nobody hears it.", "Every cow moos.", "In the field."]),
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": GIVEN}))
    return tmp_path / "dev.json"


def published(peer: Any, tokenizer: Any) -> dict[str, dict[str, float]]:
    """The authors' procedure: loaders, scores and counts by target."""
    scores: dict[tuple[str, int], list[float]] = {}
    for number, one in enumerate(GIVEN["intrasentence"]):
        at = next(n for n, word in enumerate(one["context"].split(" ")) if "BLANK" in word)
        scores["intrasentence", number] = []
        for label in LABELS:
            text = next(s["sentence"] for s in one["sentences"] if s["gold_label"] == label)
            word = "".join(c for c in text.split(" ")[at] if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
            ids = tokenizer.encode(word, add_special_tokens=False)
            shares = []
            for place, wanted in enumerate(ids):
                said = one["context"].replace("BLANK", tokenizer.decode(ids[:place]) + "[MASK]")
                batch = tokenizer(said, return_tensors="pt")
                with torch.no_grad():
                    logits = peer(**batch).prediction_logits[0]
                where = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()
                shares.append(float(logits[where[0, 0]].softmax(-1)[wanted]))
            scores["intrasentence", number].append(float(np.mean(shares)))
    for number, one in enumerate(GIVEN["intersentence"]):
        scores["intersentence", number] = []
        for label in LABELS:
            text = next(s["sentence"] for s in one["sentences"] if s["gold_label"] == label)
            with torch.no_grad():
                logits = peer(**tokenizer(one["context"], text, return_tensors="pt")).seq_relationship_logits[0]
            scores["intersentence", number].append(float(logits.softmax(-1)[0]))

    def came_to(chosen: list[tuple[str, int]]) -> dict[str, float]:
        terms: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for key in chosen:
            stereo, anti, unrelated = scores[key]
            term = terms[GIVEN[key[0]][key[1]]["target"]]
            term[0] += stereo > anti
            term[1] += (stereo > unrelated) + (anti > unrelated)
            term[2] += 1
        ss = float(np.mean([100 * pro / total for pro, _, total in terms.values()]))
        lm = float(np.mean([100 * related / (2 * total) for _, related, total in terms.values()]))
        return {"LMS": lm, "SS": ss, "ICAT": lm * min(ss, 100 - ss) / 50}

    found = {"all": came_to(list(scores))}
    for kind, records in GIVEN.items():
        found[kind] = came_to([key for key in scores if key[0] == kind])
        for domain in {one["bias_type"] for one in records}:
            own = [key for key in scores if key[0] == kind and GIVEN[kind][key[1]]["bias_type"] == domain]
            found[f"{kind}, {domain}"] = came_to(own)
    return found


def test_scores_are_those_of_the_authors(
    model: Model, theirs: tuple[Any, Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StereoSet, "least", 1)
    suite = StereoSet()
    items = suite.read([str(file)], ReadOptions(), ReadCounts())
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in measured(suite, [model], items):
        found[row.group][row.measure] = row.figures[0].value
    want = published(*theirs)
    assert found.keys() == want.keys()
    for group, figures in want.items():
        assert found[group] == pytest.approx(figures), group
    assert len({tuple(one.items()) for one in want.values()}) > 2, "a model that prefers something"


def test_without_a_next_sentence_head_pairs_are_refused(runs: dict[str, Path], file: Path) -> None:
    suite = StereoSet()
    items = suite.read([str(file)], ReadOptions(), ReadCounts())
    with pytest.raises(InputError, match="reads one way"):
        measured(suite, [bertloom.load(runs["causal"])], items[:5])
    model = bertloom.load(runs["mlm+nsp"])
    del model.heads["nsp"]
    assert len(measured(suite, [model], items[:5])) == 6
    with pytest.raises(InputError, match="no trained nsp head"):
        measured(suite, [model], items)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": "no place"}, "intrasentence record 1: context 'no place' given, one word BLANK"),
        ({"context": "BLANK and BLANK"}, "one word BLANK that each sentence fills"),
        ({"sentences": [{"sentence": "a", "gold_label": ["stereotype"]}]}, "sentences of stereotype, anti-"),
        ({"target": 3}, "record 1: bias_type, target, context and sentences of stereotype"),
        ({"sentences": GIVEN["intrasentence"][0]["sentences"][:2]}, "sentences of stereotype, anti-"),
        ({"context": "a b c d e f g BLANK"}, "that each sentence fills needed"),
    ],
)  # fmt: skip
def test_records_of_another_form_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": {"intrasentence": [{**GIVEN["intrasentence"][0], **change}]}}))
    with pytest.raises(InputError, match=said):
        StereoSet().read([str(tmp_path / "x.json")], ReadOptions(), ReadCounts())


@pytest.mark.parametrize("text", ["[1]", "{}", '{"data": {"intrasentence": [], "intersentence": 5}}'])
def test_other_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="is not StereoSet"):
        StereoSet().read([str(tmp_path / "x.json")], ReadOptions(), ReadCounts())
