"""Official checkpoints are read whole; hostile ones are refused before anything in them runs."""

import builtins
import contextlib
import os
import pickle
import random
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from artifacts.official_checkpoint import (
    call_pickle,
    storage_bytes,
    tensor_pickle,
    tensorflow_pickle,
    torch_pickle,
)
from survlens.artifacts.stylegan2_checkpoint import convert, load_weights, read_official
from survlens.artifacts.stylegan2_records import NAMES
from survlens.artifacts.tensors import same_tensors, save_tensors
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.loading import discriminator_from, generator_from
from survlens.generators.stylegan2.shape import StyleGAN2Shape

SHAPE = StyleGAN2Shape(
    16, latent=24, width=20, mapping_layers=3, channel_base=128, channel_max=16, conv_clamp=256.0, minibatch_group=2
)


def _networks(shape: StyleGAN2Shape = SHAPE) -> dict[str, nn.Module | None]:
    """Three networks none of whose tensors is at its start value, so that an exchange of two shows."""
    source = torch.Generator().manual_seed(5)
    networks = {"G": Generator(shape, seed=1), "D": Discriminator(shape, seed=2), "G_ema": Generator(shape, seed=3)}
    for network in networks.values():
        for name, tensor in network.state_dict().items():
            if not name.endswith("resample_filter"):
                tensor += 0.1 * torch.randn(tensor.shape, generator=source)
    return dict(networks)


def _arguments(shape: StyleGAN2Shape = SHAPE) -> dict[str, dict[str, object]]:
    channels = {"channel_base": shape.channel_base, "channel_max": shape.channel_max, "num_fp16_res": 4}
    channels["conv_clamp"] = shape.conv_clamp
    both = {"c_dim": 0, "img_resolution": shape.resolution, "img_channels": shape.image_channels}
    generator = {**both, "z_dim": shape.latent, "w_dim": shape.width, "synthesis_kwargs": channels}
    generator["mapping_kwargs"] = {"num_layers": shape.mapping_layers}
    discriminator = {**both, **channels, "block_kwargs": {}, "mapping_kwargs": {}}
    discriminator["epilogue_kwargs"] = {"mbstd_group_size": shape.minibatch_group}
    return {"G": generator, "D": discriminator, "G_ema": generator}


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "checkpoint.pkl"
    path.write_bytes(content)
    return path


def _pictures(generator: Generator) -> torch.Tensor:
    z = torch.randn(3, generator.shape.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return generator(z, truncation=0.7)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("frozen", [(), ("b16", "b8.conv0")])
def test_an_official_file_loads_strictly_and_draws_the_same_pictures(
    tmp_path: Path, protocol: int, frozen: tuple[str, ...]
) -> None:
    networks = _networks()
    path = _written(tmp_path, torch_pickle(networks, _arguments(), protocol=protocol, frozen=frozen))
    weights = read_official(path)
    assert StyleGAN2Shape.from_json(weights.settings) == SHAPE
    assert (len(weights.generator_ema), len(weights.discriminator)) == (1 + 2 * 3 + 13 + 2 * 19, 2 * 9 + 3 + 7)
    average, last, judge = networks["G_ema"], networks["G"], networks["D"]
    assert torch.equal(_pictures(generator_from(weights)), _pictures(average.eval()))
    assert torch.equal(_pictures(generator_from(weights, average=False)), _pictures(last.eval()))
    pictures = _pictures(average)[:2]
    assert torch.equal(discriminator_from(weights)(pictures), judge(pictures))
    assert not {name for name in sys.modules if name.startswith(("torch_utils", "dnnlib"))}


def test_sizes_that_no_setting_states_come_from_the_tensors(tmp_path: Path) -> None:
    silent = {"G": {}, "D": {"epilogue_kwargs": {"mbstd_group_size": 2}}, "G_ema": {}}
    content = torch_pickle(_networks(), silent, attributes={"conv_clamp": 256.0})
    assert StyleGAN2Shape.from_json(read_official(_written(tmp_path, content)).settings) == SHAPE


def test_a_limit_that_nothing_states_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="conv_clamp"):
        read_official(_written(tmp_path, torch_pickle(_networks(), {"G": {}, "D": {}, "G_ema": {}})))


def test_a_file_may_hold_the_average_alone(tmp_path: Path) -> None:
    networks = _networks()
    path = _written(tmp_path, torch_pickle({"G_ema": networks["G_ema"]}, _arguments()))
    weights = read_official(path)
    assert torch.equal(_pictures(generator_from(weights)), _pictures(networks["G_ema"].eval()))
    with pytest.raises(InvalidValueError, match="without one"):
        discriminator_from(weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"img_resolution": 32}, "32 stated for resolution, and 16"),
        ({"mapping_kwargs": {"num_layers": 8}}, "8 stated for mapping_layers, and 3"),
        ({"synthesis_kwargs": {"channel_max": 8, "conv_clamp": 256.0}}, "channels of side 4"),
        ({"synthesis_kwargs": {"channel_base": 64, "conv_clamp": 256.0}}, "channels of side 8"),
        ({"synthesis_kwargs": {"architecture": "orig"}}, "'orig' for `architecture`"),
        ({"mapping_kwargs": {"lr_multiplier": 1.0}}, "1.0 for `lr_multiplier`"),
        ({"invented": 1}, "`invented`"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    arguments = _arguments()
    content = torch_pickle(_networks(), {**arguments, "G_ema": {**arguments["G_ema"], **change}})
    with pytest.raises(CorruptFileError, match=said):
        read_official(_written(tmp_path, content))


def test_conditional_networks_are_refused(tmp_path: Path) -> None:
    arguments = _arguments()
    content = torch_pickle(_networks(), {**arguments, "G_ema": {**arguments["G_ema"], "c_dim": 10}})
    with pytest.raises(InvalidValueError, match="without classes"):
        read_official(_written(tmp_path, content))
    networks = _networks()
    silent = {"G": {}, "D": {}, "G_ema": {"synthesis_kwargs": {"conv_clamp": 256.0}}}
    networks["G_ema"].mapping.embed = nn.Linear(10, 24)
    with pytest.raises(InvalidValueError, match="without classes"):
        read_official(_written(tmp_path, torch_pickle(networks, silent)))


def test_a_missing_tensor_and_another_filter_are_refused(tmp_path: Path) -> None:
    networks = _networks()
    del networks["G_ema"].synthesis.b8.conv0.noise_const
    weights = read_official(_written(tmp_path, torch_pickle(networks, _arguments())))
    with pytest.raises(CorruptFileError, match=r"b8\.conv0\.noise_const"):
        generator_from(weights)
    networks = _networks()
    networks["D"].b8.conv1.resample_filter *= 2
    with pytest.raises(CorruptFileError, match="resample_filter"):
        read_official(_written(tmp_path, torch_pickle(networks, _arguments())))


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_tensorflow_file_loads_strictly_and_draws_the_same_pictures(tmp_path: Path, protocol: int) -> None:
    shape = StyleGAN2Shape(16, latent=24, width=20, mapping_layers=3, channel_base=128, channel_max=16)
    networks = _networks(shape)
    average, judge = networks["G_ema"], networks["D"]
    stated = {"resolution": 16, "resolution_w": 16, "resolution_h": 16, "label_size": 0, "mapping_layers": 3}
    content = tensorflow_pickle(average.state_dict(), judge.state_dict(), stated, protocol=protocol)
    weights = read_official(_written(tmp_path, content))
    assert StyleGAN2Shape.from_json(weights.settings) == shape
    # Subtracting and adding 1 rounds the bias of a style.
    torch.testing.assert_close(_pictures(generator_from(weights)), _pictures(average.eval()), rtol=0, atol=1e-5)
    pictures = _pictures(average)[:2]
    assert torch.equal(discriminator_from(weights)(pictures), judge(pictures))


@pytest.mark.parametrize(
    ("stated", "error", "said"),
    [
        ({"resolution_w": 32}, CorruptFileError, r"\[16, 32\] for `resolution`"),
        ({"label_size": 10}, InvalidValueError, "without classes"),
        ({"architecture": "orig"}, CorruptFileError, "`architecture`"),
        ({"mapping_layers": 8}, CorruptFileError, "8 stated for mapping_layers"),
    ],
)
def test_tensorflow_settings_that_do_not_fit_are_refused(
    tmp_path: Path, stated: dict, error: type[Exception], said: str
) -> None:
    networks = _networks()
    average, judge = networks["G_ema"].state_dict(), networks["D"].state_dict()
    path = _written(tmp_path, tensorflow_pickle(average, judge, {"resolution": 16, **stated}))
    with pytest.raises(error, match=said):
        read_official(path)


def test_an_unknown_tensorflow_variable_is_refused(tmp_path: Path) -> None:
    content = tensorflow_pickle(*(_networks()[name].state_dict() for name in ("G", "D")), {})
    assert b"ToRGB" in content
    with pytest.raises(CorruptFileError, match="ToXYZ"):
        read_official(_written(tmp_path, content.replace(b"ToRGB", b"ToXYZ")))


def test_conversion_keeps_every_bit(tmp_path: Path) -> None:
    path, out = _written(tmp_path, torch_pickle(_networks(), _arguments())), tmp_path / "weights.safetensors"
    written, read = convert(path, out), load_weights(out)
    for part in ("generator", "discriminator", "generator_ema"):
        assert same_tensors(getattr(written, part), getattr(read, part))
        assert getattr(read, part)
    assert dict(read.settings) == dict(written.settings)


def test_only_our_safetensors_are_loaded(tmp_path: Path) -> None:
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(CorruptFileError, match="another safetensors file"):
        load_weights(tmp_path / "other.safetensors")
    with pytest.raises(CorruptFileError, match="pickle"):
        load_weights(_written(tmp_path, torch_pickle(_networks(), _arguments())))


class _Calls:
    def __init__(self, called: object, *arguments: object):
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.called, self.arguments  # type: ignore[return-value]


def _hostile(name: str, marker: Path) -> bytes:
    shell, python = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    magic = b"".join(pickle.dumps(part, protocol=2) for part in (119547037146038801333356, 1001, {}))
    files = {
        "system": lambda: call_pickle(os.system, shell),
        "eval": lambda: call_pickle(eval, python),
        "exec": lambda: call_pickle(exec, python),
        "import": lambda: call_pickle(builtins.__import__, "os"),
        "popen": lambda: call_pickle(subprocess.Popen, ["touch", str(marker)]),
        "torch.load": lambda: call_pickle(torch.load, str(marker)),
        "getattr": lambda: call_pickle(getattr, "", "join"),
        "private": lambda: b"\x80\x04\x8c\x0bsurvlens.xy\x8c\x08_private\x93)R.",
        "in a state": lambda: torch_pickle(_networks(), _arguments(), attributes={"extra": _Calls(os.system, shell)}),
        "in a storage": lambda: tensor_pickle(magic + pickle.dumps(_Calls(os.system, shell), 2), 0, (1,), (1,)),
        "dotted": lambda: (
            b"\x80\x04\x8c\x05torch\x8c\x12_utils.os.system.x\x93\x8c"
            + bytes([len(shell)])
            + shell.encode()
            + b"\x85R."
        ),
        "protocol 0": lambda: f"cnt\nsystem\n(S'{shell}'\ntR.".encode(),
        "inst": lambda: f"\x80\x02(S'{shell}'\nios\nsystem\n.".encode("latin1"),
        "obj": lambda: b"\x80\x02(cos\nsystem\nX" + struct.pack("<I", len(shell)) + shell.encode() + b"o.",
        "extension": lambda: b"\x80\x02\x82\x01)R.",
        "persistent": lambda: b"\x80\x02X\x01\x00\x00\x00aQ.",
        "build on a name": lambda: b"\x80\x02ccollections\nOrderedDict\n}b.",
    }
    return files[name]()


_HOSTILE = (
    *("system", "eval", "exec", "import", "popen", "torch.load", "getattr", "private", "in a state", "in a storage"),
    *("dotted", "protocol 0", "inst", "obj", "extension", "persistent", "build on a name"),
)


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = _written(tmp_path, _hostile(name, marker))
    with pytest.raises(CorruptFileError, match="Nothing in it was executed"):
        convert(path, tmp_path / "out.safetensors")
    assert {item.name for item in tmp_path.iterdir()} == {path.name}


def test_source_text_in_a_file_is_dropped(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    source = f"open({str(marker)!r}, 'w').close()"
    weights = read_official(_written(tmp_path, torch_pickle(_networks(), _arguments(), source=source)))
    assert not marker.exists()
    assert all(type(value) in (int, float, type(None)) for value in weights.settings.values())


def test_the_hostile_files_would_run_if_they_were_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name in ("system", "eval", "exec"):
        pickle.loads(_hostile(name, marker))  # noqa: S301
        assert marker.exists()
        marker.unlink()


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (1000, 1000), (1000, 1)),
        (0, (100_000, 100_000), (0, 0)),
        (0, (5,), (0,)),
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2**62,), (2**62,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
        (0, (1.0,), (1,)),
        (0, (True,), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, offset: int, size: tuple, stride: tuple) -> None:
    path = _written(tmp_path, tensor_pickle(storage_bytes(torch.zeros(4)), offset, size, stride))
    with pytest.raises(CorruptFileError, match="a tensor"):
        read_official(path)


def test_a_storage_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = storage_bytes(torch.zeros(4))
    for claim in (b"K\x05", b"J\x00\x00\x00\x40"):
        grown = content.replace(b"K\x04Nt", claim + b"Nt")
        assert grown != content
        with pytest.raises(CorruptFileError, match="a storage of"):
            read_official(_written(tmp_path, tensor_pickle(grown, 0, (4,), (1,))))
    with pytest.raises(CorruptFileError, match="a storage of"):
        read_official(_written(tmp_path, tensor_pickle(content[:-4], 0, (4,), (1,))))


def test_a_file_beyond_the_largest_size_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.pkl"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(CorruptFileError, match=r"at most 2147483648 bytes; got 3221225472"):
        read_official(path)
    with pytest.raises(CorruptFileError, match="No such file"):
        read_official(tmp_path / "none.pkl")


_DEPTH = 50_000

_BOMBS = {
    "deep list": b"\x80\x04" + b"]" * _DEPTH + b"a" * (_DEPTH - 1) + b".",
    "deep tuple": b"\x80\x04)" + b"\x85" * _DEPTH + b".",
    "deep tuple as a key": b"\x80\x04})" + b"\x85" * _DEPTH + b"K\x01s.",
    "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * _DEPTH + b"\x90.",
    "marks": b"\x80\x04" + b"(" * _DEPTH + b".",
    "empty stack": b"\x80\x04" + b"a" * 10 + b".",
    "list within itself": b"\x80\x04]\x94h\x00a.",
    "doubling lists": b"\x80\x04]\x94" + b"".join(b"](h%ch%ce\x94" % (i, i) for i in range(25)) + b".",
    "memory of a place": b"\x80\x04Nr\xff\xff\xff\xff.",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "long number": b"\x80\x04\x8b" + struct.pack("<i", 2**30) + b"x.",
    "unknown operation": b"\x80\x04\xff.",
    "no end": b"\x80\x04]",
    "nothing": b"",
    "a zip file": b"PK\x03\x04" + b"\x00" * 100,
}


@pytest.mark.parametrize("name", _BOMBS)
def test_a_damaged_file_or_a_bomb_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptFileError):
        read_official(_written(tmp_path, _BOMBS[name]))


@pytest.mark.parametrize("name", ["deep tuple as a key", "memory of a place", "long bytes", "a zip file", "nothing"])
def test_a_damaged_storage_or_a_bomb_in_it_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptFileError):
        read_official(_written(tmp_path, tensor_pickle(_BOMBS[name], 0, (1,), (1,))))


def test_every_allowed_name_stands_for_a_function_of_ours() -> None:
    assert {make.__module__ for make in NAMES.values() if make is not None} == {"survlens.artifacts.stylegan2_records"}


def test_a_file_with_wrong_bytes_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    source = random.Random(4)
    whole = bytearray(torch_pickle({"G_ema": _networks()["G_ema"]}, _arguments()))
    for _ in range(25):
        content = bytearray(whole)
        for _ in range(3):
            content[source.randrange(len(content))] = source.randrange(256)
        with contextlib.suppress(CorruptFileError, InvalidValueError):
            generator_from(read_official(_written(tmp_path, bytes(content))))


def test_tensors_that_repeat_a_storage_are_refused(tmp_path: Path) -> None:
    networks = _networks()
    shared = nn.Parameter(torch.zeros(200_000))
    for index in range(40):
        networks["G"].register_parameter(f"extra{index}", shared)
    with pytest.raises(CorruptFileError, match="repeat their numbers"):
        read_official(_written(tmp_path, torch_pickle(networks, _arguments())))


def test_networks_that_multiply_are_refused(tmp_path: Path) -> None:
    networks = _networks()
    inner: nn.Module = nn.Module()
    for _ in range(7):
        outer = nn.Module()
        for index in range(20):
            outer.add_module(f"part{index}", inner)
        inner = outer
    networks["G"].add_module("many", inner)
    content = torch_pickle(networks, _arguments(), shared=True)
    assert len(content) < 10**6
    with pytest.raises(CorruptFileError, match="repeat their numbers"):
        read_official(_written(tmp_path, content))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = torch_pickle({"G_ema": _networks()["G_ema"]}, _arguments())
    for length in range(0, len(content) - 1, len(content) // 15):
        with pytest.raises(CorruptFileError):
            read_official(_written(tmp_path, content[:length]))


def test_ordered_dictionaries_and_sets_are_plain(tmp_path: Path) -> None:
    content = pickle.dumps(OrderedDict(G_ema={"a", "b"}), protocol=2)
    with pytest.raises(CorruptFileError, match="no dictionary with G_ema"):
        read_official(_written(tmp_path, content))
