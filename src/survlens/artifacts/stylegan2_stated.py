"""What the settings in a StyleGAN2 checkpoint state: sizes, and choices that must be the ones we know."""

from __future__ import annotations

from collections.abc import Mapping

from survlens.artifacts.inert_pickle import Record
from survlens.artifacts.stylegan2_records import Module
from survlens.artifacts.stylegan2_sizes import conditional
from survlens.core.errors import CorruptFileError

_ANY = object()
"""A choice that does not change what a network computes in full precision, or that its tensors show."""

_NO_CLASSES = object()
"""A number of classes, which must be 0."""

_MAPPING: dict[str, object] = {
    "num_layers": _ANY,
    "activation": "lrelu",
    "lr_multiplier": 0.01,
    "w_avg_beta": _ANY,
    "embed_features": _ANY,
    "layer_features": _ANY,
}
_LAYERS: dict[str, object] = {
    "channel_base": _ANY,
    "channel_max": _ANY,
    "conv_clamp": _ANY,
    "num_fp16_res": _ANY,
    "use_fp16": _ANY,
    "fp16_channels_last": _ANY,
    "activation": "lrelu",
    "kernel_size": 3,
    "use_noise": True,
    "resample_filter": _ANY,
}
_GENERATOR: dict[str, object] = {
    "z_dim": _ANY,
    "c_dim": _NO_CLASSES,
    "w_dim": _ANY,
    "img_resolution": _ANY,
    "img_channels": _ANY,
    "mapping_kwargs": _MAPPING,
    "synthesis_kwargs": {**_LAYERS, "architecture": "skip"},
}
_DISCRIMINATOR: dict[str, object] = {
    **_LAYERS,
    "c_dim": _NO_CLASSES,
    "img_resolution": _ANY,
    "img_channels": _ANY,
    "architecture": "resnet",
    "cmap_dim": _ANY,
    "mapping_kwargs": _ANY,
    "block_kwargs": {**_LAYERS, "freeze_layers": _ANY},
    "epilogue_kwargs": {"mbstd_group_size": _ANY, "mbstd_num_channels": 1, "activation": "lrelu"},
}
_OURS = {
    "img_resolution": "resolution",
    "z_dim": "latent",
    "w_dim": "width",
    "img_channels": "image_channels",
    "num_layers": "mapping_layers",
    "channel_base": "channel_base",
    "channel_max": "channel_max",
    "conv_clamp": "conv_clamp",
}


def stated_sizes(generator: Module, discriminator: Module | None) -> dict[str, object]:
    """Sizes that the arguments of the networks of a PyTorch checkpoint state.

    A limit that the arguments leave out is the one that a layer holds. The discriminator's must be the generator's.

    Raises:
        CorruptFileError: If an argument is unknown, or states a network of another kind.
        InvalidValueError: If a network is conditional.
    """
    stated = _limit(generator, "synthesis", "b4", "conv1") | _flat(_arguments(generator), _GENERATOR)
    if "conv_clamp" not in stated:
        raise CorruptFileError(
            "a checkpoint must state the limit of its values, conv_clamp, which tensors do not show; got neither an "
            "argument nor an attribute of that name. Save it with the published training script."
        )
    if discriminator is None:
        return stated
    arguments = _arguments(discriminator)
    theirs = _limit(discriminator, "b4", "conv") | _flat(arguments, _DISCRIMINATOR)
    if theirs.get("conv_clamp", stated["conv_clamp"]) != stated["conv_clamp"]:
        raise CorruptFileError(
            f"the networks of a checkpoint must have one limit of their values; got {stated['conv_clamp']} in the "
            f"generator and {theirs['conv_clamp']} in the discriminator. Such a pair cannot be used."
        )
    epilogue = arguments.get("epilogue_kwargs")
    group = epilogue.get("mbstd_group_size", 4) if type(epilogue) is dict else 4
    if type(group) is not int:
        raise _unknown("mbstd_group_size", group)
    return {**stated, "minibatch_group": group}


def stated_sizes_tensorflow(generator: Record, discriminator: Record) -> dict[str, object]:
    """Sizes that the arguments of the networks of a TensorFlow checkpoint state.

    Raises:
        CorruptFileError: If they state a network of another kind.
        InvalidValueError: If a network is conditional.
    """
    stated: dict[str, object] = {"conv_clamp": None}
    known = {
        "resolution": "resolution",
        "latent_size": "latent",
        "dlatent_size": "width",
        "mapping_layers": "mapping_layers",
        "num_channels": "image_channels",
        "conv_clamp": "conv_clamp",
    }
    for network, architecture in ((generator, "skip"), (discriminator, "resnet")):
        state = network.state
        arguments = state.get("static_kwargs", {}) if type(state) is dict else {}
        if type(arguments) is not dict:
            raise ValueError("a network whose arguments are no dictionary")
        if arguments.get("label_size", 0) != 0:
            raise conditional()
        fixed = {"architecture": architecture, "nonlinearity": "lrelu", "mapping_lrmult": 0.01, "mbstd_num_features": 1}
        for name, value in fixed.items():
            if arguments.get(name, value) != value:
                raise _unknown(name, arguments[name])
        sides = {arguments[name] for name in ("resolution", "resolution_w", "resolution_h") if name in arguments}
        if len(sides) > 1:
            raise _unknown("resolution", sorted(sides))
        stated |= {ours: arguments[name] for name, ours in known.items() if name in arguments}
        if "mbstd_group_size" in arguments:
            stated["minibatch_group"] = arguments["mbstd_group_size"]
    return stated


def _arguments(module: Module) -> dict[str, object]:
    positional, named = module.state.get("_init_args", ()), module.state.get("_init_kwargs", {})
    if positional or type(named) is not dict:
        raise CorruptFileError(
            "a network of a checkpoint must state its arguments by name; got them by position. "
            "Save the checkpoint with the published training script."
        )
    return named


def _flat(arguments: Mapping[str, object], known: Mapping[str, object]) -> dict[str, object]:
    """Sizes under our names; every other argument must have the one value that our networks have."""
    sizes: dict[str, object] = {}
    for name, value in arguments.items():
        expected = known.get(name)
        if name not in known:
            raise _unknown(name, value)
        if expected is _NO_CLASSES:
            if value != 0:
                raise conditional()
        elif isinstance(expected, dict):
            if type(value) is not dict:
                raise _unknown(name, value)
            sizes |= _flat(value, expected)
        elif expected is not _ANY and value != expected:
            raise _unknown(name, value)
        elif name in _OURS:
            sizes[_OURS[name]] = value
    return sizes


def _limit(module: Module, *path: str) -> dict[str, object]:
    state = module.state
    for name in path:
        children = state.get("_modules")
        child = children.get(name) if type(children) is dict else None
        if type(child) is not Module:
            return {}
        state = child.state
    return {name: state[name] for name in ("conv_clamp",) if name in state}


def _unknown(name: str, value: object) -> CorruptFileError:
    return CorruptFileError(
        f"the networks of a checkpoint must be those of StyleGAN2; got {value!r:.100} for `{name}`. "
        "Networks of another kind cannot be used."
    )
