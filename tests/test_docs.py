"""Every Python block of the README and the docs runs, in one folder where its files are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bertloom.corpus import Corpus
from bertloom.pretraining import pretrain
from bertloom.train.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if "import bertloom" in block and page.name != "architecture.md"
]


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


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
