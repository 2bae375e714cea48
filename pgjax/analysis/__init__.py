"""What is made of results: statistics over seeds, figures, animations.

What is listed here is public; the rest may change.
"""

from pgjax.analysis.comparison_plots import difference_curves, grid_map, profile_curves, sensitivity_curves
from pgjax.analysis.comparisons import (
    Difference,
    compare_methods,
    difference,
    holm,
    permutation_p,
    probability_of_improvement,
)
from pgjax.analysis.intervals import Estimate
from pgjax.analysis.planning import Advice, more_seeds, seeds_needed
from pgjax.analysis.plotting import compare_learning_curves, learning_curves
from pgjax.analysis.rendering import play, save_animation, save_frame, save_frames
from pgjax.analysis.speed import (
    Reached,
    ReachedShare,
    area_under_curve,
    log_rank,
    median_steps,
    share_reached,
    steps_to_return,
)
from pgjax.analysis.statistics import (
    common_steps,
    confidence_interval,
    failed,
    final_return,
    interquartile_mean,
    mean_interval,
    pass_at_k,
    proportion_interval,
    standard_error,
    summarize,
    tolerance_interval,
)
from pgjax.analysis.tasks import aggregate_score, average_improvement, normalized_scores, performance_profile

__all__ = [
    "Advice",
    "Difference",
    "Estimate",
    "Reached",
    "ReachedShare",
    "aggregate_score",
    "area_under_curve",
    "average_improvement",
    "common_steps",
    "compare_learning_curves",
    "compare_methods",
    "confidence_interval",
    "difference",
    "difference_curves",
    "failed",
    "final_return",
    "grid_map",
    "holm",
    "interquartile_mean",
    "learning_curves",
    "log_rank",
    "mean_interval",
    "median_steps",
    "more_seeds",
    "normalized_scores",
    "pass_at_k",
    "performance_profile",
    "permutation_p",
    "play",
    "probability_of_improvement",
    "profile_curves",
    "proportion_interval",
    "save_animation",
    "save_frame",
    "save_frames",
    "seeds_needed",
    "sensitivity_curves",
    "share_reached",
    "standard_error",
    "steps_to_return",
    "summarize",
    "tolerance_interval",
]
