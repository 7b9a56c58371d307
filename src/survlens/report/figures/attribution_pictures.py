"""Attributions of pictures made ready to be drawn: channels added up, smoothed, with symmetric limits."""

from __future__ import annotations

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError

_SPATIAL = ("height", "width", "depth")
_LIMIT_SHARE = 0.995


def map_axes(attribution: Attribution) -> tuple[str, ...]:
    """The spatial axes of the attribution.

    Raises:
        InvalidValueError: If it is not of pictures or volumes.
    """
    found = tuple(name for name in attribution.dims if name in _SPATIAL)
    if found not in (_SPATIAL[:2], _SPATIAL) or set(attribution.dims) - {"channel", *found}:
        raise InvalidValueError(
            f"`attribution` must have the axes channel, height, width and perhaps depth; got "
            f"{', '.join(attribution.dims)}. Draw features in a list by draw_attribution_curves."
        )
    return found


def maps_of(attribution: Attribution, smooth: float = 0.0) -> np.ndarray:
    """Signed maps (item, height, width, [depth,] time): channels added up, and smoothed within each item and time.

    Args:
        attribution: Attributions of pictures or volumes.
        smooth: Standard deviation of the Gaussian in pixels, >= 0; its sum is kept but for what leaves the edge.

    Raises:
        InvalidValueError: If the attribution is not of pictures, or `smooth` < 0.
    """
    spatial = map_axes(attribution)
    if not smooth >= 0:
        raise InvalidValueError(f"`smooth` must be >= 0 pixels; got {smooth}. Pass 0 for the raw map.")
    values = attribution.numpy().astype(np.float64)
    if "channel" in attribution.dims:
        values = values.sum(axis=1 + attribution.dims.index("channel"))
    if smooth > 0:
        from scipy.ndimage import gaussian_filter

        values = gaussian_filter(values, sigma=(0.0, *(smooth for _ in spatial), 0.0), mode="nearest")
    return values


def symmetric_limit(maps: np.ndarray, limit: float | None = None) -> float:
    """Limit common to all maps: the one given, or the 99.5 % quantile of |value| so that one pixel does not set it.

    Raises:
        InvalidValueError: If `limit` is not > 0.
    """
    if limit is not None:
        if not limit > 0:
            raise InvalidValueError(f"`limit` must be > 0; got {limit}. Leave it out to take it from the maps.")
        return float(limit)
    size = np.abs(maps[np.isfinite(maps)])
    if not size.size or not size.max() > 0:
        return 1.0
    bound = float(np.quantile(size, _LIMIT_SHARE))
    return bound if bound > 0 else float(size.max())


def grey(picture: np.ndarray) -> np.ndarray:
    """A picture (channel, ...) in [0, 1] as grey values: by luminance where it has three channels, else its first."""
    shown = np.clip(np.nan_to_num(np.asarray(picture, dtype=np.float64)), 0, 1)
    if shown.shape[0] >= 3:
        return np.tensordot(np.array([0.2126, 0.7152, 0.0722]), shown[:3], axes=1)
    return shown[0]


def colours(picture: np.ndarray) -> np.ndarray:
    """A picture (channel, height, width) in [0, 1] as (height, width, 3)."""
    shown = np.clip(np.nan_to_num(np.asarray(picture, dtype=np.float64)), 0, 1)
    chosen = shown[:3] if shown.shape[0] >= 3 else shown[:1]
    return np.moveaxis(np.broadcast_to(chosen, (3, *chosen.shape[1:])), 0, -1)


def top_mask(size: np.ndarray, share: float) -> np.ndarray:
    """Where the largest `share` of the values lie; nowhere where all are 0.

    Raises:
        InvalidValueError: If `share` is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InvalidValueError(f"`share` must lie in (0, 1]; got {share}. Give 0.1 for the largest tenth.")
    count = max(int(round(share * size.size)), 1)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    mask = np.zeros(size.size, dtype=bool)
    mask[order] = True
    return mask.reshape(size.shape) & (size > 0)
