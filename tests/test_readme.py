import re
from pathlib import Path

import jax
import numpy as np
import pytest

import pgjax

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run_as_printed(number):
    # As printed, but for CartPole's size, which would take minutes here.
    example = EXAMPLES[number].replace("range(256)", "range(8)").replace("iterations=60", "iterations=20")
    names = {}
    with jax.numpy_rank_promotion("allow"):
        exec(compile(example, f"README example {number}", "exec"), names)
    curves = names["curves"]
    final = np.asarray(curves.episode_return)[..., -1]
    assert final.mean() > np.asarray(curves.episode_return)[..., 0].mean()


def test_there_is_an_example_with_an_environment_of_ones_own():
    own = [example for example in EXAMPLES if "pgjax.Environment(" in example]
    assert own
    lines = [line for line in own[0].splitlines() if line.strip() and not line.strip().startswith("import")]
    assert len(lines) <= 12


def test_everything_public_is_documented():
    for name in set(pgjax.__all__) - {"Credit"}:  # the name of a type, described in pgjax/returns.py
        assert getattr(pgjax, name).__doc__, name
