"""Settings under which every test runs."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
