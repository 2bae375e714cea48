"""Additions worked out in text: what is written, what is learned from, and how an answer is checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.text import arithmetic
from pgjax.text.tokens import BOS, EOS, PAD, left_padded, right_padded

TOKENS = arithmetic.CHARACTERS


def problems(*rows):
    return pgjax.text.Additions(*(np.asarray(column) for column in zip(*rows, strict=True)))


SOME = problems((47, 85, 2), (3, 4, 1), (10, 12, 2), (99, 99, 2))


def test_problems_are_worked_out_from_the_last_digit_on():
    assert pgjax.text.worked(SOME) == [
        "7+5+0=12,4+8+1=13#132",
        "3+4+0=07#7",
        "0+2+0=02,1+1+0=02#22",
        "9+9+0=18,9+9+1=19#198",
    ]
    assert SOME.length == len("7+5+0=12,4+8+1=13#132") + 1
    assert [TOKENS.decode(row) for row in SOME.prompts] == ["47+85=", "3+4=", "10+12=", "99+99="]
    assert SOME.prompts[1].tolist() == [PAD, PAD, BOS, *TOKENS.encode("3+4=")]
    assert SOME.answers[1].tolist() == [*TOKENS.encode("7"), EOS, PAD, PAD]
    examples = pgjax.text.worked_examples(SOME)
    assert [TOKENS.decode(row) for row in examples[:2]] == ["47+85=7+5+0=12,4+8+1=13#132", "3+4=3+4+0=07#7"]
    assert examples.shape == (4, SOME.prompts.shape[1] + SOME.length)
    pgjax.text.next_tokens(examples)  # which refuses what cannot be learned from


def test_problems_differ_and_are_of_all_lengths():
    found = pgjax.text.additions(3, 200, digits=(1, 2, 3))
    assert np.bincount(found.digits).tolist() == [0, 67, 67, 66]
    assert len(set(found.rows())) == 200
    sizes = [len(str(number)) for number in (*found.first, *found.second)]
    assert sizes == [*found.digits, *found.digits]
    again, other = (pgjax.text.additions(seed, 200, digits=(1, 2, 3)) for seed in (3, 4))
    assert again.rows() == found.rows() != other.rows()
    every = pgjax.text.additions(0, 100, digits=(1,))  # all that there are
    assert sorted(every.rows()) == [(a, b, 1) for a in range(10) for b in range(10)]
    assert found.part(slice(5, 7)).rows() == found.rows()[5:7]


def test_a_mistaken_sum_is_followed_to_the_end():
    many = pgjax.text.additions(0, 2000, digits=(3,))
    for (a, b, _), text in zip(many.rows(), pgjax.text.worked(many, seed=1, noise=1.0), strict=True):
        working, _, answer = text.partition("#")
        carry, digits = 0, ""
        for place, step in enumerate(working.split(",")):
            terms, _, total = step.partition("=")
            assert terms == f"{a // 10**place % 10}+{b // 10**place % 10}+{carry}"
            assert int(total) != sum(map(int, terms.split("+")))  # all are mistaken
            carry, digits = int(total) // 10, total[1] + digits
        assert answer == (str(carry) if carry else "") + digits
    # Of 6000 sums a tenth is mistaken: 600 ± 23. The bound is 5 deviations, which chance goes beyond once in a million.
    texts = pgjax.text.worked(many, seed=1, noise=0.1)
    steps = [step for text in texts for step in text.partition("#")[0].split(",")]
    mistaken = sum(int(step[6:]) != sum(map(int, step[:5].split("+"))) for step in steps)
    assert abs(mistaken - 600) < 5 * 23
    assert texts == pgjax.text.worked(many, seed=1, noise=0.1) != pgjax.text.worked(many, seed=2, noise=0.1)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("#132.", 1),
        ("7+5+0=12,4+8+1=13#132.", 1),
        ("it is#132.", 1),
        ("#132", 0),  # without an end: it may have gone on
        ("#13.", 0),
        ("#1320.", 0),
        ("#0132.", 0),
        ("132.", 0),
        ("#12#132.", 0),  # the first mark counts
        ("#.", 0),
        (".", 0),
    ],
)
def test_the_answer_after_the_first_mark_is_what_counts(output, right):
    letters = {character: 3 + i for i, character in enumerate("0123456789+=,#its ")} | {".": EOS}
    width, answers = 8, np.array([[*TOKENS.encode("132"), EOS, PAD]])
    tokens = right_padded([np.asarray([letters[c] for c in output])], 24)
    tokens = np.concatenate([left_padded([np.asarray([BOS, *TOKENS.encode("47+85=")])], width), tokens], axis=1)
    inside = (tokens != PAD) & (np.arange(tokens.shape[1]) >= width)
    texts = pgjax.text.Texts(*map(jnp.asarray, (tokens, inside, np.array([0]), answers)))
    found = pgjax.text.answer_check(int(TOKENS.encode("#")[0]))(texts, ())
    assert found.reward.tolist() == [right]
    assert found.notes["answered"].tolist() == ["#" in output]


def test_what_is_worked_out_right_gets_the_reward():
    """In the environment itself: a policy that has learned the outputs by heart is paid, on every prompt."""
    T = SOME.length
    outputs = right_padded([TOKENS.encode(text) for text in pgjax.text.worked(SOME)], T)
    outputs = jnp.asarray(np.where(outputs == PAD, EOS, outputs))
    judge = pgjax.text.answer_check(int(TOKENS.encode("#")[0]))
    environment = pgjax.text.text_environment(SOME.prompts, TOKENS.vocabulary, T, judge, data=SOME.answers)
    known = jnp.asarray(SOME.prompts)

    def step(params, memory, window):
        t, which = memory
        which = jnp.where(t == 0, jnp.argmax(jnp.all(window[:, None] == known[None], axis=2), axis=1), which)
        logits = jax.nn.one_hot((outputs + params)[which, t], TOKENS.vocabulary)
        return (t + 1, which), pgjax.policies.Categorical(1e3 * logits)

    by_heart = pgjax.Policy(
        init=lambda key: (),
        memory=lambda episodes: (jnp.int32(0), jnp.zeros(episodes, jnp.int32)),
        step=step,
        unroll=lambda params, trajectory: None,
    )
    run = jax.jit(pgjax.evaluate(environment, by_heart, 32))
    assert run(jax.random.key(0), jnp.zeros((4, T), jnp.int32), environment.params).tolist() == [1.0] * 32
    other = jnp.zeros((4, T), jnp.int32).at[1, len("3+4+0=07#")].set(1)
    found = run(jax.random.key(0), other, environment.params)  # 3 + 4 is #8 now
    assert 0 < found.sum() < 32
    assert set(found.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pgjax.text.additions(0, 101, digits=(1,)), "at most 100 problems of 1 digits, got 101"),
        (lambda: pgjax.text.additions(0, 4, digits=(2, 2)), r"lengths of numbers, each once, got \[2, 2\]"),
        (lambda: pgjax.text.additions(0, 4, digits=(0,)), "digits of a number to add to be an integer from 1 to 9"),
        (lambda: pgjax.text.additions(0, 0), "problems to be an integer of 1 or more, got 0"),
        (lambda: pgjax.text.worked(SOME, noise=1.5), "a probability of mistakes from 0 to 1, got 1.5"),
    ],
)
def test_what_cannot_be_made_is_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()
