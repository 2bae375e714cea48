import inspect
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import pgjax

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "experiments").rglob("*.md"))]
EXAMPLES = {
    f"{page.name} {number}": example
    for page in PAGES
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run_as_printed(monkeypatch, tmp_path, name):
    # As printed, but for sizes that would take minutes here. What trains language models is only traced: a notebook
    # and the studies run it.
    example = EXAMPLES[name].replace("range(256)", "range(8)").replace("iterations=60", "iterations=20")
    if "rlhf.feedback(" in example:
        assert "state, curves = run(" in example
        example = example.replace("curves = run(", "shapes = jax.eval_shape(run, ")
    names = {}
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        exec(compile(example, name, "exec"), names)
    if "curves" in names:
        returns = np.asarray(names["curves"].episode_return)
        assert returns[..., -1].mean() > returns[..., 0].mean()


@pytest.mark.parametrize("what", ["Environment", "Policy", "Baseline"])
def test_there_is_an_example_with_one_of_ones_own(what):
    made = {"Policy": "pgjax.memoryless("}.get(what, f"pgjax.{what}(")
    own = [example for example in EXAMPLES.values() if made in example]
    assert own
    if what == "Environment":
        lines = [line for line in own[0].splitlines() if line.strip() and not line.strip().startswith("import")]
        assert len(lines) <= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\((.*?)\)", text.replace("\n", " ")):
        place, _, anchor = link.partition("#")
        assert (page.parent / place).exists(), link
        assert place or anchor in anchors, link


def test_the_front_page_is_read_in_five_minutes():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 250


def test_everything_public_is_documented():
    rooms = [pgjax, *(module for name in pgjax.__all__ if inspect.ismodule(module := getattr(pgjax, name)))]
    assert len(rooms) == 11
    plain = {"BOS", "EOS", "PAD", "LAYOUTS", "Gold"}  # numbers, texts and a type, described where they are defined
    for room in rooms:
        for name in set(room.__all__) - plain:
            assert getattr(room, name).__doc__, f"{room.__name__}.{name}"
