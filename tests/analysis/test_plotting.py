import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax.analysis.plotting import on_paper


def dataset(points, seeds, broken=0):
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(points, seeds, 6)).cumsum(-1)
    returns[:, :broken, 3] = np.nan
    dims = ("learning_rate", "seed", "iteration")
    data = {"episode_return": (dims, returns), "steps": (dims, np.full(returns.shape, 100.0))}
    data["completed"] = (dims[:2], np.ones((points, seeds), bool))
    return xr.Dataset(data, {"learning_rate": np.arange(1, points + 1) / 10})


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_one_curve_with_the_runs_behind_it(tmp_path):
    results = dataset(1, 60).isel(learning_rate=0)
    figure = pgjax.learning_curves(results, tmp_path / "curve.png", "a title")
    assert legend(figure) == ["50 of 60 runs", "90% of runs (95% confidence)", "interquartile mean, 95% interval"]
    assert len(figure.axes[0].lines) == 50 + 2
    steps, mean = figure.axes[0].lines[-1].get_data()
    np.testing.assert_allclose(steps, [100, 200, 300, 400, 500, 600])
    np.testing.assert_allclose(mean, pgjax.interquartile_mean(results.episode_return.values))
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_long_curves_are_averaged_over_iterations(tmp_path):
    results = dataset(1, 5).isel(learning_rate=0, iteration=[0] + [1] * 900)
    figure = pgjax.learning_curves(results, tmp_path / "curve.png", "a title")
    steps, mean = figure.axes[0].lines[-1].get_data()
    assert len(steps) == len(mean) <= 200
    assert steps[-1] == 100 * (901 - 2)  # the middle of the last five
    np.testing.assert_allclose(mean[1:], pgjax.interquartile_mean(results.episode_return.values[:, 1]))


def test_a_curve_for_each_point_and_failed_runs_counted(tmp_path):
    figure = pgjax.learning_curves(dataset(3, 10, broken=2), tmp_path / "curves.png", "a title")
    assert legend(figure) == [f"learning rate {rate} (2 failed)" for rate in (0.1, 0.2, 0.3)]
    for line in figure.axes[0].lines:
        assert np.isfinite(line.get_ydata()).all()


def test_a_single_run_has_no_band(tmp_path):
    figure = pgjax.learning_curves(dataset(1, 1).isel(learning_rate=0), tmp_path / "curve.png", "a title")
    assert legend(figure) == ["1 of 1 runs", "interquartile mean"]
    assert not figure.axes[0].collections
    assert all(np.isfinite(figure.axes[0].get_ylim()))
    figure = pgjax.learning_curves(dataset(1, 2).isel(learning_rate=0), tmp_path / "curve.png", "a title")
    assert len(figure.axes[0].collections) == 1


def test_methods_have_the_same_colour_in_every_panel(tmp_path):
    few, many = dataset(1, 5).isel(learning_rate=0), dataset(1, 20, broken=1).isel(learning_rate=0)
    panels = {"one": {"a": few, "b": many}, "other": {"b": few, "a": many}}
    figure = pgjax.compare_learning_curves(panels, tmp_path / "panels.png")
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colours[0] == colours[1][::-1]
    assert len(set(colours[0])) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a (1 failed)", "b (1 failed)"]
    with pytest.raises(pgjax.InputError, match="at most 8 methods, got 9"):
        pgjax.compare_learning_curves({"one": {str(i): few for i in range(9)}}, tmp_path / "panels.png")
    assert all(np.isfinite(line.get_ydata()).all() for axes in figure.axes for line in axes.lines)
    assert (tmp_path / "panels.png").stat().st_size > 5000


def test_curves_without_steps_are_drawn_against_iterations(tmp_path):
    results = dataset(1, 10).isel(learning_rate=0).assign_coords(iteration=np.arange(1, 7))
    figure = pgjax.learning_curves(results.drop_vars("steps"), tmp_path / "curve.png", "a title")
    np.testing.assert_array_equal(figure.axes[0].lines[-1].get_xdata(), [1, 2, 3, 4, 5, 6])
    assert figure.axes[0].get_xlabel() == "iteration"
    with pytest.raises(pgjax.InputError, match="the returns of episodes, got some without episodes"):
        pgjax.summarize(results.drop_vars("steps"))


def test_returns_to_compare_with_are_level_lines(tmp_path):
    runs = dataset(1, 10).isel(learning_rate=0)
    results = {"one": {"a": runs}, "two": {"a": runs}}
    levels = {"one": {"expert": 3.0}, "two": {"expert": 4.0, "copy": 2.0}}
    figure = pgjax.compare_learning_curves(results, tmp_path / "panels.png", levels)
    drawn = [sorted(line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2) for axes in figure.axes]
    assert drawn == [[3.0], [2.0, 4.0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "expert", "copy"]


def test_figures_go_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    runs = dataset(1, 2).isel(learning_rate=0)
    pgjax.learning_curves(runs, "~/one.png", "a title")
    pgjax.compare_learning_curves({"one": {"a": runs}}, "~/several.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "several.png"]


def test_a_dollar_of_a_user_is_a_dollar(tmp_path):
    runs = dataset(1, 10).isel(learning_rate=0)
    figure = pgjax.learning_curves(
        runs.rename(episode_return="$x$"), tmp_path / "$.png", "costs $5_000 and $a_b", "$x$"
    )
    assert figure.axes[0].get_title() == r"costs \$5_000 and \$a_b"  # which matplotlib shows as $
    assert figure.axes[0].get_ylabel() == r"\$x\$"
    panels = {"$a_b$": {"$_{$": runs, "G_t − Q̄": runs}}
    figure = pgjax.compare_learning_curves(panels, tmp_path / "panels.png", {"$a_b$": {"$\\$": 1.0}})
    assert figure.axes[0].get_title() == r"\$a_b\$"
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [r"\$_{\$", r"$G_t$ − $\bar Q$", "\\$\\\\$"]


def test_estimators_are_written_as_on_paper():
    assert on_paper("actor-critic: G_t^0.95 − v(X_t)") == "actor-critic: $G_t^{λ=0.95}$ − $v(X_t)$"
    assert on_paper("G_t − Q_t(X_t, A_t)") == "$G_t$ − $Q_t(X_t, A_t)$"
    assert on_paper("G_t^λ − v̄(X_t)") == r"$G_t^λ$ − $\bar v(X_t)$"


def test_sweeps_with_a_grid_are_not_compared(tmp_path):
    panels = {"one": {"a": dataset(2, 5)}}
    with pytest.raises(
        pgjax.InputError, match=r"got a over learning_rate; choose one: results.sel\(learning_rate=0.1\)"
    ):
        pgjax.compare_learning_curves(panels, tmp_path / "panels.png")


def test_many_panels_stand_in_rows(tmp_path):
    few = dataset(1, 5).isel(learning_rate=0)
    panels = {str(i): {"a": few} for i in range(5)}
    figure = pgjax.compare_learning_curves(panels, tmp_path / "panels.png", columns=2)
    assert [axes.get_title() for axes in figure.axes if axes.axison] == list(panels)
    assert len(figure.axes) == 6
    assert all(len(axes.lines) == 1 for axes in figure.axes[:5])
    with pytest.raises(pgjax.InputError, match="expected 1 or more columns, got 0"):
        pgjax.compare_learning_curves(panels, tmp_path / "panels.png", columns=0)
