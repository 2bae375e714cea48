import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import pgjax
from pgjax.environments import data_centre as cooling
from pgjax.environments.data_centre import HOURS, MIDDLE, UNIT, Cooling, Room
from pgjax.imitation.controllers import pid_controller

ENVIRONMENT = cooling.cooling()
NUMBERS = ENVIRONMENT.params
STEP = jax.jit(ENVIRONMENT.step)
conduct = jax.jit(cooling.conduct)
CONTROLLER = pid_controller(ENVIRONMENT)
RUN = jax.jit(pgjax.collect(ENVIRONMENT, CONTROLLER.policy, 64, chunk=96))  # of any gains and numbers
FLOW = {"exchange": 6.0, "sink": 4.0, "server_heat": 60.0, "air_heat": 45.0}


def room(air=25.0, servers=35.0, load=0.5, outdoor=20.0, t=0, mean=20.0, swing=5.0):
    values = (jnp.float32(value) for value in (air, servers, load, outdoor, 0, mean, swing))
    return Room(*values, jnp.zeros(2), jnp.int32(t))


def after(fan, valve, numbers=NUMBERS, **start):
    """The room and the step after an action."""
    return STEP(jax.random.key(0), room(**start), jnp.float32([fan, valve]), numbers)


def readings(observation):
    return np.asarray(observation) * UNIT + MIDDLE


@functools.cache
def whole_episode(fan=0.5, valve=0.5):
    """An episode of one action."""
    action = jnp.float32([fan, valve])

    def one(carry, key):
        state, step = ENVIRONMENT.step(key, carry, action, NUMBERS)
        return state, (state, step)

    first, seen = ENVIRONMENT.reset(jax.random.key(1), NUMBERS)
    _, (states, steps) = jax.lax.scan(one, first, jax.random.split(jax.random.key(2), ENVIRONMENT.horizon))
    together = jax.tree.map(lambda a, b: np.concatenate([a[None], b]), (first, seen), (states, steps.observation))
    actions = np.tile(action, (ENVIRONMENT.horizon, 1))
    return pgjax.environments.Episode(*together, actions, np.asarray(steps.reward), NUMBERS)


def test_a_steady_state_computed_by_hand_stays():
    # 60 kW come in by the servers, which are 60/6 K warmer than the air; 60 + 44 = 4 T_a.
    found = conduct(jnp.float32(36), jnp.float32(26), **{**FLOW, "air_heat": 44.0}, params=NUMBERS)
    np.testing.assert_allclose(found, [36, 26, 36, 26], rtol=1e-6)
    later = conduct(jnp.float32(20), jnp.float32(20), **{**FLOW, "air_heat": 44.0}, params=NUMBERS, hours=100.0)
    np.testing.assert_allclose(later[:2], [36, 26], rtol=1e-5)


@pytest.mark.parametrize("sink", [0.0, 1e-4, 0.5, 12.0])
@pytest.mark.parametrize("hours", [1e-3, HOURS, 4.0])
def test_stored_heat_is_what_came_in_less_what_went_out(sink, hours):
    rng = np.random.default_rng(0)
    servers, air, exchange, server_heat, air_heat = jnp.asarray(
        rng.uniform([[20], [15], [2], [0], [0]], [[50], [45], [12], [100], [150]], (5, 200)), jnp.float32
    )
    params = jax.tree.map(lambda number: jnp.full(200, number), NUMBERS)
    flow = {"exchange": exchange, "sink": sink, "server_heat": server_heat, "air_heat": air_heat}
    found = conduct(servers, air, **flow, params=params, hours=hours)
    stored = [params.server_capacity * (found.servers - servers), params.air_capacity * (found.air - air)]
    passed = exchange * (found.mean_servers - found.mean_air)
    gained = [hours * (server_heat - passed), hours * (air_heat + passed - sink * found.mean_air)]
    # Temperatures of up to 150 °C come rounded to some 3e-5 K; that counts times 10 kWh/K, or times 24 kW/K and hours.
    np.testing.assert_allclose(stored, gained, atol=3e-5 * (10 + 24 * hours), rtol=1e-5)


def test_the_closed_form_is_the_limit_of_small_steps():
    A = np.array([[-6 / 10, 6 / 10], [6 / 3, -10 / 3]])
    b = np.array([60 / 10, 45 / 3])
    x, mean, n = np.array([30.0, 28.0]), np.zeros(2), 10_000
    for _ in range(n):
        middle = x + HOURS / n / 2 * (A @ x + b)
        x = x + HOURS / n * (A @ middle + b)
        mean += middle / n
    found = conduct(jnp.float32(30), jnp.float32(28), **FLOW, params=NUMBERS)
    np.testing.assert_allclose(found, [*x, *mean], rtol=1e-6)


def test_two_halves_of_a_step_are_one():
    params, start = NUMBERS, (jnp.float32(30), jnp.float32(28))
    whole = conduct(*start, **FLOW, params=params)
    first = conduct(*start, **FLOW, params=params, hours=HOURS / 2)
    second = conduct(first.servers, first.air, **FLOW, params=params, hours=HOURS / 2)
    np.testing.assert_allclose(second[:2], whole[:2], rtol=1e-6)
    np.testing.assert_allclose((np.array(first[2:]) + np.array(second[2:])) / 2, whole[2:], rtol=1e-6)


def test_without_load_cooling_and_fans_what_is_as_warm_as_outdoors_stays_so():
    still = NUMBERS._replace(fan_power=jnp.float32(0))
    state, _ = after(0.5, 0.0, still, air=20, servers=20, load=0, outdoor=20)
    np.testing.assert_allclose([state.air, state.servers], 20, rtol=1e-6)


def test_an_open_valve_cools_and_a_load_warms():
    air = [float(after(0.6, valve)[0].air) for valve in (0.0, 0.3, 0.6, 1.0)]
    assert air == sorted(air, reverse=True)
    assert len(set(air)) == 4
    for name in ("air", "servers"):
        warmth = [float(getattr(after(0.6, 0.5, load=load)[0], name)) for load in (0.0, 0.5, 1.0)]
        assert warmth == sorted(warmth)
        assert len(set(warmth)) == 3


def test_fans_and_pump_use_the_cube_of_their_speed():
    free = NUMBERS._replace(penalty=jnp.float32(0), pump_power=jnp.float32(0))
    cost = [-float(after(fan, 0.0, free)[1].reward) for fan in (0.25, 0.5, 1.0)]
    np.testing.assert_allclose(cost, HOURS * 0.12 * 15 * np.array([1 / 64, 1 / 8, 1]), rtol=1e-5)
    pumps = [NUMBERS._replace(penalty=jnp.float32(0), pump_power=jnp.float32(power)) for power in (0, 6)]
    for valve in (0.5, 1.0):
        without, having = (float(after(0.5, valve, numbers)[1].reward) for numbers in pumps)
        np.testing.assert_allclose(without - having, HOURS * 0.12 * 6 * valve**3, rtol=1e-4)


def test_the_chiller_works_against_the_weather():
    # 0.5 · 283.15/(30 − 10 + 14), and the cap.
    np.testing.assert_allclose(cooling.performance(jnp.float32(30), NUMBERS), 0.5 * 283.15 / 34, rtol=1e-6)
    assert float(cooling.performance(jnp.float32(-50), NUMBERS)) == 8
    assert after(0.6, 0.8, outdoor=30)[1].reward < after(0.6, 0.8, outdoor=15)[1].reward


def test_the_bill_of_a_steady_step_by_hand():
    # The coil conducts 0.8·0.5·0.5·15 = 3 kW/K, the servers 6 kW/K. At 28 °C the coil takes 54 kW; fans give 15/8 kW.
    numbers = NUMBERS._replace(envelope=jnp.float32(0))
    heat = 54 - 15 / 8
    state, step = after(0.5, 0.5, numbers, air=28, servers=28 + heat / 6, load=heat / 100, outdoor=26, t=48)
    power = 15 / 8 + 6 / 8 + 54 / (0.5 * 283.15 / 30)
    np.testing.assert_allclose([state.air, state.servers], [28, 28 + heat / 6], rtol=1e-6)
    np.testing.assert_allclose(step.reward, -HOURS * (power * 0.48 + 4 * (28 - 27)), rtol=1e-5)


def test_the_price_is_high_from_noon_to_six():
    hours = np.arange(96) * HOURS
    peak = (hours >= 12) & (hours < 18)
    np.testing.assert_allclose(cooling.price(jnp.asarray(hours), NUMBERS), np.where(peak, 0.48, 0.12), rtol=1e-6)


def test_load_and_weather_peak_at_their_hours():
    load, outdoor = cooling.surroundings(jnp.arange(24.0), 0.0, 20.0, 5.0, NUMBERS)
    assert (int(load.argmax()), int(load.argmin()), int(outdoor.argmax()), int(outdoor.argmin())) == (14, 2, 15, 3)
    np.testing.assert_allclose([load.max(), outdoor.max(), outdoor.min()], [0.9, 25, 15], rtol=1e-5)


def test_the_unrest_of_the_load_is_stationary():
    # 4000 days of 9 steps; the standard deviation of that many has a standard error of 1.2%, and 6% are five of them.
    def unrest(key):
        first, again = jax.random.split(key)
        state, _ = ENVIRONMENT.reset(first, NUMBERS)
        action, keys = jnp.float32([0.5, 0.5]), jax.random.split(again, 8)
        return jax.lax.scan(lambda state, k: (ENVIRONMENT.step(k, state, action, NUMBERS)[0], None), state, keys)[
            0
        ].unrest

    found = jax.jit(jax.vmap(unrest))(jax.random.split(jax.random.key(0), 4000))
    assert abs(found.std() / NUMBERS.load_noise - 1) < 0.06
    assert abs(found.mean()) < 5 * NUMBERS.load_noise / np.sqrt(4000)


def test_sensors_tell_what_is():
    state, step = after(0.7, 0.3, t=47)
    hour = 12.0
    expected = [state.air, state.servers, state.outdoor, state.load, 0.48]
    expected += [np.sin(np.pi * hour / 12), np.cos(np.pi * hour / 12), 0.7, 0.3]
    np.testing.assert_allclose(readings(step.observation), expected, atol=1e-5)
    assert step.observation.dtype == step.reward.dtype == jnp.float32


def test_observations_are_of_the_order_of_one():
    seen = np.asarray(RUN(jax.random.key(0), CONTROLLER.params, NUMBERS).observation[:96])
    assert (np.abs(seen) < 2).all()
    assert (np.ptp(seen, axis=(0, 1)) > 0.5)[:7].all()


def test_a_shutdown_ends_the_day_and_is_never_cheaper_than_going_on():
    _, step = after(0.2, 0.0, air=46, servers=60, load=1, t=39)
    assert bool(step.terminated)
    assert float(step.reward) < -200 * 56 * HOURS
    assert not bool(after(0.2, 0.0, air=40, servers=42, t=39)[1].terminated)
    # The most that an hour without it may cost: all at full power, the room as warm as can be, the hottest day.
    hottest = NUMBERS.mean_high + NUMBERS.swing_high
    removed = NUMBERS.coil_effectiveness * NUMBERS.air_flow * (NUMBERS.shutdown - NUMBERS.supply)
    power = NUMBERS.fan_power + NUMBERS.pump_power + removed / cooling.performance(hottest, NUMBERS)
    dearest = power * NUMBERS.price_peak + NUMBERS.penalty * (NUMBERS.shutdown - NUMBERS.limit)
    assert dearest < NUMBERS.outage


def test_numbers_can_be_swept():
    numbers = jax.tree.map(lambda number: jnp.stack([number, number]), NUMBERS)._replace(
        it_power=jnp.float32([50, 100])
    )
    step = jax.jit(jax.vmap(ENVIRONMENT.step, (None, None, None, 0)))
    states, _ = step(jax.random.key(0), room(), jnp.float32([0.5, 0.5]), numbers)
    assert states.air[0] < states.air[1]
    np.testing.assert_allclose(states.air[1], after(0.5, 0.5)[0].air, rtol=1e-6)


def test_the_environment_keeps_the_contract():
    pgjax.check_environment(ENVIRONMENT)


def test_the_controller_does_in_an_unroll_what_it_does_step_by_step():
    policy, gains = pid_controller(ENVIRONMENT, kp=0.1, ki=0.3, kd=0.02, ratio=0.3)
    observation = jax.random.normal(jax.random.key(0), (7, 5, 9))
    memory, stepped = policy.memory(5), []
    for row in observation:
        memory, distribution = policy.step(gains, memory, row)
        stepped.append(distribution.mean)
    unrolled = policy.unroll(gains, types.SimpleNamespace(observation=observation))
    np.testing.assert_allclose(unrolled.mean, jnp.stack(stepped), rtol=1e-6)
    np.testing.assert_array_equal(unrolled.log_std, -np.inf)
    np.testing.assert_array_equal(ENVIRONMENT.action_space.clip(unrolled.mean), unrolled.mean)


def test_the_controller_computed_by_hand():
    policy, gains = pid_controller(ENVIRONMENT, kp=0.1, ki=0.2, kd=0.01, setpoint=26.0, fan=0.5, ratio=0.2)
    air = np.array([27.0, 28.0, 20.0])
    observation = jnp.zeros((3, 1, 9)).at[:, 0, 0].set((air - MIDDLE[0]) / UNIT[0])
    mean = policy.unroll(gains, types.SimpleNamespace(observation=observation)).mean[:, 0]
    valve = [0.1 + 0.55, 0.2 + 0.65 + 0.04, 0]
    np.testing.assert_allclose(mean[:, 1], valve, atol=1e-5)
    np.testing.assert_allclose(mean[:, 0], 0.5 + 0.2 * np.array(valve), atol=1e-5)


def test_the_integral_does_not_wind_up():
    policy, gains = pid_controller(ENVIRONMENT, kp=0.1, ki=0.5)
    hot = jnp.full((1, 9), 3.0)
    memory, step = policy.memory(1), jax.jit(policy.step)
    for _ in range(100):
        memory, distribution = step(gains, memory, hot)
    assert float(distribution.mean[0, 1]) == float(memory.integral[0]) == 1


def test_the_controller_holds_the_set_point_at_a_constant_load():
    constant = {"load_rise": 0, "load_noise": 0, "load_base": 0.5, "swing_low": 0, "swing_high": 0}
    numbers = NUMBERS._replace(**jax.tree.map(jnp.float32, constant))
    gains = CONTROLLER.params._replace(setpoint=jnp.float32(25))
    observation = RUN(jax.random.key(0), gains, numbers).observation
    np.testing.assert_allclose(readings(observation)[60:96, :, 0], 25, atol=0.02)


def test_the_controller_is_better_than_a_colder_one_and_than_doing_the_same_all_day():
    gains = CONTROLLER.params
    colder = gains._replace(setpoint=jnp.float32(22))
    constant = gains._replace(kp=jnp.float32(0), ki=jnp.float32(0))  # the valve stays half open
    ours, *others = (RUN(jax.random.key(0), g, NUMBERS).reward.sum(0).mean() for g in (gains, colder, constant))
    assert ours > max(others)


@pytest.mark.parametrize("t", [0, 1, 50, 96])
def test_any_time_of_a_day_can_be_drawn(t):
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    ENVIRONMENT.draw(axes, whole_episode(), t)
    assert [panel.get_xlim() for panel in axes.child_axes] == [(0, 24)] * 3
    assert len(axes.child_axes[0].lines[0].get_xdata()) == t + 1
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "got 0"),
        ({"params": Cooling(air_capacity=0.0)}, "air_capacity above 0, got 0"),
        ({"params": Cooling(air_flow=-1)}, "air_flow above 0, got -1"),
    ],
)
def test_what_is_no_data_centre_is_refused(arguments, message):
    with pytest.raises(pgjax.InputError, match=message):
        cooling.cooling(**arguments)


def test_the_controller_of_another_environment_is_refused():
    with pytest.raises(pgjax.InputError, match="got maze"):
        pid_controller(pgjax.maze())
