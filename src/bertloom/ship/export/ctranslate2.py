"""CTranslate2, which computes encoders of BERT's kind; what stands on them is NumPy beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bertloom.errors import InputError
from bertloom.model.forms import LowRankEmbedding, is_whole
from bertloom.model.pooling import LAST_FOUR
from bertloom.ship.export.form import Form
from bertloom.tasks.heads import FeatureHead

FILE = "model.bin"
NEEDS = ("ctranslate2",)
MAKES = ("ctranslate2",)
HEAD = "head.npz"
ACTIVATIONS = {"gelu": "GELU", "gelu_new": "GELUTanh", "gelu_pytorch_tanh": "GELUTanh", "relu": "RELU",
               "silu": "SWISH", "swish": "SWISH"}  # fmt: skip
_OPENS = """
encoder = ctranslate2.Encoder(str(HERE))  # compute_type="int8" is faster, and less near


def run(feeds):
    sizes = feeds["attention_mask"].sum(1)
    ids, segments = (
        [row[:size].tolist() for row, size in zip(feeds[name], sizes)] if name in feeds else None
        for name in ("input_ids", "token_type_ids")
    )
    x = np.array(encoder.forward_batch(ids, token_type_ids=segments).last_hidden_state)
    mask = feeds["attention_mask"][:, : x.shape[1], None].astype(x.dtype)
"""
# What NumPy makes of an activation's input `x`.
_NUMPY = {
    "tanh": "np.tanh(x)",
    "relu": "np.maximum(x, 0)",
    "gelu": "x * (0.5 + 0.5 * np.vectorize(math.erf)(x / 2**0.5))",
    "gelu_new": "0.5 * x * (1 + np.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))",
    "silu": "x / (1 + np.exp(-x))",
}
_NUMPY |= {"gelu_pytorch_tanh": _NUMPY["gelu_new"], "swish": _NUMPY["silu"]}
# What NumPy makes of states `x` (B, n, D) and `mask` (B, n, 1).
_POOLED = {
    "cls": "x[:, 0]",
    "max": "np.where(mask > 0, x, -np.inf).max(1)",
    "mean": "(x * mask).sum(1) / mask.sum(1)",
    "mean_sqrt_len_tokens": "(x * mask).sum(1) / mask.sum(1) ** 0.5",
    "weightedmean": "(x * mask * (places := np.arange(1, x.shape[1] + 1)[:, None])).sum(1) / (mask * places).sum(1)",
    "lasttoken": "x[np.arange(len(x)), sizes - 1]",
}


def opens(form: Form) -> str:
    """Python that defines `run`, from inputs by name to outputs."""
    return _OPENS + "".join(f"    {line}\n" for line in _lines(form))


def _lines(form: Form) -> list[str]:
    """What NumPy makes of the states."""
    config, how = form.model.config, form.model.how
    if form.kind == "states":
        return ["return [x]"]
    if form.kind == "vectors":
        x = f"np.concatenate([{', '.join(_POOLED[name] for name in how.pooling)}], -1)"
        return [f"x = {x}", f"return [{'x / np.linalg.norm(x, axis=-1, keepdims=True)' if how.normalize else 'x'}]"]
    if form.kind == "mlm":
        act = _NUMPY[config.head_act or config.hidden_act]
        return [
            'x = x @ head["dense.weight"].T + head["dense.bias"]', f"x = {act}", "x = x - x.mean(-1, keepdims=True)",
            f'x = x / np.sqrt((x * x).mean(-1, keepdims=True) + {config.layer_norm_eps}) * head["norm.weight"]',
            'return [(x + head["norm.bias"]) @ head["word"].T + head["bias"]]',
        ]  # fmt: skip
    pool = []
    if form.by_text:
        act = _NUMPY[config.pooler_act or config.head_act or config.hidden_act]
        pool = ['x = x[:, 0] @ head["pooler.weight"].T + head["pooler.bias"]', f"x = {act}"]
    logits = ['x = x @ head["weight"].T + head["bias"]']
    return [*pool, *logits, "return [x[..., 0], x[..., 1]]" if len(form.outputs) == 2 else "return [x]"]


def write(form: Form, folder: Path) -> None:
    """`model.bin` with its config and vocabulary, and the head's weights in `head.npz`."""
    from ctranslate2.specs import common_spec, transformer_spec

    model, config = form.model, form.model.config
    _require(form)
    encoder, segment = model.encoder, model.encoder.embeddings.segment
    inner = transformer_spec.TransformerEncoderSpec(
        config.num_hidden_layers, config.num_attention_heads, pre_norm=False, layernorm_embedding=True,
        activation=getattr(common_spec.Activation, ACTIVATIONS[config.hidden_act]),
        num_source_embeddings=1 if segment is None else 2, embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )  # fmt: skip
    spec = transformer_spec.TransformerEncoderModelSpec(inner)
    inner.scale_embeddings = False
    tables = inner.embeddings if isinstance(inner.embeddings, list) else [inner.embeddings]
    for place, table in zip(tables, (encoder.embeddings.word, segment)):
        place.weight = _array(_table(table)) if table is not None else None
    assert encoder.embeddings.position is not None
    inner.position_encodings.encodings = _array(encoder.embeddings.position.weight)[config.first_position :]
    _norm(inner.layernorm_embedding, encoder.embeddings.norm)
    for number, theirs in zip(encoder.order, inner.layer):
        layer: Any = encoder.layers[number]
        for place, linear in (
            (theirs.self_attention.linear[0], layer.attention.qkv),
            (theirs.self_attention.linear[1], layer.attention.output),
            (theirs.ffn.linear_0, layer.feed_forward.inner),
            (theirs.ffn.linear_1, layer.feed_forward.output),
        ):
            place.weight, place.bias = _array(linear.weight), _array(linear.bias)
        _norm(theirs.self_attention.layer_norm, layer.attention.norm)
        _norm(theirs.ffn.layer_norm, layer.feed_forward.norm)
    tokens = model.tokenizer.tokens(range(len(model.tokenizer)))
    spec.register_vocabulary([*tokens, *(f"<unused{n}>" for n in range(config.vocab_size - len(tokens)))])
    spec.config.unk_token = model.tokenizer.spelt["unk"]
    spec.config.layer_norm_epsilon = config.layer_norm_eps
    spec.validate()
    spec.save(str(folder))
    np.savez(folder / HEAD, **{name: _array(one) for name, one in _head(form).items()})


def _require(form: Form) -> None:
    config = form.model.config
    missing = [
        what
        for what, there in {
            "norms after the layers": not config.norm_first,
            "positions in the embeddings": config.position_embedding_type == "absolute",
            "layers that are not gated": not config.gated,
            "sight of both sides": config.direction == "both",
            "embeddings of the model's width": not config.embedding_size,
            "biases everywhere": config.attention_bias and config.mlp_bias and config.norm_bias,
            "all its heads": is_whole(form.model.encoder),
            "an activation of " + ", ".join(ACTIVATIONS): config.hidden_act in ACTIVATIONS,
            "a pooling of one layer": LAST_FOUR not in form.model.how.pooling or form.kind != "vectors",
            "a head on the last layer": not any(isinstance(one, FeatureHead) for one in form.model.heads.values()),
            "a language head with biases": form.kind != "mlm" or (config.head_bias and config.decoder_bias),
            "a classifier on the first token": config.classifier_pooling == "cls",
        }.items()
        if not there
    ]
    if missing:
        raise InputError(f"CTranslate2 computes models that have {missing[0]}; --to onnx takes any", form.model.path)


def _head(form: Form) -> dict[str, Tensor]:
    model = form.model
    if form.kind == "mlm":
        return {**model.heads["mlm"].state_dict(), "word": _table(model.encoder.embeddings.word)}
    if form.task is None:
        return {}
    made: dict[str, Tensor] = dict(model.heads[form.task.part].state_dict())
    if form.by_text:
        made |= {f"pooler.{name}": one for name, one in model.encoder.pooler.dense.state_dict().items()}
    return made


def _table(table: nn.Embedding) -> Tensor:
    """Rows at their full width."""
    return table.weight @ table.up.t() if isinstance(table, LowRankEmbedding) else table.weight


def _norm(place: Any, norm: Any) -> None:
    place.gamma, place.beta = _array(norm.weight), _array(norm.bias)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
