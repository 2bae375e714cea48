"""Reinforcement learning from human feedback: gold rewards, rankings, reward models, and the loop of all three.

What is listed here is public; the rest may change.
"""

from pgjax.rlhf.direct import Direct, implicit_reward
from pgjax.rlhf.diversity import distinct_n, self_overlap
from pgjax.rlhf.gold import Gold, common_words, grammar_gold, length_gold, letter_share, output_of, word_values
from pgjax.rlhf.learned_reward import LearnedReward
from pgjax.rlhf.likelihood import (
    Calibration,
    bayes_accuracy,
    calibration,
    pair_accuracy,
    plackett_luce_loss,
    preferred,
)
from pgjax.rlhf.loop import Evaluation, Feedback, Tuned, feedback
from pgjax.rlhf.preferences import Annotators, Rankings, rank, split_by_prompt, tastes, utilities
from pgjax.rlhf.rankings_io import load_rankings, save_rankings
from pgjax.rlhf.reward_models import RewardModel, ensemble_score, reward_model, reward_modelling, scores_of
from pgjax.rlhf.scaling_laws import Fit, fit_best_of_n, fit_rl, predict_best_of_n, predict_rl
from pgjax.rlhf.selection import best_of_n, best_of_n_kl
from pgjax.rlhf.settings import FeedbackHyperparameters, FeedbackSettings

__all__ = [
    "Annotators",
    "Calibration",
    "Direct",
    "Evaluation",
    "Feedback",
    "FeedbackHyperparameters",
    "FeedbackSettings",
    "Fit",
    "Gold",
    "LearnedReward",
    "Rankings",
    "RewardModel",
    "Tuned",
    "bayes_accuracy",
    "best_of_n",
    "best_of_n_kl",
    "calibration",
    "common_words",
    "distinct_n",
    "ensemble_score",
    "feedback",
    "fit_best_of_n",
    "fit_rl",
    "grammar_gold",
    "implicit_reward",
    "length_gold",
    "letter_share",
    "load_rankings",
    "output_of",
    "pair_accuracy",
    "plackett_luce_loss",
    "predict_best_of_n",
    "predict_rl",
    "preferred",
    "rank",
    "reward_model",
    "reward_modelling",
    "save_rankings",
    "scores_of",
    "self_overlap",
    "split_by_prompt",
    "tastes",
    "utilities",
    "word_values",
]
