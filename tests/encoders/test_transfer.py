"""Transfer encoders take files in the common layouts, strictly, and compute what the papers say."""

import math
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.encoders import Shortcut, TransferResNet2D, TransferResNet3D, TransferVGG16, load_weights

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet_layout(depth, *, dimensions, channels, classes=0, projections=True):
    """Names and shapes of a residual network, written down from the layout and not from our modules."""
    cube, deep = (3,) * dimensions, depth >= 50
    point = (1,) * dimensions
    shapes = {"conv1.weight": (64, channels, *(7,) * dimensions)} | _norm("bn1", 64)
    before = 64
    for layer, (width, count) in enumerate(zip((64, 128, 256, 512), BLOCKS[depth], strict=True), start=1):
        after = 4 * width if deep else width
        for block in range(count):
            name = f"layer{layer}.{block}"
            inner = [(before, width, point), (width, width, cube), (width, after, point)]
            inner = inner if deep else [(before, width, cube), (width, width, cube)]
            for place, (left, right, kernel) in enumerate(inner, start=1):
                shapes[f"{name}.conv{place}.weight"] = (right, left, *kernel)
                shapes |= _norm(f"{name}.bn{place}", right)
            if block == 0 and (layer > 1 or before != after) and projections:
                shapes[f"{name}.downsample.0.weight"] = (after, before, *point)
                shapes |= _norm(f"{name}.downsample.1", after)
            before = after
    if classes:
        shapes |= {"fc.weight": (classes, before), "fc.bias": (classes,)}
    return shapes


def _norm(name, width):
    vectors = dict.fromkeys((f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")), (width,))
    return vectors | {f"{name}.num_batches_tracked": ()}


def vgg_layout():
    shapes, before = {}, 3
    for place, width in {
        **dict(zip((0, 2, 5, 7), (64, 64, 128, 128), strict=True)),
        **dict(zip((10, 12, 14, 17, 19, 21, 24, 26, 28), (256,) * 3 + (512,) * 6, strict=True)),
    }.items():
        shapes |= {f"features.{place}.weight": (width, before, 3, 3), f"features.{place}.bias": (width,)}
        before = width
    for place, (left, right) in {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}.items():
        shapes |= {f"classifier.{place}.weight": (right, left), f"classifier.{place}.bias": (right,)}
    return shapes


def weights_in(shapes):
    learnt = [shape for name, shape in shapes.items() if not name.endswith(("_mean", "_var", "_tracked"))]
    return sum(math.prod(shape) for shape in learnt)


def filled(shapes, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("tracked"):
            tensors[name] = torch.tensor(7)
        elif len(shape) > 1:
            tensors[name] = torch.randn(shape, generator=generator) * (2 / math.prod(shape[1:])) ** 0.5
        else:
            tensors[name] = torch.rand(shape, generator=generator) * 0.5 + (0.7 if "bias" not in name else -0.2)
    return tensors


def test_the_layouts_have_the_known_numbers_of_weights():
    known = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
    for depth, weights in known.items():
        assert weights_in(resnet_layout(depth, dimensions=2, channels=3, classes=1000)) == weights
    assert weights_in(vgg_layout()) == 138_357_544
    assert weights_in(resnet_layout(10, dimensions=3, channels=1)) == 14_355_520


NETWORKS = {
    "ResNet-18": (lambda: TransferResNet2D(18), resnet_layout(18, dimensions=2, channels=3)),
    "ResNet-34": (lambda: TransferResNet2D(34), resnet_layout(34, dimensions=2, channels=3)),
    "ResNet-50": (lambda: TransferResNet2D(50), resnet_layout(50, dimensions=2, channels=3)),
    "VGG-16": (TransferVGG16, {k: v for k, v in vgg_layout().items() if k.startswith("features")}),
    "MedicalNet 10": (lambda: TransferResNet3D(10), resnet_layout(10, dimensions=3, channels=1)),
    "MedicalNet 18": (
        lambda: TransferResNet3D(18, shortcut=Shortcut.PADDING),
        resnet_layout(18, dimensions=3, channels=1, projections=False),
    ),
    "MedicalNet 34": (
        lambda: TransferResNet3D(34, shortcut=Shortcut.PADDING),
        resnet_layout(34, dimensions=3, channels=1, projections=False),
    ),
    "MedicalNet 50": (lambda: TransferResNet3D(50), resnet_layout(50, dimensions=3, channels=1)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_names_and_shapes_are_those_of_the_layout(network):
    build, shapes = NETWORKS[network]
    with torch.device("meta"):
        encoder = build()
    assert {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()} == shapes


@pytest.fixture(scope="module")
def eighteen():
    return filled(resnet_layout(18, dimensions=2, channels=3, classes=10))


@pytest.fixture(scope="module")
def ten():
    return filled(resnet_layout(10, dimensions=3, channels=1))


def written_out(tensors, x, *, strides, dilations):
    """ResNets of two convolutions a block, read off the names."""
    convolve, pool = (F.conv2d, F.max_pool2d) if x.ndim == 4 else (F.conv3d, F.max_pool3d)

    def norm(name, value):
        parts = [
            tensors[f"{name}.{part}"].reshape(-1, *[1] * (x.ndim - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        ]
        mean, spread, scale, shift = parts
        return (value - mean) * scale / torch.sqrt(spread + 1e-5) + shift

    x = pool(F.relu(norm("bn1", convolve(x, tensors["conv1.weight"], stride=2, padding=3))), 3, 2, 1)
    for layer, (stride, dilation) in enumerate(zip(strides, dilations, strict=True), start=1):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in tensors:
            name, step = f"layer{layer}.{block}", stride if block == 0 else 1
            y = convolve(x, tensors[f"{name}.conv1.weight"], stride=step, padding=dilation, dilation=dilation)
            y = F.relu(norm(f"{name}.bn1", y))
            y = norm(f"{name}.bn2", convolve(y, tensors[f"{name}.conv2.weight"], padding=dilation, dilation=dilation))
            if f"{name}.downsample.0.weight" in tensors:
                x = norm(f"{name}.downsample.1", convolve(x, tensors[f"{name}.downsample.0.weight"], stride=step))
            elif y.shape[1] != x.shape[1]:
                x = x[:, :, ::step, ::step, ::step]
                x = torch.cat([x, torch.zeros_like(y[:, x.shape[1] :])], 1)
            x, block = F.relu(x + y), block + 1
    return x.flatten(2).mean(2)


def test_pictures_by_a_file_in_torchvision_layout(tmp_path, eighteen):
    save_file(eighteen, tmp_path / "resnet.safetensors")
    encoder = TransferResNet2D(18).eval()
    assert set(load_weights(encoder, tmp_path / "resnet.safetensors")) == {"fc.weight", "fc.bias"}
    x = torch.rand(2, 1, 40, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = written_out(eighteen, x.repeat(1, 3, 1, 1), strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shortcut", list(Shortcut))
def test_volumes_by_a_file_in_medicalnet_layout(tmp_path, ten, shortcut):
    tensors = ten if shortcut is Shortcut.PROJECTION else {k: v for k, v in ten.items() if "downsample" not in k}
    held = {f"module.{name}": tensor for name, tensor in tensors.items()}
    held["module.conv_seg.0.weight"] = torch.zeros(3)
    torch.save({"state_dict": held}, tmp_path / "resnet.pth")
    encoder = TransferResNet3D(10, shortcut=shortcut).eval()
    assert load_weights(encoder, tmp_path / "resnet.pth") == ("conv_seg.0.weight",)
    x = torch.rand(1, 1, 16, 18, 17, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = written_out(tensors, x, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-4)


def test_vgg_by_its_names(tmp_path):
    tensors = filled({k: v for k, v in vgg_layout().items() if k.startswith("features")})
    save_file(tensors | {"classifier.6.bias": torch.zeros(4)}, tmp_path / "vgg.safetensors")
    encoder = TransferVGG16().eval()
    assert load_weights(encoder, tmp_path / "vgg.safetensors") == ("classifier.6.bias",)
    x = y = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        y = F.relu(F.conv2d(y, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1))
        y = F.max_pool2d(y, 2) if place in (2, 7, 14, 21, 28) else y
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), y.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_older_files_without_counters_are_accepted(tmp_path, eighteen):
    old = {name: tensor for name, tensor in eighteen.items() if not name.endswith("tracked")}
    torch.save(old, tmp_path / "old.pth")
    encoder = TransferResNet2D(18)
    load_weights(encoder, tmp_path / "old.pth")
    assert torch.equal(encoder.state_dict()["layer4.1.bn2.running_var"], old["layer4.1.bn2.running_var"])


def test_faults_are_named_and_nothing_is_loaded(tmp_path, eighteen):
    broken = dict(eighteen)
    del broken["layer2.0.conv1.weight"]
    broken["layer9.0.conv1.weight"] = torch.zeros(2)
    broken["bn1.weight"] = torch.zeros(32)
    save_file(broken, tmp_path / "broken.safetensors")
    encoder = TransferResNet2D(18)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = (
        r"1 missing \(layer2.0.conv1.weight\), 1 unexpected \(layer9.0.conv1.weight\), "
        r"1 of another shape \(bn1.weight \(32,\) instead of \(64,\)\)"
    )
    with pytest.raises(CorruptFileError, match=expected):
        load_weights(encoder, tmp_path / "broken.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_another_depth_or_number_of_channels_is_refused(tmp_path, eighteen):
    save_file(eighteen, tmp_path / "resnet.safetensors")
    with pytest.raises(CorruptFileError, match="missing"):
        load_weights(TransferResNet2D(34), tmp_path / "resnet.safetensors")
    with pytest.raises(CorruptFileError, match="conv1.weight"):
        load_weights(TransferResNet2D(18, in_channels=1), tmp_path / "resnet.safetensors")


class _Harm:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_files_that_would_run_code_are_refused(tmp_path, capsys):
    (tmp_path / "harm.pth").write_bytes(pickle.dumps({"conv1.weight": _Harm()}))
    torch.save({"state_dict": _Harm()}, tmp_path / "harm.pt")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "epoch.pth")
    for name in ("harm.pth", "harm.pt", "text.pth", "epoch.pth", "none.pth", "none.safetensors"):
        with pytest.raises(CorruptFileError):
            load_weights(TransferVGG16(), tmp_path / name)
    assert "never run" not in capsys.readouterr().out


def test_settings_out_of_range_are_refused():
    with pytest.raises(InvalidValueError, match="`depth` must be one of 18, 34, 50; got 10"):
        TransferResNet2D(10)
    with pytest.raises(InvalidValueError, match="3 channels, or one; got 2"):
        TransferVGG16()(torch.zeros(1, 2, 32, 32))
    with pytest.raises(InvalidValueError, match="at least 32"):
        TransferVGG16()(torch.zeros(1, 3, 31, 32))
    with pytest.raises(InvalidValueError, match="volumes of 1 channels"):
        TransferResNet3D(10)(torch.zeros(1, 2, 8, 8, 8))
