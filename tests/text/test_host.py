"""Rewards by a function in Python: what it gets, what it may say, and the one sentence where it does not."""

import functools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.errors import HostError, raised_on_host
from pgjax.text import host
from pgjax.text.host import HostText, checked, within
from pgjax.text.tokens import BOS, EOS, PAD
from tests.text.exact_texts import A, B, T, V, by_context

LETTERS = pgjax.text.Characters("ab")
PROMPTS = np.array([[PAD, PAD, BOS], [PAD, BOS, A]])
TEXTS = [HostText("a", "ab", True, 1), HostText("", "b", False, 0)]


def environment(judge):
    return pgjax.text.text_environment(PROMPTS, V, T, judge, data={"worth": np.array([0.5, 2.0])})


def on_device(texts, params):
    """What `on_host` says, computed where the texts are."""
    count = jnp.sum((texts.tokens == A) & texts.output, axis=1)
    ended = jnp.any((texts.tokens == EOS) & texts.output, axis=1)
    return pgjax.text.Judgement(texts.data["worth"] * count + 10 * ended)


def on_host(texts):
    assert all(text.prompt == ("", "a")[text.number] for text in texts)
    return [(0.5, 2.0)[text.number] * text.output.count("a") + 10 * text.ended for text in texts]


def rewards(judge, keys):
    """Of the texts of a policy for several seeds in one program, [seeds, E]."""
    policy = by_context()
    run = pgjax.collect(environment(judge), policy, slots=12)

    def one(key):
        params = policy.init(key)
        return run(key, params, environment(judge).params).reward.sum(0)

    return jax.jit(jax.vmap(one))(keys)


def test_a_function_on_the_host_sees_every_text_of_all_runs_in_order():
    calls = []

    def counted(texts):
        calls.append((len(texts), threading.current_thread() is threading.main_thread()))
        return on_host(texts)

    keys = jax.random.split(jax.random.key(0), 3)
    found = rewards(pgjax.text.host_reward(counted, LETTERS.decode), keys)
    expected = rewards(on_device, keys)
    assert len(np.unique(expected)) > 4
    np.testing.assert_allclose(found, expected)
    assert calls == [(3 * 12, False)]  # all seeds in one call


def test_a_run_learns_what_a_function_on_the_host_pays_for():
    judge = pgjax.text.host_reward(lambda texts: [text.output.count("b") for text in texts], LETTERS.decode)
    algorithm = pgjax.reinforce(environment(judge), by_context(), slots=16)
    results = pgjax.sweep(
        algorithm,
        iterations=40,
        seeds=range(2),
        hyperparameters=algorithm.hyperparameters(learning_rate=0.3),
        progress=False,
    )
    begun, ended = (results.episode_return[:, part].mean("iteration") for part in (slice(3), slice(-3, None)))
    assert (begun < 1.6).all(), begun
    assert (ended > 2.5).all(), ended  # of at most 3


def raises(texts):
    return [{"ab": 1.0}[text.output] for text in texts]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, r"a reward of the output 'b' to the prompt '', got KeyError: 'b'"),
        (
            lambda texts: [1.0, float("nan")],
            r"a finite number as the reward of the output 'b' to the prompt '', got nan",
        ),
        (
            lambda texts: [1e300, 0.0],
            r"a finite number as the reward of the output 'ab' to the prompt 'a', got 1e\+300",
        ),
        (lambda texts: [None, 1.0], r"a finite number as the reward of the output 'ab' to the prompt 'a', got None"),
        (lambda texts: ["1", 1.0], r"a finite number as the reward of the output 'ab' to the prompt 'a', got '1'"),
        (lambda texts: [1.0], "expected 2 rewards for 2 texts, got 1"),
        (lambda texts: 1.0, "got TypeError: 'float' object is not iterable"),
    ],
)
def test_what_is_no_reward_is_one_sentence_that_says_of_which_text(function, message):
    with pytest.raises(pgjax.InputError, match=message) as caught:
        checked(function, TEXTS)
    assert "\n" not in str(caught.value)


def test_rewards_are_numbers_of_any_kind():
    np.testing.assert_array_equal(checked(lambda texts: (True, np.float64(0.5)), TEXTS), [1, 0.5])
    np.testing.assert_array_equal(checked(lambda texts: np.array([2, 3]), TEXTS), [2, 3])


def test_a_long_text_is_quoted_in_part():
    long, message = HostText("b\n", 80 * "a", True, 0), f"output '{59 * 'a'}…' to the prompt 'b.+n', got ValueError: no"
    with pytest.raises(pgjax.InputError, match=message) as caught:
        checked(functools.partial(fails_with, "no\nand more"), [long])
    assert "\n" not in str(caught.value)


def fails_with(message, texts):
    raise ValueError(message)


def test_what_takes_too_long_ends():
    go_on = threading.Event()
    with pytest.raises(pgjax.InputError, match=r"2 texts within 0.05 s, got none; the first is the output 'ab'"):
        within(0.05, lambda: go_on.wait(30), TEXTS)
    go_on.set()
    with pytest.raises(pgjax.InputError, match="a time limit above 0 s for a reward on the host, got 0"):
        pgjax.text.host_reward(on_host, LETTERS.decode, time_limit=0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            functools.partial(fails_with, "no"),
            "expected a reward of the output '.*' to the prompt '.*', got ValueError: no",
        ),
        (lambda texts: time.sleep(30), "expected rewards of 4 texts within 0.2 s, got none"),
    ],
)
def test_a_sweep_ends_with_that_sentence(function, message):
    judge = pgjax.text.host_reward(function, LETTERS.decode, time_limit=0.2)
    algorithm = pgjax.reinforce(environment(judge), by_context(), slots=4)
    with pytest.raises(HostError, match=f"^{message}"):
        pgjax.sweep(algorithm, iterations=1, seeds=range(1), progress=False)


def test_an_error_of_anything_else_has_no_such_sentence():
    assert raised_on_host(ValueError("pgjax.errors: no")) is None
    assert raised_on_host(ValueError("no HostError: expected b")) is None
    assert str(raised_on_host(ValueError("a\n  pgjax.errors.HostError: expected b\n\nc"))) == "expected b"
    assert str(raised_on_host(ValueError("a\nHostError: expected b"))) == "expected b"


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_texts_that_come_in_pieces_are_one_list(monkeypatch, piece):
    monkeypatch.setattr(host, "PIECE", piece)
    judge = pgjax.text.host_reward(lambda texts: [100 * len(texts) + 10 * t.number + t.ended for t in texts], str)
    tokens = jnp.array([[PAD, BOS, A, B, EOS], [PAD, BOS, A, B, B], [BOS, EOS, A, EOS, PAD]])
    texts = pgjax.text.Texts(tokens, (jnp.arange(5)[None] > 1) & (tokens != PAD), jnp.array([4, 5, 6]))
    assert jax.jit(lambda texts: judge(texts, ()).reward)(texts).tolist() == [341, 350, 361]
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), texts)
    found = jax.vmap(lambda texts: judge(texts, ()).reward)(both)
    assert found.tolist() == [[641, 650, 661], [661, 650, 641]]


def test_two_devices_do_not_call_it_at_once():
    inside, most = [], []

    def slow(texts):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return [0.0] * len(texts)

    judge = pgjax.text.host_reward(slow, LETTERS.decode)
    texts = pgjax.text.Texts(jnp.array([[BOS, A, B, EOS]]), jnp.array([[False, True, True, True]]), jnp.array([0]))
    score = jax.jit(lambda texts: judge(texts, ()).reward)
    jax.block_until_ready(score(texts))
    threads = [threading.Thread(target=lambda: jax.block_until_ready(score(texts))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
