"""Linear layers and embeddings in int8: weights by row, activations at a range that was measured.

T rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Packed weights, zero points of their rows, what inputs are multiplied by and what is added, a step, and the zero.
_Packed = tuple[Tensor, Tensor, Tensor, Tensor, float, int]
# Steps of an activation above its lowest, and of a weight to either side of zero.
STEPS, SIDE = 255, 127


def instruction_set() -> str:
    """What this CPU computes int8 with: results differ between CPUs where products of pairs saturate (AVX2)."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{capability} VNNI" if torch.cpu._is_vnni_supported() else f"{capability} without VNNI"


def _has_kernel() -> bool:
    """Whether PyTorch's oneDNN linear layer of int8 is there; else weights are made fp32 as they are used."""
    return hasattr(torch.ops.onednn, "qlinear_pointwise") and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class QuantizedLinear(nn.Module):
    """(T, I) to (T, O): `smooth` (I,) is multiplied into the inputs, and its inverse into the weights, so that a few
    large inputs do not take the range of all (Xiao et al. 2022, §4); then inputs are whole steps of `step` from `low`.
    """

    weight: Tensor
    scale: Tensor
    smooth: Tensor
    bounds: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, biased: bool):
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("smooth", torch.ones(inputs))
        self.register_buffer("bounds", torch.tensor([0.0, 1.0]))
        self.register_buffer("bias", torch.zeros(outputs) if biased else None)
        self._packed: _Packed | None = None

    @classmethod
    def of(cls, linear: nn.Linear, smooth: Tensor, low: float, high: float) -> QuantizedLinear:
        """A linear layer whose inputs times `smooth` lie between `low` and `high`; zero is always one of the steps."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None)
        weight = linear.weight.detach() / smooth
        made.scale.copy_(weight.abs().amax(1).clamp(min=1e-12) / SIDE)
        made.weight.copy_((weight / made.scale[:, None]).round())
        made.smooth.copy_(smooth)
        made.bounds.copy_(torch.tensor([min(low, 0.0), max(high, 1e-12)]))
        if made.bias is not None:
            made.bias.copy_(linear.bias.detach())
        return made

    def __getstate__(self) -> dict[str, Any]:
        # What the kernel reads can be neither copied nor saved.
        return {**self.__dict__, "_packed": None}

    def _load_from_state_dict(self, *given: object) -> None:
        self._packed = None
        super()._load_from_state_dict(*given)

    def forward(self, x: Tensor) -> Tensor:
        """(T, O)."""
        if x.device.type != "cpu" or not _has_kernel():
            return F.linear(x * self.smooth, self.weight.to(x.dtype) * self.scale[:, None], self.bias)
        packed, zeros, factor, offset, step, zero = self._packed or self._pack()
        # A half more than the zero, and what is behind the point falls away: rounded.
        steps = torch.addcmul(offset, x, factor).clamp_(0, STEPS).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            steps, step, zero, packed, self.scale, zeros, self.bias, 1.0, 0, torch.float32, "none", [], ""
        )

    def _pack(self) -> _Packed:
        """What the kernel reads, made once."""
        low, high = self.bounds.tolist()
        step = (high - low) / STEPS
        zero = round(-low / step)
        packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
        zeros = torch.zeros(len(self.weight), dtype=torch.int64)
        self._packed = packed, zeros, self.smooth / step, torch.full_like(self.smooth, zero + 0.5), step, zero
        return self._packed


class QuantizedEmbedding(nn.Module):
    """Ids to rows (…, E) of int8, each with a scale of its own; what widens rows of low rank is as it was."""

    weight: Tensor
    scale: Tensor
    up: Tensor | None

    def __init__(self, rows: int, width: int, up: Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows))
        self.register_buffer("up", up)

    @classmethod
    def of(cls, table: nn.Embedding) -> QuantizedEmbedding:
        """A table rounded."""
        weight = table.weight.detach()
        made = cls(len(weight), weight.shape[1], _up(table))
        made.scale.copy_(weight.abs().amax(1).clamp(min=1e-12) / SIDE)
        made.weight.copy_((weight / made.scale[:, None]).round())
        return made

    def forward(self, ids: Tensor) -> Tensor:
        """(…, E)."""
        rows = self.weight[ids] * self.scale[ids][..., None]
        return rows if self.up is None else F.linear(rows, self.up)


def _up(table: nn.Embedding) -> Tensor | None:
    up: Tensor | None = getattr(table, "up", None)
    return None if up is None else up.detach().clone()


def in_int8(module: nn.Module) -> nn.Module:
    """A layer or table of the same shape without weights yet."""
    if isinstance(module, nn.Linear):
        return QuantizedLinear(module.in_features, module.out_features, module.bias is not None)
    assert isinstance(module, nn.Embedding)
    return QuantizedEmbedding(module.num_embeddings, module.embedding_dim, _up(module))
