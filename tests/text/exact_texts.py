"""A world of texts so small that all of them can be listed: tokens eos, a and b, at most three to a text."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import pgjax
from pgjax.text.tokens import BOS, EOS, PAD

V, T, A, B = 5, 3, 3, 4
PROMPT = np.array([[PAD, PAD, BOS]])  # so wide that the window shows the whole text


def reward_of(written, params):
    """A reward that depends on the order: 0.7 for each a, −0.4 for each b before an a, 0.5 for an end."""
    tokens, output = written.tokens, written.output
    is_a, is_b = (tokens == A) & output, (tokens == B) & output
    before = jnp.cumsum(is_b, axis=1) - is_b
    bad = jnp.sum(is_a * before, axis=1)
    ended = jnp.any((tokens == EOS) & output, axis=1)
    return pgjax.text.Judgement(0.7 * is_a.sum(1) - 0.4 * bad + 0.5 * ended)


def texts(judge=reward_of, prompts=PROMPT, forbid=()):
    return pgjax.text.text_environment(prompts, V, T, judge, forbid=forbid)


def by_context():
    """The policy with a logit for each token after each text so far: it can be any distribution of texts."""

    def apply(params, window):
        number = sum(window[..., i] * V**i for i in range(T))
        logits = jnp.asarray(params)[number]
        allowed = (jnp.arange(V) > BOS).reshape(*(1,) * (logits.ndim - 1), V)
        return pgjax.policies.Categorical(jnp.where(allowed, logits, -jnp.inf))

    return pgjax.memoryless(lambda key: jax.random.normal(key, (V**T, V)), apply)


def value_by_context():
    """V with a number for each text so far: it can be any function of them."""

    def unroll(params, trajectory):
        window = trajectory.observation
        return params[sum(window[..., i] * V**i for i in range(T))]

    return pgjax.ValueFunction(lambda key: jax.random.normal(key, (V**T,)), unroll)


def tiny_transformer(environment):
    return pgjax.text.transformer(
        environment, pgjax.text.TransformerConfig(V, context=2 * T, width=8, layers=1, heads=2)
    )


def all_outputs():
    """Every output as a row [15, T], pads after eos."""
    rows = []
    for row in itertools.product((EOS, A, B), repeat=T):
        cut = row.index(EOS) + 1 if EOS in row else T
        padded = (*row[:cut], *(PAD,) * (T - cut))
        if padded not in rows:
            rows.append(padded)
    return np.asarray(rows)


def trajectory_of(rows, policy, params, environment, env_params=None, prompt=PROMPT[0]):
    """The episodes that write these outputs [E, T], scored, with the log-probabilities of a policy."""
    rows = np.asarray(rows)
    E = len(rows)
    mask = rows.T != PAD
    whole = np.concatenate([np.tile(prompt, (E, 1)), np.where(rows == PAD, EOS, rows)], axis=1)
    W = len(prompt)
    observation = np.stack([whole[:, t : t + W] for t in range(T)])
    terminated = mask & ((rows.T == EOS) | (np.arange(T) == T - 1)[:, None])
    trajectory = pgjax.Trajectory(
        jnp.asarray(observation, jnp.int32),
        jnp.asarray(np.where(mask, rows.T, EOS), jnp.int32),
        jnp.zeros((T, E)),
        jnp.asarray(terminated),
        jnp.zeros((T, E), bool),
        jnp.asarray(mask),
        jnp.asarray(np.tile(np.arange(T)[:, None], (1, E)), jnp.int32),
        jnp.int32(T),
    )
    log_prob = jnp.where(mask, policy.unroll(params, trajectory).log_prob(trajectory.action), 0)
    trajectory = trajectory._replace(log_prob=log_prob, notes={"prompt": jnp.zeros((T, E), jnp.int32)})
    score = environment.score(trajectory, environment.params if env_params is None else env_params)
    return trajectory._replace(reward=jnp.where(mask, score.reward, 0), notes=score.notes)


def episodes(trajectory, chosen):
    """Some episodes of a trajectory, [T, len(chosen)]."""
    return jax.tree.map(lambda leaf: leaf[:, chosen] if jnp.ndim(leaf) else leaf, trajectory)
