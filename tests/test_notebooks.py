"""Notebooks are executed by nbmake; here is what it does not look at."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_is_one_for_each_part_of_the_lecture():
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"policy_gradient", "seed_sweep", "your_environment", "imitation", "rlhf", "compare", "theory"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= len(code) / 3  # a notebook explains itself
