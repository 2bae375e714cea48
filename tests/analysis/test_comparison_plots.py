import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax.analysis import difference, difference_curves, grid_map, profile_curves, sensitivity_curves
from tests.analysis.test_plotting import dataset, legend

RATES, ENTROPIES = [1e-3, 1e-2, 1e-1], [0.0, 0.1]


def grid(best=0.01):
    """Runs whose return falls off from a best learning rate, and is one less with entropy; of the last, two failed."""
    score = -np.abs(np.log10(RATES) - np.log10(best))[:, None] - (np.array(ENTROPIES) > 0)
    returns = np.broadcast_to(score[..., None, None], (3, 2, 8, 4)) + np.random.default_rng(0).normal(size=(8, 1)) / 10
    returns[2, 1, :2, 1] = np.nan
    dims = ("learning_rate", "entropy_coefficient", "seed", "iteration")
    data = {name: (dims, np.full(returns.shape, 50.0)) for name in ("steps", "episodes")}
    data |= {"episode_return": (dims, returns), "completed": (dims[:3], np.ones(returns.shape[:3], bool))}
    return xr.Dataset(data, {"learning_rate": RATES, "entropy_coefficient": ENTROPIES})


def test_two_methods_and_their_difference_at_equal_steps(tmp_path):
    a = dataset(1, 20).isel(learning_rate=0)
    b = a.assign(steps=2 * a.steps, episode_return=a.episode_return - 3)
    figure = difference_curves({"new": a, "old": b}, tmp_path / "difference.png", "a title")
    lower = figure.axes[1]
    assert legend(figure) == ["new", "old"]
    assert lower.get_title() == "new less old"
    steps, values = lower.lines[-1].get_data()
    np.testing.assert_allclose(steps, [200, 300, 400, 500, 600])  # where there is both
    runs = a.episode_return.values
    found = difference(runs[:, 1], runs[:, 0] - 3)  # iterations 2 and 1: 200 steps
    assert values[0] == pytest.approx(found.value)
    bounds = lower.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([bounds[:, 1].min() <= found.low, bounds[:, 1].max() >= found.high], True)
    assert (tmp_path / "difference.png").stat().st_size > 5000


def test_pairs_are_left_out_together(tmp_path):
    a, b = dataset(1, 20, broken=2).isel(learning_rate=0), dataset(1, 20).isel(learning_rate=0)
    figure = difference_curves({"a": a, "b": b}, tmp_path / "paired.png", "a title", paired=True)
    assert legend(figure) == ["a (2 left out)", "b (2 left out)"]
    np.testing.assert_allclose(figure.axes[1].lines[-1].get_ydata(), 0)
    figure = difference_curves({"a": a, "b": b}, tmp_path / "alone.png", "a title")
    assert legend(figure) == ["a (2 left out)", "b"]


def test_profiles_are_drawn_with_a_band_each(tmp_path):
    scores = {name: np.random.default_rng(i).normal(size=(9, 3)) + i for i, name in enumerate("abc")}
    figure = profile_curves(scores, tmp_path / "profiles.png", "a title")
    assert legend(figure) == ["a", "b", "c"]
    assert len(figure.axes[0].collections) == 3
    levels, share = figure.axes[0].lines[0].get_data()
    assert len(levels) == 101
    assert share[50] == pytest.approx(np.mean(scores["a"] > levels[50]))


def test_a_map_shows_averages_and_failures(tmp_path):
    figure = grid_map(grid(), tmp_path / "map.png", "a title")
    left, right = figure.axes[:2]
    assert left.get_xlabel() == "learning rate"
    assert [label.get_text() for label in left.get_yticklabels()] == ["0", "0.1"]
    cells = left.images[0].get_array()
    assert np.unravel_index(cells.argmax(), cells.shape) == (0, 1)
    shares = [text.get_text() for text in right.texts]
    assert shares == ["0%"] * 5 + ["25%"]
    with pytest.raises(pgjax.InputError, match="a grid of two hyper-parameters, got learning_rate"):
        grid_map(grid().isel(entropy_coefficient=0), tmp_path / "map.png", "a title")


def test_sensitivity_has_the_others_at_their_best(tmp_path):
    methods = {"a": grid(), "b": grid(best=0.1).isel(entropy_coefficient=1)}
    figure = sensitivity_curves(methods, tmp_path / "sensitivity.png", "a title")
    rates, entropies = figure.axes
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear"]
    best = pgjax.interquartile_mean(grid().episode_return.values[:, 0, :, 0].T)  # without entropy
    np.testing.assert_allclose(rates.lines[0].get_ydata(), best)
    np.testing.assert_allclose(entropies.lines[0].get_ydata(), [best[1], best[1] - 1])
    open_circles = [line.get_xdata().tolist() for line in rates.lines[1::2]]
    assert open_circles == [[], [0.1]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "some runs failed"]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    one = dataset(1, 5).isel(learning_rate=0)
    place = tmp_path / "figure.png"
    with pytest.raises(pgjax.InputError, match="expected two methods, got 1"):
        difference_curves({"a": one}, place, "")
    with pytest.raises(pgjax.InputError, match="sweeps at one point each, got b over learning_rate"):
        difference_curves({"a": one, "b": dataset(2, 5)}, place, "")
    with pytest.raises(pgjax.InputError, match="runs with finite numbers, got none of b"):
        difference_curves({"a": one, "b": one * np.nan}, place, "")
    numbered, others = (one.assign_coords(seed=np.arange(5) + first) for first in (0, 1))
    with pytest.raises(pgjax.InputError, match="runs of the same seeds to pair"):
        difference_curves({"a": numbered, "b": others}, place, "", paired=True)
    with pytest.raises(pgjax.InputError, match="sweeps over a grid, got a over seeds alone"):
        sensitivity_curves({"a": one}, place, "")
    with pytest.raises(pgjax.InputError, match="expected 1 to 8 methods, got 0"):
        profile_curves({}, place, "")
    assert not place.exists()
