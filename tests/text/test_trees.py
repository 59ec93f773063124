from __future__ import annotations

from pathlib import Path

import pytest

from bertloom.errors import InputError
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.trees import Tree, trees

GOOD = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_
3.1\tnull\t_\t_\t_\t_\t_\t_\t_\t_

1\t한국어\t_\tNOUN\t_\t_\t0\troot\t_\t_
"""


def read(path: Path, text: str, on_bad: str = "error") -> tuple[list[Tree], ReadCounts]:
    path.write_text(text, encoding="utf-8")
    counts = ReadCounts()
    return list(trees(str(path), ReadOptions(on_bad=on_bad), counts)), counts  # type: ignore[arg-type]


def test_trees_are_read(tmp_path: Path) -> None:
    (first, second), _ = read(tmp_path / "a.conllu", GOOD)
    assert (first.words, first.heads, first.relations, first.tags) == (
        ("do", "n't", "go"), (2, 2, -1), ("aux", "advmod", "root"), ("AUX", "PART", "VERB"),
    )  # fmt: skip
    assert [first.text[start:end] for start, end in first.spans] == list(first.words)
    assert second.words == ("한국어",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\t3\taux", "\t9\taux", r"a.conllu:3: head '9' given, 0 to 3 but for 1 itself allowed"),
        ("\t3\taux", "\t1\taux", r"a.conllu:3: head '1' given"),
        ("\t3\taux", "\tx\taux", r"a.conllu:3: head 'x' given"),
        ("\t0\troot\t_\t_\n3.1", "\t1\troot\t_\t_\n3.1", r"a.conllu:3: 0 roots given, one allowed"),
        ("2\tn't", "4\tn't", r"a.conllu:4: id '4' given, 2 allowed"),
        ("\taux\t", "\t_\t", r"a.conllu:3: relation '_' given, a word allowed"),
        ("2\tn't\tnot\t", "2\tn't\t", r"a.conllu:4: 9 columns given, 10 of CoNLL-U allowed"),
    ],
)
def test_malformed_lines_are_named_or_left_out(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=said):
        read(tmp_path / "a.conllu", GOOD.replace(old, new))
    (left,), counts = read(tmp_path / "a.conllu", GOOD.replace(old, new), "skip")
    assert left.words == ("한국어",)
    assert counts.mended["malformed sentence, left out"] == 1


def test_a_circle_is_no_tree(tmp_path: Path) -> None:
    assert "\t3\tadvmod" in GOOD
    ring = GOOD.replace("\t3\taux", "\t2\taux").replace("\t3\tadvmod", "\t1\tadvmod")
    with pytest.raises(InputError, match=r"a.conllu:3: word 1 hangs in a circle, a tree allowed"):
        read(tmp_path / "a.conllu", ring)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a file of CoNLL-U in .conllu allowed"):
        read(tmp_path / "a.txt", GOOD)
