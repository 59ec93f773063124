"""Real weights of another family than BERT's, which the registries carry."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
import transformers

import bertloom
from bertloom import hub
from bertloom.config import ROBERTA
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.packed import pack
from tests.conftest import package

# The variable heavy chains of trastuzumab, adalimumab and pembrolizumab.
ANTIBODIES = [
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
    "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYCAKVSYLSTASSLDYWGQGTLVTVSS",
    "QVQLVQSGVEVKKPGASVKVSCKASGYTFTNYYMYWVRQAPGQGLEWMGGINPSNGGTNFNEKFKNRVTLTTDSSTTTAYMELKSLQFDDTAVYYCARRDYRFDMGFDYWGQGTTVTVSS",
]
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
NAMES = [
    (r"^decoder\.sentence_encoder\.embed_tokens", "roberta.embeddings.word_embeddings"),
    (r"^decoder\.sentence_encoder\.embed_positions", "roberta.embeddings.position_embeddings"),
    (r"^decoder\.sentence_encoder\.emb_layer_norm", "roberta.embeddings.LayerNorm"),
    (r"^decoder\.sentence_encoder\.layers\.(\d+)\.", r"roberta.encoder.layer.\1."),
    (r"self_attn\.q_proj", "attention.self.query"),
    (r"self_attn\.k_proj", "attention.self.key"),
    (r"self_attn\.v_proj", "attention.self.value"),
    (r"self_attn\.out_proj", "attention.output.dense"),
    (r"self_attn_layer_norm", "attention.output.LayerNorm"),
    (r"\.fc1\.", ".intermediate.dense."),
    (r"\.fc2\.", ".output.dense."),
    (r"final_layer_norm", "output.LayerNorm"),
    (r"^decoder\.lm_head\.weight", "lm_head.decoder.weight"),
    (r"^decoder\.lm_head\.", "lm_head."),
]


def test_a_roberta_of_fairseq_names_hidden_residues(tmp_path: Path) -> None:
    """sapiens' heavy chains (Prihoda et al. 2022), its names turned into those of Hugging Face's folder."""
    file = package("sapiens") / "models" / "v1" / "checkpoint_vh.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        tensors = torch.load(file, map_location="cpu", weights_only=True)["model"]
    named = {}
    for name, tensor in tensors.items():
        for pattern, there in NAMES:
            name = re.sub(pattern, there, name)
        named[name] = tensor
    # fairseq knows no segments: one, of nothing.
    named["roberta.embeddings.token_type_embeddings.weight"] = torch.zeros(1, 128)
    sizes = {
        "vocab_size": 25, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
        "intermediate_size": 256, "max_position_embeddings": 146, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    }  # fmt: skip
    config = transformers.RobertaConfig(**sizes)
    config.save_pretrained(tmp_path)
    torch.save(named, tmp_path / "pytorch_model.bin")
    model = bertloom.load(tmp_path)
    assert model.config.model_type == ROBERTA.model_type
    assert model.config.longest == 144
    head, word = model.head("mlm"), model.encoder.embeddings.word.weight
    theirs = transformers.RobertaForMaskedLM(config)
    theirs.load_state_dict(
        {FAMILIES["roberta"].twice.get(name, name): one for name, one in named.items()}, strict=False
    )
    right = total = 0
    for sequence in ANTIBODIES:
        ids = np.array([0, *(4 + RESIDUES.index(one) for one in sequence), 2])
        places = np.arange(1, len(ids) - 1, 5)
        hidden = ids.copy()
        hidden[places] = 24
        batch = pack([Example(hidden, np.zeros(len(ids), np.int64), {"mlm": (places, ids[places])})])
        with torch.no_grad():
            logits = head(model.encoder(batch), word)
            want = theirs.eval()(torch.from_numpy(hidden)[None]).logits[0, places]
        assert torch.allclose(logits, want, atol=1e-4)
        right += int((logits.argmax(1).numpy() == ids[places]).sum())
        total += len(places)
    assert right / total > 0.8, "what it learned of antibodies is there"
    hub.write(tmp_path / "again", model.config, model.state())
    again, _ = hub.read_state(tmp_path / "again", model.config)
    assert all(torch.equal(again[name], one) for name, one in model.state().items())
