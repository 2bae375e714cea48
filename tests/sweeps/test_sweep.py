import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax.hyperparameters import numbers_of, with_values
from pgjax.placement import sweep_mesh
from pgjax.sweeps import batches, load, runner
from pgjax.sweeps import store as results
from pgjax.sweeps.checkpoints import Running
from pgjax.sweeps.grid import Runs
from pgjax.sweeps.program import Plan, Program, compile_program, compile_within, first_plan
from tests.cases import random_mdp

ENVIRONMENT = pgjax.finite(random_mdp(), horizon=5)
ALGORITHM = pgjax.reinforce(ENVIRONMENT, pgjax.tabular(3, 2), slots=4)
ASYNCHRONOUS = pgjax.reinforce(
    pgjax.finite(random_mdp(), horizon=20), pgjax.tabular(3, 2), slots=1, baseline=pgjax.running_average(), chunk=4
)
GRID = {"learning_rate": [0.1, 0.5], "discount": [0.9, 1.0, 0.5]}


class Inner(NamedTuple):
    offset: Any = 0.0
    reference: Any = None


class Numbers(NamedTuple):
    rate: Any = 1.0
    start: Any = None
    inner: Inner = Inner()


class Walk(NamedTuple):
    params: Any
    numbers: Numbers


class Place(NamedTuple):
    total: jax.Array


def walk_from(key, numbers):
    fresh = {"w": jax.random.randint(key, (2,), 0, 99).astype(float), "b": jnp.zeros(())}
    return Walk(fresh if numbers.start is None else numbers.start, numbers)


def walk_on(walk):
    params = jax.tree.map(lambda x: x + walk.numbers.rate, walk.params)
    far = 0.0 if walk.numbers.inner.reference is None else walk.numbers.inner.reference["far"][1]
    return walk._replace(params=params), Place(sum(map(jnp.sum, jax.tree.leaves(params))) + far)


# An algorithm that adds its rate to three numbers in each iteration, and tells their total; whole numbers stay exact.
WALK = pgjax.Algorithm(walk_from, walk_on, Numbers)
SEEDS = [9, 2, 5]
STARTS = {"w": np.float32([[1, 2], [30, 40], [500, 600]]), "b": np.float32([7, 8, 9])}


def swept(algorithm=ALGORITHM, **options):
    return pgjax.sweep(
        algorithm, **{"iterations": 7, "seeds": range(5), "progress": False, "configuration": {}} | options
    )


def walked(**options):
    """Six runs, in two batches of four unless there are options."""
    grid = {"rate": [1.0, 10.0]}
    defaults = {"iterations": 3, "seeds": SEEDS, "grid": grid, "by_seed": {"start": STARTS}, "batch": 4, "block": 2}
    return swept(WALK, **defaults | options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return swept(grid=GRID, out=out, batch=4).load()


def assert_same(a, b, exactly=False):
    curves = [name for name in a.data_vars if "iteration" in a[name].dims]
    assert curves
    for name in curves:
        assert a[name].dims == b[name].dims
        if exactly:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        else:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_labels_and_attributes(undisturbed):
    assert undisturbed.episode_return.dims == ("learning_rate", "discount", "seed", "iteration")
    assert dict(undisturbed.sizes) == {"learning_rate": 2, "discount": 3, "seed": 5, "iteration": 7}
    np.testing.assert_array_equal(undisturbed.discount, GRID["discount"])
    assert undisturbed.completed.all()
    assert np.isfinite(undisturbed.episode_return).all()
    assert (undisturbed.seconds > 0).all()
    configuration = json.loads(undisturbed.attrs["configuration"])
    numbers = configuration.pop("hyperparameters")
    assert configuration == {
        "study": 0,
        "seeds": [0, 1, 2, 3, 4],
        "grid": GRID,
        "iterations": 7,
        "configuration": {},
    }
    assert numbers["learning_rate"] == pytest.approx(3e-3)
    assert numbers["environment.p"].startswith("(3, 2, 3) ")
    assert json.loads(undisturbed.attrs["versions"])["jax"]
    assert {"device", "created"} < set(undisturbed.attrs)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert undisturbed.attrs["git_revision"].removesuffix("-modified") == head


def test_every_point_is_the_run_it_says(undisturbed):
    run = pgjax.train(ALGORITHM, 7)
    for rate, discount, seed in ((0.1, 0.5, 0), (0.5, 0.9, 4)):
        key = pgjax.run_keys(0, [seed])[0]
        _, curves = run(key, ALGORITHM.hyperparameters(learning_rate=rate, discount=discount))
        here = undisturbed.sel(learning_rate=rate, discount=discount, seed=seed)
        np.testing.assert_allclose(here.gradient_norm, curves.gradient_norm, rtol=1e-4)
        np.testing.assert_array_equal(here.steps, curves.steps)


@pytest.mark.parametrize("options", [{"batch": 30}, {"batch": 7, "block": 3}, {"segment": 3}, {"memory": 60_000}])
def test_batches_blocks_and_segments_do_not_matter(undisturbed, options):
    assert_same(swept(grid=GRID, **options), undisturbed)


def test_order_of_seeds_does_not_matter(undisturbed):
    backwards = swept(
        grid={"learning_rate": [0.5]}, seeds=[4, 2, 0], hyperparameters=ALGORITHM.hyperparameters(discount=0.9)
    )
    expected = undisturbed.sel(learning_rate=[0.5], discount=0.9, seed=[4, 2, 0])
    assert_same(backwards, expected)


@pytest.mark.slow
def test_number_of_devices_does_not_matter(tmp_path):
    script = f"""
import jax, pgjax
from tests.sweeps.test_sweep import GRID, swept, walked
assert jax.device_count() == 4
swept(grid=GRID, out={str(tmp_path / "a")!r})
walked(out={str(tmp_path / "b")!r}, batch=None)
"""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=200)
    found = pgjax.read(tmp_path / "a")
    assert found.attrs["device"].startswith("4 x")
    assert_same(found, swept(grid=GRID))
    assert_each_from_its_start(pgjax.read(tmp_path / "b"))


def assert_each_from_its_start(found):
    rates, iterations = np.float32([1, 10])[:, None, None], np.arange(1, 4)
    begun = STARTS["w"].sum(axis=1) + STARTS["b"]
    np.testing.assert_array_equal(found.seed, SEEDS)
    np.testing.assert_array_equal(found.total, begun[None, :, None] + 3 * rates * iterations)
    for rate in (1.0, 10.0):
        params = pgjax.load_params(found, jax.tree.map(lambda leaf: leaf[0], STARTS), point={"rate": rate})
        jax.tree.map(np.testing.assert_array_equal, params, {name: leaf + 3 * rate for name, leaf in STARTS.items()})


@pytest.mark.parametrize("options", [{}, {"batch": 6, "block": 3}, {"batch": 1}])
def test_each_seed_has_its_own(options):
    found = walked(**options)
    assert_each_from_its_start(found)
    configuration = json.loads(found.attrs["configuration"])
    assert configuration["by_seed"] == ["start"]
    assert configuration["hyperparameters"]["start['w']"].startswith("(3, 2) ")


def test_a_sweep_goes_on_with_what_another_ended_with():
    whole, first = (swept(WALK, seeds=SEEDS, iterations=iterations) for iterations in (5, 2))
    assert len(np.unique(first.total)) == 6
    params = pgjax.load_params(first, jax.tree.map(lambda leaf: leaf[0], STARTS))
    second = swept(WALK, seeds=SEEDS, iterations=3, by_seed={"start": params}, batch=2)
    np.testing.assert_array_equal(second.total, whole.total[:, 2:])


def test_what_is_by_seed_may_be_numbers_and_lie_within_others():
    by_seed = {
        "inner.reference": {"far": np.arange(6.0).reshape(3, 2)},
        "rate": np.array([1, 2, 3]),  # in the place of a float
        "start": [10.0 * jnp.arange(3)],
    }
    found = swept(WALK, seeds=SEEDS, iterations=2, by_seed=by_seed, grid={"inner.offset": [0.0, 1.0]}, batch=4)
    expected = [[10 * i + (i + 1) * step + 2 * i + 1 for step in (1, 2)] for i in range(3)]
    np.testing.assert_array_equal(found.total, [expected, expected])
    alone = swept(WALK, seeds=SEEDS, iterations=1, by_seed={"start": np.arange(3.0)})  # a number instead of None
    np.testing.assert_array_equal(alone.total[:, 0], [1, 2, 3])


class KilledError(Exception):
    pass


def test_what_is_by_seed_belongs_to_the_results(tmp_path, monkeypatch):
    go_on, calls = batches.go_on, []

    def killing(*arguments):
        calls.append(None)
        if len(calls) == 6:
            raise KilledError
        return go_on(*arguments)

    options = {"out": tmp_path, "segment": 1, "checkpoint_seconds": 0}
    with monkeypatch.context() as patched:
        patched.setattr(batches, "go_on", killing)
        with pytest.raises(KilledError):
            walked(**options)
        assert pgjax.read(tmp_path).completed.sum() == 4
        for by_seed, message in (
            ({"start": STARTS | {"b": np.float32([7, 8, 8])}}, r"hyperparameters.start\['b'\] is '\(3,\) .* there and"),
            ({"start": jax.tree.map(lambda leaf: leaf[::-1], STARTS)}, r"hyperparameters.start\['b'\] is"),
            ({}, r"by_seed is \['start'\] there and None here"),
        ):
            with pytest.raises(pgjax.InputError, match=message):
                walked(**options, by_seed=by_seed)
        assert len(calls) == 6
        found = walked(**options, by_seed={"start": jax.tree.map(jnp.asarray, STARTS)})
    assert len(calls) == 6 + 1  # the last segment of the second batch
    assert_each_from_its_start(found)


@pytest.mark.parametrize(
    ("by_seed", "message"),
    [
        ({"start": {"w": np.ones((3, 2)), "b": np.ones(4)}}, r"start\['b'\] of 3 seeds, \[3, ...\], got shape \(4,\)$"),
        ({"start": np.float32(1)}, r"start of 3 seeds, \[3, ...\], got shape \(\)$"),
        ({"start": {}}, "start of each seed, got no arrays$"),
        ({"start": None}, "start of each seed, got no arrays$"),
        ({"begin": STARTS}, "the name of a hyper-parameter, got 'begin'; there are rate, start, inner$"),
        ({"inner.begin": STARTS}, "the name of a hyper-parameter, got 'inner.begin'; there are offset, reference$"),
        ({"rate": np.ones(3)}, "every hyper-parameter once, got rate of each seed and rate$"),
        ({"inner": STARTS}, "every hyper-parameter once, got inner of each seed and inner.offset$"),
        ({"rate.x": STARTS}, "every hyper-parameter once, got rate.x of each seed and rate$"),
        ({"start": STARTS, "start.w": np.ones(3)}, "every hyper-parameter once, got start of each seed and start.w$"),
        ({"start": np.array([1, np.nan, 2])}, "finite values of start, got nan$"),
    ],
)
def test_what_cannot_be_by_seed_is_refused_before_anything_is_compiled(tmp_path, by_seed, message, monkeypatch):
    monkeypatch.setattr(runner, "compile_program", None)
    grid = {"rate": [1.0], "inner.offset": [0.0]}
    with pytest.raises(pgjax.InputError, match="^expected " + message):
        walked(by_seed=by_seed, grid=grid, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_by_seed_counts_as_memory():
    sums = WALK._replace(init=lambda key, numbers: Walk(jnp.sum(numbers.start), Numbers()))
    own = {"start": np.ones(1000, np.float32)}
    program = compile_program(sums, Numbers(), own, 1, Plan(8, 8), sweep_mesh(1))
    assert program.bytes > 8 * own["start"].nbytes


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2])
def test_a_killed_sweep_goes_on_where_it_was(tmp_path, monkeypatch, undisturbed, after):
    write, calls = results.write, []

    def killing(store, pieces, seconds):
        if len(calls) == after:
            raise KilledError
        calls.append(pieces)
        write(store, pieces, seconds)

    monkeypatch.setattr(batches, "write", killing)
    with pytest.raises(KilledError):
        swept(grid=GRID, out=tmp_path, batch=4)
    kept = pgjax.read(tmp_path).load()
    finished = int(kept.completed.sum())
    assert (finished > 0) == (after > 0)
    assert finished < 30
    assert np.isnan(kept.episode_return.where(~kept.completed)).all()

    monkeypatch.setattr(batches, "write", write)
    whole = swept(grid=GRID, out=tmp_path, batch=4)
    assert_same(whole, undisturbed, exactly=True)
    first = kept.seconds.values[0, 0, :4]
    if after:  # what was finished has not been computed again
        np.testing.assert_array_equal(whole.seconds.values[0, 0, :4], first)


@pytest.mark.slow
def test_two_processes_do_not_write_the_same_results(tmp_path, monkeypatch):
    go_on = batches.go_on
    script = f"""
import pgjax
from pgjax.sweeps import store as results
from pgjax.sweeps.checkpoints import Running
for chunks in (range(0, 1), range(0, 9)):
    try:
        with results.locked({str(tmp_path / results.STORE)!r}, chunks):
            print("held")
    except pgjax.InputError as error:
        print(error)
with results.locked({str(tmp_path / results.STORE)!r}, range(1, 9)):
    print("the others are free")
"""

    def another():
        return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=200)

    def meanwhile(*arguments):
        said.append(another().stdout)
        return go_on(*arguments)

    said = []
    monkeypatch.setattr(batches, "go_on", meanwhile)
    assert swept(out=tmp_path, segment=7).completed.all()
    assert said[0].count("expected results that no other process writes") == 2
    assert "the others are free" in said[0]
    assert another().stdout.count("held") == 2


def test_another_batch_size_keeps_what_is_there(tmp_path, monkeypatch, undisturbed):
    write, calls = results.write, []

    def killing(store, pieces, seconds):
        calls.append(pieces)
        write(store, pieces, seconds)
        raise KilledError

    monkeypatch.setattr(batches, "write", killing)
    with pytest.raises(KilledError):
        swept(grid=GRID, out=tmp_path, batch=7)
    kept = pgjax.read(tmp_path).seconds.values
    monkeypatch.setattr(batches, "write", write)
    whole = swept(grid=GRID, out=tmp_path, batch=10)
    assert np.isfinite(kept).sum() == 7
    np.testing.assert_array_equal(whole.seconds.values[np.isfinite(kept)], kept[np.isfinite(kept)])
    assert_same(whole, undisturbed)


def test_a_finished_sweep_is_only_read(tmp_path, monkeypatch):
    first = swept(out=tmp_path).load()
    monkeypatch.setattr(runner, "compile_program", None)
    assert_same(swept(out=tmp_path), first, exactly=True)


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    swept(out=tmp_path / "a", configuration={"environment": "this"})
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(pgjax.InputError, match=r"configuration.environment is 'this' there and 'that' here"):
        swept(out=tmp_path / "a", configuration={"environment": "that"})
    with pytest.raises(pgjax.InputError, match=r"hyperparameters.discount is 1.0 there and 0.5 here"):
        swept(
            out=tmp_path / "a",
            configuration={"environment": "this"},
            hyperparameters=ALGORITHM.hyperparameters(discount=0.5),
        )
    with pytest.raises(pgjax.InputError, match="iterations is 7 there and 8 here"):
        swept(out=tmp_path / "a", configuration={"environment": "this"}, iterations=8)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("precious")
    with pytest.raises(pgjax.InputError, match="which holds other files"):
        swept(out=tmp_path / "b")
    with pytest.raises(pgjax.InputError, match="got the file"):
        swept(out=tmp_path / "b" / "thesis.tex" / "below")
    (tmp_path / "c" / "results.zarr").mkdir(parents=True)
    with pytest.raises(pgjax.InputError, match="unreadable"):
        swept(out=tmp_path / "c")
    assert before == sorted(path for path in tmp_path.rglob("*") if "a" in path.relative_to(tmp_path).parts)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations to be an integer of 1 or more, got 0"),
        ({"iterations": 7.0}, "iterations to be an integer of 1 or more, got 7.0"),
        ({"seeds": []}, "1 or more seeds, got none"),
        ({"seeds": [-1]}, "a seed to be an integer from 0 to 4294967295, got -1"),
        ({"seeds": [2**32]}, "a seed to be an integer from 0 to 4294967295, got 4294967296"),
        ({"seeds": [0.2, 0.9]}, "a seed to be an integer from 0 to 4294967295, got 0.2"),
        ({"seeds": [True, False]}, "a seed to be an integer .*, got True"),
        ({"seeds": "12"}, r"a sequence of integers, such as range\(3\), got '12'"),
        ({"seeds": 3}, r"a sequence of integers, such as range\(3\), got 3"),
        ({"seeds": [3, 3]}, "every seed once"),
        ({"grid": {"learning_rate": []}}, "one or more values of learning_rate"),
        ({"grid": {"learning_rate": 0.1}}, r"several values of learning_rate, such as \[0.1\], got 0.1"),
        ({"grid": {"learning_rate": "0.1"}}, "several values of learning_rate"),
        ({"grid": {"learning_rate": b"ab"}}, "several values of learning_rate"),
        ({"grid": "learning_rate"}, "grid to be a mapping from names to values, got 'learning_rate'"),
        ({"grid": {3: [0.1]}}, "grid to be a mapping from names to values"),
        ({"by_seed": [0.1]}, "by_seed to be a mapping from names to values"),
        ({"grid": {"entropy_coefficient": [10**400]}}, "entropy_coefficient that a float32 can hold, got 1000"),
        ({"grid": {"entropy_coefficient": [1e-45]}}, "entropy_coefficient that a float32 can hold, got 1e-45"),
        ({"grid": {"learning_rate": [True, 2.0]}}, "learning_rate to be one number, got True"),
        ({"grid": {"learning_rate": ["0.1"]}}, "learning_rate to be one number, got '0.1'"),
        ({"grid": {"learning_rate": [0.1, float("nan")]}}, "a finite learning_rate of 0 or more, got nan"),
        ({"grid": {"learning_rate": [-0.1]}}, "a finite learning_rate of 0 or more, got -0.1"),
        (
            {"by_seed": {"entropy_coefficient": np.array([0.5, 1e300, 1, 2, 3])}, "seeds": range(5)},
            "entropy_coefficient that a float32 can hold, got 1e[+]300",
        ),
        ({"grid": {"entropy_coefficient": [1e-60]}}, "entropy_coefficient that a float32 can hold, got 1e-60"),
        ({"grid": {"entropy_coefficient": [16777217]}}, "entropy_coefficient that a float32 can hold, got 16777217"),
        ({"grid": {"entropy_coefficient": [0.1, 0.1 + 1e-12]}}, "every value of entropy_coefficient once"),
        ({"grid": {"learning_rate": [0.1, 0.1]}}, "every value of learning_rate once"),
        ({"grid": {"momentum": [0.1]}}, "got 'momentum'; there are learning_rate"),
        ({"grid": {"environment": [0.1]}}, "that is one number, got 'environment'"),
        ({"grid": {"environment.p": [0.1]}}, "that is one number, got 'environment.p'"),
        ({"grid": {"learning_rate.x": [0.1]}}, "nothing has a name below a number"),
        ({"batch": 0}, "batch to be an integer of 1 or more, got 0"),
        ({"block": 2.0}, "block to be an integer of 1 or more, got 2.0"),
        ({"segment": "2"}, "segment to be an integer of 1 or more, got '2'"),
        ({"configuration": {"f": len}}, "plain numbers"),
        ({"configuration": None, "out": "somewhere"}, "a configuration beside out"),
        ({"study": -1}, "the study to be an integer from 0 to 4294967295, got -1"),
        ({"study": 2**32}, "the study to be an integer from 0 to 4294967295, got 4294967296"),
        ({"grid": {"learning_rate": [1e300]}}, "learning_rate that a float32 can hold, got 1e[+]300"),
        (
            {"hyperparameters": ALGORITHM.hyperparameters()._replace(discount=jnp.float32(jnp.nan))},
            "finite values of discount, got nan",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_compiled(options, message, monkeypatch):
    monkeypatch.setattr(runner, "compile_program", None)
    with pytest.raises(pgjax.InputError, match=message):
        swept(**options)


def test_a_run_that_does_not_fit_into_memory_is_refused():
    with pytest.raises(pgjax.InputError, match="fit into 10 bytes of memory, it needs"):
        swept(memory=10)


def test_the_budget_of_memory_chooses_the_batch():
    tried = []

    def compile_plan(plan):
        tried.append(plan)
        return Program(plan, None, None, 1, None, None, bytes=100 * plan.share + 50 * plan.block)

    assert compile_within(10**6, compile_plan, Plan(64, 16)).plan == Plan(64, 16)
    assert len(tried) == 1
    chosen = compile_within(2500, compile_plan, Plan(64, 16)).plan
    assert chosen.share * 100 + chosen.block * 50 <= 2500
    assert chosen.share >= 16
    assert chosen.share % chosen.block == 0


def test_every_run_may_go_at_its_own_pace():
    # Run i does i + 1 iterations a call, but no more than three and than it has left; its metric counts them.
    class Advance:
        input_shardings = ((None, *3 * [jax.sharding.SingleDeviceSharding(jax.devices()[0])]), {})

        def __call__(self, states, ahead, count, remaining):
            np.testing.assert_array_equal(states - jnp.min(states), ahead)
            assert int(remaining) == 7 - int(jnp.min(states))
            counts = jnp.minimum(jnp.arange(1, 5), jnp.minimum(3, 7 - states))
            return states + counts, Counter(states[:, None] + jnp.arange(1, 4)[None]), counts

    class Counter(NamedTuple):
        steps: jax.Array

    program = Program(Plan(4, 4), None, Advance(), 3, None, Counter(jax.ShapeDtypeStruct((4, 3), jnp.int32)), 0)
    nothing = np.full((4, 7), np.nan, np.float32)
    running = Running(jnp.zeros(4, jnp.int32), {"steps": nothing}, np.zeros(4, np.int32), 1.0)
    seen = []
    while not running.finished:
        running = batches.go_on(program, running)
        seen.append(running.done.tolist())
        np.testing.assert_array_equal(np.isfinite(running.curves["steps"]).sum(axis=1), running.done)
    assert seen[:3] == [[1, 2, 3, 3], [2, 4, 6, 6], [3, 6, 7, 7]]
    assert len(seen) == 7
    np.testing.assert_array_equal(running.curves["steps"], np.tile(np.arange(1, 8), (4, 1)))
    assert batches.describe(running, 4).startswith("steps 7, ")


def test_plans_cover_every_run():
    for runs in (1, 5, 30, 256, 5000):
        for devices in (1, 3):
            for batch in (None, 1, 7, 100):
                for block in (None, 1, 5):
                    plan = first_plan(ALGORITHM, runs, devices, batch, block)
                    assert plan.share >= 1
                    assert plan.share % plan.block == 0


def test_regions_cut_a_batch_where_the_grid_turns():
    grid = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    runs = Runs(study=0, seeds=[7, 8, 9], grid=grid, labels=grid, by_seed={})
    pieces = [(region["a"], region["b"], region["seed"], rows) for region, rows in runs.regions(range(2, 10))]
    [gap, beyond] = [(region["seed"], rows) for region, rows in runs.regions([0, 2])]
    assert (gap, beyond) == ((slice(0, 1), slice(0, 1)), (slice(2, 3), slice(1, 2)))
    assert pieces == [
        (slice(0, 1), slice(0, 1), slice(2, 3), slice(0, 1)),
        (slice(0, 1), slice(1, 2), slice(0, 3), slice(1, 4)),
        (slice(1, 2), slice(0, 1), slice(0, 3), slice(4, 7)),
        (slice(1, 2), slice(1, 2), slice(0, 1), slice(7, 8)),
    ]


def test_environment_parameters_are_hyperparameters():
    environment = pgjax.from_gymnax("CartPole-v1")
    algorithm = pgjax.reinforce(environment, pgjax.policy_for(environment))
    numbers = with_values(algorithm.hyperparameters(), {"environment.length": 0.7, "discount": 0.5})
    assert float(numbers.environment.length) == pytest.approx(0.7)
    assert float(numbers.discount) == 0.5
    assert float(numbers.environment.gravity) == pytest.approx(9.8)
    assert with_values({"size": 1.0, "other": 2.0}, {"size": 3.0}) == {"size": 3.0, "other": 2.0}


def test_a_seed_that_fails_is_named_and_harms_no_other(undisturbed):
    # An enormous reward at one learning rate makes numbers overflow; the runs beside it in the batch must not notice.
    found = swept(grid={"learning_rate": [0.1, 3e38], "discount": [0.9]}, batch=30).load()
    np.testing.assert_array_equal(pgjax.analysis.failed(found).sel(learning_rate=0.1), False)
    assert_same(found.sel(learning_rate=[0.1]), undisturbed.sel(learning_rate=[0.1], discount=[0.9]))
    rows = pgjax.summarize(found)
    assert rows[0]["failed_seeds"] == []
    assert rows[1]["failed_seeds"] == [0, 1, 2, 3, 4]
    assert rows[1]["iqm"] is None


def test_results_are_in_memory_without_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = swept(seeds=range(2))
    assert isinstance(found, xr.Dataset)
    assert found.episode_return.dims == ("seed", "iteration")
    assert not list(tmp_path.iterdir())


def test_reading_nothing_is_refused(tmp_path):
    with pytest.raises(pgjax.InputError, match=r"a directory with results.zarr"):
        pgjax.read(tmp_path / "nothing")


def test_run_keys_depend_on_study_and_seed_alone():
    keys = pgjax.run_keys(3, [5, 17])
    assert keys[1] == pgjax.run_keys(3, [17])[0]
    assert not jnp.array_equal(keys, pgjax.run_keys(4, [5, 17]))


@pytest.mark.parametrize("block", [None, 2])
def test_a_function_of_many_runs_is_that_of_each(block):
    keys, numbers = pgjax.run_keys(0, range(5)), {"a": np.arange(5.0), "b": np.ones((5, 3))}
    function = pgjax.over_runs(lambda key, leaf: (jax.random.uniform(key), leaf["a"] + leaf["b"]), block)
    drawn, sums = function(keys, numbers)
    np.testing.assert_allclose(drawn, [jax.random.uniform(key) for key in keys], rtol=1e-6)
    np.testing.assert_array_equal(sums, np.arange(5.0)[:, None] + np.ones(3))


def test_a_function_of_many_runs_needs_equally_many():
    function = pgjax.over_runs(lambda *arrays: arrays)
    for arguments in ((np.ones(2), np.ones(3)), (np.ones((0, 2)),), (np.ones(2), 1.0), ()):
        with pytest.raises(pgjax.InputError, match="expected arrays of equally many runs, 1 or more, got axes"):
            function(*arguments)
    with pytest.raises(pgjax.InputError, match="expected block to be an integer of 1 or more, got 0"):
        pgjax.over_runs(lambda x: x, block=0)
    with pytest.raises(pgjax.InputError, match=r"expected block to be an integer of 1 or more, got 2.0"):
        pgjax.over_runs(lambda x: x, block=2.0)


@pytest.mark.parametrize("seed", [-1, 2**32, np.int64(-1), 0.2, True, "3"])
def test_a_seed_that_no_key_can_be_made_of_is_refused(seed):
    with pytest.raises(pgjax.InputError, match="expected a seed to be an integer from 0 to 4294967295, got "):
        pgjax.run_keys(0, [seed])
    with pytest.raises(pgjax.InputError, match="expected the study to be an integer from 0 to 4294967295, got "):
        pgjax.run_keys(seed, [0])


def test_seeds_may_be_integers_of_any_kind():
    expected = pgjax.run_keys(0, [3, 2**32 - 1])
    for seeds in (np.array([3, 2**32 - 1]), jnp.array([3, 2**32 - 1], jnp.uint32), (np.uint32(3), 2**32 - 1)):
        assert (pgjax.run_keys(0, seeds) == expected).all()
    assert len(set(map(str, jax.random.key_data(pgjax.run_keys(0, [0, 2**32 - 1]))))) == 2
    assert (jax.random.key_data(expected)[0] == jax.random.key_data(jax.random.fold_in(jax.random.key(0), 3))).all()


def test_a_run_is_the_same_alone_and_among_others_whatever_the_generator():
    # Of rbg's keys, a batch draws other numbers than each alone; the runs of pgjax have threefry's.
    options = {"iterations": 2, "progress": False}
    expected = pgjax.sweep(ALGORITHM, seeds=range(4), **options).episode_return.values
    with jax.default_prng_impl("rbg"):
        among = pgjax.sweep(ALGORITHM, seeds=range(4), **options).episode_return.values
        alone = pgjax.sweep(ALGORITHM, seeds=[2], **options).episode_return.values
    np.testing.assert_array_equal(among, expected)
    np.testing.assert_allclose(alone[0], expected[2], rtol=1e-6)


class Whole(NamedTuple):
    count: Any = 1
    rate: Any = 1.0
    tree: Any = ()


class Counted(NamedTuple):
    value: jax.Array
    notes: Any = ()


def counter(*notes, tree=()):
    """An algorithm that reports its integer, and some notes; its parameters are a tree."""

    def init(key, numbers):
        return Walk(numbers.tree, numbers)

    def update(state):
        count = state.numbers.count
        low = (count % 1000).astype(float)  # a metric is a float32, which has no room for all of it
        return state, Counted(low, dict.fromkeys(notes, low))

    return pgjax.Algorithm(init, update, lambda **values: Whole(jnp.int32(1), jnp.float32(1), tree)._replace(**values))


def test_an_integer_of_a_grid_arrives_as_it_is():
    counts = [16777217, 16777219, 2**31 - 1]  # no float32 but the first's neighbours
    found = pgjax.sweep(counter(), iterations=1, seeds=[0], grid={"count": counts}, keep_params=False, progress=False)
    np.testing.assert_array_equal(found.value.values[:, 0, 0], [217, 219, 647])
    assert found["count"].values.tolist() == counts
    own = pgjax.sweep(
        counter(),
        iterations=1,
        seeds=[0, 1],
        by_seed={"count": np.array(counts[:2])},
        keep_params=False,
        progress=False,
    )
    np.testing.assert_array_equal(own.value.values[:, 0], [217, 219])
    assert load.where(found, 0, {"count": 16777219}) == (1, 0)
    with pytest.raises(pgjax.InputError, match="expected count to be one of the results', got 16777218"):
        load.where(found, 0, {"count": 16777218})
    for value, message in (
        (3.2, "integers from .* as values of count, got 3.2"),
        (3e9, "integers from .* got 3000000000"),
    ):
        with pytest.raises(pgjax.InputError, match=message):
            pgjax.sweep(counter(), iterations=1, seeds=[0], grid={"count": [value]}, keep_params=False, progress=False)


def named(**numbers):
    """An algorithm whose hyper-parameters are numbers of these names and types."""
    return pgjax.Algorithm(
        lambda key, given: Walk((), given),
        lambda state: (state, Counted(jnp.float32(0), {})),
        lambda **values: {**numbers, **values},
    )


@pytest.mark.parametrize("name", results.RESERVED)
def test_an_axis_with_a_name_that_is_taken_is_refused(name, tmp_path):
    with pytest.raises(pgjax.InputError, match=f"names that results do not use otherwise, got {name}"):
        pgjax.sweep(
            named(**{name: jnp.float32(1)}),
            iterations=1,
            seeds=[0],
            grid={name: [1.0]},
            out=tmp_path / "it",
            configuration={},
        )
    assert not (tmp_path / "it").exists()


def test_labels_of_integers_are_integers_and_what_no_type_can_hold_is_refused():
    options = {"iterations": 1, "seeds": [0, 1], "keep_params": False, "progress": False}
    found = pgjax.sweep(named(n=jnp.uint32(1)), grid={"n": [2**32 - 1, 2**32 - 3]}, **options)
    assert found.n.dtype.kind in "iu"
    assert found.n.values.tolist() == [2**32 - 1, 2**32 - 3]
    with pytest.raises(pgjax.InputError, match=r"expected values of flag that a bool can hold, got 0.5"):
        pgjax.sweep(named(flag=jnp.bool_(True)), grid={"flag": [0.5]}, **options)
    with pytest.raises(pgjax.InputError, match="expected integers of table that an int32 can hold, got others"):
        pgjax.sweep(named(table=jnp.arange(2)), by_seed={"table": np.array([[3 * 10**9, 0]] * 2)}, **options)
    for wanted in ("2", None, [2**32 - 1]):
        with pytest.raises(pgjax.InputError, match="expected n to be one of the results'"):
            load.where(found, 0, {"n": wanted})
    with pytest.raises(pgjax.InputError, match="expected seed to be one of the results', got True"):
        load.where(found, True, {"n": 2**32 - 1})


def test_numbers_given_to_an_algorithm_arrive_or_are_refused():
    class Numbers(NamedTuple):
        count: Any = 1
        rate: Any = 1.0

    numbers = numbers_of(Numbers())
    assert numbers(count=16777217).count == 16777217
    for values, message in (
        ({"count": 3.7}, "integers from .* as values of count, got 3.7"),
        ({"count": 2**31}, "integers from .* as values of count, got 2147483648"),
        ({"rate": 1e300}, "values of rate that a float32 can hold, got 1e[+]300"),
        ({"rate": 1e-60}, "values of rate that a float32 can hold, got 1e-60"),
        ({"rate": 16777217}, "values of rate that a float32 can hold, got 16777217"),
    ):
        with pytest.raises(pgjax.InputError, match=message):
            numbers(**values)


AWKWARD = ["reward/kl", "class", "_x", "a-b", "zarr.json", "__init", "..", "", "a b%", "kl"]


def test_a_note_may_have_any_name(tmp_path):
    found = pgjax.sweep(
        counter(*AWKWARD), iterations=2, seeds=[0], out=tmp_path, configuration={}, keep_params=False, progress=False
    )
    for name in AWKWARD:
        np.testing.assert_array_equal(found[name], [[1, 1]])
    assert set(pgjax.read(tmp_path).data_vars) == {*AWKWARD, "value", "seconds", "completed"}


@pytest.mark.parametrize("name", ["completed", "seconds", "seed", "iteration", "params", "rate", "value"])
def test_a_note_with_a_name_that_is_taken_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "compile_program", None)
    with pytest.raises(pgjax.InputError, match=f"names .* got {name}"):
        pgjax.sweep(
            counter(name),
            iterations=1,
            seeds=[0],
            grid={"rate": [1.0]},
            out=tmp_path / "it",
            configuration={},
            keep_params=False,
        )
    assert not (tmp_path / "it").exists()


TREE = {
    "mlp/~/linear_0": {"w": 1.0, "b": 2.0},  # as Haiku names them
    "a.b": 3.0,
    "a": {"b": 4.0},
    "zarr": {"json": 5.0},
    "zarr.json": 6.0,
    "": 7.0,
    "__v": {"..": 8.0},
}


def test_parameters_may_have_any_name(tmp_path):
    tree = jax.tree.map(jnp.float32, TREE)
    pgjax.sweep(counter(tree=tree), iterations=1, seeds=[0, 1], out=tmp_path, configuration={}, progress=False)
    loaded = pgjax.load_params(tmp_path, tree, seed=1)
    jax.tree.map(np.testing.assert_array_equal, loaded, tree)
    with pytest.raises(pgjax.InputError, match=r"expected parameters .*mlp/~/linear_0.w.*, got theta"):
        pgjax.load_params(tmp_path, jnp.float32(0), seed=0)


def test_hyperparameters_may_have_any_name(tmp_path):
    tree = jax.tree.map(jnp.float32, TREE)
    grid = {"tree.mlp/~/linear_0.w": [1.0, 2.0], "tree.a.b": [0.5]}
    with pytest.raises(pgjax.InputError, match=r"a name that one hyper-parameter has, got 'tree.a.b', which 2 have"):
        pgjax.sweep(counter(tree=tree), iterations=1, seeds=[0], grid=grid, progress=False)
    del tree["a"]
    pgjax.sweep(counter(tree=tree), iterations=1, seeds=[0], grid=grid, out=tmp_path, configuration={}, progress=False)
    found = pgjax.read(tmp_path)
    assert found.value.dims == ("tree.mlp/~/linear_0.w", "tree.a.b", "seed", "iteration")
    chosen = pgjax.load_params(found, tree, seed=0, point={"tree.mlp/~/linear_0.w": 2.0, "tree.a.b": 0.5})
    assert (chosen["mlp/~/linear_0"]["w"], chosen["a.b"]) == (2.0, 0.5)
    assert found.sel({"tree.mlp/~/linear_0.w": 2.0}).value.size == 1
