"""Texture tables and features against slow loops that follow the published definitions, on small drawn regions."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from survlens.encoders.radiomics.first_order import first_order_features
from survlens.encoders.radiomics.glcm import co_occurrence, glcm_features
from survlens.encoders.radiomics.gldm import gldm_features
from survlens.encoders.radiomics.glrlm import glrlm_features, run_lengths
from survlens.encoders.radiomics.glszm import glszm_features, size_zones
from survlens.encoders.radiomics.neighbours import neighbourhoods
from survlens.encoders.radiomics.ngtdm import ngtdm_features
from survlens.encoders.radiomics.region import bin_levels, grey_region

DIRECTIONS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@st.composite
def regions(draw):
    """Levels from 1 on a small grid, 0 outside, cut to its box; and whether textures stay within a slice."""
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    cells = draw(st.lists(st.integers(0, 4), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    grid = np.array(cells).reshape(shape)
    assume((grid > 0).any())
    for axis in range(3):
        kept = np.flatnonzero((grid > 0).any(axis=tuple(each for each in range(3) if each != axis)))
        grid = grid.take(range(kept[0], kept[-1] + 1), axis)
    grid[grid > 0] -= grid[grid > 0].min() - 1
    return grid, draw(st.booleans())


def steps(in_plane):
    return [step for step in DIRECTIONS if not (in_plane and step[0])]


def at(grid, place):
    """Level at a place, 0 outside the grid."""
    inside = all(0 <= each < side for each, side in zip(place, grid.shape, strict=True))
    return int(grid[place]) if inside else 0


def moved(place, step, by=1):
    return tuple(each + by * part for each, part in zip(place, step, strict=True))


def voxels(grid):
    return [place for place in np.ndindex(*grid.shape) if grid[place]]


def counted(grid, in_plane):
    return grey_region(grid > 0, grid[grid > 0].astype(np.int64), in_plane=in_plane)


def entropy(shares):
    return -sum(p * np.log2(p) for p in shares if p > 0)


def slow_glcm(grid, in_plane):
    """Each feature from its double sum over all levels to the largest."""
    top = grid.max()
    found = []
    for step in steps(in_plane):
        counts = np.zeros((top + 1, top + 1))
        for place in voxels(grid):
            for way in (1, -1):
                other = at(grid, moved(place, step, way))
                if other:
                    counts[grid[place], other] += 1
        if not counts.any():
            continue
        p = counts / counts.sum()
        pairs = [(i, j, p[i, j]) for i in range(1, top + 1) for j in range(1, top + 1)]
        margin = p.sum(1)
        mean = sum(i * q for i, _, q in pairs)
        spread = sum((i - mean) ** 2 * q for i, _, q in pairs)
        by_sum = {k: sum(q for i, j, q in pairs if i + j == k) for k in range(2, 2 * top + 1)}
        by_gap = {k: sum(q for i, j, q in pairs if abs(i - j) == k) for k in range(top)}
        gap_mean = sum(k * q for k, q in by_gap.items())
        joint, single = entropy(q for *_, q in pairs), entropy(margin)
        under_joint = -sum(q * np.log2(margin[i] * margin[j]) for i, j, q in pairs if q > 0)
        products = [margin[i] * margin[j] for i, j, _ in pairs]
        q_matrix = np.zeros((top, top))
        for i, j, k in product(range(1, top + 1), repeat=3):
            if margin[i] and margin[k]:
                q_matrix[i - 1, j - 1] += p[i, k] * p[j, k] / (margin[i] * margin[k])
        second = sorted(np.linalg.eigvals(q_matrix).real)[-2] if top > 1 else 1.0
        found.append(
            {
                "Autocorrelation": sum(i * j * q for i, j, q in pairs),
                "ClusterProminence": sum((i + j - 2 * mean) ** 4 * q for i, j, q in pairs),
                "ClusterShade": sum((i + j - 2 * mean) ** 3 * q for i, j, q in pairs),
                "ClusterTendency": sum((i + j - 2 * mean) ** 2 * q for i, j, q in pairs),
                "Contrast": sum((i - j) ** 2 * q for i, j, q in pairs),
                "Correlation": (
                    sum((i - mean) * (j - mean) * q for i, j, q in pairs) / spread if spread > 1e-12 else 1.0
                ),
                "DifferenceAverage": gap_mean,
                "DifferenceEntropy": entropy(by_gap.values()),
                "DifferenceVariance": sum((k - gap_mean) ** 2 * q for k, q in by_gap.items()),
                "Id": sum(q / (1 + abs(i - j)) for i, j, q in pairs),
                "Idm": sum(q / (1 + (i - j) ** 2) for i, j, q in pairs),
                "Idmn": sum(q / (1 + ((i - j) / top) ** 2) for i, j, q in pairs),
                "Idn": sum(q / (1 + abs(i - j) / top) for i, j, q in pairs),
                "Imc1": (joint - under_joint) / single if single > 0 else 0.0,
                "Imc2": np.sqrt(max(0.0, 1 - np.exp(-2 * (entropy(products) - joint)))),
                "InverseVariance": sum(q / (i - j) ** 2 for i, j, q in pairs if i != j),
                "JointAverage": mean,
                "JointEnergy": sum(q**2 for *_, q in pairs),
                "JointEntropy": joint,
                "MCC": np.sqrt(max(second, 0.0)),
                "MaximumProbability": p.max(),
                "SumAverage": sum(k * q for k, q in by_sum.items()),
                "SumEntropy": entropy(by_sum.values()),
                "SumSquares": spread,
            }
        )
    return {name: np.mean([each[name] for each in found]) for name in found[0]} if found else None


def size_sums(things, names, of_all):
    """Features of a list of (level, size), by the names that a class has for them."""
    n = len(things)
    levels, sizes = np.array(things, dtype=float).T
    by_level = [np.sum(levels == each) for each in set(levels)]
    by_size = [np.sum(sizes == each) for each in set(sizes)]
    both = [things.count(each) / n for each in set(things)]
    values = {
        "level non-uniformity": sum(k**2 for k in by_level) / n,
        "level non-uniformity, normalised": sum(k**2 for k in by_level) / n**2,
        "level variance": levels.var(),
        "high level": np.mean(levels**2),
        "low level": np.mean(levels**-2),
        "long": np.mean(sizes**2),
        "short": np.mean(sizes**-2),
        "long high": np.mean(sizes**2 * levels**2),
        "long low": np.mean(sizes**2 / levels**2),
        "short high": np.mean(levels**2 / sizes**2),
        "short low": np.mean(1 / (levels**2 * sizes**2)),
        "entropy": entropy(both),
        "size non-uniformity": sum(k**2 for k in by_size) / n,
        "size non-uniformity, normalised": sum(k**2 for k in by_size) / n**2,
        "size variance": sizes.var(),
        "share": n / of_all,
    }
    return {name: values[meaning] for name, meaning in names.items()}


def names_of(thing, small, large, size, level="GrayLevel"):
    return {
        f"{level}NonUniformity": "level non-uniformity",
        f"{level}NonUniformityNormalized": "level non-uniformity, normalised",
        f"{level}Variance": "level variance",
        f"High{level}{thing}Emphasis": "high level",
        f"Low{level}{thing}Emphasis": "low level",
        f"{large}Emphasis": "long",
        f"{small}Emphasis": "short",
        f"{large}High{level}Emphasis": "long high",
        f"{large}Low{level}Emphasis": "long low",
        f"{small}High{level}Emphasis": "short high",
        f"{small}Low{level}Emphasis": "short low",
        f"{thing or size}Entropy": "entropy",
        f"{size}NonUniformity": "size non-uniformity",
        f"{size}NonUniformityNormalized": "size non-uniformity, normalised",
        f"{thing or size}Variance": "size variance",
    }


RUNS = names_of("Run", "ShortRun", "LongRun", "RunLength") | {"RunPercentage": "share"}
ZONES = names_of("Zone", "SmallArea", "LargeArea", "SizeZone") | {"ZonePercentage": "share"}
DEPENDENCES = names_of("", "SmallDependence", "LargeDependence", "Dependence")
DEPENDENCES.pop("GrayLevelNonUniformityNormalized")  # it would equal Uniformity


def slow_runs(grid, step):
    """Runs by walking each line from its first voxel to its last."""
    runs, touching = [], False
    for place in np.ndindex(*grid.shape):
        if all(0 <= each < side for each, side in zip(moved(place, step, -1), grid.shape, strict=True)):
            continue
        line, here = [], place
        while all(0 <= each < side for each, side in zip(here, grid.shape, strict=True)):
            line.append(int(grid[here]))
            here = moved(here, step)
        touching |= any(first and second for first, second in zip(line, line[1:], strict=False))
        start = 0
        for stop in range(1, len(line) + 1):
            if stop == len(line) or line[stop] != line[start]:
                runs += [(line[start], stop - start)] if line[start] else []
                start = stop
    return runs if touching else []


def slow_zones(grid, in_plane):
    """Zones by joining sets until nothing changes."""
    zones = [{place} for place in voxels(grid)]
    near = steps(in_plane)
    joined = True
    while joined:
        joined = False
        for first in zones:
            for second in zones:
                touch = first is not second and any(
                    grid[a] == grid[b] and any(moved(a, step, way) == b for step in near for way in (1, -1))
                    for a in first
                    for b in second
                )
                if touch:
                    first |= second
                    zones.remove(second)
                    joined = True
                    break
            if joined:
                break
    return [(int(grid[next(iter(zone))]), len(zone)) for zone in zones]


def around(grid, place, in_plane):
    near = [at(grid, moved(place, step, way)) for step in steps(in_plane) for way in (1, -1)]
    return [level for level in near if level]


def slow_ngtdm(grid, in_plane):
    top = grid.max()
    n, s = np.zeros(top + 1), np.zeros(top + 1)
    for place in voxels(grid):
        near = around(grid, place, in_plane)
        if near:
            n[grid[place]] += 1
            s[grid[place]] += abs(grid[place] - np.mean(near))
    if not n.any():
        return None
    p = n / n.sum()
    found = [level for level in range(1, top + 1) if n[level]]
    pairs = list(product(found, found))
    weighted = sum(p * s)
    busy = sum(abs(i * p[i] - j * p[j]) for i, j in pairs)
    many = len(found) * (len(found) - 1)
    return {
        "Busyness": weighted / busy if busy else 0.0,
        "Coarseness": 1 / weighted if weighted else 1e6,
        "Complexity": sum(abs(i - j) * (p[i] * s[i] + p[j] * s[j]) / (p[i] + p[j]) for i, j in pairs) / n.sum(),
        "Contrast": sum(p[i] * p[j] * (i - j) ** 2 for i, j in pairs) / many * s.sum() / n.sum() if many else 0.0,
        "Strength": sum((p[i] + p[j]) * (i - j) ** 2 for i, j in pairs) / s.sum() if s.sum() else 0.0,
    }


def agree(found, expected, **tolerance):
    if expected is None:
        assert all(np.isnan(value) for value in found.values())
        return
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **({"rel": 1e-9, "abs": 1e-9} | tolerance)), name


drawn = settings(max_examples=60, deadline=None)


@drawn
@given(case=regions())
def test_co_occurrence_equals_the_double_sums(case):
    region = counted(*case)
    found, expected = glcm_features(co_occurrence(region), region.grey), slow_glcm(*case)
    # Square roots of what should be 0 leave rounding of 1e-8.
    roots = ("MCC", "Imc2")
    if expected is not None:
        for name in roots:
            assert found.pop(name) == pytest.approx(expected.pop(name), abs=1e-6), name
    agree(found, expected)


@drawn
@given(case=regions())
def test_run_lengths_equal_walks_along_the_lines(case):
    grid, in_plane = case
    region = counted(*case)
    lines = [runs for step in steps(in_plane) if (runs := slow_runs(grid, step))]
    each = [size_sums(runs, RUNS, np.sum(grid > 0)) for runs in lines]
    expected = {name: np.mean([one[name] for one in each]) for name in each[0]} if each else None
    agree(glrlm_features(run_lengths(region), region.grey), expected)


@drawn
@given(case=regions())
def test_zones_equal_sets_that_are_joined(case):
    grid, in_plane = case
    region = counted(*case)
    expected = size_sums(slow_zones(grid, in_plane), ZONES, np.sum(grid > 0))
    agree(glszm_features(*size_zones(region), region.grey), expected)


@drawn
@given(case=regions())
def test_dependence_and_tone_difference_equal_loops_over_neighbours(case):
    grid, in_plane = case
    region = counted(*case)
    dependence, touching, distance = neighbourhoods(region.levels, region.voxels, region.both_ways, region.grey)
    equal = [(int(grid[at_]), 1 + around(grid, at_, in_plane).count(int(grid[at_]))) for at_ in voxels(grid)]
    agree(gldm_features(dependence, region.grey), size_sums(equal, DEPENDENCES, len(equal)))
    agree(ngtdm_features(touching, distance, region.grey), slow_ngtdm(grid, in_plane))


@given(values=st.lists(st.floats(-3000, 3000), min_size=1, max_size=30), width=st.floats(0.5, 100))
def test_levels_begin_at_multiples_of_the_width(values, width):
    numbers = np.array(values)
    levels = bin_levels(numbers, bin_width=width, bin_count=None)
    assert levels.min() == 1
    lower = (np.floor(numbers.min() / width) + levels - 1) * width
    slack = 1e-9 * (1 + np.abs(numbers))
    assert ((numbers >= lower - slack) & (numbers < lower + width + slack)).all()


@given(values=st.lists(st.integers(-1000, 1000), min_size=2, max_size=30), count=st.integers(1, 50))
def test_a_number_of_bins_is_kept(values, count):
    numbers = np.array(values, dtype=float)
    levels = bin_levels(numbers, bin_width=25, bin_count=count)
    assert levels.min() == 1
    if len(set(values)) > 1:
        assert levels.max() == count
        assert levels[np.argmax(numbers)] == count
    assert (np.diff(levels[np.argsort(numbers)]) >= 0).all()


def test_first_order_of_known_values():
    features = first_order_features(np.arange(1.0, 11.0), np.array([5, 5]), 2.0)
    assert features["Energy"] == 385
    assert features["TotalEnergy"] == 770
    assert features["Entropy"] == 1
    assert features["Uniformity"] == 0.5
    assert features["Variance"] == pytest.approx(8.25)
    assert features["Skewness"] == pytest.approx(0)
    assert features["10Percentile"] == pytest.approx(1.9)
    assert features["RobustMeanAbsoluteDeviation"] == pytest.approx(2.0)  # of 2 to 9
    assert len(features) == 18
