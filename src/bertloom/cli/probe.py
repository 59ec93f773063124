"""`bertloom probe`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertloom.cli.options import AModel, AsJson, Whole

if TYPE_CHECKING:
    from bertloom.inspect.probe.clusters import Clusters
    from bertloom.inspect.probe.coreference import Coreference
    from bertloom.inspect.probe.heads import Heads
    from bertloom.inspect.probe.importance import Importance
    from bertloom.inspect.probe.states import States

# Tasks of probes as a table's columns, as in `states.TASKS`.
SHORT = ("tag", "relation", "depth")
# How a table shows which way a head looks.
ARROWS = {"to head": "→ head", "to dependent": "head →", "to antecedent": "→ antecedent", "to mention": "antecedent →"}


def probe(
    model: AModel,
    file: str,
    *,
    what: Literal["heads", "clusters", "states", "coreference", "importance"] | None = None,
    train: str | None = None,
    output: Path | None = None,
    least: Whole | None = None,
    control: bool = False,
    seed: Whole = 0,
    encoding: str = "utf-8",
    on_bad: Literal["error", "skip"] = "error",
    json: AsJson = False,
) -> None:
    """What a model knows of language: what its heads look at, which are alike or needed, what its states tell.

    Parameters
    ----------
    file
        Trees in CoNLL-U; for coreference a text a line with mentions in [brackets]; for importance any text, or records
        of a fine-tuned model's task.
    what
        Relations that heads find, clusters of heads, linear probes of hidden states, mentions that heads resolve, or
        how much a loss needs each head. [default: heads of trees, importance if fine-tuned, else coreference]
    train
        Trees that probes of states learn from, at most 20,000 words. [default: four in five sentences of the file]
    output
        Picture to make, in .png or .svg.
    least
        Words that a relation must have in the file for heads. [default: 20]
    control
        Ask the same of the model with random weights too.
    seed
        Of the bootstrap that intervals come from, of splits and masks, and of the random weights.
    encoding
        Encoding of the file.
    on_bad
        Stop at a bad sentence, or leave it out and count it.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, say, say_counts
    from bertloom.errors import InputError
    from bertloom.inspect.probe.reading import require_picture, untrained
    from bertloom.text.conll import is_universal
    from bertloom.text.sources import ReadCounts, ReadOptions

    require_picture(output)
    if least is not None and least < 1:
        raise InputError(f"least: {least} given, at least 1 allowed")
    loaded = load(model)
    universal = is_universal(file)
    what = what or ("heads" if universal else "importance" if loaded.task else "coreference")
    if what == "coreference" and universal:
        raise InputError("trees given, texts with mentions in [brackets] allowed for coreference", file)
    if what in ("heads", "clusters", "states") and not universal:
        raise InputError(f"given, a file of CoNLL-U in .conllu allowed for {what}", file)
    if train is not None and what != "states":
        raise InputError(f"train: {train} given, which is for --what states alone")
    if least is not None and what != "heads":
        raise InputError(f"least: {least} given, which is for --what heads alone")
    if control and what in ("clusters", "importance"):
        raise InputError(f"control: given, which is for heads, states and coreference; {what} have none")
    counts, options = ReadCounts(), ReadOptions(encoding=encoding, on_bad=on_bad)
    asked = ASKED[what]
    settings: dict[str, Any] = {"least": least or 20, "seed": seed, "train": train}
    try:
        found = asked.found(loaded, file, options, counts, **settings)
    except InputError:
        # What was left out tells why nothing is left.
        say_counts(counts)
        raise
    without = asked.found(untrained(loaded, seed), file, options, ReadCounts(), **settings) if control else None
    say_counts(counts)
    if output is not None:
        asked.draw(found, output, without)
    if json:
        beside = {"control": asked.told(without)} if without else {}
        print_json({"what": what, **asked.told(found), **beside, "output": str(output) if output else None})
        return
    asked.table(found, without)
    if output is not None:
        say(f"A picture in {output}")


class _Heads:
    @staticmethod
    def found(model: Any, file: str, options: Any, counts: Any, *, least: int, seed: int, **_: Any) -> Heads:
        from bertloom.inspect.probe.heads import heads
        from bertloom.text.trees import trees

        made = heads(model, trees(file, options, counts), least, seed)
        counts.mended.update(made.counts.mended)
        return made

    @staticmethod
    def draw(found: Heads, path: Path, without: Heads | None) -> None:
        from bertloom.inspect.probe.heads import draw

        draw(found, path)

    @staticmethod
    def told(found: Heads) -> dict[str, Any]:
        from bertloom.inspect.probe.heads import told

        return told(found)

    @staticmethod
    def table(found: Heads, without: Heads | None) -> None:
        from bertloom.cli.show import print_table

        beside = {one.name: one.accuracy for one in without.relations} if without else {}
        columns = ["relation", "n", "head", "looks", "right, %", "step", "right, %"] + ["new, %"] * bool(without)
        rows = [
            (
                one.name, f"{one.count:,}", f"{one.head[0]}-{one.head[1]}", ARROWS[one.direction],
                _share(one.accuracy, one.interval), f"{one.offset:+d}",
                _share(one.offset_accuracy, one.offset_interval),
                *([f"{100 * beside[one.name]:.1f}"] if without else []),
            )
            for one in found.relations
        ]  # fmt: skip
        title = f"{found.sentences:,} sentences of {found.words:,} words; ± is half of the 95 % interval"
        print_table(title, columns, rows)


class _Clusters:
    @staticmethod
    def found(model: Any, file: str, options: Any, counts: Any, *, seed: int, **_: Any) -> Clusters:
        from bertloom.inspect.probe.clusters import clusters
        from bertloom.text.trees import trees

        return clusters(model, trees(file, options, counts), counts, seed)

    @staticmethod
    def draw(found: Clusters, path: Path, without: None) -> None:
        from bertloom.inspect.probe.clusters import draw

        draw(found, path)

    @staticmethod
    def told(found: Clusters) -> dict[str, Any]:
        from bertloom.inspect.probe.clusters import told

        return told(found)

    @staticmethod
    def table(found: Clusters, without: None) -> None:
        from bertloom.cli.show import print_table, say

        rows = []
        for cluster in range(1, int(found.labels.max()) + 1):
            own = found.labels == cluster
            names = [f"{layer + 1}-{head + 1}" for layer, head in zip(*own.nonzero())]
            habits = [f"{one[own].mean():.2f}" for one in found.habits.values()]
            rows.append((cluster, len(names), *habits, " ".join(names)))
        title = f"Heads that attend alike in {found.texts:,} texts; silhouette {found.silhouette:.2f}"
        print_table(title, ["cluster", "heads", *found.habits, "which"], rows)
        same, other = found.within_layers
        apart = [f"{what} {one:.3f}" for what, one in (("one layer", same), ("two layers", other)) if one is not None]
        say(f"Nats between two heads in the mean: of {', of '.join(apart)}.")


class _States:
    @staticmethod
    def found(model: Any, file: str, options: Any, counts: Any, *, seed: int, train: str | None, **_: Any) -> States:
        from bertloom.cli.show import remarks
        from bertloom.inspect.probe.states import states
        from bertloom.text.trees import trees

        learn = None if train is None else trees(train, options, counts)
        with remarks.status("Reading") as status:
            return states(model, trees(file, options, counts), counts, learn, seed, status.update)

    @staticmethod
    def draw(found: States, path: Path, without: States | None) -> None:
        from bertloom.inspect.probe.states import draw

        draw(found, path, without)

    @staticmethod
    def told(found: States) -> dict[str, Any]:
        from bertloom.inspect.probe.states import told

        return told(found)

    @staticmethod
    def table(found: States, without: States | None) -> None:
        from bertloom.cli.show import print_table, say
        from bertloom.inspect.probe.states import TASKS

        random = {(one.task, one.layer): one.score for one in without.probes} if without else {}
        columns = ["layer", *(cell for task in SHORT for cell in (task, "above", *["new"] * bool(without)))]
        rows = []
        for layer in sorted({one.layer for one in found.probes}):
            own = {one.task: one for one in found.probes if one.layer == layer}
            cells = []
            for task in TASKS:
                score = f"{100 * own[task].score:.1f}" if without else _share(own[task].score, own[task].interval)
                cells += [score, f"{100 * own[task].selectivity:.1f}"]
                cells += [f"{100 * random[task, layer]:.1f}"] if without else []
            rows.append((layer or "words", *cells))
        print_table(
            f"Linear probes that learned from {found.learned:,} words, asked {found.asked:,}; in %", columns, rows
        )
        bounds = "" if without else "± is half of the 95 % interval. "
        alone = ", ".join(f"{task} {100 * score:.1f}" for task, score in found.guesses.items())
        say(
            f"{bounds}`above` is how far above the control task (selectivity). Depth is Spearman's correlation. "
            f"Of the word alone its commonest answer: {alone}"
        )


class _Coreference:
    @staticmethod
    def found(model: Any, file: str, options: Any, counts: Any, *, seed: int, **_: Any) -> Coreference:
        from bertloom.inspect.probe.coreference import coreference
        from bertloom.text.bracketed import mentioned

        made = coreference(model, mentioned(file, options, counts), seed)
        counts.mended.update(made.counts.mended)
        return made

    @staticmethod
    def draw(found: Coreference, path: Path, without: Coreference | None) -> None:
        from bertloom.inspect.probe.coreference import draw

        draw(found, path)

    @staticmethod
    def told(found: Coreference) -> dict[str, Any]:
        from bertloom.inspect.probe.coreference import told

        return told(found)

    @staticmethod
    def table(found: Coreference, without: Coreference | None) -> None:
        from bertloom.cli.show import print_table

        rows = [(f"{found.best.name} ({ARROWS[found.way]})", _share(found.best.accuracy, found.best.interval))]
        if without is not None:
            rows += [
                (f"random weights, {one.name}", _share(one.accuracy, one.interval))
                for one in (without.best, without.others[0])
            ]
        rows[1:1] = [(found.others[0].name, _share(found.others[0].accuracy, found.others[0].interval))]
        rows += [(one.name, _share(one.accuracy, one.interval)) for one in found.others[1:]]
        title = f"{found.mentions:,} mentions in {found.texts:,} texts; ± is half of the 95 % interval"
        print_table(title, ["finds what is meant", "right, %"], rows)


class _Importance:
    @staticmethod
    def found(model: Any, file: str, options: Any, counts: Any, *, seed: int, **_: Any) -> Importance:
        from bertloom.inspect.probe.importance import of_task, of_texts

        return (
            of_task(model, file, counts) if model.task else of_texts(model, _texts(file, options, counts), counts, seed)
        )

    @staticmethod
    def draw(found: Importance, path: Path, without: None) -> None:
        from bertloom.inspect.probe.importance import draw

        draw(found, path)

    @staticmethod
    def told(found: Importance) -> dict[str, Any]:
        from bertloom.inspect.probe.importance import told

        return told(found)

    @staticmethod
    def table(found: Importance, without: None) -> None:
        from bertloom.cli.show import print_table

        names = [(f"{layer + 1}-{head + 1}", found.scores[layer, head]) for layer, head in found.order]
        ends = [*names[-1:-6:-1], *names[4::-1]] if len(names) > 10 else names[::-1]
        rows = [(name, f"{score:.4f}") for name, score in ends]
        print_table(f"Most and least important heads, {found.texts:,} texts", ["head", "nats a text"], rows)
        curve = [(f"{100 * share:.0f} %", f"{loss:.3f}") for share, loss in found.curve]
        print_table("With the least important taken away", ["heads gone", "loss"], curve)


ASKED: dict[str, Any] = {
    "heads": _Heads, "clusters": _Clusters, "states": _States, "coreference": _Coreference, "importance": _Importance,
}  # fmt: skip


def _texts(file: str, options: Any, counts: Any) -> Iterator[str]:
    """Of trees or bracketed texts each as it is written, of other files each paragraph."""
    from bertloom.text.conll import is_universal
    from bertloom.text.readers import passages
    from bertloom.text.sentences import sentences
    from bertloom.text.trees import trees

    if is_universal(file):
        yield from (tree.text for tree in trees(file, options, counts))
    else:
        for passage in passages([file], options, counts):
            yield from sentences(passage.paragraphs, "auto")


def _share(value: float, interval: tuple[float, float]) -> str:
    half = 50 * (interval[1] - interval[0])
    return f"{100 * value:.1f}" + (f" ± {half:.1f}" if half == half else "")
