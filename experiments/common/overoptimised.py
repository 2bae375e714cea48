"""What runs are worth as they go away from where they began: where that is largest, and which law it follows."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pgjax.analysis.statistics import mean_interval

METHODS = ("REINFORCE", "best of n")
# Laws of two numbers, R(d) = d (α − β g(d)): Gao et al.'s of reinforcement learning, theirs of best-of-n, and nobody's.
LAWS = {"ln d": lambda d: np.log(np.where(d > 0, d, 1)), "d": lambda d: d, "d²": lambda d: d**2}


class Curves(NamedTuple):
    """What runs are worth as they go away from where they began, each [runs, points]."""

    kl: np.ndarray
    gold: np.ndarray  # above what the run's own supervised model is worth

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """√ of the mean KL and the mean gold reward, each [points]."""
        return np.sqrt(np.maximum(self.kl.mean(0), 0)), self.gold.mean(0)

    def peak(self) -> float:
        """The d at which the mean gold reward is largest."""
        d, gold = self.mean()
        return float(d[np.argmax(gold)])

    def peaks(self, resamples: int = 2000) -> np.ndarray:
        """That d where the runs are drawn from these runs again, [resamples]; of all curves the same ones."""
        drawn = np.random.default_rng(0).integers(len(self.gold), size=(resamples, len(self.gold)))
        return np.asarray([Curves(self.kl[runs], self.gold[runs]).peak() for runs in drawn])

    def at_peak(self) -> np.ndarray:
        """What each run is worth where the mean of all others is largest, [runs]: its point is not chosen on it."""
        others = self.gold.sum(0) - self.gold
        return self.gold[np.arange(len(others)), np.argmax(others, axis=1)]

    def error(self, law: str) -> np.ndarray:
        """How far each run's curve is from a law that was fitted to every other point of it, [runs].

        The root of the mean square over the points between, in units of the gold reward.
        """
        found = []
        for kl, gold in zip(self.kl, self.gold, strict=True):
            d = np.sqrt(np.maximum(kl, 0))
            terms = np.stack([d, -d * LAWS[law](d)], axis=1)
            fitted, *_ = np.linalg.lstsq(terms[::2], gold[::2], rcond=None)
            found.append(np.sqrt(np.mean((terms[1::2] @ fitted - gold[1::2]) ** 2)))
        return np.asarray(found)


def bounds(values: np.ndarray) -> list[float]:
    """The 2.5th and 97.5th percentile of resampled values."""
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def row_of(curves: Curves, method: str, **what: Any) -> dict[str, Any]:
    """Where the gold reward of curves is largest, how it ends, and how far the laws are from it, as plain numbers."""
    d, gold = curves.mean()
    return {
        **what,
        "method": method,
        "peak": curves.peak(),
        "peak_interval": bounds(curves.peaks()),
        "peak_gold": mean_interval(curves.at_peak()),
        "last": float(d[-1]),
        "last_gold": mean_interval(curves.gold[:, -1]),
        "errors": {law: float(curves.error(law).mean()) for law in LAWS},
        "curve": {"d": np.round(d, 4).tolist(), "gold": np.round(gold, 4).tolist()},
    }


def trends_of(cells: Mapping[tuple[str, int, int], Curves]) -> list[dict[str, Any]]:
    """What the widest reward models, and the most comparisons, change of the peak, averaged over all else."""
    found = []
    for method, (what, at) in itertools.product(METHODS, {"width of the reward model": 1, "comparisons": 2}.items()):
        values = sorted({cell[at] for cell in cells})
        less, more = (
            [curves for cell, curves in cells.items() if cell[0] == method and cell[at] == value]
            for value in (values[0], values[-1])
        )

        def change(of: Callable[[Curves], Any], less: list[Curves] = less, more: list[Curves] = more) -> np.ndarray:
            return np.mean([of(curves) for curves in more], axis=0) - np.mean([of(curves) for curves in less], axis=0)

        found.append(
            {
                "method": method,
                "what": what,
                "from": values[0],
                "to": values[-1],
                "peak": float(change(Curves.peak)),
                "peak_interval": bounds(change(Curves.peaks)),
                "peak_gold": mean_interval(change(Curves.at_peak)),
            }
        )
    return found


def laws_of(method: str, cells: list[Curves]) -> dict[str, Any]:
    """How much further the laws are from curves than the one that Gao et al. found for the method."""
    errors = {law: np.mean([curves.error(law) for curves in cells], axis=0) for law in LAWS}
    own = dict(zip(METHODS, LAWS, strict=False))[method]
    more = {law: mean_interval(error - errors[own]) for law, error in errors.items() if law != own}
    return {"method": method, "law": own, "error": mean_interval(errors[own]), "more_with": more}
