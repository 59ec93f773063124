from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertloom.api import Model
from bertloom.inspect import why
from tests.inspect.conftest import DIRECTIONS, TASKS, loaded, tuned

TEXT, SECOND = "The [MASK] lives in the garden.", "Every cat always meows."


def explained(model: Model, steps: int = 128) -> list[why.Reasons]:
    example = model.whole(TEXT, SECOND)
    _, insides = model.trace(TEXT, SECOND)
    return [why.reasons(model, example, one, insides, steps) for one in why.targets(model, example)]


@pytest.mark.parametrize("name", [*DIRECTIONS, *TASKS])
def test_what_tokens_add_is_what_the_score_gains(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name if name in runs else "mlm+nsp"])
    found = explained(tuned(model, name) if name in TASKS else model)
    assert found
    for one in found:
        gained = one.after - one.before
        assert float(one.added.sum()) == pytest.approx(gained, abs=0.02 * max(1, float(np.abs(one.added).sum())))
        assert float(one.rollout.sum()) == pytest.approx(1, abs=1e-4)


def test_the_score_of_a_fill_is_its_log_probability(model: Model) -> None:
    (one,) = explained(model, steps=2)
    example = model.whole(TEXT, SECOND)
    (place,) = one.places
    _, insides = model.trace(TEXT, SECOND)
    logs = model.named(insides[-1].hidden_states, torch.tensor([place]))[0]
    assert one.after == pytest.approx(float(logs.max().detach()), rel=1e-4)
    assert one.name == model.tokenizer.shown([int(logs.argmax())])[0]
    assert example.input_ids[place] == model.tokenizer.special.mask


def test_a_models_answers_are_what_is_asked_about(model: Model) -> None:
    found = {name: why.targets(tuned(model, name), model.whole(TEXT, SECOND)) for name in TASKS}
    assert {one.name for one in found["classify"]} == {"no", "yes", "maybe"}
    scores = [float(one.score([model.whole(TEXT, SECOND)]).detach()) for one in found["classify"]]
    assert scores == sorted(scores, reverse=True)
    assert all(one.name in ("B-X", "I-X") for one in found["tag"])
    (answer,) = found["answer"]
    segments = model.whole(TEXT, SECOND).segment_ids
    assert [segments[place] for place in answer.places] == [1, 1]
    assert answer.places[0] <= answer.places[1]


def test_rollout_is_attention_with_half_of_each_state_kept(model: Model) -> None:
    _, insides = model.trace(SECOND)
    flow = np.eye(len(insides[0].hidden_states))
    for one in insides[1:]:
        flow = (one.attentions[0].mean(0).numpy() / 2 + np.eye(len(flow)) / 2) @ flow
    assert np.abs(why.rollout(insides) - flow).max() < 1e-5


def test_nothing_to_ask_of_a_text_without_a_mask(model: Model) -> None:
    assert why.targets(model, model.whole(SECOND)) == []
