"""A data centre to keep cool for a day at little cost.

Two temperatures stand for the room, that of its air and that of its servers. Fans move the air through the servers and
through a coil of chilled water, whose flow a valve sets. What the fans, the pump and the chiller use costs more
in the hours of the highest demand, and the chiller uses more when it is warm outside.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Episode, Step
from pgjax.environments.drawings import BLUE, GREEN, ORANGE, RED, SKY
from pgjax.environments.spaces import Box
from pgjax.errors import InputError

HOURS = 0.25  # of one step
SLOWEST = 0.2  # fan speed, as a fraction of the fastest
KELVIN = 273.15  # at 0 °C


# An observation is (what is read − middle) / unit.
READINGS = {  # middle, unit
    "air temperature [°C]": (25.0, 5.0),
    "server temperature [°C]": (35.0, 10.0),
    "outdoor temperature [°C]": (18.0, 12.0),
    "load": (0.5, 0.5),
    "price [€/kWh]": (0.3, 0.2),
    "sine of the time of day": (0.0, 1.0),
    "cosine of the time of day": (0.0, 1.0),
    "last fan speed": (0.6, 0.4),
    "last valve opening": (0.5, 0.5),
}


MIDDLE, UNIT = np.array(list(READINGS.values())).T
POSITIVE = ("air_capacity", "server_capacity", "air_flow", "server_effectiveness")


class Cooling(NamedTuple):
    """The numbers of a data centre; the environment's `params`. Loads and openings are fractions of the greatest."""

    air_capacity: Any = 3.0  # of the air, ducts, racks and surfaces, kWh/K
    server_capacity: Any = 10.0  # of the servers and the floor they stand on, kWh/K
    it_power: Any = 100.0  # heat of the servers at full load, kW
    air_flow: Any = 15.0  # ṁ c_p at full fan speed, kW/K
    server_effectiveness: Any = 0.8  # of the exchange of heat between the servers and the air
    coil_effectiveness: Any = 0.8  # of that between the air and the water, with the valve open
    envelope: Any = 0.5  # conductance of the walls, kW/K
    supply: Any = 10.0  # temperature of the chilled water, °C
    fan_power: Any = 15.0  # at full speed, kW
    pump_power: Any = 6.0  # with the valve open, kW
    chiller_efficiency: Any = 0.5  # as a fraction of Carnot's
    lift: Any = 14.0  # what the chiller's two exchangers add to the difference of temperatures it works against, K
    best_performance: Any = 8.0  # the highest coefficient of performance
    load_base: Any = 0.3  # load at night
    load_rise: Any = 0.6  # how much higher it is at its hour
    load_hour: Any = 14.0  # h
    load_noise: Any = 0.08  # standard deviation of what else is asked of the servers
    load_persistence: Any = 0.9  # its correlation from step to step
    mean_low: Any = 10.0  # the day's mean outdoor temperature is at least this, °C
    mean_high: Any = 26.0  # and at most this, °C
    swing_low: Any = 3.0  # the outdoor temperature's amplitude is at least this, K
    swing_high: Any = 8.0  # and at most this, K
    outdoor_hour: Any = 15.0  # the warmest, h
    price_base: Any = 0.12  # €/kWh
    price_peak: Any = 0.48  # €/kWh
    peak_begins: Any = 12.0  # the higher price holds from this hour
    peak_ends: Any = 18.0  # to this
    limit: Any = 27.0  # recommended for the air that enters the servers, °C
    penalty: Any = 4.0  # for exceeding it, €/(K h)
    shutdown: Any = 45.0  # air temperature at which all is switched off, °C
    outage: Any = 200.0  # price of being switched off, €/h


class Room(NamedTuple):
    """A room at the beginning of a step; the environment's state."""

    air: jax.Array  # temperature, °C
    servers: jax.Array  # temperature, °C
    load: jax.Array  # of the servers during the step
    outdoor: jax.Array  # temperature during the step, °C
    unrest: jax.Array  # what the load differs by from its daily course
    mean: jax.Array  # outdoor temperature of the day, °C
    swing: jax.Array  # its amplitude, K
    action: jax.Array  # [2], the last
    t: jax.Array  # int32, steps since midnight


class Interval(NamedTuple):
    """What happens to the temperatures in some time."""

    servers: jax.Array  # at its end, °C
    air: jax.Array  # at its end, °C
    mean_servers: jax.Array  # over it, °C
    mean_air: jax.Array  # over it, °C


def conduct(
    servers: jax.Array,
    air: jax.Array,
    *,
    exchange: Any,
    sink: Any,
    server_heat: Any,
    air_heat: Any,
    params: Cooling,
    hours: Any = HOURS,
) -> Interval:
    """How two temperatures develop, exactly, while all else stays as it is.

    C_s Ṫ_s = P_s − G (T_s − T_a) and C_a Ṫ_a = P_a + G (T_s − T_a) − H T_a, that is ẋ = Ax + b. With z = hΔ for the two
    eigenvalues h of A, φ_1(z) = (e^z − 1)/z and φ_2(z) = (φ_1(z) − 1)/z,

        x(Δ) = x + Δ φ_1(ΔA) ẋ,    1/Δ ∫ x dt = x + Δ φ_2(ΔA) ẋ.

    As φ_1(z) = 1 + z φ_2(z), the heat that is stored is that which came in less that which went out. The eigenvalues
    are real and differ, as G > 0.

    Args:
        servers: T_s, °C.
        air: T_a, °C.
        exchange: G, between the two, above 0, kW/K.
        sink: H, from the air to what is at 0 °C, kW/K.
        server_heat: P_s, kW.
        air_heat: P_a, kW; what is at T_x and not 0 °C adds H T_x to it.
        params: The capacities C_s and C_a, kWh/K.
        hours: Δ.

    Source: Hochbruck & Ostermann, *Exponential integrators*, 2010, for the functions φ.
    """
    out, back, drain = exchange / params.server_capacity, exchange / params.air_capacity, sink / params.air_capacity
    loss = back + drain
    # A = [[−out, out], [back, −loss]]; its slower eigenvalue is det A over the other, in which nothing cancels.
    fast = -(out + loss + jnp.sqrt((loss - out) ** 2 + 4 * out * back)) / 2
    slow = out * drain / fast
    speed_servers = server_heat / params.server_capacity - out * (servers - air)
    speed_air = back * servers - loss * air + air_heat / params.air_capacity
    bend_servers = out * (speed_air - speed_servers) - slow * speed_servers  # (A − slow) ẋ
    bend_air = back * speed_servers - (loss + slow) * speed_air

    (first_slow, second_slow), (first_fast, second_fast) = phi(slow * hours), phi(fast * hours)
    first = (first_fast - first_slow) / (fast - slow)
    second = (second_fast - second_slow) / (fast - slow)
    return Interval(
        servers=servers + hours * (first_slow * speed_servers + first * bend_servers),
        air=air + hours * (first_slow * speed_air + first * bend_air),
        mean_servers=servers + hours * (second_slow * speed_servers + second * bend_servers),
        mean_air=air + hours * (second_slow * speed_air + second * bend_air),
    )


def phi(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """φ_1(z) = (e^z − 1)/z and φ_2(z) = (φ_1(z) − 1)/z for z ≤ 0, near 0 by their series."""
    small = jnp.abs(z) < 0.1
    away = jnp.where(small, 1, z)
    near = 1 / 2 + z * (1 / 6 + z * (1 / 24 + z / 120))
    first = jnp.where(small, 1 + z * near, jnp.expm1(away) / away)
    return first, jnp.where(small, near, (first - 1) / away)


def performance(outdoor: Any, params: Cooling) -> jax.Array:
    """The chiller's coefficient of performance, heat by work: a fraction of Carnot's, η T_c/(T_h − T_c), capped.

    T_c is that of the chilled water, and T_h − T_c the difference to the outdoor temperature (°C) with what the
    exchangers add.
    """
    difference = jnp.maximum(outdoor - params.supply + params.lift, 1.0)
    carnot = (params.supply + KELVIN) / difference
    return jnp.minimum(params.chiller_efficiency * carnot, params.best_performance)


def clock(t: Any) -> jax.Array:
    """The hour of the day, 0 ≤ hour < 24, after t steps from midnight."""
    return (HOURS * t) % 24


def price(hour: Any, params: Cooling) -> jax.Array:
    """The price of electricity at an hour, €/kWh."""
    at_peak = (params.peak_begins <= hour) & (hour < params.peak_ends)
    return jnp.where(at_peak, params.price_peak, params.price_base)


def surroundings(hour: Any, unrest: Any, mean: Any, swing: Any, params: Cooling) -> tuple[jax.Array, jax.Array]:
    """The load, from 0 to 1, and the outdoor temperature, °C, at an hour."""
    angle = 2 * np.pi / 24
    rise = params.load_rise * jnp.exp(2 * jnp.cos(angle * (hour - params.load_hour)) - 2)
    load = jnp.clip(params.load_base + rise + unrest, 0, 1)
    return load, mean + swing * jnp.cos(angle * (hour - params.outdoor_hour))


def observe(room: Room, params: Cooling) -> jax.Array:
    """What sensors tell of a room, the `READINGS` [9], each scaled to about −1 … 1."""
    hour = clock(room.t)
    angle = 2 * np.pi / 24 * hour
    readings = [room.air, room.servers, room.outdoor, room.load, price(hour, params)]
    readings += [jnp.sin(angle), jnp.cos(angle), room.action[0], room.action[1]]
    middle, unit = jnp.asarray(MIDDLE, jnp.float32), jnp.asarray(UNIT, jnp.float32)
    return (jnp.stack(readings).astype(jnp.float32) - middle) / unit


def midnight(key: jax.Array, params: Cooling) -> Room:
    """The room as a day begins: its temperature, the weather and the load are drawn."""
    mean, swing, warmth, unrest = jax.random.uniform(key, (4,), float)
    mean = params.mean_low + mean * (params.mean_high - params.mean_low)
    swing = params.swing_low + swing * (params.swing_high - params.swing_low)
    air = params.limit - 6 + 5 * warmth
    unrest = params.load_noise * np.sqrt(12) * (unrest - 0.5)
    load, outdoor = surroundings(clock(0), unrest, mean, swing, params)
    action = jnp.asarray(MIDDLE[-2:], air.dtype)
    return Room(
        air=air,
        servers=air + 10,
        load=load,
        outdoor=outdoor,
        unrest=unrest,
        mean=mean,
        swing=swing,
        action=action,
        t=jnp.int32(0),
    )


def cooling(horizon: int = 96, params: Cooling | None = None) -> Environment:
    """The environment of a data centre, which begins at midnight and makes four steps an hour.

    A_t = (f, w) is the fan speed f ∈ [0.2, 1] and the opening w ∈ [0, 1] of the valve; X_t are the `READINGS`, scaled.
    With m = f ṁ c_p the servers give off ε_s m (T_s − T_a) to the air, whose temperature is T_a, and the coil takes
    Q = ε_c w m (T_a − T_w) from it. Fans use P_f f³ (which heats the air), the pump P_p w³, the chiller Q/COP. Load,
    weather and price change from step to step and not within; the temperatures follow exactly (`conduct`).

    R_{t+1} in € is −(energy)·(its price) − penalty·(what the mean of T_a over the step exceeds the limit by)·(1/4 h).
    Where T_a is above `shutdown` at the end of a step all is switched off: the episode terminates, and each hour that
    is left of it costs `outage`, more than any hour with all at full power. It is truncated after `horizon` steps.

    Args:
        horizon: T, steps of a quarter of an hour, at least 1.
        params: The numbers; `Cooling()` if not given.

    Raises:
        InputError: If the horizon is below 1, or a capacity or a flow of heat is not above 0.

    Sources: ASHRAE, *Thermal guidelines for data processing environments*, 2021, for the limit; the affinity laws for
    the cubes; the model with two temperatures is the usual one of lumped capacities, its numbers are our own.
    """
    check_horizon(horizon)
    given = Cooling() if params is None else params
    for name in POSITIVE:
        value = getattr(given, name)
        if isinstance(value, int | float) and not value > 0:
            raise InputError(f"expected {name} above 0, got {value}")

    def reset(key: jax.Array, params: Cooling) -> tuple[Room, jax.Array]:
        room = midnight(key, params)
        return room, observe(room, params)

    def step(key: jax.Array, room: Room, action: jax.Array, params: Cooling) -> tuple[Room, Step]:
        action = action.astype(room.air.dtype)
        fan, valve = action
        flow = fan * params.air_flow
        coil = params.coil_effectiveness * valve * flow
        fans = params.fan_power * fan**3
        after = conduct(
            room.servers,
            room.air,
            exchange=params.server_effectiveness * flow,
            sink=coil + params.envelope,
            server_heat=params.it_power * room.load,
            air_heat=params.envelope * room.outdoor + coil * params.supply + fans,
            params=params,
        )
        removed = jnp.maximum(coil * (after.mean_air - params.supply), 0)
        power = fans + params.pump_power * valve**3 + removed / performance(room.outdoor, params)
        excess = jnp.maximum(after.mean_air - params.limit, 0)
        t = room.t + 1
        off = after.air > params.shutdown
        lost = jnp.where(off, params.outage * HOURS * (horizon - t), 0)
        reward = -HOURS * (power * price(clock(room.t), params) + params.penalty * excess) - lost

        drive = params.load_noise * jnp.sqrt(1 - params.load_persistence**2)
        unrest = params.load_persistence * room.unrest + drive * jax.random.normal(key, (), room.air.dtype)
        load, outdoor = surroundings(clock(t), unrest, room.mean, room.swing, params)
        room = room._replace(
            air=after.air, servers=after.servers, load=load, outdoor=outdoor, unrest=unrest, action=action, t=t
        )
        return room, Step(observe(room, params), reward.astype(jnp.float32), terminated=off)

    return Environment(
        reset=reset,
        step=step,
        observation_space=Box(-np.inf, np.inf, (len(READINGS),)),
        action_space=Box(np.array([SLOWEST, 0.0]), np.array([1.0, 1.0]), (2,)),
        horizon=horizon,
        params=jax.tree.map(lambda number: jnp.asarray(number, float), given),
        name="data centre cooling",
        draw=draw,
    )


def draw(axes: Any, episode: Episode, t: int) -> None:
    """Draw a day up to step t: temperatures, load and what was done; the hours of the higher price are shaded."""
    rooms, params = episode.state, episode.params
    hours, last = HOURS * np.arange(t + 1), HOURS * len(episode.reward)
    axes.set_axis_off()
    inside, outside, below = (axes.inset_axes((0, y, 0.8, h)) for y, h in ((0.68, 0.28), (0.42, 0.2), (0, 0.36)))
    inside.plot(hours, rooms.air[: t + 1], color=BLUE, label="air")
    inside.axhline(params.limit, color=RED, linestyle="--", linewidth=1, label="limit")
    outside.plot(hours, rooms.outdoor[: t + 1], color=ORANGE, label="outdoors")
    below.step(hours, 100 * rooms.load[: t + 1], color=GREEN, where="post", label="load")
    for i, (label, colour) in enumerate((("fan", SKY), ("valve", "black"))):
        below.stairs(100 * episode.action[:t, i], hours, baseline=None, color=colour, label=label, linewidth=1.5)
    inside.set(ylabel="°C", ylim=(min(20.0, rooms.air.min() - 1), max(29.0, rooms.air.max() + 1)))
    outside.set(ylabel="°C", ylim=(min(5.0, rooms.outdoor.min() - 1), max(30.0, rooms.outdoor.max() + 1)))
    below.set(ylabel="%", ylim=(-3, 103), xlabel="hour of the day")
    for panel in (inside, outside, below):
        panel.set(xlim=(0, last), xticks=np.arange(0, last + 1, 4))
        panel.tick_params(labelbottom=panel is below)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="upper left", bbox_to_anchor=(1, 1.1), frameon=False, fontsize="small")
        for midnight in np.arange(0, last, 24):
            first, end = np.minimum(midnight + np.array([params.peak_begins, params.peak_ends]), last)
            panel.axvspan(first, end, color="0.93", zorder=0, linewidth=0)
