"""What a researcher sees of a collection while it goes on."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from pgjax.rlhf.formats import RankingLine
from pgjax.rlhf.reliability import (
    Estimate,
    accuracy_bound,
    agreement_of,
    alpha_of,
    first_shown_chosen,
    kappas_of,
    position_bias,
    self_consistency,
    verdicts,
)

LATELY = 600.0  # seconds over which the rate is taken
MOST_KAPPAS = 8  # annotators, every two of whom are compared


def report(lines: Sequence[RankingLine], now: float, made: int, goal: int | None) -> dict[str, Any]:
    """Rankings by annotator, agreement, position bias, and the minutes that are left, as JSON has them.

    Args:
        lines: All answers that count.
        now: Seconds since 1970.
        made: Rankings of this round so far.
        goal: How many are wanted, if that is known.
    """
    said = verdicts(lines)
    agreement = agreement_of(said)
    asked = [str(line.more["asked"]) for line in lines if line.ranking and "asked" in line.more]
    recent = [now - when for line in lines if (when := time_of(line)) is not None and now - when < LATELY]
    rate = len(recent) / max(recent) if len(recent) > 1 and max(recent) > 0 else None  # a second
    some = said._replace(annotators=said.annotators[:MOST_KAPPAS], table=said.table[:MOST_KAPPAS])
    return {
        "made": made,
        "goal": goal,
        "minutes_left": None if rate is None or goal is None else max(0, goal - made) / rate / 60,
        "annotators": [of_annotator(who, list(theirs)) for who, theirs in _by_annotator(lines)],
        "alpha": plain(alpha_of(said)),
        "agreement": plain(agreement),
        "bound": None if agreement.value is None else accuracy_bound(agreement.value),
        "kappas": [{"between": list(both), **plain(kappa)} for both, kappa in kappas_of(some).items()],
        "first_chosen": plain(first_shown_chosen(lines)),
        "position_bias": plain(position_bias(lines)),
        "self_consistency": plain(self_consistency(lines)),
        "asked": dict(Counter(asked)),
    }


def time_of(line: RankingLine) -> float | None:
    """Seconds since 1970 at which a ranking was made, if it says."""
    try:
        return datetime.fromisoformat(str(line.more.get("time", ""))).timestamp()
    except ValueError:
        return None


def _by_annotator(lines: Sequence[RankingLine]) -> Any:
    return itertools.groupby(sorted(lines, key=lambda line: line.annotator), key=lambda line: line.annotator)


def of_annotator(name: str, lines: Sequence[RankingLine]) -> dict[str, Any]:
    """What one annotator did."""
    seconds = [float(line.more["seconds"]) for line in lines if "seconds" in line.more]
    return {
        "annotator": name,
        "rankings": sum(bool(line.ranking) and not line.more.get("again") for line in lines),
        "again": sum(bool(line.more.get("again")) for line in lines),
        "skips": sum(not line.ranking for line in lines),
        "ties": sum(bool(line.ties()) for line in lines),
        "seconds": float(np.median(seconds)) if seconds else None,
        "position_bias": plain(position_bias(lines)),
        "self_consistency": plain(self_consistency(lines)),
    }


def plain(estimate: Estimate) -> Mapping[str, float | int | None]:
    """An estimate as JSON has it."""
    return estimate._asdict()
