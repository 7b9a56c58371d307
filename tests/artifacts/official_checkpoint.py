"""Writes files in the layout of the published StyleGAN2 checkpoints, from the names and rules of their format."""

import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def modules(**members: dict[str, object]) -> Iterator[None]:
    """Lets pickle find made-up modules (dots written as two underscores) while a file is written, and not after."""
    made = {}
    for name, attributes in members.items():
        path = name.replace("__", ".")
        module = types.ModuleType(path)
        for key, value in attributes.items():
            value.__module__, value.__qualname__, value.__name__ = path, key, key  # type: ignore[attr-defined]
            setattr(module, key, value)
        made[path] = module
        for place in range(1, path.count(".") + 1):
            parent = ".".join(path.split(".")[:place])
            made.setdefault(parent, types.ModuleType(parent))
    clash = made.keys() & sys.modules.keys()
    if clash:
        raise RuntimeError(f"{clash} exist")
    sys.modules.update(made)
    try:
        yield
    finally:
        for path in made:
            del sys.modules[path]


SOURCE_TEXT = "raise RuntimeError('the source text of a checkpoint was executed')"


def torch_pickle(
    networks: dict[str, nn.Module | None],
    arguments: dict[str, dict[str, object]],
    *,
    protocol: int = 4,
    source: str = SOURCE_TEXT,
    frozen: tuple[str, ...] = (),
    attributes: dict[str, object] | None = None,
    shared: bool = False,
) -> bytes:
    """A pickle of persistent networks, each a call that would execute `source`.

    `arguments` are the `_init_kwargs` of each network; `attributes` are added to the state of every module. Parameters
    of D whose dotted names start with one of `frozen` become buffers. Where `shared`, a module that stands in several
    places is written once.
    """

    def _reconstruct_persistent_obj(meta: object) -> object:
        raise RuntimeError("a checkpoint was executed")

    class EasyDict(dict):
        pass

    class Persistent:
        def __init__(self, meta: object):
            self.meta = meta

        def __reduce__(self) -> tuple[object, ...]:
            return _reconstruct_persistent_obj, (self.meta,), None

    def easy(value: object) -> object:
        return EasyDict({key: easy(part) for key, part in value.items()}) if isinstance(value, dict) else value

    def state_of(module: nn.Module, prefix: str) -> dict[str, object]:
        state: dict[str, object] = dict(module.__dict__)
        for name, value in list(state.items()):
            if not name.startswith("_") and not isinstance(value, int | float | str | bool | None):
                del state[name]
        state |= {"weight_gain": np.float64(0.5), "block_resolutions": [4, 8], "_init_args": (), "_init_kwargs": {}}
        parameters, buffers = OrderedDict(module._parameters), OrderedDict(module._buffers)
        for name in list(parameters):
            if any((prefix + name).startswith(start) for start in frozen):
                buffers[name] = parameters.pop(name).detach()
        children = OrderedDict((n, persistent(c, f"{prefix}{n}.")) for n, c in module._modules.items())
        return {**state, "_parameters": parameters, "_buffers": buffers, "_modules": children, **(attributes or {})}

    known: dict[int, Persistent] = {}

    def persistent(module: nn.Module, prefix: str) -> Persistent:
        if not shared:
            return made(module, prefix)
        if id(module) not in known:
            known[id(module)] = made(module, prefix)
        return known[id(module)]

    def made(module: nn.Module, prefix: str) -> Persistent:
        state = state_of(module, prefix)
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": type(module).__name__}
        return Persistent(EasyDict(meta, state=state))

    with modules(
        torch_utils__persistence={"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
        dnnlib__util={"EasyDict": EasyDict},
    ):
        content: dict[str, object] = {"training_set_kwargs": EasyDict(path="a.zip", xflip=True), "augment_pipe": None}
        for name, network in networks.items():
            if network is not None:
                whole = persistent(network, "" if name == "D" else "-")
                whole.meta["state"]["_init_kwargs"] = easy(arguments[name])
                content[name] = whole
        return pickle.dumps(content, protocol=protocol)


def tensorflow_pickle(
    generator: dict[str, Tensor], discriminator: dict[str, Tensor], arguments: dict[str, object], *, protocol: int = 3
) -> bytes:
    """A pickle of (G, D, Gs) as TensorFlow networks, whose variables are made from tensors by the inverse rules."""

    class Network:
        def __getstate__(self) -> dict[str, object]:
            return self.__dict__

    def network(variables: list[tuple[str, np.ndarray]], components: dict[str, object]) -> Network:
        made = Network()
        made.__dict__.update(version=4, name="net", static_kwargs=dict(arguments), components=components)
        made.__dict__.update(build_module_src=SOURCE_TEXT, build_func_name="build", variables=variables)
        return made

    def whole() -> Network:
        mapping, synthesis = [], []
        for name, tensor in generator.items():
            values, parts = tensor.detach().numpy(), name.split(".")
            if name == "mapping.w_avg" or parts[-1] == "resample_filter":
                continue
            if parts[0] == "mapping":
                mapping.append((f"Dense{parts[1][2:]}/{parts[2]}", values.T))
                continue
            side = int(parts[1][1:])
            if parts[2] == "const":
                synthesis.append((f"{side}x{side}/Const/const", values[None]))
            elif parts[-1] == "noise_const":
                power = side.bit_length() - 1
                place = 2 * power - (5 if parts[2] == "conv0" else 4)
                synthesis.append((f"noise{place}", values[None, None]))
            else:
                layer = {"conv0": "Conv0_up", "conv1": "Conv" if side == 4 else "Conv1", "torgb": "ToRGB"}[parts[2]]
                weight = "mod_" + parts[4] if parts[3] == "affine" else parts[3]
                if weight == "mod_weight":
                    values = values.T
                elif weight == "mod_bias":
                    values = values - 1
                elif weight == "weight":
                    values = values[:, :, ::-1, ::-1] if layer == "Conv0_up" else values
                    values = values.transpose(2, 3, 1, 0)
                synthesis.append((f"{side}x{side}/{layer}/{weight}", np.asarray(values)))
        parts = {"mapping": network(mapping, {}), "synthesis": network(synthesis, {})}
        return network([("dlatent_avg", generator["mapping.w_avg"].numpy()), ("lod", np.float32(0.0))], parts)

    def judge() -> Network:
        variables = []
        for name, tensor in discriminator.items():
            block, layer, *rest = name.split(".")
            if not rest or rest[0] == "resample_filter":
                continue
            names = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"}
            names |= {"conv": "Conv", "fc": "Dense0"}
            values = tensor.detach().numpy()
            values = values.T if values.ndim == 2 else values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
            place = "Output" if layer == "out" else f"{block[1:]}x{block[1:]}/{names[layer]}"
            variables.append((f"{place}/{rest[0]}", values))
        return network(variables, {})

    with modules(dnnlib__tflib__network={"Network": Network}):
        return pickle.dumps((whole(), judge(), whole()), protocol=protocol)


def call_pickle(callable_: object, *arguments: object, protocol: int = 4) -> bytes:
    """A pickle that calls `callable_` when it is loaded the usual way."""

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return callable_, arguments  # type: ignore[return-value]

    return pickle.dumps({"G_ema": Payload()}, protocol=protocol)


def storage_bytes(values: Tensor) -> bytes:
    """A storage as it is nested in the pickle of a tensor."""
    return values._typed_storage().__reduce__()[1][0]  # type: ignore[index]


def tensor_pickle(content: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle that rebuilds a tensor from the bytes of a storage."""

    class Storage:
        def __reduce__(self) -> tuple[object, ...]:
            return torch.storage._load_from_bytes, (content,)

    class Rebuilt:
        def __reduce__(self) -> tuple[object, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    file = io.BytesIO()
    pickle.Pickler(file, protocol=4).dump({"G_ema": Rebuilt()})
    return file.getvalue()
