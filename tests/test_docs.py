"""Every Python block of the README and the docs runs, and every command of the task pages, in one folder."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertloom.cli import main
from bertloom.corpus import Corpus
from bertloom.pretraining import pretrain
from bertloom.tasks import TASKS
from bertloom.train.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if "import bertloom" in block and page.name != "architecture.md" and page.parent.name != "tasks"
]
TASK_PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))


@pytest.fixture(scope="module")
def desk(corpus: Corpus, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(corpus.path, folder / "corpus")
    shutil.copy(text_file, folder / "text.txt")
    pretrain(Recipe(corpus=str(folder / "corpus"), output=str(folder / "run"), model="tiny", steps=2, batch_size=4))
    return folder


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_run(block: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    exec(compile(block, "docs", "exec"), {})


@pytest.fixture(scope="module")
def task_desk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    recipe = Recipe(corpus=str(corpus.path), output=str(folder / "run"), model="mini", steps=1, batch_size=2)
    pretrain(recipe)
    return folder


@pytest.mark.parametrize("page", TASK_PAGES, ids=lambda page: page.stem)
def test_task_pages_run(
    page: Path, task_desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a shell would run them, but for `bertloom` itself, which runs in this process; what it prints is there too."""
    monkeypatch.chdir(task_desk)
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        if kind == "python":
            exec(compile(block, str(page), "exec"), {})
            continue
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            before, ours, after = command.rpartition("bertloom ")
            words, _, shown = after.partition("\n")
            shell = before.rstrip(" |\n") if ours else command
            given = subprocess.run(["bash", "-ec", shell], check=True, capture_output=True).stdout
            if ours:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(given))))
                with pytest.raises(SystemExit) as left:
                    main(shlex.split(words))
                assert left.value.code == 0, command
                printed = capsys.readouterr().out
                for line in shown.splitlines():
                    pattern = ".*".join(map(re.escape, line.split("…")))
                    assert re.search(f"^{pattern}$", printed, re.MULTILINE), f"{line!r} is not in {printed}"


def test_every_task_has_a_page() -> None:
    assert [page.stem for page in TASK_PAGES] == sorted(TASKS)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
