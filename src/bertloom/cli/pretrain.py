"""`bertloom pretrain`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from bertloom.cli.flags import flags, given
from bertloom.cli.options import AsJson
from bertloom.train.recipe import Recipe, resolved

_KINDS = get_type_hints(Recipe)
Flags = flags("Flags", __name__, ((one, _KINDS[one.name]) for one in fields(Recipe)))


def pretrain(
    recipe: Annotated[Path | None, Parameter(name="")] = None,
    /,
    *,
    keys: Any = Flags(),  # noqa: B008
    json: AsJson = False,
) -> int:
    """Pretrain a BERT on a prepared corpus; the same command again goes on where it stopped.

    Parameters
    ----------
    recipe
        TOML file whose keys are the flags below; a flag stands over it.
    """
    from bertloom.api import load
    from bertloom.cli.show import command, print_json, say
    from bertloom.pretraining import pretrain as run
    from bertloom.train.metrics import FILE, read_metrics

    chosen = resolved(recipe, given(keys))
    watcher = Watcher(quiet=json)
    with watcher:
        finished = run(chosen, watch=watcher, warn=say)
    if json:
        last: dict[str, Any] = {}
        with (Path(chosen.output) / FILE).open("rb") as file:
            for row, _ in read_metrics(file):
                last |= row
        print_json(
            {
                "output": chosen.output,
                "finished": finished,
                "step": last.get("step"),
                "measures": last.get("held_out", {}),
            }
        )
    elif finished:
        fills = "mlm" in load(chosen.output).trained
        corpus = chosen.corpus or chosen.text_corpus
        asked = ("fill", "The [MASK] is here.") if fills else ("evaluate", "--corpus", corpus)
        say(f"Done: {chosen.output}/model; next: {command(asked[0], chosen.output, *asked[1:])}")
    else:
        say(f"Stopped and saved at step {watcher.done:,} of {chosen.steps:,}; the same command goes on from there.")
    return 0 if finished else 130


# The hint is a value made above, which a written annotation cannot name.
pretrain.__annotations__["keys"] = Annotated[Flags, Parameter(name="*")]


class Watcher:
    """The live bar of a run, with loss, tokens a second, time left, and a line for each measure."""

    def __init__(self, quiet: bool = False):
        from bertloom.cli.show import training_progress

        self.progress = training_progress()
        self.progress.disable = quiet
        self.task: Any = None
        self.done = 0
        self.speed = 0.0

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self.task is not None:
            self.progress.stop()

    def __call__(self, run: Any, step: Any, measures: dict[str, Any]) -> None:
        """Show a step, and its held-out measures above the bar."""
        self.done = step.number + 1
        now = step.tokens / step.seconds
        self.speed = now if not self.speed else 0.95 * self.speed + 0.05 * now
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in step.losses.items())
        said = f"{losses}  {self.speed:,.0f} tokens/s"
        if self.task is None:
            self.progress.start()
            start = {"completed": run.first, "said": said}
            self.task = self.progress.add_task(run.name, total=run.last, **start)
        self.progress.update(self.task, completed=self.done, said=said)
        for said in self.said(run, self.done, measures) if measures else []:
            self.progress.console.print(said, markup=False)

    def said(self, run: Any, done: int, measures: dict[str, Any]) -> list[str]:
        """Lines about held-out measures."""
        from bertloom.cli.show import percent

        parts = [f"{name} {one.loss:.3f}, {percent(one.accuracy)} right" for name, one in measures.items()]
        return [f"step {done:,}  held out: {'; '.join(parts)}"]
