"""Training and dev data read, checked and made into examples before anything is trained."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bertloom.api import LENGTH, Model, load
from bertloom.errors import InputError
from bertloom.finetuning.recipe import Tuning
from bertloom.tasks.augment import augmented
from bertloom.tasks.objective import require_match
from bertloom.tasks.predict import cut, grouped, outputs
from bertloom.tasks.task import SOFT, TARGET, Feature, Record, Task, options
from bertloom.text.sources import ReadCounts

Say = Callable[[str], None]
# Of an epoch at most so many measures are made, none sooner than so many steps after the one before, and in at most
# this share of its time: a token of dev costs a third of one that is learned from.
MEASURES, APART, SHARE = 10, 100, 0.1


@dataclass(frozen=True)
class Data:
    """A task that knows its labels, the model it starts from, and both sides' records and features."""

    task: Task
    start: Model
    train: list[Record]
    dev: list[Record]
    features: list[Feature]
    dev_features: list[list[Feature]]
    teacher: Model | None = None

    @property
    def new_pooler(self) -> bool:
        """Whether the task needs a pooler where the model has none that ever learned."""
        pooler = getattr(self.start.encoder, "pooler", None)
        return self.task.pools(self.start.config) and not (pooler and pooler.trained)

    def epoch(self, recipe: Tuning) -> int:
        """Steps of one pass."""
        return math.ceil(len(self.features) / recipe.batch_size)

    def steps(self, recipe: Tuning) -> int:
        """Steps of a run."""
        return max(1, round(recipe.epochs * self.epoch(recipe)))

    def parts(self, recipe: Tuning) -> int:
        """Measures of an epoch where the user does not say."""
        learned = sum(map(len, self.features))
        measured = sum(len(one) for made in self.dev_features for one in made)
        return max(1, min(MEASURES, self.epoch(recipe) // APART, int(3 * SHARE * learned / max(1, measured))))

    @cached_property
    def identity(self) -> str:
        """A hash of every example and of the start model's weights, by which a run knows its own."""
        state = hashlib.sha256(self.start.fingerprint.encode())
        for one in (*self.features, *(one for made in self.dev_features for one in made)):
            for array in (one.input_ids, one.segment_ids, *(part for both in one.targets.values() for part in both)):
                state.update(array.tobytes())
        state.update(repr((self.task.labels_in_config(), list(map(self.task.gold, self.dev)))).encode())
        return state.hexdigest()[:32]


def read(recipe: Tuning, model: Model, say: Say) -> Data:
    """Both files, what is to be said of them said; raises where they cannot be learned from or scored."""
    task, counts = recipe.task, ReadCounts()
    reached = int(model.others.get(LENGTH, model.config.longest))
    if not task.length and LENGTH in model.others:
        task = replace(task, length=min(reached, task.usual_length))
    if task.length > reached:
        say(f"length: {task.length} given, pretraining reached {reached}: positions beyond are as they were made")
    if "-" in (recipe.train, recipe.dev):
        # They are read twice, and again where a run goes on.
        raise InputError("standard input given, a file or hf:NAME needed for --train and --dev", "-")
    teacher = load(recipe.teacher) if recipe.teacher else None
    task = _teachers(task, teacher) if teacher else task
    task = (replace(task, asks=True) if teacher else task).told_by(recipe.train)
    records = list(task.read(recipe.train, counts))
    if not records:
        raise InputError("no records in it, at least two needed", recipe.train)
    task = replace(task, asks=False) if teacher else task.learn(records)
    metric = recipe.metric or task.metrics[0]
    _require(recipe, task, metric, model)
    learned = records if teacher else task.usable(records, counts)
    dev = task.usable(list(task.told_by(recipe.dev).read(recipe.dev, counts)), counts)
    for source, found in ((recipe.train, learned), (recipe.dev, dev)):
        if not found:
            raise InputError("no usable record in it, at least one needed", source)
    if metric not in (known := task.metrics_on(dev)):
        raise InputError(f"metric: {metric!r} given, dev has nothing of it; one of {', '.join(known)} allowed")
    for what, number in counts.mended.items():
        if number:
            say(f"{number:,} × {what}")
    say(f"{len(learned):,} training and {len(dev):,} dev records; best by {metric} on dev")
    for remark in (
        *(task.remarks(learned) if not teacher else ()),
        *task.remarks_on_dev(dev),
        *overlaps(task, learned, dev),
    ):
        say(remark)
    records = [*learned, *new_records(recipe, task, learned, model)]
    if len(records) > len(learned):
        say(f"{len(records) - len(learned):,} new training records by {recipe.augment}")
    train_features = task.features(records, model.tokenizer, model.config)
    features = [one for made in train_features for one in made]
    dev_features = task.features(dev, model.tokenizer, model.config)
    if not features:
        raise InputError("no token of any record carries a label, at least one needed", recipe.train)
    for name, made in (("training", train_features), ("dev", dev_features)):
        if number := cut(made):
            say(f"{number:,} of {len(made):,} {name} records have {task.limit(model.config)}")
        # New records stand after the training file's own.
        own = learned if name == "training" else dev
        answered = [] if teacher and name == "training" else zip(own, made)
        lost = [record for record, features in answered if not task.reachable(record, features)]
        if lost:
            what = "have an answer that no pieces of the vocabulary make exactly"
            say(f"{len(lost):,} of {len(own):,} {name} records {what}, as {lost[0].place}")
    if teacher:
        say(f"asking the teacher of {len(records):,} records")
        _ask(teacher, task, recipe, model, records, train_features)
    data = Data(task, model, learned, dev, features, dev_features, teacher)
    if data.new_pooler:
        say("the model has no pooler that was trained; a new one begins with the head")
    return data


def _teachers(task: Task, teacher: Model) -> Task:
    """The task of a teacher, with what the recipe says otherwise than by default."""
    its = teacher.require_task()
    if type(its) is not type(task):
        raise InputError(f"is fine-tuned to {its.name}, a teacher of {task.name} needed", teacher.path)
    if its.frozen or task.frozen:
        raise InputError(
            "stands on a frozen encoder's features, a teacher that was fine-tuned whole needed", teacher.path
        )
    own = {one.name: getattr(task, one.name) for one in options(task)}
    changed = {one.name: own[one.name] for one in options(task) if own[one.name] != one.default}
    return replace(its, temperature=1.0, **changed)


def _ask(
    teacher: Model, task: Task, recipe: Tuning, model: Model, records: Sequence[Record], made: list[list[Feature]]
) -> None:
    """Give every example the teacher's logits of its labelled rows; raises where its vocabulary has other rows."""
    same = teacher.tokenizer.fingerprint == model.tokenizer.fingerprint
    require_match(recipe.matches, teacher.encoder, model.config.hidden_size, same)
    if same and teacher.config.longest >= max(len(one) for features in made for one in features):
        asked = made
    else:
        asked = task.features(records, teacher.tokenizer, teacher.config)
    flat = [one for features in asked for one in features]
    logits, _ = outputs(task, teacher.encoder, teacher.heads[task.part], flat)
    for record, features, its in zip(records, made, grouped(map(len, asked), logits)):
        rows = [len(one.targets[TARGET][0]) for one in features]
        if rows != [len(one) for one in its]:
            raise record.place.error(
                "falls into other pieces for the teacher than for the student; one with the teacher's vocabulary needed"
            )
        for one, wanted in zip(features, its):
            one.targets[SOFT] = (one.targets[TARGET][0], wanted)


def _require(recipe: Tuning, task: Task, metric: str, model: Model) -> None:
    """Raise now, and not after an epoch, where the task or the model has not what the recipe asks for."""
    if metric not in task.metrics:
        raise InputError(f"metric: {metric!r} given, one of {', '.join(task.metrics)} allowed")
    if recipe.calibrate and not task.calibrates:
        raise InputError("calibrate: given, a task whose answers have probabilities needed")
    if task.frozen and (recipe.freeze, recipe.layer_decay, recipe.dropout) != (0, 1.0, -1.0):
        raise InputError(
            "features-from: given, and freeze, layer-decay or dropout, which say nothing of an encoder left as it is"
        )
    if recipe.freeze > model.config.num_hidden_layers:
        most = model.config.num_hidden_layers
        raise InputError(f"freeze: {recipe.freeze} given, at most the model's {most} layers allowed")
    task.head(model.config)


def overlaps(task: Task, train: Sequence[Record], dev: Sequence[Record]) -> list[str]:
    """What stands twice in the training file, with one answer or with several, and what stands in dev too."""
    owners: dict[Hashable, list[Record]] = defaultdict(list)
    for record in train:
        owners[task.key(record)].append(record)
    twice = [same for same in owners.values() if len(same) > 1]
    disputed = [same for same in twice if len({task.gold(one) for one in same}) > 1]
    seen = [record for record in dev if task.key(record) in owners]
    said = []
    for name, side in (("training", train), ("dev", dev)):
        first: dict[str | int, Record] = {}
        again = [one for one in side if one.id != "" and first.setdefault(one.id, one) is not one]
        if again:
            places = f"{again[0].place} that of {first[again[0].id].place}"
            said.append(f"{len(again):,} {name} records have the id of another one, as {places}, {again[0].id!r}")
    if twice:
        more = sum(len(same) - 1 for same in twice)
        said.append(f"{more:,} training records repeat others, as {twice[0][1].place} does {twice[0][0].place}")
    if disputed:
        number = sum(map(len, disputed))
        said.append(
            f"{number:,} training records have another answer than the same text elsewhere (label noise), as "
            f"{disputed[0][0].place} and {disputed[0][1].place}"
        )
    if seen:
        said.append(
            f"{len(seen):,} of {len(dev):,} dev records stand in the training file too, as {seen[0].place}: scores on "
            "them say little"
        )
    return said


def new_records(recipe: Tuning, task: Task, records: Sequence[Record], model: Model) -> list[Record]:
    """Augmented copies of training records."""
    if not recipe.ways:
        return []
    if "mask" in recipe.ways:
        model.head("mlm")

    def fill(text: str) -> list[list[tuple[str, float]]]:
        (ids,) = model.tokenizer.ids([text])
        if len(ids) > model.config.longest - 2:
            return []
        return [[(one.token, one.probability) for one in best] for best in model.fill(text, top=10)]

    rng = np.random.default_rng(recipe.seed)
    made = []
    for way in recipe.ways:
        for record in list(records) * recipe.augment_copies:
            text = task.augmentable(record)
            if text is None:
                raise InputError(f"augment: {recipe.augment} given, none allowed for {task.name}")
            changed = augmented(text, way, recipe.augment_share, rng, fill)
            # Too long for the model, or too short to be changed.
            if changed.split() != text.split():
                made.append(task.with_text(record, changed))
    return made
