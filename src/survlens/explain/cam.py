"""Grad-CAM over time: which places of a convolutional layer speak for or against, at every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, has_bags, item_count, row_of_item
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.held import HeldModel, held_still
from survlens.explain.layout import axis_names, checked_times, chosen_modalities, unit_of
from survlens.explain.outer.outer_maps import OuterMap

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True)
class GradCAM:
    """Grad-CAM(t): the activations of a layer, weighted by what their channels do to the target at time t.

        cam(t, place) = sum over channels c of w_c(t) A_c(place),   w_c(t) = mean over places of dF(t)/dA_c(place),

    spread to the size of the picture by linear interpolation, corner pixels apart. One Jacobian of the raw output by
    the activations serves all times. Values keep their sign: for S(t), negative places speak for an earlier event. The
    values have no unit of the target and sum to nothing; the map is as coarse as the layer.

    Attributes:
        layer: Path of the module in the model, such as "encoders.image.4"; where None, the last module in the encoder
            of `modality` with space in its output.
        modality: The picture.
        positive_only: Whether negative values are set to 0, as in the paper.

    References:
        Selvaraju et al. 2017.
    """

    layer: str | None = None
    modality: str = "image"
    positive_only: bool = False

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The maps of every row of `inputs`, one value per pixel for all its channels.

        Raises:
            InvalidValueError: If `modality` is no picture, or there is no such layer with space in its output.
        """
        asked = checked_times(times)
        with held_still(model) as held:
            ready = held.ready(inputs)
            (name,) = chosen_modalities(held, (self.modality,))
            space = tuple(ready[name].shape[2:])
            if len(space) not in _MODES:
                raise InvalidValueError(
                    f"`modality` must name pictures (item, channel, height, width, ...); got {name!r} of shape "
                    f"{tuple(ready[name].shape)}."
                )
            layer = self.layer or _last_with_space(held, ready, name)
            outer = OuterMap(held.head, target, asked.to(held.device))
            raw, activation, slopes = _at_layer(held, ready, layer, len(space))
            kept = _items_read(ready, name)
            if activation.shape[0] != len(kept):
                raise InvalidValueError(
                    f"`layer` must have one output per picture; got {activation.shape[0]} outputs of {layer!r} for "
                    f"{len(kept)} pictures. Choose a layer of the encoder of {name!r}."
                )
            rows = row_of_item(ready[count_key(name)]) if has_bags(ready, name) else None
            of_item = kept if rows is None else rows[kept]
            weights = outer.accumulate(raw[of_item][:, None], slopes[:, None])
            maps = torch.einsum("nc...,nct->nt...", activation.double(), weights)
            if self.positive_only:
                maps = maps.relu()
            maps = nn.functional.interpolate(maps, size=space, mode=_MODES[len(space)], align_corners=False)
            values = maps.new_zeros((len(ready[name]), *space, len(outer.columns)))
            values[kept] = maps.movedim(1, -1)
            found = Attribution(
                values=values,
                times=outer.columns,
                unit=unit_of(held, raw),
                target=target.name,
                method="Grad-CAM",
                dims=axis_names(len(space) + 1)[1:],
                paper="Selvaraju et al. 2017",
                prediction=outer.values(raw),
                rows=rows,
                notes=(f"Activations of {layer}, {' x '.join(map(str, activation.shape[2:]))}.",),
            )
        return {name: found}


@dataclass(slots=True)
class _Calls:
    """Outputs of a module, which the rest of the network reads in their place with a gradient of their own."""

    outputs: list[Tensor] = field(default_factory=list)

    def __call__(self, module: nn.Module, args: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            return None
        leaf = output.detach().requires_grad_(True)
        self.outputs.append(leaf)
        return leaf.clone()  # what follows may work in place


@contextmanager
def _hooked(module: nn.Module) -> Iterator[_Calls]:
    calls = _Calls()
    handle = module.register_forward_hook(calls)
    try:
        yield calls
    finally:
        handle.remove()


def _at_layer(held: HeldModel, inputs: Inputs, layer: str, axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Raw outputs, activations of a layer, and the mean over places of the slopes of each raw output by them."""
    try:
        module = held.model.get_submodule(layer)
    except AttributeError as error:
        raise InvalidValueError(
            f"`layer` must be the path of a module of the model; got {layer!r}. "
            "See model.named_modules(), or leave it out."
        ) from error
    with _hooked(module) as calls, torch.enable_grad():
        raw = held.raw(inputs)
        if len(calls.outputs) != 1 or calls.outputs[0].ndim != axes + 2:
            shapes = [tuple(each.shape) for each in calls.outputs]
            raise InvalidValueError(
                f"`layer` must run once and answer with (item, channel) and {axes} axes of space; got outputs of "
                f"{shapes} from {layer!r}. Choose a convolution or what follows it."
            )
        activation = calls.outputs[0]
        slopes = [
            torch.autograd.grad(
                raw[:, column].sum(), activation, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            .flatten(2)
            .mean(2)
            for column in range(raw.shape[1])
        ]
    return raw.detach(), activation.detach(), torch.stack(slopes, dim=1)


def _last_with_space(held: HeldModel, inputs: Inputs, name: str) -> str:
    """Path of the module of an encoder that is the last to answer with more than one place."""
    encoders = getattr(held.model, "encoders", None)
    within = f"encoders.{name}" if isinstance(encoders, nn.ModuleDict) and name in encoders else ""
    axes = inputs[name].ndim - 2
    found: list[str] = []

    def seen(path: str) -> object:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == axes + 2 and output.shape[2:].numel() > 1:
                found.append(path)

        return hook

    handles = []
    try:
        for path, module in held.model.named_modules():
            if path.startswith(within) and path:
                handles.append(module.register_forward_hook(seen(path)))
        with torch.no_grad():
            held.raw(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InvalidValueError(
            f"`layer` must be given for a model in which no module of {name!r} answers with space; got None. "
            "Grad-CAM explains convolutional networks; see model.named_modules()."
        )
    return found[-1]


def _items_read(inputs: Inputs, name: str) -> Tensor:
    """Positions of the items that the encoder sees: those of rows that have the modality."""
    has = item_count(inputs, name) > 0
    if not has_bags(inputs, name):
        return has.nonzero()[:, 0]
    return has[row_of_item(inputs[count_key(name)])].nonzero()[:, 0]
