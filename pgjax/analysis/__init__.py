"""What is made of results: statistics over seeds, figures, animations.

What is listed here is public; the rest may change.
"""

from pgjax.analysis.plotting import compare_learning_curves, learning_curves
from pgjax.analysis.rendering import play, save_animation, save_frame, save_frames
from pgjax.analysis.statistics import (
    confidence_interval,
    failed,
    final_return,
    interquartile_mean,
    mean_interval,
    proportion_interval,
    summarize,
    tolerance_interval,
)

__all__ = [
    "compare_learning_curves",
    "confidence_interval",
    "failed",
    "final_return",
    "interquartile_mean",
    "learning_curves",
    "mean_interval",
    "play",
    "proportion_interval",
    "save_animation",
    "save_frame",
    "save_frames",
    "summarize",
    "tolerance_interval",
]
