"""A pretraining run: a recipe becomes a run folder, from its beginning or from where it stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bertloom import hub
from bertloom.api import LENGTH, OBJECTIVE, Model, load
from bertloom.card import Training, model_card
from bertloom.config import EncoderConfig, in_family, preset, short_name
from bertloom.corpus import Corpus, Mixture, opened
from bertloom.corpus.arrays import default_workers
from bertloom.corpus.prepare import prepare
from bertloom.errors import InputError, nearest
from bertloom.evaluation import Measure, guessing, held_out
from bertloom.model.encoder import Encoder
from bertloom.model.forms import LowRankEmbedding, reshape
from bertloom.model.heads import HEADS, POOLED, LanguageHead
from bertloom.model.init import initialise
from bertloom.model.packed import Batch, computing_device
from bertloom.model.stretch import STRETCHES, stretched
from bertloom.objectives import PARTS, Combined, heads_of, model_of, parts_of, published_objective, taught
from bertloom.objectives.distilled import inherited, narrowed, require_teacher, student_config
from bertloom.objectives.part import Choices
from bertloom.text.readers import passages
from bertloom.text.sources import COMPRESSED, expand
from bertloom.text.tokenizer import Tokenizer
from bertloom.train import checkpoint
from bertloom.train.data import batches, require_epoch
from bertloom.train.loop import Step
from bertloom.train.metrics import draw_curves
from bertloom.train.optimizer import adamw, peak_rate, rate_at
from bertloom.train.recipe import Recipe, read_recipe
from bertloom.train.run import Run, claim_folder, precision_on, stop_signals

POSITIONS = "embeddings.position.weight"


class Pretraining(Run[Measure]):
    """A recipe made into a corpus, an encoder, an objective and an optimiser; `first` is the step to go on from."""

    def __init__(self, recipe: Recipe, warn: Callable[[str], None]):
        self.recipe, self.folder, self.warn = recipe, Path(recipe.output), warn
        if recipe.stretch not in STRETCHES:
            raise InputError(f"stretch: {nearest(recipe.stretch, STRETCHES)}")
        if recipe.stretch != Recipe.stretch and not (recipe.start and recipe.positions):
            raise InputError(f"stretch: {recipe.stretch!r} given, allowed with positions of a model given by from")
        if not recipe.output or not recipe.corpus:
            raise InputError(f"{'output' if recipe.corpus else 'corpus'}: none given, a folder needed")
        self.corpus = opened(recipe.corpus, recipe.exponent, recipe.weights)
        if isinstance(self.corpus, Mixture):
            warn(f"Drawn from {self.corpus.said()}")
        self.tokenizer = Tokenizer.load(self.corpus.tokenizer_folder)
        self.corpus.require(self.tokenizer.fingerprint, "the tokenizer in it")
        self.held_out = self.corpus.held_out
        self.corpus.verify()
        if self.held_out:
            self.held_out.verify()
        if recipe.model or not (recipe.start or recipe.teacher):
            # One spelling, so that the same run is known again.
            recipe = self.recipe = replace(recipe, model=short_name(recipe.model or "mini"))
        if recipe.objective:
            recipe = self.recipe = replace(recipe, objective="+".join(parts_of(recipe.objective)))
        self.seed, self.clip, self.last, self.keep = recipe.seed, recipe.clip, recipe.steps, recipe.keep
        self.save_every, self.evaluate_every = recipe.save_every, recipe.evaluate_every
        self.tensorboard, self.identity = recipe.tensorboard, self.corpus.identity
        claim_folder(self.folder, self._differing)
        found = checkpoint.newest(self.folder, warn)
        # The checkpoint has all that the run began with.
        started = load(recipe.start).require_learning() if recipe.start and not found else None
        saved = found[1] / "model" if found else None
        if not recipe.objective:
            recipe = self.recipe = replace(self.recipe, objective=self._objective(saved, started))
        self.teacher = self._teacher()
        if self.teacher:
            self.identity = hashlib.sha256(f"{self.identity}{self.teacher.fingerprint}".encode()).hexdigest()[:32]
        if started and isinstance(started.encoder.embeddings.word, LowRankEmbedding):
            raise InputError("has word embeddings of low rank, whole ones needed for a language head", started.path)
        self.reached = self._reached(saved, started)
        self.config = self._config(saved, started)
        # A model is given segments as it was before, a new one wherever it has them.
        told = started.tokenizer if started else Tokenizer.load(saved) if saved else None
        paired = told is None or told.special.segments or bool(POOLED & heads_of(recipe.objective))
        self.tokenizer.special = replace(self.tokenizer.special, segments=paired)
        given = self._stretched(started) if started else hub.read_state(saved, self.config)[0] if saved else {}
        self._build(given)
        for name, (beside, _) in self.objective.companions(self.encoder).items():
            if beside.hidden_size != recipe.generator * self.config.hidden_size:
                heads, width = beside.num_attention_heads, beside.hidden_size
                warn(f"Its {name} has {heads} of {self.config.num_attention_heads} heads, so that it is {width} wide")
        if started and (new := [name for name in self.objective.heads if name not in started.heads]):
            warn(f"{recipe.start} has no {' and no '.join(new)} head; it is given a new one")
        if started and (beside := self.objective.companions(self.encoder)):
            if all((started.path / name).is_dir() for name in beside):
                _fill_companions(self.objective, self.encoder, started.path)
            else:
                warn(f"{recipe.start} has no {' and '.join(beside)} beside it; it is given a new one")
        for place in (recipe.steps - 1, 0):
            require_epoch(self.corpus, self.objective, recipe.length_at(place), recipe.batch_size)
            if self.held_out:
                # Now, and not when the first measure is due, with all the work before it.
                self.objective.epoch(self.held_out, recipe.length_at(place))
        self.first = self._resume(*found) if found else 0

    def _differing(self, file: Path) -> dict[str, tuple[Any, Any]]:
        known = Recipe(**read_recipe(file))
        if os.path.abspath(known.start) == os.path.abspath(self.recipe.start):
            known = replace(known, start=self.recipe.start)
        if not self.recipe.objective:
            known = replace(known, objective="")
        return self.recipe.differing(known)

    def _objective(self, saved: Path | None, started: Model | None) -> str:
        """What is learned where nothing is named."""
        if saved:
            return str(hub.read_config(saved)[1][OBJECTIVE])
        if started:
            return objective_of(started)
        return next(filter(taught, PARTS)) if self.recipe.teacher else published_objective(self._sized())

    def _reached(self, saved: Path | None, started: Model | None) -> int:
        """Positions that are learned before this run."""
        if started:
            return min(int(started.others.get(LENGTH, started.config.longest)), started.config.longest)
        return int(hub.read_config(saved)[1].get(LENGTH, 0)) if saved else 0

    def _config(self, saved: Path | None, started: Model | None) -> EncoderConfig:
        """The config of a checkpoint's model, of the model to start with, or of the named size."""
        recipe = self.recipe
        if saved:
            config, _ = hub.read_config(saved)
        elif started:
            self.corpus.require(started.tokenizer.fingerprint, recipe.start)
            config = started.config
            if 0 < recipe.positions < self.reached:
                said = f"{recipe.positions} given, at least {self.reached} allowed, which the model has learned"
                raise InputError(f"positions: {said}")
        else:
            changes: dict[str, Any] = {
                "vocab_size": self.corpus.vocab_size,
                "pad_token_id": self.corpus.special["pad"],
                "initializer_range": recipe.initializer_range,
            }
            if self.teacher and not recipe.model:
                config = replace(student_config(self.teacher.config), **changes)
            else:
                config = replace(self._sized(), **changes)
            config = model_of(recipe.objective, config)
        if recipe.dropout != -1 and not saved:
            config = replace(config, hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout)
        if recipe.positions and not saved:
            config = replace(config, max_position_embeddings=recipe.positions + config.first_position)
        if recipe.length > config.longest:
            raise InputError(
                f"length: {recipe.length} given, at most {config.longest} positions allowed; --positions gives more"
            )
        return config

    def _stretched(self, started: Model) -> dict[str, Tensor]:
        """The weights to begin with, the positions that they have learned stretched to the recipe's."""
        state, size = started.state(), self.recipe.positions
        if POSITIONS not in state and self.recipe.stretch != Recipe.stretch:
            raise InputError(f"stretch: {self.recipe.stretch!r} given, allowed with positions that are learned")
        if size and POSITIONS in state:
            if self.recipe.length <= self.reached < size:
                self.warn(f"No step is over the {self.reached} positions learned before; --length trains the others")
            first = self.config.first_position
            state[POSITIONS] = stretched(state[POSITIONS], first, self.reached, size, self.recipe.stretch)
        return state

    def _sized(self) -> EncoderConfig:
        """The config of the named size, in the named family."""
        size = preset(self.recipe.model)
        return in_family(size, self.recipe.family) if self.recipe.family else size

    def _teacher(self) -> Model | None:
        """The model that is learned from, which has the corpus's vocabulary."""
        recipe = self.recipe
        if taught(recipe.objective) != bool(recipe.teacher):
            said = (
                f"{recipe.teacher!r} given, allowed with objective {' or '.join(filter(taught, PARTS))}"
                if recipe.teacher
                else "none given, a model needed"
            )
            raise InputError(f"teacher: {said}")
        if not recipe.teacher:
            return None
        teacher = load(recipe.teacher)
        self.corpus.require(teacher.tokenizer.fingerprint, recipe.teacher)
        head = cast(LanguageHead, teacher.head("mlm"))
        require_teacher(teacher.config)
        narrowed(teacher.encoder, head, self.corpus.vocab_size)
        if recipe.length > teacher.config.longest:
            raise InputError(
                f"length: {recipe.length} given, at most {teacher.config.longest} positions of the teacher's"
            )
        if recipe.length > (known := int(teacher.others.get(LENGTH, recipe.length))):
            self.warn(f"{recipe.teacher} was trained on {known} tokens at most: what it says beyond is not learned")
        return teacher

    def _build(self, given: dict[str, Tensor]) -> None:
        """Everything new, but for what is `given`."""
        recipe, config = self.recipe, self.config
        torch.manual_seed(recipe.seed)
        device = computing_device()
        self.precision = precision_on(device, recipe.precision)
        teacher = None
        if self.teacher:
            teacher = (self.teacher.encoder.to(device), cast(LanguageHead, self.teacher.heads["mlm"].to(device)))
        self.encoder = reshape(Encoder(config), given)
        self.objective = Combined(config, recipe.objective, **recipe.choices(), teacher=teacher)
        parts = {name.partition(".")[0] for name in given}
        self.encoder.give_pooler(self.objective.pools or "pooler" in parts)
        # Heads that were found and are not trained are saved as they were.
        untrained = [name for name in HEADS if name in parts - self.objective.heads.keys()]
        self.idle = nn.ModuleDict({name: HEADS[name](config) for name in untrained})
        for module in (self.encoder, self.objective, self.idle):
            initialise(module, config.initializer_range, config.pad_token_id)
        if self.teacher and not given and not recipe.model:
            given = inherited(self.encoder, self.teacher.encoder)
            given |= {f"mlm.{name}": one for name, one in self.teacher.heads["mlm"].state_dict().items()}
        for module in (self.encoder, self.objective, self.idle):
            own = module.state_dict()
            hub.load_into(module, {**own, **{name: one for name, one in given.items() if name in own}}, recipe.start)
            module.to(device)
        peak = peak_rate(recipe, config.hidden_size, self.objective.fastest)
        self.rate = partial(rate_at, peak=peak, steps=recipe.steps, warmup=recipe.warmup, schedule=recipe.schedule)
        self.optimizer = adamw(
            [*self.encoder.named_parameters(), *self.objective.named_parameters()], recipe.weight_decay
        )

    def _resume(self, manifest: dict[str, Any], folder: Path) -> int:
        if manifest.get("corpus") != self.identity:
            other = ", or from another teacher," if self.teacher else ""
            said = f"the run was on another text or vocabulary{other} than is there now; give another --output"
            raise InputError(said, folder)
        _fill_companions(self.objective, self.encoder, folder / "model")
        checkpoint.load_moments(self.optimizer, folder)
        return int(manifest["step"])

    @property
    def name(self) -> str:
        """The size, or the folder it began with."""
        return self.recipe.model or Path(self.recipe.start or self.recipe.teacher).name

    def recipe_of_run(self) -> Recipe:
        """The recipe."""
        return self.recipe

    def batches(self) -> Iterator[list[Batch]]:
        """Drawn from the corpus."""
        return batches(self.corpus, self.objective, self.recipe, self.first)

    def measure(self, done: int) -> dict[str, Measure]:
        """The held-out measures at the length of the moment: positions that no step reached are still new."""
        if self.held_out is None:
            return {}
        recipe = self.recipe
        return held_out(
            self.encoder, self.objective.asked().eval(), self.held_out, examples=recipe.evaluate_examples,
            length=recipe.length_at(done - 1), tokens=recipe.micro_tokens,
        )  # fmt: skip

    def _told(self, done: int) -> dict[str, Any]:
        """What a saved config says beside the sizes."""
        return {OBJECTIVE: self.recipe.objective, LENGTH: max(self.reached, self.recipe.length_at(done - 1))}

    def write_model(self, folder: Path, done: int, measures: dict[str, Measure], tokens: int) -> None:
        """The model with its heads and a card."""
        heads = nn.ModuleDict({**self.objective.heads, **dict(self.idle.items())})
        model = Model(self.encoder, heads, self.tokenizer, self._told(done), self.folder)
        training = Training(self.recipe, self.corpus.manifest, measures, done, tokens)
        model.save(folder, model_card(self.config, "mlm" in model.trained, training))
        for name, (config, state) in self.objective.companions(self.encoder).items():
            hub.write(folder / name, config, state, self.tokenizer)

    def draw(self, rows: list[dict[str, Any]]) -> None:
        """`curves.png` as it stands."""
        guesses = {name: one.loss for name, one in guessing(self.held_out or self.corpus, self.objective).items()}
        title = f"{self.name}, {self.recipe.objective}, {len(self.tokenizer):,} words"
        draw_curves(rows, self.folder / "curves.png", title, guesses)


def objective_of(model: Model) -> str:
    """What a model was pretrained on: as its folder tells, or else by the heads that are in it."""
    told = str(model.others.get(OBJECTIVE, ""))
    # What a student learned of its teacher is asked of text.
    if told and not taught(told):
        return told
    names = model.trained if model.config.direction == "both" else []
    if not any(name in PARTS and PARTS[name].role == "tokens" for name in names):
        # A head beside a language head that is not there.
        names = []
    return "+".join(names) or published_objective(model.config)


def trained_objective(model: Model) -> Combined:
    """The objective a model was pretrained with, as it is asked of held-out text, with the model's own heads."""
    name = objective_of(model)
    beside = model.path / "generator"
    share = hub.read_config(beside)[0].hidden_size / model.config.hidden_size if beside.is_dir() else Choices.generator
    objective = Combined(model.config, name, generator=share)
    for key, head in objective.heads.items():
        model.head(key)
        head.load_state_dict(model.heads[key].state_dict())
    _fill_companions(objective, model.encoder, model.path)
    objective.to(model.encoder.embeddings.word.weight.device)
    return objective.asked().eval()


def _fill_companions(objective: Combined, encoder: Encoder, folder: Path) -> None:
    """What learns beside an encoder, as it stands in the model's folder."""
    for name, (config, own) in objective.companions(encoder).items():
        if not (folder / name).is_dir():
            raise InputError(f"no {name} beside the model, one needed to measure {objective.name}", folder)
        found, _ = hub.read_config(folder / name)
        if found.hidden_size != config.hidden_size:
            given, allowed = (one.hidden_size / encoder.config.hidden_size for one in (config, found))
            raise InputError(f"{name}: {given:g} given, {allowed:g} allowed, as wide as it is", folder / name)
        state, _ = hub.read_state(folder / name, found)
        for key, tensor in own.items():
            # Embeddings are the encoder's.
            if not key.startswith("embeddings."):
                tensor.copy_(state[key])


# Documents of a text of which some are held out.
FEW_DOCUMENTS = 100


def prepared(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """The corpus of a recipe's text, its `text_corpus`, made unless it is there; every 20th document is held out."""
    if recipe.corpus or not recipe.start or not recipe.output:
        raise InputError(f"text: {recipe.text!r} given, allowed with from and output, and without corpus")
    folder = Path(recipe.text_corpus)
    source = hub.find(recipe.start)
    if folder.is_dir():
        made_of, files = Corpus(folder).manifest, [Path(one) for one in expand([recipe.text])]
        size = sum(one.stat().st_size for one in files if one.is_file() and one.suffix not in COMPRESSED)
        if made_of["sources"] != [one.name for one in files] or (size and made_of["bytes_read"] != size):
            raise InputError("is made of another text than is given now; remove it or give another --output", folder)
    else:
        say(f"Preparing {recipe.text} with the vocabulary of {recipe.start} in {folder}")
        make = partial(prepare, [recipe.text], source, folder, workers=default_workers())
        try:
            # Of few documents none can be spared.
            documents = sum(passage.last for passage in passages([recipe.text]))
            make(held_out=0.05 if documents >= FEW_DOCUMENTS else 0.0)
        except InputError as error:
            # Errors name the flags of who reads text, which a run has not.
            has = "; bertloom prepare has these flags, --corpus takes its folder" if "--" in str(error) else ""
            raise InputError(f"{error}{has}") from None
    return folder


def pretrain(
    recipe: Recipe,
    *,
    watch: Callable[[Pretraining, Step, dict[str, Measure]], None] = lambda run, step, measures: None,
    warn: Callable[[str], None] = print,
) -> bool:
    """Run a recipe to its end, from its beginning or its newest checkpoint; False where a signal stopped it early.

    A signal to stop (Ctrl-C, SIGTERM) saves first.
    """
    if recipe.text:
        recipe = replace(recipe, corpus=str(prepared(recipe, warn)))
    run = Pretraining(recipe, warn)
    done = run.first
    with stop_signals() as stopped:
        for step, measures in run.train(stopped):
            watch(run, step, measures)
            done = step.number + 1
    return done == recipe.steps
