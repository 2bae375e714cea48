import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.steps import dealt_steps
from tests.test_segments import collected


@pytest.mark.parametrize("slots", [1, 4, 5])
def test_real_steps_are_dealt_out_once_evenly_and_to_all_slots_and_times(slots):
    table, parts = pgjax.tabular(3, 2), 4
    trajectory = collected(table, jnp.ones((3, 2)), slots=slots, min_steps_per_slot=24)
    real = np.flatnonzero(np.asarray(trajectory.mask).ravel())
    part = dealt_steps(trajectory, parts)
    dealt = [np.asarray(some.places)[int(some.begin) : int(some.end)] for some in map(part, range(parts))]
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), real)
    np.testing.assert_array_equal(dealt[1][:5], real[[1, 6, 11, 12, 17]])  # by hand
    sizes = [len(some) for some in dealt]
    assert max(sizes) - min(sizes) <= 1
    for some in dealt:
        assert len(np.unique(some % slots)) == slots
        assert abs(some.mean() - real.mean()) < parts**2
