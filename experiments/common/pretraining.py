"""Supervised pretraining, as the studies of language models have it."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

import pgjax
from common import launch

STEPS = 50  # gradient steps of an update


def pretrain(
    options: Any, algorithm: pgjax.Algorithm, configuration: Mapping[str, Any], run_devices: int = 1
) -> xr.Dataset:
    """The sweep of it, whose runs have keys of their own; its directory is `pretraining`.

    Args:
        options: A study's, with `pretraining` gradient steps, a `pretraining_rate` and a `block`.
        algorithm: What learns, `STEPS` gradient steps an update.
        configuration: What results depend on, beside these.
        run_devices: Devices over which each run is split.
    """
    return pgjax.sweep(
        algorithm,
        iterations=-(-options.pretraining // STEPS),
        seeds=launch.seeds_of(options),
        hyperparameters=algorithm.hyperparameters(learning_rate=options.pretraining_rate),
        study=launch.study_of_pretraining(options),
        out=options.out / "pretraining",
        configuration=configuration,
        block=options.block,
        run_devices=run_devices,
    )
