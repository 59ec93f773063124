"""Metrics by the libraries the field uses; the official scripts of SQuAD and KorQuAD, which no library carries."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertloom.text.sources import extra

Array = npt.NDArray[Any]


def require_libraries() -> None:
    """Raise now, and not after an epoch, where a library is missing."""
    for module in ("sklearn.metrics", "scipy.stats", "seqeval.metrics"):
        extra(module, "finetune")


def classification(gold: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, F1 (of the second of two labels; micro; macro over labels that occur), Matthews', by scikit-learn."""
    metrics = extra("sklearn.metrics", "finetune")
    scores = {"accuracy": metrics.accuracy_score(gold, given)}
    if len(labels) == 2:
        scores["f1"] = metrics.f1_score(gold, given, pos_label=labels[1], average="binary", zero_division=0.0)
    scores["f1_macro"] = metrics.f1_score(gold, given, average="macro", zero_division=0.0)
    scores["f1_micro"] = metrics.f1_score(gold, given, average="micro", zero_division=0.0)
    # Of one label alone scikit-learn warns, and says 0.
    scores["matthews"] = metrics.matthews_corrcoef(gold, given) if len({*gold, *given}) > 1 else 0.0
    return {name: float(value) for name, value in scores.items()}


def confusion(gold: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> Array:
    """(K, K) how often each gold label (row) was given each label (column)."""
    found: Array = extra("sklearn.metrics", "finetune").confusion_matrix(gold, given, labels=list(labels))
    return found


def several_labels(gold: Array, given: Array) -> dict[str, float]:
    """F1 (micro, macro, by sample) and the share of rows with exactly the right labels, of (n, K) booleans."""
    metrics = extra("sklearn.metrics", "finetune")
    scores = {
        f"f1_{average}": metrics.f1_score(gold, given, average=average, zero_division=0.0)
        for average in ("micro", "macro", "samples")
    }
    return {name: float(value) for name, value in {**scores, "exact": metrics.accuracy_score(gold, given)}.items()}


def correlation(gold: Sequence[float], given: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation, their mean, and the mean squared error; 0 where a side is constant."""
    stats = extra("scipy.stats", "finetune")
    if len(gold) < 2 or np.ptp(gold) == 0 or np.ptp(given) == 0:
        pearson = spearman = 0.0
    else:
        pearson, spearman = stats.pearsonr(gold, given).statistic, stats.spearmanr(gold, given).statistic
    error = float(np.mean((np.asarray(gold) - np.asarray(given)) ** 2))
    return {
        "pearson": float(pearson),
        "spearman": float(spearman),
        "pearson_spearman": float(pearson + spearman) / 2,
        "mse": error,
    }


# What seqeval's report holds beside the types.
AVERAGES = ("micro avg", "macro avg", "weighted avg", "samples avg")


def entities(gold: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> dict[str, float]:
    """Entity F1 of IOB2 tags by seqeval: strict, conlleval-like, macro over types (strict), and of each type."""
    metrics, scheme = extra("seqeval.metrics", "finetune"), extra("seqeval.scheme", "finetune").IOB2
    strict = {"mode": "strict", "scheme": scheme, "zero_division": 0.0}
    # seqeval fails on a side without any entity.
    if not any(tag != "O" for tags in gold for tag in tags):
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0, "f1_conlleval": 0.0, "f1_macro": 0.0}
    report = metrics.classification_report(gold, given, output_dict=True, **strict)
    scores = {
        "f1": metrics.f1_score(gold, given, **strict),
        "precision": metrics.precision_score(gold, given, **strict),
        "recall": metrics.recall_score(gold, given, **strict),
        "f1_conlleval": metrics.f1_score(gold, given, zero_division=0.0),
        "f1_macro": metrics.f1_score(gold, given, average="macro", **strict),
    }
    types = sorted(name for name in report if name not in AVERAGES)
    return {
        **{name: float(value) for name, value in scores.items()},
        **{f"f1/{name}": float(report[name]["f1-score"]) for name in types},
    }


def single_tags(gold: Iterable[Sequence[str]], given: Iterable[Sequence[str]]) -> dict[str, float]:
    """Accuracy and macro F1 over single tags."""
    metrics = extra("sklearn.metrics", "finetune")
    flat = [[tag for tags in side for tag in tags] for side in (gold, given)]
    return {
        "accuracy": float(metrics.accuracy_score(*flat)),
        "f1_macro_tags": float(metrics.f1_score(*flat, average="macro", zero_division=0.0)),
    }


def character_f1(gold: Iterable[Sequence[str]], given: Iterable[Sequence[str]], labels: Sequence[str]) -> float:
    """KLUE's macro F1 over all labels: one that stands nowhere is right, and so are a sentence's two ends, as O."""
    ends = ["O", "O"]
    flat = [[tag for tags in side for tag in (*tags, *ends)] for side in (gold, given)]
    score = extra("sklearn.metrics", "finetune").f1_score
    return float(score(*flat, labels=list(labels), average="macro", zero_division=1.0))


# What SQuAD's script leaves out of answers before it compares them, and what KorQuAD's does.
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
QUOTES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def squad_tokens(text: str) -> list[str]:
    """An answer's words without case, punctuation and articles (SQuAD's `evaluate-v2.0.py`)."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def korquad_words(text: str) -> list[str]:
    """An answer's words without quotes, brackets, case and punctuation (KorQuAD's `evaluate-v1.0.py`)."""
    return text.translate(QUOTES).lower().translate(PUNCTUATION).split()


@dataclass(frozen=True)
class Script:
    """How an official script compares two answers: by the same `words`, and by the overlap of their `parts`."""

    words: Callable[[str], list[str]]
    parts: Callable[[list[str]], Sequence[str]]

    def exact(self, gold: str, given: str) -> float:
        """Whether the words are the same."""
        return float(self.words(gold) == self.words(given))

    def f1(self, gold: str, given: str) -> float:
        """Overlap of parts; 0 where either has none (SQuAD 1.1's script, KorQuAD's)."""
        wanted, got = self.parts(self.words(gold)), self.parts(self.words(given))
        common = (Counter(wanted) & Counter(got)).total()
        if not common:
            return 0.0
        precision, recall = common / len(got), common / len(wanted)
        return 2 * precision * recall / (precision + recall)

    def f1_or_nothing(self, gold: str, given: str) -> float:
        """The same, but where either has no words, whether both have none (SQuAD 2.0's script)."""
        wanted, got = self.words(gold), self.words(given)
        return self.f1(gold, given) if wanted and got else float(wanted == got)


# KorQuAD counts characters.
SCRIPTS = {"squad": Script(squad_tokens, list), "korquad": Script(korquad_words, "".join)}
Scorer = Callable[[str, str], float]


def best_over(golds: Sequence[Sequence[str]], given: Sequence[str], scorer: Scorer) -> Array:
    """(n,) of each answer its best score against any of its gold answers."""
    return np.array([max(scorer(gold, answer) for gold in answers) for answers, answer in zip(golds, given)])


def answer_scores(golds: Sequence[Sequence[str]], given: Sequence[str], exact: Scorer, f1: Scorer) -> dict[str, Array]:
    """Exact and F1 of each answer, (n,) each; a question without a gold answer has the empty one."""
    wanted = [list(answers) or [""] for answers in golds]
    return {"exact": best_over(wanted, given, exact), "f1": best_over(wanted, given, f1)}


def with_nothing(
    golds: Sequence[Sequence[str]], given: Sequence[str], null_scores: Sequence[float], threshold: float, script: Script
) -> dict[str, float]:
    """The figures of SQuAD 2.0's script, in percent: `given` are the answers where there has to be one.

    A question whose null score lies above the threshold is answered by nothing; `best_…` are the best thresholds in
    hindsight.
    """
    # Answers of nothing but articles and punctuation are none.
    wanted = [[answer for answer in answers if script.words(answer)] for answers in golds]
    raw = answer_scores(wanted, given, script.exact, script.f1_or_nothing)
    # As the script has it: which questions have an answer is asked of the text as given.
    answered = np.array([bool(answers) for answers in golds], bool)
    nulls = np.asarray(null_scores, np.float64)
    scores: dict[str, float] = {}
    kept = {name: np.where(nulls > threshold, ~answered, values) for name, values in raw.items()}
    for prefix, chosen in (("", np.ones(len(answered), bool)), ("HasAns_", answered), ("NoAns_", ~answered)):
        if chosen.any():
            scores |= {prefix + name: 100 * float(values[chosen].mean()) for name, values in kept.items()}
            scores[f"{prefix}total"] = int(chosen.sum())
    for name, values in raw.items():
        scores[f"best_{name}"], scores[f"best_{name}_thresh"] = best_threshold(values, given, nulls, answered)
    return scores


def best_threshold(values: Array, given: Sequence[str], nulls: Array, answered: Array) -> tuple[float, float]:
    """The best mean score in percent over all thresholds of the null score, and that threshold; 0 with no answers."""
    order = np.argsort(nulls, kind="stable")
    # Answered by nothing, a question without an answer is right; each one answered in turn gains or loses.
    gains = np.where(answered, values, [-1.0 if answer else 0.0 for answer in given])[order]
    totals = int((~answered).sum()) + np.cumsum(gains)
    if not len(totals) or totals.max() <= (~answered).sum():
        return 100 * float((~answered).mean()) if len(totals) else 0.0, 0.0
    best = int(totals.argmax())
    return 100 * float(totals[best]) / len(values), float(nulls[order[best]])


def means(scores: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, float]:
    """Means in percent, under other names."""
    return {names[name]: 100 * float(values.mean()) for name, values in scores.items()}


def calibration(logits: Sequence[Array], gold: Sequence[int], temperature: float = 1.0, bins: int = 15) -> float:
    """Expected calibration error: how far confidence lies from accuracy, mean over `bins` (Guo et al. 2017)."""
    choices, wanted = _together(logits), np.asarray(gold, int)
    sure = np.exp(_log_softmax(choices / temperature).max(1))
    hits = (choices.argmax(1) == wanted).astype(float)
    owner = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(hits[owner == one].sum() - sure[owner == one].sum()) for one in range(bins)]
    return float(sum(gaps) / max(1, len(sure)))


def _together(logits: Sequence[Array]) -> Array:
    """(n, K) of decisions among up to K choices each; what is no choice is minus infinity."""
    made = np.full((len(logits), max(map(len, logits), default=1)), -np.inf)
    for row, one in zip(made, logits):
        row[: len(one)] = one
    return made


def _log_softmax(choices: Array) -> Array:
    shifted = choices - choices.max(1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


# Smallest and largest temperature.
LIMITS = (0.05, 20.0)


def best_temperature(logits: Sequence[Array], gold: Sequence[int]) -> float:
    """The temperature under which the gold choices are likeliest (Guo et al. 2017), within `LIMITS`; 1 of no decision.

    Where no choice is right (-1), it is that the best one is wrong.
    """

    choices, wanted = _together(logits), np.asarray(gold, int)
    if not len(wanted):
        return 1.0
    known = wanted >= 0

    def loss(log: float) -> float:
        shares = _log_softmax(choices / np.exp(log))
        # Below 0, since the only choice there is may be the wrong one.
        missed = np.log(-np.expm1(np.minimum(-1e-9, shares[~known].max(1, initial=-np.inf))))
        return -float(shares[known, wanted[known]].sum() + missed.sum())

    bounds = tuple(np.log(LIMITS))
    return float(np.exp(extra("scipy.optimize", "finetune").minimize_scalar(loss, bounds=bounds, method="bounded").x))
