"""`usage.py` of an exported folder: a page of Python that needs the runtime, `tokenizers` and NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import cast

from bertloom.ship.export.form import Form
from bertloom.tasks.classify import MULTI, REGRESSION, Classify
from bertloom.tasks.tag import Tag

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
    title, ask, example = ASKS[form.task.name if form.task else form.kind](form)
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


_AS_IT_IS = """def ask(texts):
    return run(feeds(texts))[0]
"""
_TEXTS = '["A fine text.", "Another one, which is longer."]'
# A title, Python that defines `ask`, and what to ask.
Ask = tuple[str, str, str]


def _of_vectors(form: Form) -> Ask:
    begin = form.model.how.prompt
    given = f"[{_text(begin)} + text for text in texts]" if begin else "texts"
    return "Vectors of texts (texts, width).", _AS_IT_IS.replace("(texts))", f"({given}))"), _TEXTS


def _of_states(form: Form) -> Ask:
    return "Hidden states of tokens (texts, tokens, width).", _AS_IT_IS, _TEXTS


def _of_words(form: Form) -> Ask:
    mask = form.model.tokenizer.spelt["mask"]
    ask = f"""def ask(texts, top=5):
    given = feeds(texts)
    (logits,) = run(given)
    best = np.argsort(-logits[given["input_ids"] == {form.model.tokenizer.special.mask}], -1)[:, :top]
    return [[tokenizer.id_to_token(int(one)) for one in row] for row in best]
"""
    return f"The likeliest words for each {mask}.", ask, f'["A {mask} text."]'


def _of_tags(form: Form) -> Ask:
    ask = f"""LABELS = {list(cast(Tag, form.task).labels)!r}


def ask(texts):
    (logits,) = run(feeds(texts))
    named = zip(texts, tokenizer.encode_batch(texts), logits.argmax(-1))
    return [
        [(text[slice(*span)], LABELS[label]) for span, label in zip(one.offsets, row) if span[0] < span[1]]
        for text, one, row in named
    ]
"""
    return "A label for each token.", ask, _TEXTS


def _of_answers(form: Form) -> Ask:
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


def _of_choices(form: Form) -> Ask:
    ask = f"""{_SOFTMAX}def ask(context, choices):
    (logits,) = run(feeds([(context, one) for one in choices]))
    return dict(zip(choices, softmax(logits[:, 0]{_cold(form)}).tolist()))
"""
    return "How likely each of several choices is.", ask, '*("The cat sleeps.", ["It is tired.", "It barks."])'


def _of_labels(form: Form) -> Ask:
    task = cast(Classify, form.task)
    example = '[("A fine text.", "Another one.")]' if task.paired else _TEXTS
    if task.problem == REGRESSION:
        return "A score for each text or pair.", _AS_IT_IS.replace("[0]", "[0][:, 0].tolist()"), example
    several = task.problem == MULTI
    shares = f"1 / (1 + np.exp(-logits{_cold(form)}))" if several else f"softmax(logits{_cold(form)})"
    ask = f"""{"" if several else _SOFTMAX}LABELS = {list(task.labels)!r}


def ask(texts):
    (logits,) = run(feeds(texts))
    return [dict(zip(LABELS, row)) for row in ({shares}).tolist()]
"""
    return "Each label's probability.", ask, example


def _cold(form: Form) -> str:
    """What divides logits, where a temperature was fitted."""
    assert form.task is not None
    return "" if form.task.temperature == 1 else f" / {form.task.temperature!r}"


# By what is exported, of a task by its name.
ASKS: dict[str, Callable[[Form], Ask]] = {
    "vectors": _of_vectors, "states": _of_states, "mlm": _of_words, "tag": _of_tags, "answer": _of_answers,
    "choose": _of_choices, "classify": _of_labels,
}  # fmt: skip
