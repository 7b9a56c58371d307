"""A network of pairs of an instance and a time."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from survlens.blocks.dense import dense_stack


class PairNetwork(nn.Module):
    """A multilayer perceptron with ReLU on (embedding, time), evaluated at many pairs at a low price.

    The first layer is linear in both, so its share for each instance is computed once (`of_instances`), that for each
    time once, and only their sum and what follows once per pair. With one hidden layer on a CPU a compiled pass is
    used; elsewhere, under function transforms and for higher derivatives, plain torch. The last layer has no bias,
    because it would cancel in every comparison of instances.

    Args:
        in_features: Width of the embedding.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, in_features: int, hidden: Sequence[int]):
        super().__init__()
        self.in_features, self.hidden = in_features, tuple(hidden)
        self.first = nn.Linear(in_features + 1, hidden[0])
        self.inner = dense_stack(hidden[0], hidden[1:])
        self.last = nn.Linear(hidden[-1], 1, bias=False)

    def of_instances(self, embedding: Float[Tensor, "*instance embedding"]) -> Float[Tensor, "*instance hidden"]:
        """What the first layer makes of the embedding alone."""
        return nn.functional.linear(embedding, self.first.weight[:, :-1], self.first.bias)

    def forward(self, rows: Float[Tensor, "*rows hidden"], when: Float[Tensor, "*when"]) -> Float[Tensor, "*pairs"]:
        """The output at the pairs to which `when` and the leading axes of `rows` broadcast.

        Args:
            rows: Results of `of_instances`.
            when: Numbers for the times.
        """
        shift = when[..., None] * self.first.weight[:, -1]
        all_pairs = rows.ndim == when.ndim == 2 and when.shape[1] == 1
        if all_pairs and len(self.hidden) == 1 and _compiled_serves(rows):
            return _AllPairs.apply(rows, shift[:, 0], self.last.weight[0])  # pyright: ignore[reportReturnType]
        return self.last(self.inner(torch.relu(rows + shift)))[..., 0]


def _compiled_serves(rows: Tensor) -> bool:
    """Whether the compiled pass can follow: it knows CPU memory and reverse mode only."""
    return (
        rows.device.type == "cpu"
        and rows.dtype in (torch.float32, torch.float64)
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and forward_ad.unpack_dual(rows).tangent is None
    )


def _scan() -> ModuleType:
    from survlens.heads import pair_scan  # numba takes 0.5 s to import

    return pair_scan


class _AllPairs(torch.autograd.Function):
    """Sum over h of weight[h] relu(rows[j, h] + shift[u, h]) for all times u and instances j."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, shift, weight)
        return torch.from_numpy(_scan().pair_values(*_arrays(rows, shift, weight)))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (cotangent,) = cotangents
        rows, shift, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody asked for a derivative of this derivative
            values = torch.relu(rows + shift[:, None]) @ weight
            return torch.autograd.grad(values, (rows, shift, weight), cotangent, create_graph=True)  # type: ignore[return-value]
        arrays = _arrays(rows, shift, weight)
        slopes = _scan().pair_slopes(*arrays, cotangent.contiguous().numpy())
        by_rows, by_shift, by_weight = (torch.from_numpy(slope) for slope in slopes)
        return by_rows.T, by_shift, by_weight


def _arrays(rows: Tensor, shift: Tensor, weight: Tensor) -> tuple[Any, ...]:
    return rows.detach().T.contiguous().numpy(), *(part.detach().contiguous().numpy() for part in (shift, weight))
