import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax
from pgjax.text import generate
from pgjax.text.tokens import BOS, EOS

TOKENIZER = pgjax.text.Characters("abc")
A, B, C = TOKENIZER.encode("abc").tolist()
V, T, N = 6, 2, 4000
TABLE = np.full((V, V), -50.0, np.float32)  # logits of the next token by the last one
TABLE[A, [A, B, C, EOS]] = [2.0, 1.0, 0.5, 0.0]
TABLE[B, [A, B, C, EOS]] = [0.0, 0.3, 1.5, 1.0]
TABLE[C, [A, B, C, EOS]] = [1.0, 1.0, -1.0, 0.2]
BIGRAM = pgjax.memoryless(
    lambda key: jnp.asarray(TABLE), lambda theta, window: pgjax.policies.Categorical(theta[window[..., -1]])
)


def law(prompt, change):
    """The probability of every output, where probabilities of the next token [V] are changed by a function."""
    found = Counter()
    table = np.stack([change(np.exp(row) / np.exp(row).sum()) for row in TABLE.astype(float)])
    for tokens in itertools.product([A, B, C, EOS], repeat=T):
        end = tokens.index(EOS) + 1 if EOS in tokens else T
        if set(tokens[end:]) <= {A}:  # what stands after eos is nothing, and is counted once
            p = np.prod([table[before, after] for before, after in itertools.pairwise([prompt, *tokens[:end]])])
            found[TOKENIZER.decode(tokens[:end]) + "$" * (EOS in tokens)] += p
    return {text: p for text, p in found.items() if p > 1e-9}


def normal(p):
    return p / p.sum()


def cut(p, k):
    return normal(np.where(p >= np.sort(p)[-k], p, 0))


def nucleus(p, mass):
    order = np.argsort(-p)
    needed = np.searchsorted(np.cumsum(p[order]), mass) + 1
    return normal(np.where(np.isin(np.arange(V), order[:needed]), p, 0))


def without(p, token):
    return normal(np.where(np.arange(V) == token, 0, p))


LAWS = [
    ({}, lambda p: p),
    ({"top_k": 2}, lambda p: cut(p, 2)),
    ({"top_p": 0.7}, lambda p: nucleus(p, 0.7)),
    ({"forbid": [C]}, lambda p: without(p, C)),
    ({"forbid": [EOS], "temperature": 2.0, "top_k": 2}, lambda p: cut(normal(without(p, EOS) ** 0.5), 2)),
    ({"temperature": 2.0, "top_k": 3, "top_p": 0.6}, lambda p: nucleus(cut(normal(p**0.5), 3), 0.6)),
]


@pytest.mark.parametrize(("options", "change"), LAWS)
def test_outputs_have_the_law_of_their_options(options, change):
    texts = generate(BIGRAM, jnp.asarray(TABLE), ["ba"] * N, TOKENIZER, jax.random.key(0), length=T, **options)
    expected = Counter()
    for text, p in law(A, change).items():
        expected[text.rstrip("$")] += p  # a text says not whether it came to its end
    assert sum(expected.values()) == pytest.approx(1)
    found = Counter(texts)
    assert found.keys() <= expected.keys()
    # By chance one of the six is refused in eighty thousand times.
    if len(expected) > 1:
        counts = [found[text] for text in expected]
        assert stats.chisquare(counts, [N * p for p in expected.values()]).pvalue > 2e-6


def test_each_prompt_is_gone_on_from_and_the_same_key_writes_the_same():
    prompts = ["a", "abcb", "", "c"]
    first = {A: "a", B: "c", C: "a"}  # the likeliest
    ask = {"length": 1, "top_k": 1}
    table = jnp.asarray(TABLE).at[BOS, B].set(9.0).at[C, A].set(2.0)
    assert generate(BIGRAM, table, prompts, TOKENIZER, jax.random.key(0), **ask) == [first[A], first[B], "b", first[C]]
    one, same, other = (
        generate(BIGRAM, table, ["a"] * 50, TOKENIZER, jax.random.key(seed), length=T) for seed in (3, 3, 4)
    )
    assert one == same != other
    assert len(set(one)) > 3


@pytest.mark.slow
def test_a_transformer_writes_what_its_probabilities_say_whatever_else_is_asked():
    corpus = pgjax.text.Corpus("letters", TOKENIZER, np.array([[BOS, A, B, C, EOS, 0, 0]]), np.array([[BOS, A]]))
    policy, _ = pgjax.text.language_model(corpus, length=5, width=8, layers=1, heads=2)
    params = jax.tree.map(lambda leaf: 5 * leaf, policy.init(jax.random.key(1)))
    options = {"length": 4, "top_k": 1, "forbid": [EOS]}
    texts = generate(policy, params, ["abc", "c"], TOKENIZER, jax.random.key(0), **options)
    alone = generate(policy, params, ["c"], TOKENIZER, jax.random.key(1), **options)
    assert texts[1:] == alone  # pads to the left of a shorter prompt change nothing
    assert all(len(text) == 4 for text in texts)
    with pytest.raises(pgjax.InputError, match="expected prompts and outputs of at most 8 tokens together, as the con"):
        generate(policy, params, ["abc"], TOKENIZER, jax.random.key(0), length=5)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "expected one or more prompts, got none"),
        (["x"], {}, "expected characters of the vocabulary 'abc', got 'x' as character 0"),
        (["a"], {"length": 0}, "expected outputs of 1 or more tokens, got 0"),
        (["a"], {"temperature": 0.0}, "expected a finite temperature above 0, got 0.0"),
        (["a"], {"top_k": 0}, "expected 1 or more actions to choose from, got 0"),
        (["a"], {"top_p": 0.0}, "expected a probability above 0 and at most 1, got 0.0"),
        (["a"], {"forbid": [9]}, r"expected tokens from 0 to 5, got 9 at \[0\]"),
        (["a"], {"forbid": [A, B, C, EOS]}, "expected 1 or more tokens to write with, got 6, all of them forbidden"),
        (["a"], {"tokenizer": pgjax.text.Characters("ab")}, "texts of the tokenizer"),
    ],
)
def test_what_cannot_be_written_is_refused(prompts, options, message):
    given = {"tokenizer": TOKENIZER, "length": T, **options}
    with pytest.raises(pgjax.InputError, match=message):
        generate(BIGRAM, jnp.asarray(TABLE), prompts, key=jax.random.key(0), **given)
