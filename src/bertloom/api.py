"""The Python calls: `load` a model, then `encode`, `fill`, `next_sentence`, `replaced`, `predict`, `save`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from bertloom import embedding, hub
from bertloom import sentence as sentences
from bertloom.card import CARD, model_card
from bertloom.config import EncoderConfig
from bertloom.errors import InputError, blaming
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.files import refuse_existing, whole_folder
from bertloom.model.encoder import Encoder, Insides
from bertloom.model.forms import is_whole, quantized, reshape
from bertloom.model.heads import HEADS, POOLED
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, computing_device, pack
from bertloom.objectives import heads_of
from bertloom.sentence import Sentence
from bertloom.tasks import SETTINGS, Task, of_config
from bertloom.tasks.predict import predicted
from bertloom.tasks.task import Prediction, Record
from bertloom.text.records import Place
from bertloom.text.sequence import kept, room, sequence
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import FILES, SPACES, SPECIAL, Tokenizer
from bertloom.text.vocabulary import extended_vocabulary

# The key of a config that says which heads a run of ours trained; the others are there for `transformers` alone.
OBJECTIVE = "pretraining_objective"
# The one that says how long its sequences were: positions beyond are untrained.
LENGTH = "pretraining_length"
# Models that stand in a folder of their own in a model's: what an ELECTRA learned beside.
COMPANIONS = ("generator",)


@dataclass(frozen=True)
class Filling:
    """One candidate for a [MASK]: the token, its probability, and the whole text with it."""

    token: str
    probability: float
    text: str


class Model:
    """An encoder with its tokenizer and whichever pretraining heads its folder had; always in evaluation mode."""

    def __init__(
        self,
        encoder: Encoder,
        heads: nn.ModuleDict,
        tokenizer: Tokenizer | None,
        others: Mapping[str, Any],
        path: Path,
        unread: Sequence[str] = (),
        card: str | None = None,
        task: Task | None = None,
        sentence: Sentence | None = None,
    ):
        self.encoder, self.heads, self.others, self.path = encoder.eval(), heads.eval(), dict(others), path
        self._tokenizer = tokenizer
        # Names of weights in the folder that are another task's head.
        self.unread = tuple(unread)
        self.card = card
        # What it was fine-tuned for, if it was.
        self.task = task
        # How it makes a vector of a text, if its folder says so.
        self.sentence = sentence

    @property
    def config(self) -> EncoderConfig:
        """The encoder's config."""
        return self.encoder.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; raises where the folder had none."""
        if self._tokenizer is None:
            raise InputError("no tokenizer in the model's folder", self.path)
        return self._tokenizer

    @cached_property
    def companions(self) -> dict[str, Model]:
        """Models that learned beside this one, by the folder in its folder."""
        return {name: load(self.path / name) for name in COMPANIONS if (self.path / name / "config.json").is_file()}

    def examples(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[Example]:
        """Texts, or pairs of texts, with special tokens; longer ones are cut at the model's positions."""
        special, most = self.tokenizer.special, self.config.longest
        if not seconds:
            return embedding.examples(self.tokenizer, texts, most)
        made = []
        for first, second in zip(self.tokenizer.ids(texts), self.tokenizer.ids(seconds)):
            one, two = kept(len(first), len(second), room(special, most, pair=True))
            made.append(Example(*sequence(special, first[:one], second[:two])))
        return made

    def whole(self, first: str, second: str | None = None) -> Example:
        """A text or a pair that is asked of every token, and so must not be cut."""
        special, ids = self.tokenizer.special, self.tokenizer.ids([first] if second is None else [first, second])
        size, most = sum(map(len, ids)), room(special, self.config.longest, pair=second is not None)
        if size > most:
            raise InputError(f"text of {size:,} tokens, at most {most} allowed: {first[:40]!r}…")
        return Example(*sequence(special, *ids))

    def encode(
        self,
        texts: Sequence[str],
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        tokens: int = TOKENS_AT_ONCE,
    ) -> npt.NDArray[np.float32]:
        """(len(texts), D) float32: a vector of each text, in the order given.

        Pooled, normalised and begun with a prompt as the folder says, else the mean of its tokens' vectors; `tokens`
        go through the model at once.
        """
        if isinstance(texts, str):
            raise InputError("texts: one text given, a list of texts allowed")
        sentence = self.how.asked(pooling, normalize, prompt)
        found = list(embedding.vectors(self.encoder, self.tokenizer, sentence, texts, tokens))
        return np.concatenate(found) if found else np.empty((0, sentence.width(self.config.hidden_size)), np.float32)

    def token_vectors(self, texts: Sequence[str], tokens: int = TOKENS_AT_ONCE) -> list[embedding.TokenVectors]:
        """Of each text its tokens, their places in it and last hidden states; texts are cut as in `encode`."""
        if isinstance(texts, str):
            raise InputError("texts: one text given, a list of texts allowed")
        return list(embedding.token_vectors(self.encoder, self.tokenizer, self.how, texts, tokens))

    @property
    def how(self) -> Sentence:
        """How it makes a vector of a text unless told otherwise."""
        return self.sentence or Sentence()

    @torch.no_grad()
    def trace(self, text: str, second: str | None = None) -> tuple[list[str], list[Insides]]:
        """The tokens of a text or a pair (n), and embeddings and layers looked into, with attentions [(N, n, n)]."""
        example = self.whole(text, second)
        insides: list[Insides] = []
        self.encoder(pack([example]).to(self.encoder.embeddings.word.weight.device), trace=insides)
        return self.tokenizer.shown(example.input_ids.tolist()), insides

    @torch.no_grad()
    def fill(self, text: str, top: int = 5) -> list[list[Filling]]:
        """For each [MASK] in a text the `top` most probable tokens, best first.

        A left-to-right model looks at what stands before each, a two-way model multiplies what its halves say.
        """
        if top < 1:
            raise InputError(f"top: {top} given, at least 1 allowed")
        self.head("mlm")
        if not isinstance(text, str):
            raise InputError(f"text: {text!r} given, a string allowed")
        # However a tokenizer spells it, users know the mask as [MASK].
        given, text = text, text.replace(SPECIAL["mask"], self.tokenizer.spelt["mask"])
        example = self.whole(text)
        places = np.flatnonzero(example.input_ids == self.tokenizer.special.mask)
        if not len(places):
            raise InputError(f"no {self.tokenizer.spelt['mask']} in the text: {text!r}, at least one needed")
        states = self.encoder(pack([example]).to(self.encoder.embeddings.word.weight.device))
        best = self.named(states, torch.from_numpy(places)).exp().topk(min(top, self.config.vocab_size))
        spans = self.tokenizer.spans(text)
        return [
            [
                Filling(token, float(share), self._filled(text, spans[place - 1], number, as_given=text == given))
                for number, token, share in zip(numbers.tolist(), self.tokenizer.shown(numbers.tolist()), shares)
            ]
            for place, numbers, shares in zip(places, best.indices, best.values)
        ]

    def named(self, states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """(M, V) log-probabilities of the tokens at places (M,) of a batch's states (T, D).

        Of a left-to-right model by what stands before them, of a two-way one by both halves; never a first token's.
        """
        head, word = self.head("mlm"), self.encoder.embeddings.word.weight
        shifts = (0,) if self.config.direction == "both" else (-1, 1)
        halves = zip(self.encoder.sides(states), shifts)
        sides = [head(half[places + shift], word).float().log_softmax(-1) for half, shift in halves]
        return torch.stack(sides).sum(0).log_softmax(-1)

    def _filled(self, text: str, span: tuple[int, int], number: int, as_given: bool) -> str:
        """A text with a token in place of a span of it; the rest of a word stands at the word before.

        Unless masks are spelt as they were given, those that are left are [MASK].
        """
        before, after = text[: span[0]], text[span[1] :]
        if not as_given:
            before, after = (one.replace(self.tokenizer.spelt["mask"], SPECIAL["mask"]) for one in (before, after))
        if not self.tokenizer.starts_word[number]:
            before = before.rstrip()
        elif self.tokenizer.tokens([number])[0].startswith(SPACES) and before.rstrip() == before != "":
            before += " "
        return f"{before}{self.tokenizer.surface(number)}{after}"

    def next_sentence(self, first: str, second: str) -> float:
        """The probability that `second` follows `first` (NSP)."""
        return float(self.of_pairs("nsp", [first], [second])[0])

    def in_order(self, first: str, second: str) -> float:
        """The probability that neighbours stand as they were written, not swapped (SOP)."""
        return float(self.of_pairs("sop", [first], [second])[0])

    @torch.no_grad()
    def of_pairs(
        self, name: Literal["nsp", "sop"], firsts: Sequence[str], seconds: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """(len(firsts),) the probability of a head of pairs that the second text of each belongs behind the first."""
        head, found = self.head(name), []
        examples = [self.whole(*both) for both in zip(firsts, seconds)]
        for part in by_tokens([len(example) for example in examples], TOKENS_AT_ONCE) if examples else []:
            batch = pack(examples[part]).to(self.encoder.embeddings.word.weight.device)
            logits = head(self.encoder.pooler(self.encoder(batch)[batch.starts]))
            found.append(F.softmax(logits.float(), -1)[:, 0].double().cpu())
        return torch.cat(found).numpy()

    @torch.no_grad()
    def replaced(self, text: str) -> list[tuple[str, float]]:
        """Each token's own characters in a text, and the probability that something else stood there (ELECTRA)."""
        head = self.head("rtd")
        example = self.whole(text)
        states = self.encoder(pack([example]).to(self.encoder.embeddings.word.weight.device))
        shares = head(states).float().sigmoid().tolist()[1:-1]
        return [(text[start:end], share) for (start, end), share in zip(self.tokenizer.spans(text), shares)]

    def predict(self, records: Iterable[Mapping[str, Any] | str]) -> list[Prediction]:
        """What a fine-tuned model says of records, `{"text": …}` or the like, or of plain texts, in their order."""
        return [prediction for _, prediction in self.predictions(self.records(records, asks=True))]

    def evaluate(self, records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The official metrics of a fine-tuned model on records with their gold answers."""
        task = self.require_task()
        found = task.usable(list(self.records(records, asks=False)), ReadCounts())
        if not found:
            raise InputError("records: none given, at least one needed")
        return task.score([prediction for _, prediction in self.predictions(found)], found)

    def records(self, records: Iterable[Mapping[str, Any] | str], asks: bool = True) -> Iterator[Record]:
        """Dicts or plain texts as a fine-tuned model's task understands them, with gold answers unless it asks."""
        if isinstance(records, str | Mapping):
            raise InputError("records: one given, a list of records allowed")
        task = replace(self.require_task(), asks=asks)
        given = ((Place(f"record {number}"), _row(one, number, task.plain)) for number, one in enumerate(records, 1))
        return task.made(given, ReadCounts())

    def predictions(
        self, records: Iterable[Record], tokens: int = TOKENS_AT_ONCE, counts: ReadCounts | None = None
    ) -> Iterator[tuple[Record, Prediction]]:
        """Each record of a stream with what the model says of it; texts that are cut are counted."""
        task = self.require_task()
        return predicted(task, self.encoder, self.heads[task.part], self.tokenizer, records, tokens, counts)

    def require_task(self) -> Task:
        """What the model was fine-tuned for; raises where it was not."""
        if self.task is None:
            had = f"; there are weights of {', '.join(self.unread[:3])}" if self.unread else ""
            raise InputError(f"is not fine-tuned, a model made by bertloom finetune needed{had}", self.path)
        return self.task

    def require_learning(self) -> Model:
        """The model; raises where its weights are int8, which cannot be changed."""
        if quantized(self.state()):
            raise InputError("is int8, the model in fp32 that it was made from needed", self.path)
        return self

    def with_encoder(self, encoder: Encoder, card: str | None = None) -> Model:
        """The model with a copy of an encoder, and its heads and all else as they are."""
        return Model(
            copy.deepcopy(encoder), self.heads, self._tokenizer, self.others, self.path,
            card=card or self.card, task=self.task, sentence=self.sentence,
        )  # fmt: skip

    def require_all_heads(self) -> Model:
        """The model; raises where heads were taken away, so that layers do not have the same ones."""
        if not is_whole(self.encoder):
            raise InputError("has had heads taken away, the model that it was made from needed", self.path)
        return self

    @property
    def fingerprint(self) -> str:
        """A hash of every weight."""
        state = hashlib.sha256()
        for weights in self.state().values():
            state.update(weights.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
        return state.hexdigest()[:32]

    @property
    def trained(self) -> list[str]:
        """The heads that can be asked: there, not left by pretraining as they were made, with all they stand on."""
        told = self.others.get(OBJECTIVE)
        learned = set(HEADS) if told is None else heads_of(str(told))
        if not hasattr(self.encoder, "pooler"):
            learned -= POOLED
        return [name for name in HEADS if name in self.heads and name in learned]

    def head(self, name: str) -> nn.Module:
        """A head of pretraining, as `mlm`; raises where the model has none, or an untrained one."""
        if name not in self.trained:
            raise InputError(f"no trained {name} head in the model, a pretrained one with it needed", self.path)
        return self.heads[name]

    def state(self) -> dict[str, torch.Tensor]:
        """Every weight by our names; parts the folder did not have are left out."""
        return {**self.encoder.state_dict(), **self.heads.state_dict()}

    def extended(self, texts: Iterable[str], size: int, min_frequency: int = 5) -> tuple[Model, list[str]]:
        """The model with `size` more words of `texts` in its vocabulary, and they, most useful first.

        Each begins as the mean of its old pieces, in the embeddings and in the biases of heads that name words.
        """
        self.require_learning()
        tokenizer, pieces = extended_vocabulary(self.tokenizer, texts, size, min_frequency)
        return self._grown(tokenizer, pieces), list(pieces)

    def _grown(self, tokenizer: Tokenizer, pieces: Mapping[str, list[int]]) -> Model:
        """The model, and whatever learned beside it, with words more, of old pieces each."""
        config = replace(self.config, vocab_size=max(self.config.vocab_size, len(tokenizer)))
        state = dict(self.encoder.state_dict())
        encoder, heads = reshape(Encoder(config), state), copy.deepcopy(self.heads)
        encoder.give_pooler(hasattr(self.encoder, "pooler"))
        grow = partial(_grown, size=config.vocab_size, first=len(self.tokenizer), pieces=pieces)
        word = state["embeddings.word.weight"]
        encoder.load_state_dict({**state, "embeddings.word.weight": grow(word)})
        for name, head in heads.items():
            bias = dict(head.named_parameters(recurse=False)).get("bias")
            # One that is fine-tuned may have as many labels as there are words.
            if name in HEADS and bias is not None and len(bias) == len(word):
                head.bias = nn.Parameter(grow(bias.detach()))
        encoder.to(word.device)
        made = Model(encoder, heads, tokenizer, self.others, self.path, task=self.task, sentence=self.sentence)
        made.companions = {name: one._grown(tokenizer, pieces) for name, one in self.companions.items()}
        return made

    def save(self, folder: str | Path, card: str | None = None) -> None:
        """Write a Hugging Face folder: config, weights, tokenizer and a model card.

        The card is the one the model came with unless one is given. A folder that holds something raises.
        """
        folder = Path(folder)
        refuse_existing(folder)
        card = card or self.card or model_card(self.config, "mlm" in self.heads)
        told, task = self.others, ""
        if self.task:
            told, task = {**told, SETTINGS: self.task.settings()}, "Model"
            # `transformers` would look at the first token, where a model that sees one side has nothing.
            if self.task.part in hub.TASK_PARTS and not (self.task.pooled and self.config.direction != "both"):
                task, told = self.task.architecture, {**told, **self.task.labels_in_config()}
        with whole_folder(folder) as beside:
            hub.write(beside, self.config, self.state(), self._tokenizer, told, task)
            if self.sentence is not None:
                sentences.write(beside, self.sentence, self.config.hidden_size, self.config.longest)
            (beside / CARD).write_text(card, encoding="utf-8")
            for name, one in self.companions.items():
                one.save(beside / name)


def _row(record: Any, number: int, name: str) -> dict[str, Any]:
    """A record as a row; a text is one with nothing but it, in the column that held texts in training."""
    if not isinstance(record, str | Mapping):
        raise InputError(f"record {number}: a {type(record).__name__} given, a text or a dict allowed")
    return {name: record} if isinstance(record, str) else {key: _plain(value) for key, value in record.items()}


def _plain(value: Any) -> Any:
    """A value as JSON would have it: NumPy's scalars and arrays, and tuples, are what they hold."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _grown(table: torch.Tensor, size: int, first: int, pieces: Mapping[str, list[int]]) -> torch.Tensor:
    """A table (V, …) with `size` rows; from row `first` on they are the means of other rows, one for each word."""
    grown = table.new_zeros(size, *table.shape[1:])
    grown[: len(table)] = table
    for number, ids in enumerate(pieces.values(), first):
        grown[number] = table[ids].mean(0)
    return grown


def load(model: str | Path) -> Model:
    """Open a folder, a run or a Hub id; raises `InputError` where it holds no model we can compute."""
    folder = hub.find(model)
    config, others = hub.read_config(folder)
    if hub.BACKWARDS in others.items():
        raise InputError("reads texts backwards, for transformers; the two-way model that it is half of needed", folder)
    state, unread = hub.read_state(folder, config)
    outputs = {name.split(".")[0]: len(tensor) for name, tensor in state.items() if name.count(".") == 1}
    task = of_config(others, outputs, folder / "config.json", FAMILIES[config.model_type].classes)
    if task and task.pooled and config.direction != "both" and SETTINGS not in others:
        said = "of a model that reads one way: it stands on the first token, which sees no other"
        raise InputError(f"config.json says {FAMILIES[config.model_type].classes}{task.architecture}, {said}", folder)
    parts = {name.split(".")[0] for name in state}
    for part in parts - {task.part if task else None}:
        if part in (*hub.TASK_PARTS, hub.FEATURES):
            # A head without a task that we could ask of it.
            gone = [name for name in state if name.startswith(f"{part}.")]
            unread += gone
            state = {name: tensor for name, tensor in state.items() if name not in gone}
            parts.discard(part)
    if task and task.part not in parts:
        raise InputError(f"config.json says {task.name}, but there are no weights {task.part}", folder)
    # Without memory, until the weights are known to fit: a config may claim any size.
    with blaming(folder / "config.json", "describes no model that can be made"), torch.device("meta"):
        encoder = Encoder(config)
        heads = nn.ModuleDict({name: make(config) for name, make in HEADS.items() if name in parts})
        if task:
            heads[task.part] = task.head(config)
        encoder.give_pooler("pooler" in parts)
        reshape(encoder, state)
    if task and task.pools(config) and "pooler" not in parts:
        raise InputError(f"config.json says {task.name}, but there are no weights of a pooler", folder)
    hub.load_into(encoder, {name: tensor for name, tensor in state.items() if name.split(".")[0] not in heads}, folder)
    hub.load_into(heads, {name: tensor for name, tensor in state.items() if name.split(".")[0] in heads}, folder)
    tokenizer = Tokenizer.load(folder) if any((folder / name).is_file() for name in FILES) else None
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        raise InputError(f"tokenizer of {len(tokenizer):,} tokens, embeddings for {config.vocab_size:,}", folder)
    file = folder / CARD
    card = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    device = computing_device()
    return Model(
        encoder.to(device), heads.to(device), tokenizer, others, folder, unread, card, task, sentences.read(folder)
    )
