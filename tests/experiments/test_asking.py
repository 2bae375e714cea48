import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from common import asking, rounds
from pgjax import rlhf
from pgjax.text.tokens import BOS, EOS

CORPUS = pgjax.text.Corpus("letters", pgjax.text.Characters("abcdefgh"), np.array([[BOS, 3, EOS]]), np.array([[BOS]]))
# What members of an ensemble say of a text: the first of them nothing, the second its last letter.
MODEL = rlhf.RewardModel(lambda key, body: (), lambda slope, tokens: slope * tokens[:, 1].astype(float))


def sample(key, theta, n):
    """Thirty pairs of the letter a and each of the others in turn, of which every third is said not to differ."""
    n = 30
    other = 3 + 1 + jnp.arange(n) % 7
    tokens = jnp.stack([jnp.full(n, 3), other], axis=1)
    tokens = jnp.stack([jnp.full_like(tokens, BOS), tokens, jnp.full_like(tokens, EOS)], axis=2)
    return tokens, jnp.arange(n) % 3 != 2


LOOP = rlhf.Feedback(algorithm=None, environment=None, evaluate=None, sample=sample)


def asked(n, judge=None):
    return asking.tasks_of(LOOP, CORPUS, 2, {"w": jnp.ones(3)}, jax.random.key(0), n, {"round": 4}, judge)


def test_tasks_are_of_outputs_that_differ_and_say_which_model_wrote_them():
    tasks = asked(4)
    assert [task.outputs for task in tasks] == [("a", letter) for letter in "bce" + "f"]
    assert tasks[0].more == {"asked": "uniform", "model": asking.digest_of({"w": jnp.ones(3)}), "round": 4}
    assert asking.digest_of({"w": jnp.zeros(3)}) != tasks[0].more["model"]
    with pytest.raises(pgjax.InputError, match="expected a model that writes 9 sets of outputs that differ, got 7"):
        asked(9)


def test_where_an_ensemble_disagrees_most_is_asked_first():
    tasks = asked(2, (MODEL, jnp.array([0.0, 0.1])))
    assert [task.outputs for task in tasks] == [("a", "h"), ("a", "g")]  # the farthest apart
    assert {task.more["asked"] for task in tasks} == {"disagreement"}


def test_a_reward_model_is_measured_on_what_was_asked_as_it_came(tmp_path):
    lines = [
        {"prompt": prompt, "outputs": ["a", "b"], "ranking": [0, 1], "asked": how, "annotator": who}
        for prompt in "abcde"
        for how, who in (("uniform", "ada"), ("disagreement", "bob"))
    ]
    (tmp_path / "round").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = CORPUS._replace(prompts=np.array([[BOS, 3]]))
    made = rounds.ranked([tmp_path / "round"], corpus, 2, 2)
    assert made.names == ("ada", "bob")
    assert made.held_out.annotator.tolist() == [0]
    assert made.external.annotator.tolist() == [0, 1] * 4
    found = asking.accuracies(
        MODEL, reward(1.0), made.held_out._replace(tokens=made.held_out.tokens[..., 1:]), made.names
    )
    assert found == {"ada": (0.0, 1)}  # b scores higher, and a was preferred
    alone = [line for line in lines if line["prompt"] == "a"]
    (tmp_path / "alone").write_text("".join(json.dumps(line) + "\n" for line in alone))
    assert rounds.ranked([tmp_path / "alone"], corpus, 2, 2).held_out is None


def reward(slope):
    return rlhf.LearnedReward(jnp.array([slope]), mean=0.0, spread=1.0, uncertainty_penalty=0.0)


def test_accuracies_are_said_with_what_they_can_be():
    found = {"ada": (0.75, 8), "bob": (0.5, 2)}
    assert asking.said_of(found, None) == "ada 75% of 8, bob 50% of 2"
    assert asking.said_of(found, 0.8).endswith("; at best 80%, as often as they agree with each other")
    assert asking.said_of({}, None) == "-"
