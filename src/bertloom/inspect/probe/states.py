"""What a linear model reads out of hidden states, layer by layer (Tenney et al. 2019), beside control tasks in which
every word has an answer of its own by chance (Hewitt & Liang 2019).

L layers, W words, D hidden size.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.files import whole_file
from bertloom.inspect import bootstrap
from bertloom.inspect.bootstrap import Array
from bertloom.inspect.probe import reading
from bertloom.inspect.probe.reading import Question, Table, share
from bertloom.tasks.metrics import require_libraries
from bertloom.text.sources import ReadCounts
from bertloom.text.trees import Tree

# What is asked of a word: its part of speech, its relation to its head, how many words stand between it and the root.
TASKS = ("part of speech", "relation", "depth")
# The same as a table's columns.
SHORT = ("tag", "relation", "depth")
# Words that a probe learns from at most, and the share of sentences it is measured on where no others are given.
MOST_WORDS, HELD_OUT = 20_000, 0.2
# Inverse strength of the penalty on standardised features, and steps of the solver.
STRENGTH, ITERATIONS = 0.01, 200


@dataclass(frozen=True)
class Probed:
    """A task at a layer, 0 being the embeddings: the share of words that are right (of depth Spearman's correlation),
    with the bootstrap's bounds over sentences, and the same of the control task."""

    task: str
    layer: int
    score: float
    interval: tuple[float, float]
    control: float

    @property
    def selectivity(self) -> float:
        """How far the score is above what the probe can learn by heart."""
        return self.score - self.control


@dataclass
class States:
    """Every task at every layer; `guesses` are the scores of each word's commonest answer; words learned and asked."""

    probes: list[Probed]
    guesses: dict[str, float]
    learned: int
    asked: int


@dataclass
class _Words:
    """Words of some sentences: states (1 + L, W, D), those of each one's head, and its answers."""

    states: list[Array]
    heads: list[Array]
    answers: dict[str, list[Any]]
    forms: list[str]
    sentences: list[int]


def states(
    model: Model,
    given: Iterable[Tree],
    counts: ReadCounts,
    learn: Iterable[Tree] | None = None,
    seed: int = 0,
    watch: Callable[[str], None] = lambda what: None,
) -> States:
    """Probes that learn from `learn`, or from four in five sentences of `given`, and are asked the rest."""
    require_libraries()
    trees = list(given)
    if learn is None:
        order = np.random.default_rng(seed).permutation(len(trees))
        aside = set(order[: max(1, round(HELD_OUT * len(trees)))].tolist())
        learn = [tree for number, tree in enumerate(trees) if number not in aside]
        trees = [tree for number, tree in enumerate(trees) if number in aside]
    learned, asked = _words(model, learn, counts), _words(model, trees, counts)
    if not learned.forms or not asked.forms:
        raise InputError(f"{len(learned.forms)} words to learn from and {len(asked.forms)} to ask given, some needed")
    if len(set(learned.answers[TASKS[0]])) < 2 or len(set(learned.answers[TASKS[1]])) < 2:
        raise InputError("words of one part of speech or one relation alone given, two of each needed")
    controls = {task: _by_chance(task, learned, asked, seed) for task in TASKS}
    probes = []
    for layer in range(len(learned.states)):
        for task in TASKS:
            watch(f"{task}, layer {layer}")
            known, new = _features(task, learned, layer), _features(task, asked, layer)
            hits, score = _asked(task, known, new, learned.answers[task], asked.answers[task])
            _, control = _asked(task, known, new, *controls[task])
            probes.append(Probed(task, layer, score, _interval(task, hits, asked, seed), control))
    guesses = {task: _guess(task, learned, asked) for task in TASKS}
    return States(probes, guesses, len(learned.forms), len(asked.forms))


def _words(model: Model, trees: Iterable[Tree], counts: ReadCounts) -> _Words:
    """The first words of trees, the root left out, as every word is asked for its head's relation too."""
    states: list[Array] = []
    heads: list[Array] = []
    found = _Words([], [], {task: [] for task in TASKS}, [], [])
    for number, one in enumerate(reading.seen(model, trees, counts)):
        tree = one.source
        # A word that the vocabulary makes nothing of has no state.
        vectors = np.einsum("wt,ltd->lwd", np.nan_to_num(to := reading.means(one.to_words(tree.spans))), one.states)
        there = ~np.isnan(to[:, 0])
        chosen = [word for word, head in enumerate(tree.heads) if head >= 0 and there[word] and there[head]]
        if not chosen:
            continue
        states.append(vectors[:, chosen])
        heads.append(vectors[:, [tree.heads[word] for word in chosen]])
        depths = tree.depths
        for word in chosen:
            for task, answer in zip(TASKS, (tree.tags[word], tree.relations[word], depths[word])):
                found.answers[task].append(answer)
            # What the model is given of a word is what it can know by heart.
            found.forms.append(" ".join(map(str, one.example.input_ids[to[word] > 0])))
            found.sentences.append(number)
        if len(found.forms) >= MOST_WORDS:
            break
    if states:
        found.states, found.heads = (list(np.concatenate(one, 1)) for one in (states, heads))
    return found


def _features(task: str, words: _Words, layer: int) -> Array:
    """(W, D), or (W, 2 D) of a word and its head."""
    if task == "relation":
        return np.concatenate([words.states[layer], words.heads[layer]], 1)
    return words.states[layer]


def _asked(task: str, known: Array, new: Array, answers: Sequence[Any], wanted: Sequence[Any]) -> tuple[Array, float]:
    """What a linear model that learned says of new words, (W,) right or not or numbers, and its score."""
    from scipy.stats import spearmanr
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if task == "depth":
        # The penalty is a share of the words, as the other's is.
        numbers = make_pipeline(StandardScaler(), Ridge(1 / STRENGTH)).fit(known, np.array(answers, np.float64))
        said = numbers.predict(new)
        return said, float(spearmanr(said, wanted).statistic) if len(set(wanted)) > 1 else 0.0
    classes = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=ITERATIONS, tol=1e-3))
    right = classes.fit(known, answers).predict(new) == np.array(wanted)
    return right, float(right.mean())


def _by_chance(task: str, learned: _Words, asked: _Words, seed: int) -> tuple[list[Any], list[Any]]:
    """Answers of a control task: each word, wherever it stands, has one that is drawn as often as it is given."""
    pool = sorted(learned.answers[task])

    def drawn(form: str) -> Any:
        return pool[np.random.default_rng([seed, zlib.crc32(form.encode())]).integers(len(pool))]

    return [drawn(form) for form in learned.forms], [drawn(form) for form in asked.forms]


def _interval(task: str, hits: Array, asked: _Words, seed: int) -> tuple[float, float]:
    """The bootstrap's bounds over sentences."""
    sentences = np.unique(asked.sentences, return_inverse=True)[1]
    if task != "depth":
        sums, sizes = np.bincount(sentences, hits), np.bincount(sentences)
        low, high = reading.bounds(sums[:, None], sizes, seed)
        return float(low[0]), float(high[0])
    from scipy.stats import rankdata

    # Of ranks that are kept, correlations of draws are sums over sentences.
    first, second = (rankdata(one) for one in (hits, asked.answers["depth"]))
    first, second = first - first.mean(), second - second.mean()
    parts = np.stack([np.bincount(sentences, one) for one in (first * second, first**2, second**2)], 1)
    drawn = bootstrap.sums(parts, seed)
    low, high = bootstrap.bounds((drawn[:, 0] / np.sqrt(drawn[:, 1] * drawn[:, 2] + 1e-12))[:, None])
    return float(low[0]), float(high[0])


def _guess(task: str, learned: _Words, asked: _Words) -> float:
    """The score of each word's commonest answer where it was learned, of other words the commonest of all."""
    by_form: dict[str, Counter[Any]] = defaultdict(Counter)
    for form, answer in zip(learned.forms, learned.answers[task]):
        by_form[form][answer] += 1
    common = Counter(learned.answers[task]).most_common(1)[0][0]
    said = [by_form[form].most_common(1)[0][0] if form in by_form else common for form in asked.forms]
    if task == "depth":
        from scipy.stats import spearmanr

        return float(spearmanr(said, asked.answers[task]).statistic) if len(set(said)) > 1 else 0.0
    return float(np.mean([one == wanted for one, wanted in zip(said, asked.answers[task])]))


def draw(found: States, path: Path, without: States | None = None) -> None:
    """Each task's scores and selectivities by layer."""
    from matplotlib.figure import Figure

    figure = Figure((10, 3.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(TASKS)), TASKS):
        own = [one for one in found.probes if one.task == task]
        layers = [one.layer for one in own]
        axes.plot(layers, [one.score for one in own], "o-", label="right" if task != "depth" else "correlation")
        low, high = zip(*(one.interval for one in own))
        axes.fill_between(layers, low, high, alpha=0.2)
        axes.plot(layers, [one.control for one in own], "s--", label="control task")
        if without is not None:
            axes.plot(layers, [one.score for one in without.probes if one.task == task], "^:", label="random weights")
        axes.axhline(found.guesses[task], color="grey", linewidth=1, label="the word alone")
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("layer", fontsize=8)
        axes.set_ylim(0, 1)
        axes.legend(fontsize=6)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=150)


def told(found: States) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "words_learned": found.learned, "words_asked": found.asked, "word_alone": found.guesses,
        "probes": [
            {
                "task": one.task, "layer": one.layer, "score": one.score, "interval": reading.plain(one.interval),
                "control": one.control, "selectivity": one.selectivity,
            }
            for one in found.probes
        ],
    }  # fmt: skip


def of_file(model: Model, asked: Question) -> States:
    """Of the trees of a file, and of those that are learned from."""
    learn = None if asked.train is None else asked.trees(asked.train)
    return states(model, asked.trees(), asked.counts, learn, asked.seed, asked.watch)


def tables(found: States, without: States | None = None) -> list[Table]:
    """A layer a row; of every task the score and the selectivity, and what random weights tell."""
    random = {(one.task, one.layer): one.score for one in without.probes} if without else {}
    columns = ["layer", *(cell for task in SHORT for cell in (task, "above", *["new"] * bool(without)))]
    rows = []
    for layer in sorted({one.layer for one in found.probes}):
        own = {one.task: one for one in found.probes if one.layer == layer}
        cells = []
        for task in TASKS:
            cells.append(f"{100 * own[task].score:.1f}" if without else share(own[task].score, own[task].interval))
            cells.append(f"{100 * own[task].selectivity:.1f}")
            cells += [f"{100 * random[task, layer]:.1f}"] if without else []
        rows.append((layer or "words", *cells))
    bounds = "" if without else "± is half of the 95 % interval. "
    alone = ", ".join(f"{task} {100 * score:.1f}" for task, score in found.guesses.items())
    remark = (
        f"{bounds}`above` is how far above the control task (selectivity). Depth is Spearman's correlation. "
        f"Of the word alone its commonest answer: {alone}"
    )
    title = f"Linear probes that learned from {found.learned:,} words, asked {found.asked:,}; in %"
    return [Table(title, columns, rows, remark)]
