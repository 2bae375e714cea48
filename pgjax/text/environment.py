"""Texts as episodes: the context so far is observed, the next token is the action, and the whole is scored.

The lecture's third example of a problem: X_t is the token sequence up to point t, A_t the next token, R_{t+1} = 0 until
the end of the episode, and R_{T+1} a score of what was written.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_shape, traced
from pgjax.environments.base import Environment, Score, Step
from pgjax.environments.spaces import Box, Discrete
from pgjax.errors import InputError
from pgjax.policies.base import Policy
from pgjax.rollout import collect
from pgjax.text.tokens import BOS, EOS, PAD, SPECIAL, check_tokens
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class TextParams(NamedTuple):
    """The params of an environment of texts."""

    prompts: jax.Array  # [N, W] int32
    judge: PyTree  # what the judge needs: the parameters of a reward model, …
    data: PyTree = ()  # what belongs to each prompt, such as the right answer to it; each leaf [N, ...]


class Texts(NamedTuple):
    """Whole texts, as a judge gets them."""

    tokens: jax.Array  # [E, W + T]
    output: jax.Array  # [E, W + T] bool, where their output is, eos included
    prompt: jax.Array  # [E] int32, which of the N prompts each goes on from
    data: PyTree = ()  # what belongs to these prompts, each leaf [E, ...]


class Judgement(NamedTuple):
    """What is said of whole texts."""

    reward: jax.Array  # [E], G = r(X_{1:t})
    notes: Mapping[str, jax.Array] = {}  # more numbers, each [E], which metrics report


Judge = Callable[[Texts, PyTree], Judgement]  # of texts, and the params' `judge`


def written(trajectory: Trajectory, length: int) -> jax.Array:
    """The texts [E, W + T] int32 that episodes wrote: their prompts, then outputs of T = `length` columns.

    Pads stand to the left of the prompt and to the right of the output.
    """
    output = jnp.where(trajectory.mask[:length], trajectory.action[:length], PAD)
    return jnp.concatenate([trajectory.observation[0], output.T], axis=1)


class TextState(NamedTuple):
    """A text that is being written."""

    window: jax.Array  # [W] int32, its last tokens
    length: jax.Array  # [] int32, tokens of the output so far
    prompt: jax.Array  # [] int32, which of the prompts it goes on from


def text_environment(
    prompts: Any,
    vocabulary: int,
    length: int,
    judge: Judge,
    params: PyTree = (),
    name: str = "text",
    forbid: Sequence[int] = (),
    data: PyTree = (),
) -> Environment:
    """The environment in which a text is written, a token a step.

    An episode begins with one of the prompts, drawn uniformly. The observation is a window of the last W tokens, so
    that a policy without memory sees those, and one with memory the whole text. An action is a token, never pad or bos;
    eos ends the text, and so does its T-th token: either way it is whole, and the step *terminates*. The score G
    arrives with the last step, and all earlier rewards are 0.

    Args:
        prompts: X_{1:k}, [N, W] tokens, pads to their left. Wider ones make a wider window.
        vocabulary: V, how many tokens there are.
        length: T, the most tokens of an output, eos included.
        judge: The score of texts, see `Judge`. Its notes are reported beside the length of outputs, `length`.
        params: What the judge needs.
        name: What errors call it.
        forbid: Tokens that policies for it never write, beside pad and bos: eos, for texts of T tokens each, or others.
        data: What belongs to each prompt and the judge is to see with its texts: arrays [N, ...].

    Raises:
        InputError: If there is no prompt, prompts have unequal lengths, the vocabulary has no character, a token is
            outside of it, a prompt has a pad that is not to its left or ends in one, the length is below 1, every token
            is forbidden, data are not of N prompts, or what the judge returns is no `Judgement` of [E] numbers.
    """
    try:
        given = np.asarray(prompts)
    except ValueError as error:
        raise InputError(
            "expected prompts of one length [N, W], the shorter ones with pads to their left, got rows of several"
        ) from error
    if given.ndim != 2 or not given.size:
        raise InputError(f"expected one or more prompts [N, W], got an array of shape {given.shape}")
    if vocabulary <= SPECIAL:
        raise InputError(
            f"expected a vocabulary of {SPECIAL + 1} or more tokens, with characters in it, got {vocabulary}"
        )
    check_tokens(given, vocabulary)
    check_tokens(np.asarray(forbid, int), vocabulary)
    real = given != PAD
    for row in np.flatnonzero((real[:, :-1] & ~real[:, 1:]).any(1) | ~real[:, -1])[:1]:
        raise InputError(f"expected prompts with pads to their left alone, got {given[row].tolist()} as prompt {row}")
    if length < 1:
        raise InputError(f"expected outputs of 1 or more tokens, got {length}")
    W, tokens = given.shape[1], Discrete(vocabulary, tuple(sorted({PAD, BOS, *map(int, forbid)})))
    if not tokens.allowed.any():
        raise InputError(f"expected 1 or more tokens to write with, got {vocabulary}, all of them forbidden")
    data = data_of_prompts(data, len(given))
    check_judge(judge, W + length, params, data)

    def reset(key: jax.Array, params: TextParams) -> tuple[TextState, jax.Array]:
        prompt = jax.random.randint(key, (), 0, len(params.prompts))
        window = params.prompts[prompt]
        return TextState(window, jnp.int32(0), prompt), window

    def step(key: jax.Array, state: TextState, action: jax.Array, params: TextParams) -> tuple[TextState, Step]:
        window = jnp.concatenate([state.window[1:], action[None].astype(state.window.dtype)])
        count = state.length + 1
        over = (action == EOS) | (count >= length)
        return TextState(window, count, state.prompt), Step(window, 0.0, over, notes={"prompt": state.prompt})

    def score(trajectory: Trajectory, params: TextParams) -> Score:
        tokens = written(trajectory, length)
        output = jnp.concatenate([jnp.zeros_like(tokens[:, :W], bool), trajectory.mask[:length].T], axis=1)
        prompt = trajectory.notes["prompt"][0]  # every episode begins in the first row
        theirs = jax.tree.map(lambda leaf: leaf[prompt], params.data)
        judgement = judge(Texts(tokens, output, prompt, theirs), params.judge)

        def at_the_end(number: jax.Array) -> jax.Array:
            return jnp.where(trajectory.last, number[None], 0)

        notes = {name: at_the_end(note) for name, note in judgement.notes.items()}
        return Score(at_the_end(judgement.reward), {"length": jnp.where(trajectory.mask, 1.0, 0.0), **notes})

    return Environment(
        reset=reset,
        step=step,
        observation_space=Box(low=0, high=vocabulary - 1, shape=(W,), dtype=jnp.int32),
        action_space=tokens,
        horizon=length,
        params=TextParams(jnp.asarray(given, jnp.int32), params, data),
        score=score,
        name=name,
    )


def data_of_prompts(data: PyTree, N: int) -> PyTree:
    """What belongs to each of N prompts, as arrays [N, ...].

    Raises:
        InputError: If an array is not of N prompts.
    """
    arrays = jax.tree.map(jnp.asarray, data)
    for leaf in jax.tree.leaves(arrays):
        if leaf.shape[:1] != (N,):
            raise InputError(f"expected data of {N} prompts, arrays [{N}, ...], got one of shape {leaf.shape}")
    return arrays


def check_judge(judge: Judge, columns: int, params: PyTree, data: PyTree) -> None:
    """Raise unless a judge returns a number for each text; nothing is computed.

    Args:
        judge: Whose.
        columns: W + T.
        params: What it needs.
        data: What belongs to each prompt, arrays [N, ...].

    Raises:
        InputError: If it returns something else.
    """
    E = 2

    def like(shape: tuple[int, ...], dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((E, *shape), dtype)

    theirs = jax.tree.map(lambda leaf: like(leaf.shape[1:], leaf.dtype), data)
    texts = Texts(tokens=like((columns,)), output=like((columns,), bool), prompt=like(()), data=theirs)
    judgement = traced("a judge of texts", judge, texts, params)
    if not isinstance(judgement, Judgement):
        raise InputError(f"expected a judge that returns a Judgement, got a {type(judgement).__name__}")
    numbers = {"the reward": judgement.reward, **{f"the note {name!r}": note for name, note in judgement.notes.items()}}
    for name, array in numbers.items():
        check_shape(f"{name} that the judge returns of {E} texts", array, (E,))


def outputs(
    environment: Environment, policy: Policy, slots: int, group_size: int = 1
) -> Callable[[jax.Array, PyTree, PyTree], jax.Array]:
    """A function (key, policy params, environment params) -> texts [E, W + T] that a policy writes.

    Nothing is scored. Arguments and errors are those of `pgjax.collect`.
    """
    run = collect(environment._replace(score=None), policy, slots, group_size=group_size)
    return lambda key, params, env_params: written(run(key, params, env_params), environment.horizon)
