"""What holds for every task: decode inverts features, batches change nothing, transformers computes the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import bertloom
from bertloom import hub
from bertloom.api import Model
from bertloom.config import ALBERT, BERT, DISTILBERT, ELECTRA, MODERNBERT, ROBERTA, XLM_ROBERTA, EncoderConfig
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.model.packed import pack
from bertloom.tasks import SETTINGS, TASKS, of_config, predict
from bertloom.tasks.answer import Answer
from bertloom.tasks.choose import Choose
from bertloom.tasks.classify import Classify
from bertloom.tasks.objective import TaskObjective
from bertloom.tasks.predict import outputs
from bertloom.tasks.tag import Tag
from bertloom.tasks.task import Feature, Task, softmax
from bertloom.text.tokenizer import Tokenizer
from bertloom.train.loop import steps
from bertloom.train.optimizer import adamw
from tests.conftest import small
from tests.tasks.cases import NAMES, made, perfect, rows


def config_for(tokenizer: Tokenizer, **changes: Any) -> EncoderConfig:
    return small(vocab_size=len(tokenizer), pad_token_id=0, **changes)


def built(task: Task, config: EncoderConfig) -> tuple[Encoder, TaskObjective]:
    torch.manual_seed(1)
    encoder = Encoder(config)
    encoder.give_pooler(task.pools(config))
    return encoder, TaskObjective(task, task.head(config))


def saved(task: Task, tokenizer: Tokenizer, config: EncoderConfig, folder: Path) -> Model:
    encoder, objective = built(task, config)
    model = Model(encoder, nn.ModuleDict({task.part: objective.head}), tokenizer, {}, folder, task=task)
    model.save(folder)
    return model


@pytest.mark.parametrize("length", [0, 22])
@pytest.mark.parametrize("name", NAMES)
def test_decode_inverts_features(name: str, length: int, tokenizer: Tokenizer) -> None:
    task, records = made(name, 40, length=length)
    features = task.features(records, tokenizer, config_for(tokenizer))
    predictions = [
        task.decode(record, own, [perfect(task, one) for one in own]) for record, own in zip(records, features)
    ]
    scores = task.score(predictions, records)
    assert scores[task.metrics[0]] == pytest.approx(100 if task.name == "answer" else 1), scores


@pytest.mark.parametrize("name", NAMES)
def test_what_is_calibrated_is_what_is_answered(name: str, tokenizer: Tokenizer) -> None:
    """Right logits decide everything rightly, wild ones as `decode` does, with the probability it tells."""
    task, records = made(name, 30)
    rng = np.random.default_rng(0)
    for record, own in zip(records, task.features(records, tokenizer, config_for(tokenizer))):
        if not task.calibrates:
            assert name == "classify-score"
            continue
        right = list(task.decisions(record, own, [perfect(task, one) for one in own]))
        assert right
        assert all(chosen.argmax() == gold for chosen, gold in right)
        logits = [rng.normal(0, 2, perfect(task, one).shape) for one in own]
        wild = list(task.decisions(record, own, logits))
        assert len(wild) == len(right)
        warm = replace(task, temperature=2.0)
        told = warm.decode(record, own, logits)
        sure = [float(softmax(chosen / 2).max()) for chosen, _ in wild]
        if "probability" in told:
            assert sure == [pytest.approx(told["probability"])]
        elif "labels" in told:
            assert sure == [pytest.approx(max(one, 1 - one)) for one in told["probabilities"].values()]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_equals_its_place_in_a_batch(name: str, tokenizer: Tokenizer) -> None:
    task, records = made(name, 12)
    encoder, objective = built(task, config_for(tokenizer))
    features = [one for own in task.features(records, tokenizer, encoder.config) for one in own]
    together, loss = outputs(task, encoder, objective.head, features, tokens=100)
    for feature, logits in zip(features, together):
        alone, _ = outputs(task, encoder, objective.head, [feature])
        assert np.allclose(alone[0], logits, atol=1e-5)
        assert len(logits) == len(feature.targets["labels"][0])
    assert outputs(task, encoder, objective.head, features[::-1])[1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_change_no_gradient(name: str, tokenizer: Tokenizer) -> None:
    task, records = made(name, 10)
    config = config_for(tokenizer, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    found = []
    for size in (1, 4, 100):
        encoder, objective = built(task, config)
        flat = [one for own in task.features(records, tokenizer, config) for one in own]
        batches = [[pack(flat[start : start + size]) for start in range(0, len(flat), size)]]
        optimizer = adamw([*encoder.named_parameters(), *objective.named_parameters()], 0.0)
        (step,) = steps(encoder, objective, optimizer, batches, first=0, rate=lambda n: 1e-3, seed=0)
        found.append((step.losses[task.name], step.norm))
    for one in found[1:]:
        assert one == pytest.approx(found[0], rel=1e-4)


def padded(features: list[Feature], task: Task) -> dict[str, torch.Tensor]:
    """The same features as `transformers` takes them, padded."""
    sequences = []
    for one in features:
        start = 0
        for length in one.lengths or (len(one),):
            sequences.append((one.input_ids[start : start + length], one.segment_ids[start : start + length]))
            start += length
    most = max(len(ids) for ids, _ in sequences)
    batch = {
        name: torch.zeros(len(sequences), most, dtype=torch.long)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    for number, (ids, segments) in enumerate(sequences):
        batch["input_ids"][number, : len(ids)] = torch.from_numpy(ids)
        batch["token_type_ids"][number, : len(ids)] = torch.from_numpy(segments)
        batch["attention_mask"][number, : len(ids)] = 1
    if task.name == "choose":
        batch = {key: value.view(len(features), -1, most) for key, value in batch.items()}
    return batch


def their_labels(features: list[Feature], task: Task, most: int) -> dict[str, torch.Tensor]:
    labels = [torch.from_numpy(np.asarray(one.targets["labels"][1])) for one in features]
    if task.name == "answer":
        both = torch.stack([one.argmax(0) for one in labels])
        return {"start_positions": both[:, 0], "end_positions": both[:, 1]}
    if task.name == "choose":
        return {"labels": torch.stack([one.argmax() for one in labels])}
    if task.name == "tag":
        whole = torch.full((len(features), most), -100)
        for number, (feature, one) in enumerate(zip(features, labels)):
            whole[number, feature.targets["labels"][0]] = one
        return {"labels": whole}
    return {"labels": torch.cat(labels)}


# The families, their widths and dropout small; ModernBERT's texts are padded where it pools by the mean.
FAMILY = {
    name: replace(
        config, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=60, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
        pad_token_id=0, **changes,
    )
    for name, config, changes in (
        ("bert", BERT, {}),
        ("roberta", ROBERTA, {"type_vocab_size": 1}),
        ("xlm-roberta", XLM_ROBERTA, {"type_vocab_size": 1}),
        ("albert", ALBERT, {"embedding_size": 10}),
        ("distilbert", DISTILBERT, {}),
        ("electra", ELECTRA, {"embedding_size": 10}),
        ("modernbert", MODERNBERT, {"local_attention": 8, "global_attn_every_n_layers": 2}),
        ("modernbert by means", MODERNBERT, {"classifier_pooling": "mean"}),
    )
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILY)
@pytest.mark.parametrize("name", NAMES)
def test_transformers_opens_it_and_computes_the_same(
    name: str, family: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task, records = made(name, 12)
    if name == "choose":
        # `transformers` wants as many choices in every record, and no padding where start and end are chosen.
        records = [one for one in records if len(one.choices) == len(records[0].choices)]  # type: ignore[attr-defined]
    config = replace(FAMILY[family], vocab_size=len(tokenizer))
    saved(task, tokenizer, config, tmp_path / "m")
    model = bertloom.load(tmp_path / "m")
    kind = getattr(transformers, FAMILIES[config.model_type].classes + task.architecture)
    theirs, info = kind.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    features = [own[0] for own in task.features(records, tokenizer, model.config)]
    if task.name == "answer":
        longest = max(map(len, features))
        features = [one for one in features if len(one) == longest]
    batch = padded(features, task)
    if not config.type_vocab_size:
        del batch["token_type_ids"]
    elif config.type_vocab_size == 1:
        batch["token_type_ids"].zero_()
    made_by_them = theirs(**batch, **their_labels(features, task, batch["input_ids"].shape[-1]))
    encoder, head = model.encoder, model.heads[task.part]
    packed = pack(features)
    logits = head(encoder, packed)
    loss = task.loss(logits, packed) / task.count(packed)
    assert loss.item() == pytest.approx(made_by_them.loss.item(), rel=1e-5)
    loss.backward(), made_by_them.loss.backward()
    gradients = {key: one.grad for key, one in theirs.named_parameters()}
    own = {**dict(encoder.named_parameters()), **{f"{task.part}.{key}": one for key, one in head.named_parameters()}}
    compared = 0
    for ours, names in hub.names(config, task.architecture):
        if ours in own and all(gradients.get(one) is not None for one in names):
            mine, want = own[ours].grad, torch.cat([gradients[one] for one in names])
            if ours == "embeddings.word.weight":
                mine[0] = want[0] = 0  # their padding
            assert torch.allclose(mine, want, atol=1e-5 * max(1.0, float(want.abs().max()))), ours
            compared += 1
    assert compared == len(own)
    if task.name == "answer":
        both = torch.stack([made_by_them.start_logits, made_by_them.end_logits], -1)
        assert torch.allclose(logits, both.flatten(0, 1), atol=1e-5)
    elif task.name == "tag":
        rows = [one.targets["labels"][0] for one in features]
        their = torch.cat([one[where] for one, where in zip(made_by_them.logits, rows)])
        assert torch.allclose(logits, their, atol=1e-5)
    else:
        assert torch.allclose(logits, made_by_them.logits.view(logits.shape), atol=1e-5)
    if name.startswith("classify"):
        assert theirs.config.id2label == dict(enumerate(getattr(task, "labels", ()) or ["LABEL_0"]))


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_answers_the_same(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, records = made(name, 12)
    task = replace(task, temperature=1.5)
    model = saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    again = bertloom.load(tmp_path / "m")
    assert again.task == task
    assert [one for _, one in again.predictions(records)] == [one for _, one in model.predictions(records)]
    again.save(tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "m" / file).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_read_in_parts_is_answered_in_its_order(
    name: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether records or tokens bound a part; no more records are read ahead than a part holds."""
    task, records = made(name, 23)
    model = saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    records = [replace(record, id=f"r{number}") for number, record in enumerate(records)]
    whole = [(one.id, told) for one, told in model.predictions(records)]
    assert [told["id"] for _, told in whole] == [one.id for one in records]
    for changes, ahead in (({"AT_ONCE": 3}, 3), ({"TOGETHER": 2, "MOST_TOKENS": 60}, 22)):
        with monkeypatch.context() as patch:
            for key, value in changes.items():
                patch.setattr(predict, key, value)
            read: list[Any] = []
            stream = model.predictions(read.append(one) or one for one in records)  # type: ignore[func-returns-value]
            first = next(stream)
            assert len(read) <= ahead
            parts = [(one.id, told) for one, told in (first, *stream)]
        assert [one for one, _ in parts] == [one for one, _ in whole]
        for (_, mine), (_, theirs) in zip(parts, whole):
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                if isinstance(value, float):
                    assert value == pytest.approx(theirs[key], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_sixteen_examples_are_learned_by_heart(name: str, tokenizer: Tokenizer) -> None:
    task, records = made(name, 16)
    config = small(
        vocab_size=len(tokenizer), pad_token_id=0, hidden_size=48, intermediate_size=96, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.05, hidden_act="gelu",
    )  # fmt: skip
    encoder, objective = built(task, config)
    made_features = task.features(records, tokenizer, config)
    batch = [pack([one for own in made_features for one in own])]
    optimizer = adamw([*encoder.named_parameters(), *objective.named_parameters()], 0.0)
    for _ in steps(encoder, objective, optimizer, [batch] * 250, first=0, rate=lambda n: 2e-3, seed=0):
        pass
    logits, loss = outputs(task, encoder, objective.head, [one for own in made_features for one in own])
    sizes, answers = iter(logits), []
    for record, own in zip(records, made_features):
        answers.append(task.decode(record, own, [next(sizes) for _ in own]))
    task = task.tuned(answers, records)
    score = task.score(answers, records)[task.metrics[0]]
    assert score == pytest.approx(100 if task.name == "answer" else 1, abs=0.01), (score, loss)


def replace_targets(example: Example) -> Example:
    """The example with its first row to be read."""
    return replace(example, targets={"labels": (np.array([0]), np.array([0]))})


def test_other_libraries_models_answer_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = transformers.BertConfig(
        **config_for(tokenizer).to_dict(), id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "m")
    tokenizer.save(tmp_path / "m")
    model = bertloom.load(tmp_path / "m")
    (one,) = model.predict(["The cat meows."])
    assert one["label"] in ("bad", "good")
    # A second text is read wherever a row has one, and the label is looked at where it is asked for.
    pair = {"premise": "The cat meows.", "hypothesis": "The dog barks.", "label": "good"}
    alone, both = model.predict([{"text": "The cat meows."}, pair])
    assert alone["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
    assert both["probabilities"] != pytest.approx(one["probabilities"], abs=1e-5)
    (example,) = model.examples([pair["premise"]], [pair["hypothesis"]])
    head = model.heads["classifier"]
    with torch.no_grad():
        logits = head(model.encoder, pack([replace_targets(example)]))
    assert softmax(logits[0].numpy()) == pytest.approx(list(both["probabilities"].values()), abs=1e-6)
    assert model.evaluate([pair])["accuracy"] == float(both["label"] == "good")
    for nothing in (None, ""):
        (same,) = model.predict([{"premise": "The cat meows.", "hypothesis": nothing}])
        assert same["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
    with pytest.raises(InputError, match="record 2: no label, one needed; --label NAME names its column"):
        model.evaluate([pair, {**pair, "label": None}])
    # Two labels of default names stand in no config.
    plain = transformers.BertConfig(**config_for(tokenizer).to_dict())
    transformers.BertForSequenceClassification(plain).save_pretrained(tmp_path / "plain")
    tokenizer.save(tmp_path / "plain")
    assert "id2label" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    (one,) = bertloom.load(tmp_path / "plain").predict(["The cat meows."])
    assert set(one["probabilities"]) == {"LABEL_0", "LABEL_1"}
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    config.id2label, config.num_labels = names, 3
    transformers.BertForTokenClassification(config).save_pretrained(tmp_path / "t")
    tokenizer.save(tmp_path / "t")
    assert bertloom.load(tmp_path / "t").require_task().scheme == "iob2"  # type: ignore[attr-defined]


def test_a_model_without_the_asked_head_says_so(minilm: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not fine-tuned"):
        bertloom.load(minilm).predict(["a"])
    task, _ = made("classify")
    saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    with pytest.raises(InputError, match="records: one given"):
        bertloom.load(tmp_path / "m").predict("a")
    (tmp_path / "m" / "model.safetensors").unlink()
    state = built(task, config_for(tokenizer))[0].state_dict()
    hub.write(tmp_path / "bare", config_for(tokenizer), state)
    (tmp_path / "bare" / "model.safetensors").rename(tmp_path / "m" / "model.safetensors")
    with pytest.raises(InputError, match="says classify, but there are no weights classifier"):
        bertloom.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({SETTINGS: 3}, "a task of classify, tag, answer, choose"),
        ({SETTINGS: {"task": "sing"}}, "a task of classify"),
        ({SETTINGS: {"task": "classify", "colour": 1}}, "cannot be used: TypeError"),
        ({SETTINGS: {"task": "classify", "temperature": 0}}, "temperature: 0 given, a number above 0"),
        ({SETTINGS: {"task": "classify", "temperature": "x"}}, "temperature: 'x' given, a number above 0"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"x": "y"}}, "id2label: cannot be used"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"config.json: .*{said}"):
        of_config(settings, {}, "config.json")


@pytest.mark.parametrize("kind", TASKS.values(), ids=lambda kind: kind.name)
def test_options_that_cannot_be(kind: type[Task]) -> None:
    for options, said in (
        ({"length": 3}, "length: 3"),
        ({"on_bad": "skpi"}, "on-bad: unknown 'skpi', did you mean 'skip'"),
    ):
        with pytest.raises(InputError, match=said):
            kind(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most 50 positions"):
        kind(length=51).most(small())


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_the_card_is_one_the_model_answers(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, _ = made(name)
    saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    assert len(bertloom.load(tmp_path / "m").predict([task.example])) == 1


@pytest.mark.parametrize(
    "task",
    [
        Classify(text="a", pair="b", label="c", problem="single", labels=("x", "y")),
        Tag(text="1", label="-1", scheme="iob2", labels=("O", "B-X", "I-X"), by_words=True),
        Answer(question="a", context="b", answers="c", script="squad"),
        Choose(context="a", choices="b,c,d", label="e"),
    ],
    ids=lambda task: task.name,
)
def test_the_example_has_the_columns_that_were_named(task: Task, tokenizer: Tokenizer, tmp_path: Path) -> None:
    saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    assert len(bertloom.load(tmp_path / "m").predict([task.example])) == 1


@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_are_not_looked_at_where_they_are_asked_for(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task, _ = made(name)
    saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    gold = ("label", "labels", "score", "ner_tags", "tags", "entities", "answers")
    odd = [{key: 3.5 if key in gold else value for key, value in row.items()} for row in rows(name, 3)]
    assert len(bertloom.load(tmp_path / "m").predict(odd)) == len(odd)


@pytest.mark.parametrize("name", NAMES)
def test_scores_from_python(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, records = made(name)
    saved(task, tokenizer, config_for(tokenizer), tmp_path / "m")
    model = bertloom.load(tmp_path / "m")
    scores = model.evaluate(rows(name, 16))
    assert scores == task.score([prediction for _, prediction in model.predictions(records)], records)
    with pytest.raises(InputError, match="records: none given"):
        model.evaluate([])
    with pytest.raises(InputError, match="record 1: "):
        model.evaluate([task.example])


def test_another_librarys_reader_is_scored_by_what_it_is_asked(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = transformers.BertConfig(**config_for(tokenizer).to_dict())
    transformers.BertForQuestionAnswering(config).save_pretrained(tmp_path / "m")
    tokenizer.save(tmp_path / "m")
    model, given = bertloom.load(tmp_path / "m"), rows("answer", 24)
    assert {"f1", "exact", "NoAns_f1"} <= model.evaluate(given).keys()
    assert model.evaluate([row for row in given if row["answers"]["text"]]).keys() == {"f1", "exact_match"}


def test_a_score_on_features_begins_at_the_mean(tokenizer: Tokenizer) -> None:
    head = Classify(problem="regression", middle=2.5, features_from="last").head(config_for(tokenizer))
    assert head.output.bias.tolist() == [2.5]  # type: ignore[union-attr, operator]
