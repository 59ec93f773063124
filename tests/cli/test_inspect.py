"""`probe` and `bias` as users type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import Typed

TREES = "".join(
    "\n".join(
        f"{n}\t{word}\t_\t{tag}\t_\t_\t{head}\t{relation}\t_\t_"
        for n, (word, tag, head, relation) in enumerate(sentence, 1)
    )
    + "\n\n"
    for sentence in (
        [("The", "DET", 2, "det"), ("cat", "NOUN", 3, "nsubj"), ("sleeps", "VERB", 0, "root")],
        [
            ("Every", "DET", 2, "det"),
            ("dog", "NOUN", 3, "nsubj"),
            ("barks", "VERB", 0, "root"),
            (".", "PUNCT", 3, "punct"),
        ],
    )
    * 8
)
# A sentence of Korean UD: words with their particles, and no space between a word and its mark.
KOREAN = """# text = 고양이가 집에서 잔다.
1\t고양이가\t고양이+가\tNOUN\tNNG+JKS\t_\t3\tnsubj\t_\t_
2\t집에서\t집+에서\tADV\tNNG+JKB\t_\t3\tobl\t_\t_
3\t잔다\t자+ㄴ다\tVERB\tVV+EF\t_\t0\troot\t_\tSpaceAfter=No
4\t.\t.\tPUNCT\tSF\t_\t3\tpunct\t_\t_

"""


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    (tmp_path / "trees.conllu").write_text(TREES)
    return tmp_path / "trees.conllu"


@pytest.fixture
def mentions(tmp_path: Path) -> Path:
    (tmp_path / "mentions.txt").write_text(
        "1 [The cat] sees the dog when [it] sleeps.\n2 The cat sees [the dog] when [it] barks.\n"
    )
    return tmp_path / "mentions.txt"


def test_every_probe(typed: Typed, tiny_model: Path, trees: Path, mentions: Path, tmp_path: Path) -> None:
    asked = {
        "heads": (trees, "--least", 1, "--control"), "clusters": (trees,), "states": (trees, "--control"),
        "coreference": (mentions, "--control"), "importance": (trees,),
    }  # fmt: skip
    for what, words in asked.items():
        picture = tmp_path / f"{what}.png"
        code, out, err = typed("probe", tiny_model, *words, "--what", what, "--output", picture)
        assert code == 0, err
        assert len(out.splitlines()) > 5
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert str(picture) in err
        found = typed.json("probe", tiny_model, *words, "--what", what)
        assert found["what"] == what
        assert ("control" in found) == ("--control" in words)
    assert typed.json("probe", tiny_model, trees, "--least", 1)["what"] == "heads"
    assert typed.json("probe", tiny_model, mentions)["what"] == "coreference"
    assert typed.json("probe", tiny_model, mentions, "--what", "importance")["texts"] == 2


def test_korean_trees_are_read(typed: Typed, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "ko.conllu").write_text(KOREAN * 20)
    found = typed.json("probe", tiny_model, tmp_path / "ko.conllu")
    relations = {one["relation"]: one for one in found["relations"]}
    assert set(relations) == {"all", "nsubj", "obl"}
    assert (relations["obl"]["n"], relations["obl"]["offset"], relations["obl"]["offset_accuracy"]) == (20, 1, 1.0)
    assert (found["sentences"], found["words"]) == (20, 80)


def test_what_a_probe_refuses(typed: Typed, tiny_model: Path, trees: Path, mentions: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.conllu").write_text("1\tThe\t_\n")
    for words, said in (
        ((mentions, "--what", "heads"), "mentions.txt: given, a file of CoNLL-U in .conllu allowed for heads"),
        ((trees, "--what", "coreference"), "trees.conllu: trees given, texts with mentions in [brackets]"),
        ((trees, "--train", "x.conllu"), "train: x.conllu given, which is for --what states alone"),
        ((trees, "--what", "clusters", "--control"), "control: given, which is for heads, states and coreference"),
        ((tmp_path / "bad.conllu",), "bad.conllu:1: 3 columns given, 10 of CoNLL-U allowed"),
        ((tmp_path / "none.conllu",), "none.conllu: no such file"),
        ((tmp_path / "none.txt",), "none.txt: no such file"),
        ((trees, "--output", "x.gif"), "output: 'x.gif' given, a name in .png or .svg allowed"),
        ((trees, "--output", trees), "output: 'trees.conllu' given"),
        ((trees, "--least", 0), "least: 0 given"),
        ((trees, "--least", 1000), "trees.conllu: no relation of 1000 words or more"),
        ((trees, "--what", "states", "--least", 3), "least: 3 given, which is for --what heads alone"),
    ):
        assert said in typed.refused("probe", tiny_model, *words)


def test_bias_before_and_after(typed: Typed, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    rows = "The cat sleeps.,The dog sleeps.,animal,stereo\nA cow moos.,A duck moos.,animal,antistereo\n"
    file.write_text("sent_more,sent_less,bias_type,stereo_antistereo\n" + rows * 6)
    code, out, err = typed("bias", tiny_model, "--suite", "crows-pairs", "--data", file, "--after", tiny_model)
    assert code == 0, err
    assert "crows-pairs: 12 items" in out
    assert "+0.0 ± 0.0" in out
    assert "Without preference: stereotype, % 50." in err
    assert "Blodgett" in err
    found = typed.json("bias", tiny_model, "--suite", "crows-pairs", "--data", file)
    first = found["rows"][0]
    assert (first["group"], first["measure"], first["n"], first["neutral"]) == ("all", "stereotype, %", 12, 50.0)
    ((low, high),) = (one["interval"] for one in first["figures"])
    assert low <= first["figures"][0]["value"] <= high
    assert first["changes"] == []
    assert found["held_out_loss"] is None
    assert "crowd workers" in found["does_not_show"]


def test_bias_with_the_held_out_loss(
    typed: Typed, tiny_model: Path, text_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.txt").write_text("cat dog\n")
    corpus = tmp_path / "corpus"
    assert typed("prepare", text_file, "--tokenizer", tokenizer_folder, "--output", corpus, "--held-out", 0.1)[0] == 0
    words = ("bias", tiny_model, "--template", "The {} sleeps.", "--data", tmp_path / "pairs.txt", "--corpus", corpus)
    (loss,) = typed.json(*words)["held_out_loss"]
    measured = typed.json("evaluate", tiny_model, "--corpus", corpus)["measures"]["mlm"]["loss"]
    assert loss == pytest.approx(measured)
    code, out, _ = typed(*words, "--after", tiny_model)
    assert code == 0
    assert f"{loss:.3f}" in out
    assert typed.json(*words[:-1], corpus / "held-out")["held_out_loss"] == [pytest.approx(loss)]
    assert typed("prepare", text_file, "--tokenizer", tokenizer_folder, "--output", tmp_path / "all")[0] == 0
    assert "corpus without a held-out part given" in typed.refused(*words[:-1], tmp_path / "all")


def test_counterfactual_text(typed: Typed, text_file: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("cat dog\n")
    (tmp_path / "names.txt").write_text("Nobody\tEvery\n")
    words = ("prepare", text_file, "--tokenizer", tokenizer_folder, "--counterfactual", tmp_path / "pairs.txt")
    found = typed.json(*words, "--names", tmp_path / "names.txt", "--output", tmp_path / "c")
    del found["counterfactual"]["fingerprint"]
    assert found["counterfactual"] == {"words": 2, "names": 2, "documents": found["documents"] - 300}
    assert found["documents"] > 400
    code, out, _ = typed(*words, "--output", tmp_path / "d")
    assert code == 0
    assert "changed copies" in out
    (tmp_path / "bad.txt").write_text("cat dog cow\n")
    assert "bad.txt:1: 'cat dog cow' given, two different words" in typed.refused(
        *words[:-1], tmp_path / "bad.txt", "--output", tmp_path / "e"
    )
    assert not (tmp_path / "e").exists()


def test_what_bias_refuses(typed: Typed, tiny_model: Path, minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "x.json").write_text(json.dumps({"data": {}}))
    (tmp_path / "pairs.txt").write_text("cat dog\n")
    for words, said in (
        ((tiny_model,), "bias: give either --suite NAME --data FILE, or --template"),
        ((tiny_model, "--suite", "weat"), "bias: no --data given"),
        ((tiny_model, "--suite", "crows-pairs", "--data", tmp_path / "x.csv"), "x.csv:2: no column 'sent_more'"),
        ((tiny_model, "--suite", "stereoset", "--data", tmp_path / "x.json"), "x.json: is not StereoSet"),
        ((tiny_model, "--suite", "winobias", "--data", tmp_path), "files pro_stereotyped… with anti_stereotyped…"),
        ((tiny_model, "--suite", "seat", "--data", tmp_path / "x.json"), "x.json: is no association test"),
        ((tiny_model, "--template", "x", "--data", tmp_path / "pairs.txt"), "template: 'x' given"),
        ((minilm, "--template", "{} sleeps", "--data", tmp_path / "pairs.txt"), "no trained mlm head"),
    ):
        assert said in typed.refused("bias", *words)
