import re
from pathlib import Path

import jax
import numpy as np
import pytest

import pgjax

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run_as_printed(monkeypatch, tmp_path, number):
    # As printed, but for sizes that would take minutes here. What trains language models is only traced: a notebook
    # and the studies run it.
    example = EXAMPLES[number].replace("range(256)", "range(8)").replace("iterations=60", "iterations=20")
    if "rlhf.feedback(" in example:
        assert "state, curves = run(" in example
        example = example.replace("curves = run(", "shapes = jax.eval_shape(run, ")
    names = {}
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        exec(compile(example, f"README example {number}", "exec"), names)
    if "curves" in names:
        returns = np.asarray(names["curves"].episode_return)
        assert returns[..., -1].mean() > returns[..., 0].mean()


@pytest.mark.parametrize("what", ["Environment", "Policy", "Baseline"])
def test_there_is_an_example_with_one_of_ones_own(what):
    made = {"Policy": "pgjax.memoryless("}.get(what, f"pgjax.{what}(")
    own = [example for example in EXAMPLES if made in example]
    assert own
    if what == "Environment":
        lines = [line for line in own[0].splitlines() if line.strip() and not line.strip().startswith("import")]
        assert len(lines) <= 12


def test_links_lead_to_headings():
    headings = re.findall(r"^#+ (.*)$", README, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#(.*?)\)", README.replace("\n", " "))
    assert links
    assert not set(links) - anchors


def test_everything_public_is_documented():
    for name in set(pgjax.__all__) - {"Credit"}:  # the name of a type, described in pgjax/returns.py
        assert getattr(pgjax, name).__doc__, name
