"""Spaces of hyper-parameters, and designs: the points of a space that are tried."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy

from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_in
from pgjax.trees import PyTree


class Range(NamedTuple):
    """What a hyper-parameter may be: any number from low to high, evenly on a logarithmic or on a linear scale."""

    low: float
    high: float
    log: bool = True

    def at(self, place: np.ndarray) -> np.ndarray:
        """The numbers at places from 0, the lowest, to 1."""
        if self.log:
            return np.asarray(self.low * (self.high / self.low) ** place)
        return np.asarray(self.low + (self.high - self.low) * place)

    def place(self, number: np.ndarray) -> np.ndarray:
        """The places of numbers, the inverse of `at`."""
        if self.log:
            return np.asarray(np.log(number / self.low) / math.log(self.high / self.low))
        return np.asarray((number - self.low) / (self.high - self.low))


Space = Mapping[str, Range]
Points = dict[str, np.ndarray]  # {name: [points]}


def check_space(space: Space, hyperparameters: PyTree) -> None:
    """Raise unless a space has a range of one or more hyper-parameters, each of numbers that it can be.

    Raises:
        InputError: If not.
    """
    if not space:
        raise InputError("expected a range of one or more hyper-parameters, got none")
    for name, (low, high, log) in space.items():
        least = "above 0 " if log else ""
        if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not log)):
            raise InputError(f"expected a range of {name} from a number {least}to a larger one, got {low} to {high}")
    numbers_in(hyperparameters, {name: (low, high) for name, (low, high, _) in space.items()})


def sobol_points(space: Space, points: int, seed: int) -> Points:
    """Points of a scrambled Sobol sequence, {name: [points]}: spread more evenly than random ones.

    Of a power of two of them, every half, quarter and so on of a range has an equal share.

    Sources: Sobol, *On the distribution of points in a cube and the approximate evaluation of integrals*, 1967; Owen,
    *Scrambling Sobol and Niederreiter-Xing points*, 1998.

    Example:
        >>> rates = sobol_points({"learning_rate": Range(1e-4, 1.0)}, points=4, seed=0)["learning_rate"]
        >>> np.floor(np.log10(np.sort(rates))).tolist()
        [-4.0, -3.0, -2.0, -1.0]
    """
    sequence = scipy.stats.qmc.Sobol(len(space), rng=np.random.default_rng(seed))
    return points_at(space, sequence.random_base2(math.ceil(math.log2(points)))[:points])


def random_points(space: Space, points: int, seed: int) -> Points:
    """Points drawn independently of each other, {name: [points]}.

    Source: Bergstra & Bengio, *Random search for hyper-parameter optimization*, JMLR 13, 2012.
    """
    return points_at(space, np.random.default_rng(seed).random((points, len(space))))


def points_at(space: Space, places: np.ndarray) -> Points:
    """The points of a space at places [points, names] from 0 to 1; of six digits, so that a table names them exactly.

    Example:
        >>> points_at({"discount": Range(0.9, 1.0, log=False)}, np.array([[0.0], [0.5]]))["discount"].tolist()
        [0.9, 0.95]
    """
    found = {}
    for (name, numbers), place in zip(space.items(), places.T, strict=True):
        short = [float(f"{number:.6g}") for number in numbers.at(place)]
        found[name] = np.clip(short, numbers.low, numbers.high)
    return found
