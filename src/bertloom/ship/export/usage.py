"""`usage.py` of an exported folder: a page of Python that needs the runtime, `tokenizers` and NumPy."""

from __future__ import annotations

import json
from types import ModuleType

from bertloom.ship.export.form import Form

_PAGE = '''"""{title}

pip install {needs}
"""

{imports}

HERE = Path(__file__).parent
tokenizer = tokenizers.Tokenizer.from_file(str(HERE / "tokenizer.json"))
tokenizer.enable_truncation({longest})
tokenizer.enable_padding(pad_id={pad}, pad_token={padding})
{head}{opens}

def feeds(texts):
    found = tokenizer.encode_batch(texts)
    inputs = {inputs}
    return {{name: np.array([getattr(one, part) for one in found], np.int64) for name, part in inputs.items()}}


{ask}

if __name__ == "__main__":
    print(ask({example}))
'''
_PARTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_SOFTMAX = """def softmax(x):
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


"""


def page(form: Form, runtime: ModuleType) -> str:
    """The page of a form for a runtime."""
    opens = runtime.opens(form).strip("\n")
    title, ask, example = _ask(form)
    special = form.model.tokenizer.special
    modules = {"numpy as np", "tokenizers", *runtime.NEEDS}
    plain = ["math"] if "math." in opens + ask else []
    imports = [*(f"import {one}" for one in plain), "from pathlib import Path", "",
               *(f"import {one}" for one in sorted(modules))]  # fmt: skip
    head = 'head = np.load(HERE / "head.npz")\n' if 'head["' in opens else ""
    return _PAGE.format(
        title=title, needs=" ".join([*runtime.NEEDS, "tokenizers", "numpy"]), imports="\n".join(imports),
        longest=form.longest, pad=special.pad, padding=_text(form.model.tokenizer.spelt["pad"]), head=head,
        opens=opens + "\n",
        inputs={name: _PARTS[name] for name in form.inputs}, ask=ask.strip("\n") + "\n", example=example,
    )  # fmt: skip


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _ask(form: Form) -> tuple[str, str, str]:
    """A title, Python that defines `ask`, and what to ask."""
    tokenizer, task = form.model.tokenizer, form.task
    mask = tokenizer.spelt["mask"]
    texts = '["A fine text.", "Another one, which is longer."]'
    if form.kind == "vectors":
        begin = form.model.how.prompt
        given = f"[{_text(begin)} + text for text in texts]" if begin else "texts"
        return "Vectors of texts (texts, width).", f"def ask(texts):\n    return run(feeds({given}))[0]\n", texts
    if form.kind == "states":
        return (
            "Hidden states of tokens (texts, tokens, width).",
            "def ask(texts):\n    return run(feeds(texts))[0]\n",
            texts,
        )
    if form.kind == "mlm":
        ask = f"""def ask(texts, top=5):
    given = feeds(texts)
    (logits,) = run(given)
    best = np.argsort(-logits[given["input_ids"] == {tokenizer.special.mask}], -1)[:, :top]
    return [[tokenizer.id_to_token(int(one)) for one in row] for row in best]
"""
        return f"The likeliest words for each {mask}.", ask, f'["A {mask} text."]'
    assert task is not None
    cold = "" if task.temperature == 1 else f" / {task.temperature!r}"
    labels = list(getattr(task, "labels", ()))
    if task.name == "tag":
        ask = f"""LABELS = {labels!r}


def ask(texts):
    (logits,) = run(feeds(texts))
    named = zip(texts, tokenizer.encode_batch(texts), logits.argmax(-1))
    return [
        [(text[slice(*span)], LABELS[label]) for span, label in zip(one.offsets, row) if span[0] < span[1]]
        for text, one, row in named
    ]
"""
        return "A label for each token.", ask, texts
    if task.name == "answer":
        ask = """def ask(question, context):
    one = tokenizer.encode_batch([(question, context)])[0]
    start, end = (part[0] for part in run(feeds([(question, context)])))
    inside = np.array([number == 1 for number in one.sequence_ids])
    scores = np.where(np.triu(np.outer(inside, inside)), start[:, None] + end[None], -np.inf)
    scores[np.tril_indices(len(scores), -30)] = scores[np.triu_indices(len(scores), 30)] = -np.inf
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return context[one.offsets[first][0] : one.offsets[last][1]], float(scores[first, last] - start[0] - end[0])
"""
        example = '*("Where does the cat live?", "The cat lives in the house.")'
        return "The best answer in a text, and by how much it beats none.", ask, example
    if task.name == "choose":
        ask = (
            _SOFTMAX
            + f"""def ask(context, choices):
    (logits,) = run(feeds([(context, one) for one in choices]))
    return dict(zip(choices, softmax(logits[:, 0]{cold}).tolist()))
"""
        )
        return "How likely each of several choices is.", ask, '*("The cat sleeps.", ["It is tired.", "It barks."])'
    problem = getattr(task, "problem", "")
    if problem == "regression":
        return (
            "A score for each text or pair.",
            "def ask(texts):\n    return run(feeds(texts))[0][:, 0].tolist()\n",
            texts,
        )
    shares = f"1 / (1 + np.exp(-logits{cold}))" if problem == "multi" else f"softmax(logits{cold})"
    ask = (
        ("" if problem == "multi" else _SOFTMAX)
        + f"""LABELS = {labels!r}


def ask(texts):
    (logits,) = run(feeds(texts))
    return [dict(zip(LABELS, row)) for row in ({shares}).tolist()]
"""
    )
    pairs = getattr(task, "pair", "") not in ("", "none")
    return "Each label's probability.", ask, '[("A fine text.", "Another one.")]' if pairs else texts
