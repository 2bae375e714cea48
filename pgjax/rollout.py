"""Collect episodes: from a key and a policy's parameters to a `Trajectory`.

Episodes end at different times, and a step computed for an episode that is over is wasted. Slots,
chunks and buffers keep such padding small; here is the one place that knows of them.

*Slots.* E episodes run side by side, each in its slot. With `min_steps_per_slot` > 0 a slot starts another episode
whenever one ends before that row, and the running ones are finished. Whether an episode is started depends only on
what came before it, so the number N of episodes is a stopping time, and by Wald's identity a *sum* over episodes has
the expectation E[N] times that of one: nothing is biased towards short episodes, as it would be if the unfinished ones
were dropped. With 0 it is one episode a slot, E in all.

*Chunks.* Rows are computed by `chunk` at a time, until every slot is done. Under `vmap` over seeds the condition of
that loop is made common to the batch, so it stays a plain loop (`together`).

*Buffers.* Rows are written into a buffer whose size is fixed when it is compiled. Where the longest possible episode is
much longer than usual, a small buffer comes first, and larger ones take over when it is full: what is made of the rows
(`then`) costs what is used, not what the horizon allows. What a padded row observes has been observed: it is finite, so
that nothing that is differentiated is poisoned by 0/0 after an episode's end.

*Fresh starts.* Each chunk draws one first state for each slot. Once a slot needs a second one, more are drawn: a branch
that is taken where episodes are shorter than a chunk, and costs nothing where they are longer.

*Final observations.* The row after an episode's last step holds the observation that this step led to, so that a
bootstrap can look through a truncation: a slot waits for one row before it starts again after one. After a
termination, through which nothing looks, it does not.

A score is of whole episodes, so it takes one episode a slot; so does a policy whose memory cannot be started afresh in
one slot alone (`Policy.resume`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.batching import choose, together
from pgjax.environments.base import Environment, check_environment, whole_score
from pgjax.errors import InputError
from pgjax.placement import by_slot, check_slots
from pgjax.policies.base import Policy, has_memory
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree

FIRST_ROWS = 1024  # of the smallest buffer; what is done with so many costs little beside an episode or two
GROWTH = 8  # from a buffer to the next


def check_collection(
    environment: Environment, policy: Policy, slots: int, min_steps_per_slot: int, chunk: int, group_size: int
) -> None:
    """Raise unless episodes of this environment can be collected with this policy as asked.

    Raises:
        InputError: If a count is out of range, more than one episode a slot is asked for where one is needed, or
            groups of the same start do not divide the slots.
    """
    if slots < 1:
        raise InputError(f"expected 1 or more slots, got {slots}")
    if min_steps_per_slot < 0:
        raise InputError(f"expected 0 or more steps for each slot, got {min_steps_per_slot}")
    if chunk < 1:
        raise InputError(f"expected chunks of 1 or more rows, got {chunk}")
    if min_steps_per_slot and has_memory(policy) and policy.resume is None:
        raise InputError(
            f"expected min_steps_per_slot=0 for a policy with memory that has no resume, got {min_steps_per_slot}"
        )
    if min_steps_per_slot and environment.score is not None:
        raise InputError(f"expected min_steps_per_slot=0 for an environment with a score, got {min_steps_per_slot}")
    if group_size < 1 or slots % group_size:
        raise InputError(f"expected groups of the same start that divide {slots} slots, got {group_size}")
    if min_steps_per_slot and group_size > 1:
        raise InputError(f"expected min_steps_per_slot=0 for episodes of the same start, got {min_steps_per_slot}")


def rows_needed(environment: Environment, min_steps_per_slot: int, chunk: int) -> int:
    """The rows of the longest possible collection: a whole number of chunks, and one for final observations."""
    longest = max(min_steps_per_slot, 1) - 1 + environment.horizon
    return -(-longest // chunk) * chunk + 1


class Slots(NamedTuple):
    """Where the episodes that are being collected stand, one a slot."""

    state: PyTree  # of the environment
    observation: Any  # [E, ...], what is acted upon next
    memory: PyTree  # of the policy
    running: jax.Array  # [E] bool, within an episode
    cut_off: jax.Array  # [E] bool, the last row truncated an episode and did not terminate it
    time: jax.Array  # [E] int32, steps since the episode began


class Stepped(NamedTuple):
    """What a step leads to in every slot, whether an episode is running there or not."""

    state: PyTree  # of the environment
    observation: Any  # [E, ...]
    memory: PyTree  # of the policy
    played: jax.Array  # [E, ...], the actions as the environment was given them
    row: Trajectory  # [E], the step; padding where no episode is running


def episode_step(
    environment: Environment, policy: Policy, key: jax.Array, params: PyTree, env_params: PyTree, slots: Slots
) -> Stepped:
    """A step of the episode in each slot: the policy acts, and the environment answers."""
    running, E = slots.running, len(slots.running)
    action_key, step_key = jax.random.split(key)
    memory, distribution = policy.step(params, slots.memory, slots.observation)
    action = distribution.sample(action_key)
    played = environment.action_space.clip(action)
    step = jax.vmap(environment.step, (0, 0, 0, None))
    state, outcome = step(jax.random.split(step_key, E), slots.state, played, env_params)
    over = jnp.asarray(outcome.truncated, bool) | (slots.time + 1 >= environment.horizon)
    row = Trajectory(
        observation=slots.observation,
        action=action,
        reward=jnp.where(running, jnp.asarray(outcome.reward, jnp.result_type(float)), 0),
        terminated=running & jnp.asarray(outcome.terminated, bool),
        truncated=running & over,
        mask=running,
        time=slots.time,
        rows=jnp.int32(0),
        log_prob=jnp.where(running, distribution.log_prob(action), 0),
        notes={name: jnp.where(running, note, 0) for name, note in outcome.notes.items()},
    )
    return Stepped(state=state, observation=outcome.observation, memory=memory, played=played, row=row)


class Player(NamedTuple):
    """Plays episodes, some rows at a time.

    `idle(key, environment params) -> Slots`: no episode is running. `play(key, policy params, environment params,
    slots, row, startable[E]) -> (Slots, Trajectory)`: the next `chunk` rows, of which the first has the number `row`;
    a slot that is startable begins episodes in them before row `start_before`.
    """

    idle: Callable[[jax.Array, PyTree], Slots]
    play: Callable[[jax.Array, PyTree, PyTree, Slots, jax.Array, jax.Array], tuple[Slots, Trajectory]]


def player(
    environment: Environment, policy: Policy, slots: int, chunk: int, start_before: int, group_size: int = 1
) -> Player:
    """What plays episodes in slots; arguments are those of `collect`."""
    E = slots

    def fresh_starts(key: jax.Array, env_params: PyTree) -> tuple[PyTree, Any]:
        keys = jax.random.split(key, E // group_size)
        keys = keys if group_size == 1 else keys[jnp.arange(E) // group_size]
        return jax.vmap(environment.reset, (0, None))(keys, env_params)

    def idle(key: jax.Array, env_params: PyTree) -> Slots:
        check_slots(E)
        # In some state, which the first fresh start replaces.
        state, observation = fresh_starts(key, env_params)
        none = jnp.zeros(E, bool)
        return Slots(
            state=state,
            observation=observation,
            memory=policy.memory(E),
            running=none,
            cut_off=none,
            time=jnp.zeros(E, jnp.int32),
        )

    def play(
        key: jax.Array, params: PyTree, env_params: PyTree, slots: Slots, row: jax.Array, startable: jax.Array
    ) -> tuple[Slots, Trajectory]:
        fresh_key, step_key = jax.random.split(jax.random.fold_in(key, row))
        fresh = fresh_starts(fresh_key, env_params)

        def supplied(starting: jax.Array, supply: tuple[Any, jax.Array], row: jax.Array) -> tuple[Any, jax.Array]:
            """First states for the slots that are starting, and which slots still have theirs."""
            fresh, unused = supply
            if start_before == 1:  # nothing starts twice
                return supply
            lacking = starting & ~unused

            def drawn() -> Any:
                return choose(lacking, fresh_starts(jax.random.fold_in(fresh_key, row), env_params), fresh)

            return jax.lax.cond(together(jnp.any(lacking)), drawn, lambda: fresh), unused & ~starting

        def one_step(
            carry: tuple[Slots, tuple[Any, jax.Array]], xs: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[Slots, tuple[Any, jax.Array]], Trajectory]:
            slots, supply = carry
            state, observation, memory, running, cut_off, time = slots
            key, row = xs
            starting = ~running & ~cut_off & startable & (row < start_before)
            supply = supplied(starting, supply, row)
            state, observation = choose(starting, supply[0], (state, observation))
            if policy.resume is not None:
                memory = choose(starting, policy.memory(E), memory)
            time = jnp.where(starting, 0, time)
            running = running | starting

            slots = slots._replace(state=state, observation=observation, memory=memory, running=running, time=time)
            stepped = episode_step(environment, policy, key, params, env_params, slots)
            terminated, truncated = stepped.row.terminated, stepped.row.truncated
            # After a termination there may be nothing to observe, 0/0 perhaps: padding repeats what was seen last.
            state, observation = choose(
                running & ~terminated, (stepped.state, stepped.observation), (state, observation)
            )
            running, cut_off = running & ~stepped.row.last, truncated & ~terminated
            slots = Slots(
                state=state,
                observation=observation,
                memory=stepped.memory,
                running=running,
                cut_off=cut_off,
                time=time + 1,
            )
            return (slots, supply), stepped.row._replace(rows=row)

        xs = (jax.random.split(step_key, chunk), row + jnp.arange(chunk))
        (slots, _), rows = jax.lax.scan(one_step, (slots, (fresh, jnp.ones(E, bool))), xs)
        return slots, rows

    return Player(idle, play)


def buffer_sizes(T: int, chunk: int) -> list[int]:
    """The rows of the buffers that episodes of at most T rows are collected in, one after the other; the last is T.

    Each is a whole number of chunks, and one row more for final observations.
    """
    sizes, size = [], FIRST_ROWS
    while 2 * size < T:
        sizes.append(-(-size // chunk) * chunk + 1)
        size *= GROWTH
    return [*sizes, T]


def in_buffer(trajectory: Trajectory, size: int) -> Trajectory:
    """The trajectory in a buffer of so many rows; those that are not in use observe what row 0 does."""

    def longer(leaf: jax.Array) -> jax.Array:
        missing = (size - len(leaf), *leaf.shape[1:]) if leaf.ndim else ()
        return jnp.concatenate([leaf, jnp.zeros(missing, leaf.dtype)]) if leaf.ndim else leaf

    def repeated(leaf: jax.Array) -> jax.Array:
        return jnp.concatenate([leaf, jnp.broadcast_to(leaf[0], (size - len(leaf), *leaf.shape[1:]))])

    longest = jax.tree.map(longer, trajectory._replace(observation=()))
    return longest._replace(observation=jax.tree.map(repeated, trajectory.observation))


def collect(
    environment: Environment,
    policy: Policy,
    slots: int,
    min_steps_per_slot: int = 0,
    chunk: int = 16,
    group_size: int = 1,
    then: Callable[..., PyTree] | None = None,
) -> Callable[..., Any]:
    """A function (key, policy params, environment params) -> Trajectory [T, E] that runs whole episodes.

    T is that of the longest possible collection: the horizon (and `min_steps_per_slot` − 1, if any) rounded up to whole
    chunks, and one row more; how many are in use is `Trajectory.rows`. A `score` takes the place of the steps' rewards.

    With `then` the function is (key, policy params, environment params, *arguments) -> then(trajectory, *arguments),
    and its cost grows with the rows in use, not with the horizon: T is that of the smallest of a few buffers in which
    the episodes end.

    Args:
        environment: Where.
        policy: Who acts.
        slots: E, at least 1.
        min_steps_per_slot: A slot starts another episode while it has used fewer rows than this; 0 for one episode
            each.
        chunk: Rows computed between two looks at whether all is done, at least 1.
        group_size: So many slots beside each other begin with the same X_1, which divides E.
        then: What is made of the trajectory, of shapes that do not depend on T; compiled once for each buffer.

    Raises:
        InputError: If a count is out of range, `group_size` does not divide E, a slot is to play several
            episodes where it must play one (a policy with memory but no `resume`, a score, a common start), or the
            environment does not do what the contract says (`check_environment`).

    Example:
        >>> import pgjax
        >>> environment = pgjax.maze("#S.E#", horizon=10)
        >>> policy = pgjax.policy_for(environment)
        >>> run = collect(environment, policy, slots=3)
        >>> trajectory = run(jax.random.key(0), policy.init(jax.random.key(1)), environment.params)
        >>> trajectory.reward.shape, float(trajectory.episodes)
        ((11, 3), 3.0)
    """
    check_collection(environment, policy, slots, min_steps_per_slot, chunk, group_size)
    check_environment(environment)
    E, chunk = slots, min(chunk, environment.horizon)
    T = rows_needed(environment, min_steps_per_slot, chunk)
    sizes = [T] if then is None else buffer_sizes(T, chunk)
    start_before = max(min_steps_per_slot, 1)
    idle, play = player(environment, policy, E, chunk, start_before, group_size)

    def run(key: jax.Array, params: PyTree, env_params: PyTree, *arguments: PyTree) -> Any:
        def one_chunk(carry: tuple[Slots, Trajectory]) -> tuple[Slots, Trajectory]:
            slots, done = carry
            slots, new = play(key, params, env_params, by_slot(slots), done.rows, jnp.ones(E, bool))

            def write(buffer: jax.Array, rows: jax.Array) -> jax.Array:
                return jax.lax.dynamic_update_slice_in_dim(buffer, rows, done.rows, axis=0) if buffer.ndim else buffer

            followed = jax.tree.map(
                lambda rows, final: jnp.concatenate([rows, final[None]]), new.observation, slots.observation
            )
            written = jax.tree.map(write, done, new._replace(observation=followed, rows=done.rows))
            return by_slot(slots), by_slot(written._replace(rows=done.rows + chunk), axis=1)

        def unfinished(carry: tuple[Slots, Trajectory]) -> jax.Array:
            slots, done = carry
            return together(jnp.any(slots.running) | (done.rows < start_before))

        def finished(carry: tuple[Slots, Trajectory], sizes: list[int]) -> Any:
            """What is made of the episodes, once they are over, in the first of these buffers that holds them."""
            size, *larger = sizes
            slots, trajectory = jax.lax.while_loop(
                lambda carry: (carry[1].rows < size - 1) & unfinished(carry), one_chunk, carry
            )

            def made() -> Any:
                score = whole_score(environment, trajectory, env_params)
                whole = trajectory._replace(reward=score.reward, notes=score.notes)
                return whole if then is None else then(whole, *arguments)

            if not larger:
                return made()
            return jax.lax.cond(
                unfinished((slots, trajectory)),
                lambda: finished((slots, in_buffer(trajectory, larger[0])), larger),
                made,
            )

        slots = by_slot(idle(key, env_params))
        _, rows = jax.eval_shape(play, key, params, env_params, slots, jnp.int32(0), slots.running)
        first = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), rows)
        seen = jax.tree.map(lambda leaf: leaf[None], slots.observation)
        first = first._replace(observation=seen, rows=jnp.int32(0))
        return finished((slots, by_slot(in_buffer(first, sizes[0]), axis=1)), sizes)

    return run


def evaluate(
    environment: Environment, policy: Policy, episodes: int, chunk: int = 16
) -> Callable[[jax.Array, PyTree, PyTree], jax.Array]:
    """A function (key, policy params, environment params) -> Σ_t R_{t+1} of each of some fresh episodes, [E].

    Actions are sampled, as in training, and nothing is discounted. Arguments and errors are those of `collect`.
    """
    return collect(environment, policy, episodes, chunk=chunk, then=lambda whole: jnp.sum(whole.reward, axis=0))
