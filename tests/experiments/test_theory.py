"""The studies of theory: their loops are those of the library, and their claims hold on a few fixed seeds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from common.bandits import alone, directions
from common.noise_scale import until_seen
from common.single_steps import estimates, listed, objective
from experiments import theory_any_step_size as any_step_size
from experiments import theory_baselines_beyond_variance as baselines
from experiments import theory_entropy_landscape as landscape
from experiments import theory_episodes_or_updates as episodes
from experiments import theory_plateaus as plateaus
from tests.cases import assert_refused, run_experiment

MEANS = jnp.array([1.0, 0.6, 0.2])
THETA = jnp.array([[0.3, -0.5, 0.1]])


def bandit(means):
    """A bandit as a finite problem of one state and one step."""
    return pgjax.environments.tables([1.0], np.ones((1, len(means), 1)), [means])


def test_the_expected_step_on_a_bandit_is_the_exact_gradient():
    f = jax.nn.softmax(THETA[0])
    middles = jnp.cumsum(f) - f / 2  # each in the part of [0, 1) that chooses its arm
    steps = jnp.stack([any_step_size.step(THETA[0], f, u[None], MEANS, 0.1, False) - THETA[0] for u in middles])
    exact = pgjax.exact.gradient(bandit(MEANS), 1, pgjax.tabular(1, 3), THETA)
    np.testing.assert_allclose(f @ steps, 0.1 * exact[0], atol=1e-7)
    by_coin = [
        any_step_size.step(THETA[0], f, jnp.array([middles[1], u]), MEANS, 0.1, True) - THETA[0] for u in (0.59, 0.61)
    ]
    np.testing.assert_allclose(by_coin[0], steps[1] / MEANS[1], rtol=1e-5)  # it pays 1
    assert not by_coin[1].any()  # it pays nothing


def test_a_play_is_an_update_of_reinforce():
    algorithm = pgjax.reinforce(
        pgjax.finite(bandit(MEANS), 1),
        pgjax.tabular(1, 3)._replace(init=lambda key: THETA),
        slots=1,
        credit=pgjax.whole_episode(),
        baseline=pgjax.no_baseline(),
        optimizer=optax.sgd,
    )
    run = jax.jit(jax.vmap(pgjax.train(algorithm, 1), (0, None)))
    state, curves = run(pgjax.run_keys(0, range(24)), algorithm.hyperparameters(learning_rate=0.5))
    f = jax.nn.softmax(THETA[0])
    middles = jnp.cumsum(f) - f / 2
    after = [any_step_size.step(THETA[0], f, u[None], MEANS, 0.5, False) for u in middles]
    played = [int(jnp.argmin(jnp.abs(MEANS - pays))) for pays in curves.episode_return[:, 0]]
    assert set(played) == {0, 1, 2}
    np.testing.assert_allclose(state.params[:, 0], jnp.stack([after[a] for a in played]), atol=1e-6)


def test_a_commitment_to_one_arm_has_the_probability_of_its_plays():
    means = jnp.array([1.0, 0.5])
    found = np.exp(alone(lambda theta, played: theta + (played @ means) * (played - jax.nn.softmax(theta)), 2, 2))
    np.testing.assert_allclose(found[0], [0.5, 0.5])
    # After a play of the second arm its logit leads by η r (1/2 + 1/2) = 1/2, and after one of the first by 1.
    np.testing.assert_allclose(found[1], [0.5 / (1 + np.exp(-1)), 0.5 / (1 + np.exp(-0.5))], rtol=1e-6)


def test_any_step_size_finds_the_best_arm_but_later_than_any_mean(monkeypatch, tmp_path, capsys):
    """With fixed keys; were they drawn, each comparison would fail less than once in 10⁴ times."""
    small = ["--arms", 2, "--learning-rate", 1, 10, "--steps", 2000, "--seeds", 400, "--out", tmp_path]
    assert run_experiment(monkeypatch, any_step_size, *small) == 0
    assert "2 arms, η 10, fixed" in capsys.readouterr().out
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    slow, quick = (rows[any_step_size.NAME.format(2, eta, "fixed")] for eta in (10, 1))
    for row in (slow, quick):
        assert row["alpha"] == pytest.approx(row["alpha_predicted"], rel=0.02)
        # Who has played a wrong arm alone has not arrived: a lower bound, to the band of 400 runs.
        assert all(np.array(row["alone"]) <= np.array(row["band"][1]) + 0.02)
    assert quick["wrong_interval"][1] < 0.05 < slow["wrong_interval"][0]
    assert slow["not_yet"][-1] < 0.75 * slow["not_yet"][0]  # and commitments do end
    assert (tmp_path / "any_step_size.png").read_bytes().startswith(b"\x89PNG")

    # The same command again computes nothing; other options want another directory.
    monkeypatch.setattr(any_step_size, "explored", lambda *_: pytest.fail("computed again"))
    assert run_experiment(monkeypatch, any_step_size, *small) == 0
    refused = [*small[:-4], "--seeds", 300, "--out", tmp_path]
    assert_refused(monkeypatch, capsys, any_step_size, refused, "expected a new directory, or the options")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "1"], "2 or more arms and at most five learning rates"),
        (["--learning-rate", "0"], "learning rates above 0, got 0.0"),
        (["--steps", "700"], "steps to be a multiple of 500, got 700"),
        (["--seeds", "0"], "1 or more seeds, got 0"),
    ],
)
def test_step_sizes_that_cannot_be_run_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, any_step_size, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("natural", [False, True])
def test_steps_and_variances_with_a_baseline_are_the_exact_ones(natural):
    f, mdp, policy = jax.nn.softmax(THETA[0]), bandit(MEANS), pgjax.tabular(1, 3)
    (information,) = pgjax.exact.information(mdp, 1, policy, THETA)  # of the only step
    inverse = jnp.linalg.pinv(information, rtol=1e-5, hermitian=True) if natural else jnp.eye(3)
    spreads = {}

    @jax.jit
    def moments(b):
        estimator = pgjax.exact.whole_episode_estimator(mdp, 1, baseline=b)
        return pgjax.exact.mean_and_covariance(mdp, 1, policy, THETA, estimator)

    for name in baselines.BASELINES:
        b = baselines.baseline(name, f, MEANS, natural, 0.5)
        mean, covariance = moments(b)
        steps = jnp.stack(
            [baselines.moved(THETA[0], jnp.arange(3) == a, name, MEANS, natural, 0.1, 0.5) - THETA[0] for a in range(3)]
        )
        np.testing.assert_allclose(f @ steps, 0.1 * inverse @ mean, atol=1e-6)
        spreads[name] = float(baselines.variance(f, MEANS, b, natural))
        np.testing.assert_allclose(spreads[name], jnp.trace(inverse @ covariance @ inverse), rtol=1e-4)
    assert spreads["b* − d"] == pytest.approx(spreads["b* + d"], rel=1e-5)
    assert min(spreads, key=spreads.get) == "b*"


def test_baselines_of_equal_variance_have_different_fates(monkeypatch, tmp_path):
    """With fixed keys; were they drawn, each comparison would fail less than once in 10⁴ times."""
    monkeypatch.setattr(baselines, "GRADIENTS", ("natural",))
    monkeypatch.setattr(baselines, "BASELINES", baselines.BASELINES[:4])
    small = ["--natural-rate", 0.2, "--steps", 2000, "--seeds", 400, "--out", tmp_path]
    assert run_experiment(monkeypatch, baselines, *small) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    below, least, above, value = (rows[baselines.NAME.format("natural", 0.2, name)] for name in baselines.BASELINES)
    assert least["variance"] < below["variance"] == pytest.approx(above["variance"])
    assert above["wrong_interval"][1] < least["wrong_interval"][0]  # more variance, and better
    assert least["wrong"] < below["wrong"]
    assert value["wrong"] == 0
    assert (tmp_path / "baselines_beyond_variance.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distance", "0"], "distance above 0, got 0.0"),
        (["--natural-rate", "-1"], "natural_rate above 0, got -1.0"),
        (["--steps", "700"], "steps to be a multiple of 2000, got 700"),
        (["--seeds", "3"], "40 or more seeds, which are drawn, got 3"),
    ],
)
def test_baselines_that_cannot_be_run_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, baselines, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("method", ["softmax", "entropy", "natural"])
def test_flow_follows_the_exact_gradient(method):
    f, mdp, policy = jax.nn.softmax(THETA[0]), bandit(MEANS), pgjax.tabular(1, 3)
    found = f * plateaus.weights(method, f, MEANS, 0.3) @ directions(f, method == "natural")
    gradient = pgjax.exact.gradient(mdp, 1, policy, THETA)[0]
    if method == "entropy":
        gradient += 0.3 * jax.grad(lambda theta: -jax.nn.softmax(theta) @ jax.nn.log_softmax(theta))(THETA[0])
    if method == "natural":
        (information,) = pgjax.exact.information(mdp, 1, policy, THETA)
        gradient = jnp.linalg.pinv(information, rtol=1e-5, hermitian=True) @ gradient
    np.testing.assert_allclose(found, gradient, atol=1e-6)


def test_two_arms_are_escaped_when_the_integral_says():
    """With two arms dp/dt = 2 δ p² (1 − p)², of which the time to p = 1/2 is known; natural logits part at a rate δ."""
    p, delta = 1e-3, 0.3
    softmax = (1 / p - 1 / (1 - p) + 2 * np.log((1 - p) / p)) / (2 * delta)
    assert plateaus.flowed("softmax", (1.0, 0.7), p, 0.1) == pytest.approx(softmax, rel=1e-5)
    assert plateaus.flowed("natural", (1.0, 0.7), p, 0.1) == pytest.approx(np.log((1 - p) / p) / delta, rel=1e-5)


def test_a_third_arm_makes_the_plateau_as_long_as_its_square(monkeypatch, tmp_path, capsys):
    """The sampled median is within a fifth of the exact time: with other keys it would not be less than once in 10³."""
    monkeypatch.setattr(plateaus, "METHODS", ("softmax", "natural"))
    small = ["--probability", 1e-1, 1e-3, 1e-4, "--sampled", 1e-1, "--steps", 1000, "--seeds", 200, "--out", tmp_path]
    assert run_experiment(monkeypatch, plateaus, *small) == 0
    assert "3 arms, softmax" in capsys.readouterr().out
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert rows["2 arms, softmax"]["slope"] == pytest.approx(1, abs=0.05)
    assert rows["3 arms, softmax"]["slope"] == pytest.approx(2, abs=0.05)
    assert rows["3 arms, natural"]["slope"] < 0.2  # ln 1/p
    for problem in plateaus.PROBLEMS:
        row = rows[f"{problem}, softmax"]
        assert row["sampled"][0]["median"] == pytest.approx(row["times"][0], rel=0.2)
    assert (tmp_path / "plateaus.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--probability", "0.1", "0.7"], "two or more probabilities between 0 and 0.5"),
        (["--probability", "0.1"], "two or more probabilities"),
        (["--entropy", "0"], "an entropy weight above 0, got 0.0"),
        (["--steps", "7"], "steps to be a multiple of 500, got 7"),
    ],
)
def test_plateaus_that_cannot_be_run_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, plateaus, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


def test_gradients_are_gathered_until_they_are_seen():
    """By hand: (1, 1) and (1, −1) have the mean (1, 0), whose squared standard error is (2 − 1) / 1 = 1."""
    optimizer = until_seen(0.5)
    one, two = jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0])
    step, state = optimizer.update(one, optimizer.init(one))
    assert not step.any()
    step, state = optimizer.update(two, state)
    np.testing.assert_allclose(step, [-0.5, 0])
    assert not any(leaf.any() for leaf in jax.tree.leaves(state))
    step, state = optimizer.update(jnp.array([0.0, 1.0]), state)
    step, state = optimizer.update(jnp.array([0.1, -1.0]), state)
    assert not step.any()  # the mean is short
    assert float(state.number) == 2


def test_many_episodes_an_update_cost_what_is_predicted(monkeypatch, tmp_path, capsys):
    """With fixed keys; were they drawn, the comparison would fail less than once in 10⁴ times."""
    monkeypatch.setattr(episodes, "ASCENT", 300)
    monkeypatch.setattr(episodes, "LOOKS", 5)
    small = [
        "--env",
        "maze",
        "--episodes",
        8,
        64,
        "--learning-rate",
        0.1,
        "--steps",
        6000,
        "--seeds",
        8,
        "--out",
        tmp_path,
    ]
    assert run_experiment(monkeypatch, episodes, *small) == 0
    assert "gathered until seen" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    use = np.array(summary["predicted"]["use"])
    assert (use[0] == 1).all()
    assert min(use[1]) < 0.7
    assert summary["predicted"]["noise_scale"][-1] > 1.5 * min(summary["predicted"]["noise_scale"])  # it grows
    few, many = (summary["tried"]["maze"][name]["mean return"]["interval"] for name in ("E = 8", "E = 64"))
    assert many[1] < few[0]
    assert (tmp_path / "episodes_or_updates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "1"], "one to five numbers of 2 or more episodes"),
        (["--learning-rate", "0"], "learning rates above 0, got"),
        (["--choosing", "0"], "1 or more choosing, got 0"),
    ],
)
def test_numbers_of_episodes_that_cannot_be_compared_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, episodes, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


def test_listed_steps_are_those_of_the_exact_objective():
    """The mean of the estimates is the gradient, and without entropy their covariance is the exact one."""
    mdp, policy = landscape.way(2), pgjax.tabular(3, 2)
    every = listed(mdp, 2)

    @jax.jit
    def look(theta, weight):
        probability, steps = estimates(mdp, every, theta, weight)
        steps = steps.reshape(len(steps), -1)
        worth, gradient = jax.value_and_grad(lambda theta: objective(mdp, 2, theta, weight))(theta)
        values = pgjax.exact.solve(mdp, 2, jax.nn.softmax(theta)).values
        estimator = pgjax.exact.reward_to_go_estimator(mdp, 2, baseline=values)
        _, covariance = pgjax.exact.mean_and_covariance(mdp, 2, policy, theta, estimator)
        mean = probability @ steps
        spread = jnp.einsum("n,ni,nj->ij", probability, steps, steps) - jnp.outer(mean, mean)
        return worth, probability.sum(), mean, gradient.reshape(-1), spread, covariance

    theta = jnp.array([[0.2, -0.3], [0.5, 0.1], [0.0, 0.0]])
    for weight in (0.0, 0.3):
        _, total, mean, gradient, spread, covariance = look(theta, weight)
        assert float(total) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(mean, gradient, atol=1e-6)
        if weight == 0:
            np.testing.assert_allclose(spread, covariance, atol=1e-6)
    # To leave at once pays 0.4; to go on twice 1 − 2 · 0.1.
    sure = jnp.array([[0.0, 40.0], [0.0, 40.0], [0.0, 0.0]])
    np.testing.assert_allclose([look(x, 0.0)[0] for x in (-sure, sure)], [0.4, 0.8], rtol=1e-5)


def test_entropy_removes_the_local_optimum_and_runs_find_the_way(monkeypatch, tmp_path, capsys):
    """With fixed keys; were they drawn, the comparison would fail less than once in 10⁶ times."""
    small = ["--entropy", 0, 0.05, "--updates", 800, "--seeds", 60, "--out", tmp_path]
    assert run_experiment(monkeypatch, landscape, *small) == 0
    assert "λ = 0.05" in capsys.readouterr().out
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    plain, soft = rows["λ = 0"], rows["λ = 0.05"]
    assert (plain["tops"], soft["tops"]) == (2, 1)
    assert plain["found_interval"][1] < soft["found_interval"][0]
    assert soft["improves_at_start"][1] < plain["improves_at_start"][1]  # though fewer steps improve ρ
    assert (tmp_path / "entropy_landscape.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rooms", "5"], "at most 4 rooms, so that episodes can be listed"),
        (["--entropy", "-0.1"], "one to five weights of 0 or more and a learning rate above 0"),
        (["--updates", "70"], "updates to be a multiple of 40, got 70"),
        (["--seeds", "1"], "2 or more seeds, got 3 and 1"),
    ],
)
def test_landscapes_that_cannot_be_looked_at_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, landscape, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()
