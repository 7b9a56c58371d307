"""StyleGAN2 a second time: loops over instances, channels and pixels in numpy and float64, from the formulas alone.

Nothing here is shared with the package. Convolutions are sums over kernels that were modulated per instance; resampling
puts zeros between values, filters with the outer product of (1, 3, 3, 1), and cuts or keeps every second value.
"""

import math

import numpy as np

Tensors = dict[str, np.ndarray]
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def lrelu(x: np.ndarray, limit: float | None = None, gain: float = 1.0) -> np.ndarray:
    y = np.where(x > 0, x, 0.2 * x) * math.sqrt(2) * gain
    return y if limit is None else np.clip(y, -limit * gain, limit * gain)


def correlate(x: np.ndarray, kernel: np.ndarray, padding: int) -> np.ndarray:
    """(channel, height, width) with (out, channel, row, column): sums of products, pixel by pixel."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = kernel.shape[2:]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    y = np.zeros((len(kernel), height, width))
    for i in range(height):
        for j in range(width):
            y[:, i, j] = (kernel * x[None, :, i : i + rows, j : j + columns]).sum(axis=(1, 2, 3))
    return y


def smooth(x: np.ndarray, kernel: np.ndarray, before: int, after: int) -> np.ndarray:
    """Each channel by itself, with so many zeros before and after it."""
    x = np.pad(x, ((0, 0), (before, after), (before, after)))
    return np.stack([correlate(channel[None], kernel[None, None], 0)[0] for channel in x])


def spread(x: np.ndarray) -> np.ndarray:
    """A zero after every value: side H becomes 2 H."""
    y = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2]))
    y[:, ::2, ::2] = x
    return y


def up(x: np.ndarray) -> np.ndarray:
    return smooth(spread(x), 4 * FILTER, 2, 1)


def down(x: np.ndarray) -> np.ndarray:
    return smooth(x, FILTER, 1, 1)[:, ::2, ::2]


def up_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A true convolution (mirrored kernel) of the spread values, 2 H + 1 wide, then smoothed."""
    wide = np.pad(spread(x), ((0, 0), (2, 1), (2, 1)))
    y = correlate(wide, kernel[:, :, ::-1, ::-1], 0)
    return smooth(y[:, : 2 * x.shape[1] + 1, : 2 * x.shape[2] + 1], 4 * FILTER, 1, 1)


def down_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return correlate(smooth(x, FILTER, 2, 2), kernel, 0)[:, ::2, ::2]


def dense(tensors: Tensors, name: str, x: np.ndarray, rate: float = 1.0) -> np.ndarray:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    gain = rate / math.sqrt(weight.shape[1])
    return np.array([sum(gain * weight[o, i] * x[i] for i in range(len(x))) + rate * bias[o] for o in range(len(bias))])


def modulated(weight: np.ndarray, style: np.ndarray) -> np.ndarray:
    """The kernel of one instance."""
    own = np.zeros_like(weight)
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            own[o, i] = style[i] * weight[o, i]
        own[o] /= math.sqrt((own[o] ** 2).sum() + 1e-8)
    return own


def mapping(tensors: Tensors, z: np.ndarray, layers: int) -> np.ndarray:
    x = z / math.sqrt((z**2).mean() + 1e-8)
    for index in range(layers):
        x = lrelu(dense(tensors, f"mapping.fc{index}", x, 0.01))
    return x


def style_layer(
    tensors: Tensors, name: str, x: np.ndarray, w: np.ndarray, *, noisy: bool, limit: float | None
) -> np.ndarray:
    kernel = modulated(tensors[f"{name}.weight"], dense(tensors, f"{name}.affine", w))
    y = up_convolution(x, kernel) if name.endswith("conv0") else correlate(x, kernel, 1)
    if noisy:
        y = y + tensors[f"{name}.noise_strength"] * tensors[f"{name}.noise_const"]
    return lrelu(y + tensors[f"{name}.bias"][:, None, None], limit)


def colours(tensors: Tensors, name: str, x: np.ndarray, w: np.ndarray, limit: float | None) -> np.ndarray:
    weight = tensors[f"{name}.weight"]
    style = dense(tensors, f"{name}.affine", w) / math.sqrt(weight.shape[1])
    y = correlate(x, weight * style[None, :, None, None], 0) + tensors[f"{name}.bias"][:, None, None]
    return y if limit is None else np.clip(y, -limit, limit)


def synthesis(
    tensors: Tensors, ws: np.ndarray, resolution: int, *, noisy: bool = True, limit: float | None = None
) -> np.ndarray:
    """One picture from one w per slot."""
    settings = {"noisy": noisy, "limit": limit}
    x = style_layer(tensors, "synthesis.b4.conv1", tensors["synthesis.b4.const"], ws[0], **settings)
    picture, slot, side = colours(tensors, "synthesis.b4.torgb", x, ws[1], limit), 1, 8
    while side <= resolution:
        block = f"synthesis.b{side}"
        x = style_layer(tensors, f"{block}.conv0", x, ws[slot], **settings)
        x = style_layer(tensors, f"{block}.conv1", x, ws[slot + 1], **settings)
        picture = up(picture) + colours(tensors, f"{block}.torgb", x, ws[slot + 2], limit)
        slot, side = slot + 2, 2 * side
    return picture


def equalised(tensors: Tensors, name: str) -> np.ndarray:
    weight = tensors[f"{name}.weight"]
    return weight / math.sqrt(weight.shape[1] * weight.shape[2] * weight.shape[3])


def features(tensors: Tensors, picture: np.ndarray, *, limit: float | None = None) -> list[np.ndarray]:
    """Feature maps of one picture, after each block."""

    def biased(name: str, y: np.ndarray, gain: float = 1.0) -> np.ndarray:
        return lrelu(y + tensors[f"{name}.bias"][:, None, None], limit, gain)

    side, x, maps = picture.shape[1], picture, []
    x = biased(f"b{side}.fromrgb", correlate(x, equalised(tensors, f"b{side}.fromrgb"), 0))
    while side > 4:
        block = f"b{side}"
        skip = correlate(down(x), equalised(tensors, f"{block}.skip"), 0) * math.sqrt(0.5)
        y = biased(f"{block}.conv0", correlate(x, equalised(tensors, f"{block}.conv0"), 1))
        y = down_convolution(y, equalised(tensors, f"{block}.conv1"))
        x = skip + biased(f"{block}.conv1", y, math.sqrt(0.5))
        maps.append(x)
        side //= 2
    return maps


def deviation(maps: np.ndarray, group: int) -> np.ndarray:
    """One number per instance: how much the members of its group differ."""
    instances, size = len(maps), min(group, len(maps))
    groups, values = instances // size, np.zeros(instances)
    for place in range(groups):
        members = maps[[place + groups * k for k in range(size)]]
        spreads = np.sqrt(((members - members.mean(axis=0)) ** 2).mean(axis=0) + 1e-8)
        values[[place + groups * k for k in range(size)]] = spreads.mean()
    return values


def logits(tensors: Tensors, pictures: np.ndarray, group: int, *, limit: float | None = None) -> np.ndarray:
    last = np.stack([features(tensors, picture, limit=limit)[-1] for picture in pictures])
    answers = []
    for x, value in zip(last, deviation(last, group), strict=True):
        y = np.concatenate([x, np.full((1, 4, 4), value)])
        y = correlate(y, equalised(tensors, "b4.conv"), 1) + tensors["b4.conv.bias"][:, None, None]
        y = lrelu(dense(tensors, "b4.fc", lrelu(y, limit).reshape(-1)))
        answers.append(dense(tensors, "b4.out", y)[0])
    return np.array(answers)
