"""What kind of function a network is of its inputs: linear in countable pieces, smooth, or neither.

The network is run once on two rows while every function of torch that it calls is looked at. A tensor depends on the
inputs where it asks for a gradient, because the parameters of a held model do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from survlens.core.errors import FitError
from survlens.core.inputs import has_bags, rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.path_rules.kinks import KinkValues, kink_names, kink_values
from survlens.heads.cox_time import CoxTime


class Smoothness(Enum):
    """How a network's output moves along a straight line of inputs.

    PIECEWISE_LINEAR: in straight pieces whose ends can be found. SMOOTH: without kinks. MIXED: with kinks, and curved
    or uncountable between them. UNKNOWN: it calls what is not known here.
    """

    PIECEWISE_LINEAR = "piecewise linear"
    SMOOTH = "smooth"
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """What a network is of its inputs.

    Attributes:
        smoothness: The kind.
        calls: Number of calls of kink functions.
        units: Number of kinks per row that they can make.
        countable: Whether every kink is among them, and each is where a number of one row crosses zero.
        unknown: What the network calls that is not known here.
    """

    smoothness: Smoothness
    calls: int
    units: int
    countable: bool = True
    unknown: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """A sentence where the kind is unknown, else nothing."""
        if not self.unknown:
            return ""
        return (
            f"The network calls {', '.join(self.unknown)}, of which it is not known where it bends: "
            "the path integral was refined until its estimated error was small."
        )


def network_kind(held: HeldModel, inputs: Inputs) -> NetworkKind:
    """What kind of function the raw output is of the inputs.

    Args:
        held: The model.
        inputs: Ready inputs, of which two rows are run; all rows must have the same modalities.
    """
    rows = torch.arange(2, device=held.device) % rows_of_modality(inputs, held.modalities[0])
    two = select_rows(inputs, rows)
    follower = _Follower(2, None)
    with torch.enable_grad(), follower:
        raw = _raw(held, moving_inputs(held, two))
    in_bags = any(has_bags(inputs, name) for name in held.modalities)
    scripted = (type(each).__name__ for each in held.model.modules() if isinstance(each, torch.jit.ScriptModule))
    unknown = tuple(dict.fromkeys([*follower.unknown, *_foreign(raw), *scripted]))
    if unknown:
        smoothness = Smoothness.UNKNOWN
    elif follower.curved:
        smoothness = Smoothness.MIXED if follower.calls or follower.uncounted else Smoothness.SMOOTH
    else:
        bent = follower.uncounted or (follower.calls and in_bags)
        smoothness = Smoothness.MIXED if bent else Smoothness.PIECEWISE_LINEAR
    countable = not (follower.uncounted or in_bags or (follower.windows and follower.curved))
    return NetworkKind(smoothness, follower.calls, follower.units, countable, unknown)


def kink_values_at(held: HeldModel, inputs: Inputs, call: int) -> KinkValues:
    """What decides on the piece of kink call number `call` of the network at every row; the network stops there.

    Raises:
        FitError: If the network takes another way for these rows and makes no such call.
    """
    follower = _Follower(rows_of_modality(inputs, held.modalities[0]), call)
    try:
        with torch.enable_grad(), follower:
            _raw(held, moving_inputs(held, inputs))
    except _Reached as reached:
        return reached.values
    raise FitError(
        f"The network must call the same functions for every row; got fewer than {call + 1} kink functions where two "
        "rows had more. Choose a rule that needs no pieces: GaussLegendre()."
    )


def _raw(held: HeldModel, inputs: Inputs) -> Tensor:
    """The raw output by functions of torch that can be followed; instances first in every tensor."""
    embedding = held.model.embed(inputs)
    if isinstance(held.head, CoxTime):
        return held.head.raw_by_knot(embedding[:, None])
    return held.head.raw(embedding)


def moving_inputs(held: HeldModel, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs, of which the numbers of every modality of the model ask for a gradient."""
    moving = {name for name in held.modalities if inputs[name].is_floating_point()}
    return {name: each.detach().requires_grad_(name in moving) for name, each in inputs.items()}


class _Reached(Exception):  # noqa: N818 - no error: the network has got as far as it was asked to
    def __init__(self, values: KinkValues):
        super().__init__()
        self.values = values


class _Follower(TorchFunctionMode):
    """Looks at every function of torch that a network calls with something that depends on its inputs."""

    def __init__(self, rows: int, stop_at: int | None):
        super().__init__()
        self.rows, self.stop_at = rows, stop_at
        self.calls, self.units = 0, 0
        self.curved, self.uncounted, self.windows = False, False, False
        self.unknown: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        settings = kwargs or {}
        depending = [each for each in tree_leaves((args, settings)) if isinstance(each, Tensor) and each.requires_grad]
        name = getattr(func, "__name__", str(func)).strip("_")
        if depending and name in kink_names():
            self._bend(name, args, settings)
        result = func(*args, **settings)
        if depending and name not in kink_names() and self.stop_at is None:
            self._follow(name, args, settings, len(depending), result)
        return result

    def _bend(self, name: str, args: tuple[Any, ...], settings: Any) -> None:
        with torch.no_grad():
            values = kink_values(name, args, settings)
            values = None if values is None else values.of_rows(self.rows)
        if values is None:
            self.uncounted = True
            return
        if self.stop_at == self.calls:
            raise _Reached(values)
        self.calls += 1
        self.units += values.units
        self.windows |= values.windows is not None

    def _follow(self, name: str, args: tuple[Any, ...], settings: Any, depending: int, result: Any) -> None:
        results = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if not results or name in _NEUTRAL:
            return
        if not all(each.requires_grad for each in results):
            self.unknown.append(name)
        elif name in _PRODUCTS:
            self.curved |= depending > 1
        elif name in _QUOTIENTS:
            self.curved |= _depends(args[_QUOTIENTS[name]])
        elif name in _NORMS:
            self.curved |= bool(settings.get("training", args[5] if len(args) > 5 else False))
        elif name in _SMOOTH:
            self.curved = True
        elif name in _BOTH:
            self.curved = self.uncounted = True
        elif name not in _LINEAR:
            self.unknown.append(name)


def _depends(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _foreign(raw: Tensor) -> list[str]:
    """Names of functions in the graph that torch does not know itself: they are not seen when they are called."""
    found, waiting, seen = [], [raw.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.FunctionCtx):
            found.append(type(node).__name__.removesuffix("Backward").strip("_"))
        waiting.extend(each for each, _ in node.next_functions)
    return found


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEUTRAL = _names(
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full new_tensor "
    "requires_grad_ requires_grad"
)
_LINEAR = _names(
    "add radd iadd sub subtract rsub isub neg negative pos cat concat concatenate stack hstack "
    "vstack dstack reshape reshape_as view view_as flatten unflatten ravel squeeze unsqueeze permute transpose t "
    "adjoint movedim moveaxis swapaxes swapdims contiguous clone expand expand_as broadcast_to repeat tile "
    "repeat_interleave mean sum nansum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d pad dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout getitem "
    "setitem get index_select take_along_dim gather narrow select chunk split tensor_split unbind flip roll rot90 to "
    "float double type type_as cpu cuda cumsum diff interpolate upsample index_add index_copy index_fill scatter "
    "scatter_add masked_fill masked_scatter where pixel_shuffle pixel_unshuffle unfold fold tril triu diagonal "
    "channel_shuffle"
)
_PRODUCTS = _names(
    "mul multiply rmul imul matmul rmatmul mm bmm mv einsum linear bilinear conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d dot inner outer tensordot addmm addmv baddbmm addcmul lerp"
)
_QUOTIENTS = {"div": 1, "divide": 1, "true_divide": 1, "truediv": 1, "itruediv": 1, "rdiv": 0, "rtruediv": 0}
_NORMS = _names("batch_norm")
_SMOOTH = _names(
    "tanh sigmoid gelu silu mish softplus logsigmoid exp expm1 exp2 log log1p log2 sqrt rsqrt square pow rpow sin cos "
    "tan sinh cosh asinh atan erf softmax log_softmax softmin logsumexp logaddexp group_norm layer_norm instance_norm "
    "rms_norm local_response_norm elu celu selu tanhshrink normalize scaled_dot_product_attention lstm gru rnn_tanh "
    "lstm_cell gru_cell multi_head_attention_forward std var norm vector_norm cosine_similarity reciprocal glu prod "
    "special_expit"
)
_BOTH = _names(
    "hardswish softsign max_pool2d_with_indices adaptive_max_pool1d_with_indices rnn_relu fractional_max_pool2d "
    "cummax cummin median sort topk"
)
