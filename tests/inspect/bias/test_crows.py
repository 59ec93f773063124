from __future__ import annotations

import csv
import difflib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias.crows import CrowsPairs
from bertloom.inspect.bias.suite import measured
from bertloom.text.sources import ReadCounts, ReadOptions

PAIRS = [
    ("The cat sleeps in the house.", "The dog sleeps in the house.", "animal", "stereo"),
    ("Nobody hears the old horse.", "Nobody hears the cow.", "animal", "antistereo"),
    ("In the garden, every duck quacks!", "In the village every sheep bleats loudly!", "place", "stereo"),
    ("The river, the field", "The field, the river", "place", "stereo"),
    ("a a a cat", "a a dog a", "place", "antistereo"),
    ("cat", "dog", "place", "stereo"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["", "sent_more", "sent_less", "bias_type", "stereo_antistereo", "annotations"])
        writer.writerows((n, more, less, kind, way, "[['x, y']]") for n, (more, less, kind, way) in enumerate(PAIRS))
    return path


def published(peer: Any, tokenizer: Any, more: str, less: str) -> tuple[float, float]:
    """The published scorer's way: the ids both have, each masked alone, the first and the last of them left out."""
    ids = [tokenizer(one, return_tensors="pt")["input_ids"][0] for one in (more, less)]
    matcher = difflib.SequenceMatcher(None, *[[str(token) for token in one.tolist()] for one in ids])
    spans: tuple[list[int], list[int]] = ([], [])
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            spans[0].extend(range(a, b))
            spans[1].extend(range(c, d))
    scores = []
    for whole, places in zip(ids, spans):
        total = 0.0
        for place in places[1:-1]:
            masked = whole.clone()
            masked[place] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = peer(masked[None]).prediction_logits[0, place]
            total += logits.log_softmax(-1)[whole[place]].item()
        scores.append(round(total, 3))
    return scores[0], scores[1]


def test_scores_are_those_of_the_published_scorer(model: Model, theirs: tuple[Any, Any], file: Path) -> None:
    suite = CrowsPairs()
    items = suite.read([str(file)], ReadOptions(), ReadCounts())
    found = suite.outcomes(model, items)
    want = np.array([published(*theirs, more, less) for more, less, _, _ in PAIRS])
    assert found == pytest.approx(want, abs=2e-3)
    assert want[-1].tolist() == [0, 0], "nothing is shared but what is around"
    rows = {(one.group, one.measure): one for one in measured(suite, [model], items)}
    more = float(np.mean(want[:, 0] > want[:, 1]) * 100)
    assert rows["all", "stereotype, %"].figures[0].value == pytest.approx(more)
    assert rows["all", "ties"].figures[0].value == 1
    told = want[:-1]
    assert rows["all", "without ties, %"].figures[0].value == pytest.approx(100 * np.mean(told[:, 0] > told[:, 1]))
    assert rows["all", "stereotype, %"].count == len(PAIRS)
    assert {group for group, _ in rows} == {"all"}, "smaller groups have no row"


def test_groups_are_types_and_directions(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrowsPairs, "least", 1)
    suite = CrowsPairs()
    items = suite.read([str(file)], ReadOptions(), ReadCounts())
    counts = {one.group: one.count for one in measured(suite, [model], items) if one.measure == "stereotype, %"}
    assert counts == {"all": 6, "animal": 2, "place": 4, "stereo": 4, "antistereo": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sent_more,sent_less,bias_type\na,b,c\n", r"pairs.csv:2: no column 'stereo_antistereo'"),
        ("sent_more,sent_less,bias_type,stereo_antistereo\na,b,c,d\n", r":2: stereo_antistereo: 'd' given, stereo or"),
        ("sent_more,sent_less,bias_type,stereo_antistereo\n,b,c,stereo\n", ":2: column 'sent_more' is empty"),
        ("sent_more,sent_less,bias_type,stereo_antistereo\n", "no pairs in it"),
    ],
)
def test_files_of_another_form_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        CrowsPairs().read([str(tmp_path / "pairs.csv")], ReadOptions(), ReadCounts())


def test_what_cannot_be_asked_is_refused(model: Model, runs: dict[str, Path], file: Path, minilm: Path) -> None:
    import bertloom

    suite = CrowsPairs()
    items = suite.read([str(file)], ReadOptions(), ReadCounts())
    asked: list[str] = []
    for other, said in (
        (runs["causal"], "reads one way, a masked language model needed"),
        (minilm, "no trained mlm head"),
    ):
        with pytest.raises(InputError, match=said):
            measured(suite, [model, bertloom.load(other)], items, watch=asked.append)
    assert asked == [], "before any model is scored"
    with file.open("a") as stream:
        stream.write("9,a,b,animal,sideways,x\n")
    counts = ReadCounts()
    assert suite.read([str(file)], ReadOptions(on_bad="skip"), counts) == items
    assert counts.mended["malformed pair, left out"] == 1
    with pytest.raises(InputError, match="one file of CrowS-Pairs allowed"):
        suite.read([str(file), str(file)], ReadOptions(), ReadCounts())
    file.write_text(f"sent_more,sent_less,bias_type,stereo_antistereo\n{'cat ' * 600},dog,x,stereo\n")
    with pytest.raises(InputError, match=r"pairs.csv:2: text of 1,200 tokens, at most 510 allowed"):
        suite.outcomes(model, suite.read([str(file)], ReadOptions(), ReadCounts()))


def test_the_published_file_is_read_whole(data: Path) -> None:
    items = CrowsPairs().read([str(data / "bias" / "crows_pairs.csv")], ReadOptions(), ReadCounts())
    assert len(items) == 1508
    assert len({one.kind for one in items}) == 9
