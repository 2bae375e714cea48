"""How far does imitating an expert get, and what gets further? Cloning, DAgger, and REINFORCE from a clone.

The lecture says of imitation that errors lead to observations which are not in the data, that noise does so even where
the clone is perfect on the data, and that an agent can only be as good as its expert. On CartPole, the maze and
Pendulum this asks: What is a policy worth that learned from so many episodes, by behaviour cloning and by DAgger with
as many labels and gradient steps? What if its actions are disturbed when it is tested? What if the expert is weak, and
REINFORCE goes on from the clone? And in a problem small enough to compute: how does the cost of errors grow with the
horizon?

Writes a directory of results for each sweep, summary.json, imitation.png, fine_tuning.png and compounding.png into the
directory --out, and prints tables. The same command again goes on where it was stopped. With the defaults it takes
about a quarter of an hour on two cores.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pgjax
from common import launch, tables
from pgjax.analysis import plotting
from pgjax.analysis.plotting import add_legend, band, dress
from pgjax.devices import use_every_core
from pgjax.exact import compounding


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is copied, tested and computed."""

    env: tuple[Literal["CartPole-v1", "maze", "Pendulum-v1"], ...] = ("CartPole-v1", "maze", "Pendulum-v1")
    """Environments."""
    episodes: tuple[int, ...] = ()
    """Numbers of expert episodes, the largest of which noise is tested with; by default each environment's own."""
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    """Noise of actions in tests, see pgjax.noisy_actions; the first is that of all else."""
    gradient_steps: int = 3000
    """Gradient steps of a run of behaviour cloning or DAgger, whatever the number of episodes."""
    iterations: int = 100
    """Updates of a run of REINFORCE, from scratch or from the behaviour-cloned policy."""
    test_episodes: int = 64
    """Fresh episodes that a run's final policy is tested in."""
    horizon: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Horizons T of the problem that is computed, two or more."""
    error: float = 1e-3
    """Error rate ε of an imitator in that problem."""
    seeds: int = 128
    batch: int | None = None
    """Runs computed together; by default as many as memory and cache allow."""
    out: Path = Path("results/imitation")


class Task(NamedTuple):
    """An environment of the study, who is copied in it, and how."""

    environment: pgjax.Environment
    expert: pgjax.Expert | int  # or so many updates of REINFORCE
    weak: pgjax.Expert | int
    episodes: Sequence[int]
    enough: int  # whole episodes that should suffice to clone the expert
    labels: int  # of each episode, but for those
    learning_rate: float  # of the clones
    reinforce: Mapping[str, float]  # hyper-parameters of REINFORCE
    critic: bool = False


def tasks() -> dict[str, Task]:
    """The tasks by name."""
    pendulum = pgjax.from_gymnax("Pendulum-v1")
    swing_up = pgjax.imitation.pendulum_controller
    return {
        "CartPole-v1": Task(
            environment=pgjax.from_gymnax("CartPole-v1"),
            expert=60,
            weak=8,
            episodes=(1, 3, 10, 30),
            enough=30,
            labels=10,
            learning_rate=3e-3,
            reinforce={"learning_rate": 1e-2},
        ),
        "maze": Task(
            environment=pgjax.maze(),
            expert=pgjax.imitation.shortest_paths(),
            weak=40,
            episodes=(1, 3, 10, 30),
            enough=30,
            labels=5,
            learning_rate=5e-2,
            reinforce={"learning_rate": 3e-2},
        ),
        "Pendulum-v1": Task(
            environment=pendulum,
            expert=pgjax.imitation.scripted(swing_up, pendulum),
            weak=pgjax.imitation.scripted(functools.partial(swing_up, rate=0.02), pendulum),
            episodes=(3, 10, 30, 100),
            enough=300,
            labels=20,
            learning_rate=3e-3,
            reinforce={"learning_rate": 1e-3, "discount": 0.95},
            critic=True,
        ),
    }


class Problem(NamedTuple):
    """A task, made ready."""

    name: str
    task: Task
    environment: pgjax.Environment  # with noisy actions
    policy: pgjax.Policy
    sweep: Callable[..., xr.Dataset]  # (name, algorithm, iterations, hyperparameters, **more)

    def cloning(self, expert: pgjax.Expert, episodes: int, labels: int, steps: int, updates: int = 10) -> Any:
        """Behaviour cloning of so many gradient steps in all."""
        return pgjax.behaviour_cloning(
            self.policy,
            pgjax.demonstrate(self.environment, expert, episodes),
            labels=labels,
            steps=-(-steps // updates),
            optimizer=decaying(steps),
        )

    def dagger(self, expert: pgjax.Expert, episodes: int, labels: int, steps: int) -> Any:
        """DAgger of so many gradient steps in all, to be run for so many updates, of an episode each."""
        return pgjax.dagger(
            self.environment,
            self.policy,
            expert,
            labels=labels,
            capacity=labels * episodes,
            steps=-(-steps // episodes),
            optimizer=decaying(steps),
        )

    def reinforce(self, policy: pgjax.Policy) -> pgjax.Algorithm:
        """REINFORCE, with a critic where the task needs one."""
        if not self.task.critic:
            return pgjax.reinforce(self.environment, policy)
        critic = pgjax.learned_value(pgjax.value_for(self.environment))
        return pgjax.reinforce(self.environment, policy, credit=pgjax.lambda_return(), baseline=critic)

    def expert(self, what: pgjax.Expert | int, name: str) -> pgjax.Expert:
        """An expert: the one given, or the best of 8 seeds after some updates of REINFORCE."""
        if isinstance(what, pgjax.Expert):
            return what
        algorithm = self.reinforce(self.policy)
        seeds = range(2**31, 2**31 + 8)  # none of the study's own
        numbers = algorithm.hyperparameters(**self.task.reinforce)
        return pgjax.trained(self.sweep(name, algorithm, what, numbers, seeds=seeds), self.policy)


def decaying(steps: int) -> Callable[[Any], optax.GradientTransformation]:
    """Adam with a learning rate that falls to zero over so many steps, as half a cosine."""
    return lambda eta: optax.adam(optax.cosine_decay_schedule(eta, steps))


def exploring(policy: pgjax.Policy) -> pgjax.Policy:
    """The policy with standard deviations of at least 0.3 of a half-width at first: a clone tries nothing new."""

    def init(key: jax.Array) -> Any:
        params = policy.init(key)
        if isinstance(params, dict) and "log_std" in params:
            params = params | {"log_std": jnp.maximum(params["log_std"], np.log(0.3))}
        return params

    return policy._replace(init=init)


def run_sweeps(problem: Problem, options: Options) -> tuple[dict[str, pgjax.Expert], dict[str, xr.Dataset]]:
    """Do everything there is to learn in a task; return its experts and its sweeps by name."""
    task, steps = problem.task, options.gradient_steps
    episodes = sorted(set(options.episodes or task.episodes))
    most = episodes[-1]
    experts = {name: problem.expert(what, name) for name, what in (("expert", task.expert), ("weak", task.weak))}
    expert, weak = experts.values()
    sweep, eta = problem.sweep, task.learning_rate
    found = {}

    algorithm = problem.cloning(expert, most, task.labels, steps)
    found["cloning"] = sweep("cloning", algorithm, 10, eta, grid={"episodes": episodes})
    for n in episodes:
        algorithm = problem.dagger(expert, n, task.labels, steps)
        found[f"dagger-{n}"] = sweep(f"dagger-{n}", algorithm, n, eta)
    noisy = {"environment.noise": [level for level in options.noise if level != options.noise[0]]}
    if noisy["environment.noise"]:
        algorithm = problem.dagger(expert, most, task.labels, steps)
        found["dagger-noise"] = sweep("dagger-noise", algorithm, most, eta, grid=noisy)
    algorithm = problem.cloning(expert, task.enough, 0, 3 * steps)
    found["enough"] = sweep("enough", algorithm, 10, eta)

    cloning = problem.cloning(weak, task.enough, 0, steps)
    found["weak-cloning"] = sweep("weak-cloning", cloning, 10, eta)
    clone = pgjax.pretrained(problem.policy, cloning, 10, cloning.hyperparameters(learning_rate=eta))
    for name, policy in (("scratch", problem.policy), ("fine-tuned", exploring(clone))):
        algorithm = problem.reinforce(policy)
        numbers = algorithm.hyperparameters(**task.reinforce)
        found[name] = sweep(name, algorithm, options.iterations, numbers)
    return experts, found


def evaluate(
    problem: Problem, options: Options, experts: Mapping[str, pgjax.Expert], found: Mapping[str, xr.Dataset]
) -> list[dict[str, Any]]:
    """Test every final policy of a task, and return a row for each method and setting, as plain numbers.

    `iqm` is the interquartile mean over runs of their mean returns in the test episodes, `interval` its 95% interval,
    both without the runs that failed, which are counted;
    `labels` is the mean number of steps at which the expert said what it does, `noise` that of the test.
    """
    rows: list[dict[str, Any]] = []

    def add(method: str, returns: np.ndarray, noise: Sequence[float], episodes: Any = None, labels: Any = None) -> None:
        for level, runs in zip(noise, returns.T, strict=True):
            row = {"task": problem.name, "method": method, "episodes": episodes, "labels": labels, "noise": level}
            row |= tables.average_of_finite(runs)
            rows.append(row | {"runs": len(runs), "failed": int((~np.isfinite(runs)).sum())})

    keys, levels = launch.keys_after_training(options), jnp.asarray(options.noise)

    @functools.cache  # an expert may well be a run of the same policy
    def test(policy: pgjax.Policy) -> Callable[[jax.Array, Any], jax.Array]:
        """What plays the test episodes of all runs: keys, final params [seeds, …] -> mean returns [seeds, noise]."""
        play = pgjax.evaluate(problem.environment, policy, options.test_episodes)

        def of_a_run(key: jax.Array, params: Any) -> jax.Array:
            def at(noise: jax.Array) -> jax.Array:
                return jnp.mean(play(key, params, problem.environment.params._replace(noise=noise)))

            return jax.lax.map(at, levels)

        return pgjax.over_runs(of_a_run)

    for method, expert in zip(("expert", "weak expert"), experts.values(), strict=True):
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (options.seeds, *jnp.shape(leaf))), expert.params)
        add(method, np.asarray(test(expert.policy)(keys, params)), options.noise)

    def final(name: str, **point: float) -> np.ndarray:
        like = jax.eval_shape(problem.policy.init, jax.random.key(0))
        returns = test(problem.policy)(keys, pgjax.load_params(found[name], like, point=point))
        return np.where(pgjax.analysis.failed(found[name].sel(point)).values[:, None], np.nan, returns)

    for n in found["cloning"].episodes.values:
        labels = float(found["cloning"].labels.sel(episodes=n).isel(iteration=-1).mean())
        add("behaviour cloning", final("cloning", episodes=n), options.noise, int(n), labels)
    for name, results in found.items():
        if not name.startswith("dagger"):
            continue
        n, labels = results.sizes["iteration"], float(results.labels.sum("iteration").mean())
        if name != "dagger-noise":
            add("DAgger", final(name), options.noise, n, labels)
            continue
        for level in results["environment.noise"].values:
            returns = final(name, **{"environment.noise": level})[:, [options.noise.index(level)]]
            add("DAgger amid the noise", returns, [float(level)], n, labels)
    for name, method in CLONES.items():
        labels = float(found[name].labels.isel(iteration=-1).mean())
        add(method, final(name), options.noise, problem.task.enough, labels)
    for name, method in TUNED.items():
        add(method, final(name), options.noise)
    return rows


CLONES = {"enough": "behaviour cloning, every label", "weak-cloning": "clone of the weak expert"}
TUNED = {"fine-tuned": "clone, then REINFORCE", "scratch": "REINFORCE from scratch"}


def findings(rows: Sequence[Mapping[str, Any]], quiet: float) -> dict[str, Any]:
    """What the rows of one task say, by their intervals.

    Of tests with the first level of noise: `cloning_reaches_expert`: with every label of enough episodes, its interval
    and the expert's have a return in common, or it is above. `dagger_beats_cloning_at_episodes`: the numbers of
    episodes at which its interval is above that of cloning. `tuned_beats_weak_expert`: the clone that REINFORCE went on
    from has an interval above the weak expert's. And `dagger_beats_cloning_at_noise`: the levels at which it does so
    after most episodes, having met the same noise. Single runs have no intervals and say nothing: {}.
    """
    if any(row["interval"] is None for row in rows):
        return {}

    def interval(method: str, episodes: int | None = None, noise: float = quiet) -> list[float]:
        chosen = [row for row in rows if row["method"] == method and row["noise"] == noise]
        return next(row["interval"] for row in chosen if episodes in (None, row["episodes"]))

    numbers = [row["episodes"] for row in rows if row["method"] == "DAgger" and row["noise"] == quiet]
    levels = [row["noise"] for row in rows if row["method"] == "DAgger amid the noise"]
    amid = [(level, interval("DAgger amid the noise", noise=level)) for level in levels]
    return {
        "cloning_reaches_expert": interval("behaviour cloning, every label")[1] >= interval("expert")[0],
        "dagger_beats_cloning_at_episodes": [
            n for n in numbers if interval("DAgger", n)[0] > interval("behaviour cloning", n)[1]
        ],
        "dagger_beats_cloning_at_noise": [
            level for level, (low, _) in amid if low > interval("behaviour cloning", max(numbers), level)[1]
        ],
        "tuned_beats_weak_expert": interval("clone, then REINFORCE")[0] > interval("weak expert")[1],
    }


ACTIONS = 256  # of the road: who has not learned to return finds back once in as many steps


def erring(error: float) -> pgjax.Policy:
    """A softmax policy on the road that, however long it learns, takes another action with probability ε."""

    def apply(params: jax.Array, observation: jax.Array) -> pgjax.policies.Categorical:
        slip = error / (ACTIONS - 1)
        return pgjax.policies.Categorical(jnp.log((1 - error - slip) * jax.nn.softmax(params[observation]) + slip))

    return pgjax.memoryless(lambda key: jnp.zeros((2, ACTIONS)), apply)


def compound(options: Options, sweep: Callable[..., xr.Dataset]) -> list[dict[str, Any]]:
    """The cost of imitators on the road and the cliff: computed in the limit, and of real runs.

    A row for each problem, method and horizon has the limit's `cost` and its `error_rate` where it was trained; at
    every other horizon also the cost of runs of the algorithm, `iqm` and `interval`.
    """
    rows = []
    act = jnp.zeros((2, ACTIONS)).at[:, 0].set(1)
    expert = pgjax.Expert(pgjax.tabular(2, ACTIONS), jnp.log(act))
    policy = erring(options.error)
    limits = {"behaviour cloning": compounding.cloned, "DAgger": compounding.corrected}
    for where, mdp in (("road", compounding.road(ACTIONS)), ("cliff", compounding.road(ACTIONS, cliff=True))):
        for method, limit in limits.items():
            for i, T in enumerate(sorted(set(options.horizon))):
                f = limit(mdp, T, act, options.error)
                roll_in = act if method == "behaviour cloning" else f
                rate = compounding.error_rate(mdp, T, f, act, roll_in)
                row = {"problem": where, "method": method, "horizon": T, "error_rate": float(rate)}
                row["cost"] = float(compounding.cost(mdp, T, f, act))
                rows.append(row)
                if i % 2:
                    continue
                environment = pgjax.finite(mdp, T)
                if method == "behaviour cloning":
                    data = pgjax.demonstrate(environment, expert, 16)
                    algorithm = pgjax.behaviour_cloning(policy, data, batch=16, steps=50)
                else:
                    algorithm = pgjax.dagger(environment, policy, expert, slots=16, batch=16, steps=50)
                results = sweep(f"{where}-{method.split()[-1].lower()}-{T}", algorithm, 20, 0.3)
                cost = pgjax.over_runs(
                    lambda params, mdp=mdp, T=T: compounding.cost(
                        mdp, T, pgjax.exact.probabilities(mdp, policy, params), act
                    )
                )
                costs = np.asarray(cost(pgjax.load_params(results, jax.eval_shape(policy.init, jax.random.key(0)))))
                row |= tables.average_of(costs)
    return rows


def exponent(rows: Sequence[Mapping[str, Any]], problem: str, method: str) -> float:
    """The k of cost ∝ T^k of a method in its limit."""
    chosen = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
    return compounding.exponent([row["horizon"] for row in chosen], [row["cost"] for row in chosen])


COLOURS = {
    "behaviour cloning": plotting.COLOURS[1],
    "DAgger": plotting.COLOURS[0],
    "DAgger amid the noise": plotting.COLOURS[4],
    "expert": plotting.COLOURS[6],
    "behaviour cloning, every label": plotting.COLOURS[3],
}
TUNED_COLOURS = {"clone, then REINFORCE": plotting.COLOURS[2], "REINFORCE from scratch": plotting.COLOURS[5]}


def draw(rows: Sequence[Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw returns against expert episodes and against noise, a column for each task, and save them as PNG."""
    table = pd.DataFrame(rows)
    names, quiet = table.task.unique(), options.noise[0]
    figure = Figure(figsize=(4 * len(names), 6.8), layout="constrained")
    grid = figure.subplots(2, len(names), squeeze=False)
    for name, (above, below) in zip(names, grid.T, strict=True):
        here = table[table.task == name]
        most = here[here.method == "DAgger"].episodes.max()
        for method, colour in COLOURS.items():
            of_it = here[here.method == method]
            learning = of_it[of_it.noise == quiet]
            if method == "expert":
                above.axhline(learning.iqm.item(), color=colour, linestyle="--", linewidth=1.2, label=method)
            elif method == "behaviour cloning, every label":
                bars = np.abs(bounds_of(learning) - learning.iqm.to_numpy())
                style = {"color": colour, "marker": "D", "markersize": 5}
                above.errorbar(learning.episodes, learning.iqm, bars, **style, label=method, zorder=5)
            elif method != "DAgger amid the noise":
                draw_rows(above, learning.episodes, learning, colour, method)
            alike = of_it if method == "expert" else of_it[of_it.episodes == most]
            if method != "behaviour cloning, every label" and len(alike):
                draw_rows(below, alike.noise, alike, colour, method)
        dress(above, name, "expert episodes")
        dress(below, "", f"noise of actions when tested, after {most:.0f} episodes")
        above.set_xscale("log")
        shown = sorted(here.episodes.dropna().astype(int).unique())
        above.set_xticks(shown, [str(n) for n in shown])
        above.minorticks_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("return (interquartile mean, 95% interval)")
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(5, 2 * len(names)),
        fontsize="small",
        frameon=False,
    )
    figure.savefig(path, dpi=150)


def bounds_of(rows: pd.DataFrame) -> np.ndarray:
    """The ends of intervals, [2, rows]; NaN, which is not drawn, where there is none."""
    return np.array([(np.nan, np.nan) if bounds is None else bounds for bounds in rows.interval]).T


def draw_rows(axes: Axes, x: Any, rows: pd.DataFrame, colour: str, label: str) -> None:
    """Draw a method's interquartile mean and its interval."""
    low, high = bounds_of(rows)
    band(axes, x, rows.iqm, (low, high), colour, label, "o--" if label == "expert" else "o-")


def draw_compounding(rows: Sequence[Mapping[str, Any]], error: float, path: Path) -> None:
    """Draw the cost of imitators against the horizon, on the road and on the cliff, and save it as PNG."""
    table = pd.DataFrame(rows)
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    titles = {"road": "road: the expert would return at once", "cliff": "cliff: nobody can return"}
    for axes, (where, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for method, marker in (("behaviour cloning", "o"), ("DAgger", "s")):
            here = table[(table.problem == where) & (table.method == method)]
            k = exponent(rows, where, method)
            style = "--" if where == "cliff" and method == "DAgger" else "-"
            colour = COLOURS[method]
            axes.loglog(here.horizon, here.cost, color=colour, linestyle=style, label=f"{method}: cost ∝ T^{k:.2f}")
            runs = here.dropna(subset="iqm")
            bars = np.abs(bounds_of(runs) - runs.iqm.to_numpy())
            axes.errorbar(runs.horizon, runs.iqm, bars, color=colour, marker=marker, markersize=5, linestyle="none")
        axes.plot([], [], "o", color="0.4", markersize=5, label="runs of the algorithms")
        dress(axes, title, "horizon T (steps)")
        axes.set_xticks(sorted(table.horizon.unique()), [str(T) for T in sorted(table.horizon.unique())])
        axes.minorticks_off()
        add_legend(axes, "upper left")
    figure.axes[0].set_ylabel(f"cost of an episode, ε = {error:g}")
    figure.savefig(path, dpi=150)


def print_rows(rows: Sequence[Mapping[str, Any]], quiet: float) -> None:
    """Print the tests without noise as a table."""
    lines = []
    for row in rows:
        if row["noise"] == quiet:
            line = {"task": row["task"], "method": row["method"], "expert episodes": row["episodes"] or "-"}
            line["labels"] = tables.written(row["labels"], ".0f")
            line["failed"] = str(row["failed"])
            line["return (IQM)"] = tables.written(row["iqm"])
            lines.append(line | {"IQM, 95% interval": tables.written_interval(row["interval"])})
    print(pd.DataFrame(lines).to_string(index=False))


def check(options: Options) -> None:
    """Raise unless the options can be used.

    Raises:
        InputError: If a count is below 1, or a probability is none.
    """
    counts = {"gradient steps": options.gradient_steps, "test episodes": options.test_episodes, "seeds": options.seeds}
    counts |= {"updates of REINFORCE": options.iterations}
    launch.check_counts({**counts, "expert episodes": options.episodes})
    for level in options.noise:
        if not 0 <= level <= 1 or options.noise.count(level) > 1:
            raise pgjax.InputError(f"expected levels of noise from 0 to 1, each once, got {level}")
    if not options.noise or not options.env:
        raise pgjax.InputError("expected one or more tasks and levels of noise, got none")
    if len(set(options.horizon)) < 2 or min(options.horizon) < 2:
        raise pgjax.InputError(f"expected two or more horizons of 2 steps or more, got {options.horizon}")
    if not 0 < options.error < 1:
        raise pgjax.InputError(f"expected an error rate between 0 and 1, got {options.error}")


def main(options: Options) -> None:
    """Run the sweeps, then test, write, draw and print what they learned."""
    check(options)
    available = tasks()
    starts = tuple(f"{name}-" for name in (*available, "compounding"))  # and then what depends on the options
    ours = [path.name for path in options.out.glob("*") if path.name.startswith(starts)]
    files = ["imitation.png", "fine_tuning.png", "compounding.png", "summary.json"]
    launch.check_directory_of_study(options.out, [*ours, *files])

    def sweep(task: str, name: str, algorithm: pgjax.Algorithm, iterations: int, numbers: Any, **more: Any) -> Any:
        if isinstance(numbers, float):
            numbers = algorithm.hyperparameters(learning_rate=numbers)
        what = {"task": task, "what": name, "gradient_steps": options.gradient_steps, "error": options.error}
        return pgjax.sweep(
            algorithm,
            **{"seeds": launch.seeds_of(options), "iterations": iterations, "hyperparameters": numbers} | more,
            study=options.study,
            out=options.out / f"{task}-{name}",
            configuration=what,
            batch=options.batch,
        )

    learned = []
    name: str
    for name in dict.fromkeys(options.env):
        task = available[name]
        problem = Problem(
            name=name,
            task=task,
            environment=pgjax.noisy_actions(task.environment, options.noise[0]),
            policy=pgjax.policy_for(task.environment),
            sweep=functools.partial(sweep, name),
        )
        learned.append((problem, *run_sweeps(problem, options)))
    errors = compound(options, functools.partial(sweep, "compounding"))
    launch.leave_to_the_first_process()

    rows: list[dict[str, Any]] = []
    claims, panels, levels = {}, {}, {}
    for problem, experts, found in learned:
        here = evaluate(problem, options, experts, found)
        rows += here
        claims[problem.name] = findings(here, options.noise[0])
        panels[problem.name] = {TUNED[name]: found[name].load() for name in TUNED}
        levels[problem.name] = {
            row["method"]: row["iqm"]
            for row in here
            if row["method"] in ("weak expert", "clone of the weak expert") and row["noise"] == options.noise[0]
        }
    exponents = {
        "bc_exponent": exponent(errors, "road", "behaviour cloning"),
        "dagger_exponent": exponent(errors, "road", "DAgger"),
        "bc_exponent_on_the_cliff": exponent(errors, "cliff", "behaviour cloning"),
        "dagger_exponent_on_the_cliff": exponent(errors, "cliff", "DAgger"),
    }
    sweeps = [results for _, _, found in learned for results in found.values()]
    summary = {
        **exponents,
        "findings": claims,
        "seeds": options.seeds,
        "test_episodes": options.test_episodes,
        "gradient_steps": options.gradient_steps,
        "error": options.error,
        "device": sweeps[0].attrs["device"],
        "seconds": sum(float(results.seconds.sum()) for results in sweeps),
        "rows": rows,
        "compounding": errors,
    }
    tables.write_json(options.out / "summary.json", summary)
    draw(rows, options, options.out / "imitation.png")
    pgjax.compare_learning_curves(panels, options.out / "fine_tuning.png", levels, colours=TUNED_COLOURS)
    draw_compounding(errors, options.error, options.out / "compounding.png")
    print_rows(rows, options.noise[0])
    for name, said in claims.items():
        print(f"{name}: " + ("; ".join(f"{what.replace('_', ' ')}: {value}" for what, value in said.items()) or "-"))
    print("; ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in exponents.items()))
    print(f"{len(sweeps)} sweeps of {options.seeds} seeds in {summary['seconds']:.0f} s; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
