from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bertloom.corpus import Corpus
from bertloom.corpus.arrays import ARRAYS, token_dtype
from bertloom.corpus.prepare import prepare
from bertloom.errors import InputError
from bertloom.files import sha256
from bertloom.text.counterfactual import Swapper
from bertloom.text.sources import ReadOptions
from bertloom.text.tokenizer import Tokenizer


def test_arrays_hold_the_text(corpus: Corpus, tokenizer: Tokenizer, text_file: Path) -> None:
    stories = text_file.read_text(encoding="utf-8").strip().split("\n\n")
    kept = [
        story for number, story in enumerate(stories) if not int((number + 1) * 0.1 + 0.5) > int(number * 0.1 + 0.5)
    ]
    sentences = [line for story in kept for line in story.split("\n")]
    want = tokenizer.ids(sentences)
    assert corpus.tokens.tolist() == [number for ids in want for number in ids]
    assert np.diff(corpus.sentences).tolist() == [len(ids) for ids in want]
    assert np.diff(corpus.documents).tolist() == [len(story.split("\n")) for story in kept]
    assert corpus.word_starts.tolist() == [not t.startswith("##") for ids in want for t in tokenizer.tokens(ids)]
    assert corpus.tokens.dtype == np.uint16
    assert isinstance(corpus.tokens, np.memmap)


def test_manifest(corpus: Corpus, tokenizer: Tokenizer) -> None:
    manifest = corpus.manifest
    assert manifest["tokens"] == len(corpus.tokens)
    assert manifest["vocabulary"]["fingerprint"] == tokenizer.fingerprint
    for name in ARRAYS:
        assert manifest["arrays"][name]["sha256"] == sha256(corpus.path / f"{name}.npy")
    report = manifest["report"]
    frequencies = np.bincount(corpus.tokens, minlength=len(tokenizer))
    assert frequencies.tolist() == corpus.frequencies.tolist()
    assert report["unused_tokens"] == (frequencies == 0).sum() - (frequencies[[0, 2, 3, 4]] == 0).sum() - (
        frequencies[1] == 0
    )
    assert sum(report["sentence_lengths"].values()) == manifest["sentences"]
    assert 0 <= report["unk_rate"] < 0.2


def test_ids_take_two_bytes_where_they_fit() -> None:
    assert [token_dtype(size).itemsize for size in (30522, 1 << 16, (1 << 16) + 1, 119547)] == [2, 2, 4, 4]


def test_held_out_documents_are_the_others(corpus: Corpus) -> None:
    aside = Corpus(corpus.path / "held-out")
    assert len(aside.documents) - 1 == 30
    assert len(corpus.documents) - 1 == 270
    assert aside.manifest["vocabulary"] == corpus.manifest["vocabulary"]


def test_sentences_and_documents_without_a_token_do_not_appear(tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "text.txt").write_text("The cat meows.\n\x00\u200b\nThe cat sleeps.\n\n\u200b\n\nThe cat eats.\n")
    made = prepare([tmp_path / "text.txt"], tokenizer_folder, tmp_path / "c")
    assert np.diff(made.documents).tolist() == [2, 1]
    assert min(np.diff(made.sentences)) > 0
    assert sum(made.manifest["report"]["sentence_lengths"].values()) == 3


def test_any_number_of_processes_gives_the_same_bytes(
    text_file: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertloom.corpus.prepare.PASSAGE_CHARACTERS", 1000)
    made = [prepare([text_file], tokenizer_folder, tmp_path / str(n), held_out=0.2, workers=n) for n in (1, 3)]
    assert made[0].manifest == made[1].manifest


def test_a_script_without_a_main_guard_is_not_needed_for_one_worker(
    text_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    code = "import sys, bertloom; bertloom.prepare([sys.argv[1]], *sys.argv[2:])"
    subprocess.run([sys.executable, "-c", code, str(text_file), str(tokenizer_folder), str(tmp_path / "c")], check=True)
    assert len(Corpus(tmp_path / "c").tokens)


def test_a_corpus_travels_to_other_processes_as_its_path(corpus: Corpus) -> None:
    again = pickle.loads(pickle.dumps(corpus))
    assert again.tokens.tolist() == corpus.tokens.tolist()
    assert len(pickle.dumps(corpus)) < 1000


def test_nothing_is_left_of_a_failure(tmp_path: Path, tokenizer_folder: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\n\n\xff\n")
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"bad\.txt:3"):
            prepare([bad], tokenizer_folder, tmp_path / "c", workers=workers)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt"]


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (" \n\n", {}, "no text in it"),
        ("one\n", {"held_out": 0.4}, "leaves no document held out"),
        ("one\n", {"held_out": 0.9}, "a share from 0 to 0.5"),
        ("one\n", {"workers": 0}, "at least 1"),
        ("one\n", {"language": "English"}, "language: 'English' given, auto or a code"),
    ],
)
def test_what_cannot_be_prepared(
    tmp_path: Path, tokenizer_folder: Path, content: str, settings: dict[str, float], said: str
) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match=said):
        prepare([tmp_path / "a.txt"], tokenizer_folder, tmp_path / "c", **{"workers": 1, **settings})  # type: ignore[arg-type]


def test_output_that_is_there_is_kept(corpus: Corpus, text_file: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError, match="not written over"):
        prepare([text_file], tokenizer_folder, corpus.path)


def test_damage_is_seen(text_file: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    made = prepare([text_file], tokenizer_folder, tmp_path / "c", workers=1)
    with pytest.raises(InputError, match="prepared with vocabulary"):
        made.require("another", "MODEL")
    tokens = tmp_path / "c" / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged"):
        Corpus(tmp_path / "c")
    np.save(tokens, np.zeros(3, np.uint16))
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        Corpus(tmp_path / "c")
    manifest = tmp_path / "c" / "manifest.json"
    stated = made.manifest
    vocabulary = stated["vocabulary"]
    for change in (
        {"tokens": "x"},
        {"documents": None},
        {"sources": 5},
        {"vocabulary": {**vocabulary, "size": 3}},
        {"vocabulary": {**vocabulary, "special": {}}},
        {"vocabulary": {**vocabulary, "special": {**vocabulary["special"], "mask": 99999}}},
    ):
        manifest.write_text(json.dumps({**stated, **change}))
        with pytest.raises(InputError, match=r"manifest\.json: is no corpus's manifest|special tokens"):
            Corpus(tmp_path / "c")
    manifest.write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="corpus format 99"):
        Corpus(tmp_path / "c")
    manifest.unlink()
    with pytest.raises(InputError, match="no prepared corpus"):
        Corpus(tmp_path / "c")


PEAK = """
import resource, sys
from bertloom.corpus.prepare import prepare
prepare([sys.argv[1]], sys.argv[2], sys.argv[3], workers=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(text_file: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    story = text_file.read_text(encoding="utf-8") + "\n"
    peaks = []
    for megabytes in (4, 40):
        file = tmp_path / f"{megabytes}.txt"
        with file.open("w", encoding="utf-8") as out:
            for _ in range(megabytes * 1_000_000 // len(story.encode())):
                out.write(story)
        command = [sys.executable, "-c", PEAK, str(file), str(tokenizer_folder), str(tmp_path / f"c{megabytes}")]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    assert peaks[1] < 1.2 * peaks[0]


def test_real_books_with_their_latin_1_lines(data: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    books = [
        data / "pretrain/books/Little-Women_514.txt",
        data / "pretrain/books/Alice-s-Adventures-in-Wonderland_11.txt",
    ]
    with pytest.raises(InputError, match=r"Little-Women_514\.txt:\d+: byte"):
        prepare(books, tokenizer_folder, tmp_path / "c")
    made = prepare(books, tokenizer_folder, tmp_path / "c", options=ReadOptions(fallback="latin-1"))
    assert made.manifest["documents"] == 2
    assert sum(made.manifest["mended"].values()) > 0


def test_killed_it_leaves_no_process_behind_and_its_rest_is_removed(
    text_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    words = ["prepare", "-", "--tokenizer", tokenizer_folder, "--output", tmp_path / "c", "--workers", 2]
    command = [sys.executable, "-m", "bertloom", *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(text_file.read_bytes() * 20)
        process.stdin.flush()
        while len(children := _children(process.pid)) < 2:
            time.sleep(0.1)
        process.kill()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert [path.name for path in tmp_path.iterdir()] == [f".c.{process.pid}.part"]
    prepare([text_file], tokenizer_folder, tmp_path / "c", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def _children(parent: int) -> list[int]:
    """The workers of a process, by number; the one that watches its shared memory ends by itself."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(one) for one in found if "spawn_main" in Path(f"/proc/{one}/cmdline").read_text()]


def test_changed_copies_stand_behind_documents_and_none_of_what_is_held_out(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertloom.text.readers.PASSAGE_CHARACTERS", 30)
    texts = [
        "The cat meows.\nNobody hears the cat.",
        "Every sheep sleeps.",
        "The dog barks.\nThe cat eats.\nThe cow moos.",
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(texts * 4))
    swaps = Swapper([("cat", "dog")])
    made = prepare([tmp_path / "text.txt"], tokenizer_folder, tmp_path / "c", counterfactual=swaps, held_out=0.25)
    tokenizer = Tokenizer.load(tokenizer_folder)

    def read(corpus: Corpus) -> list[str]:
        bounds = corpus.sentences[corpus.documents]
        return [tokenizer.decode(corpus.tokens[one:two].tolist()) for one, two in pairwise(bounds)]

    def changed(text: str) -> str:
        return text.replace("cat", "?").replace("dog", "cat").replace("?", "dog")

    plain = prepare([tmp_path / "text.txt"], tokenizer_folder, tmp_path / "p", held_out=0.25)
    assert plain.held_out is not None
    assert made.held_out is not None
    assert read(made.held_out) == read(plain.held_out)
    assert read(made) == [one for text in read(plain) for one in dict.fromkeys((text, changed(text)))]
    copies = sum(changed(text) != text for text in read(plain))
    told = {"words": 2, "names": 0, "fingerprint": swaps.fingerprint, "documents": copies}
    assert made.manifest["counterfactual"] == told
    assert "counterfactual" not in plain.manifest | made.held_out.manifest
    with pytest.raises(InputError, match="counterfactual: none of the words given in the text"):
        prepare([tmp_path / "text.txt"], tokenizer_folder, tmp_path / "n", counterfactual=Swapper([("ant", "bee")]))
    two = prepare(
        [tmp_path / "text.txt"], tokenizer_folder, tmp_path / "2", counterfactual=swaps, held_out=0.25, workers=2
    )
    assert two.manifest == made.manifest
