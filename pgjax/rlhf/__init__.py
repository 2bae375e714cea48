"""Reinforcement learning from human feedback: gold rewards, rankings, reward models, and the loop of all three.

What is listed here is public; the rest may change.
"""

from pgjax.rlhf.direct import Direct, implicit_reward
from pgjax.rlhf.diversity import distinct_n, self_overlap
from pgjax.rlhf.formats import RankingLine, ranking_lines, save_preferences, task_id
from pgjax.rlhf.gold import Gold, common_words, grammar_gold, length_gold, letter_share, output_of, word_values
from pgjax.rlhf.learned_reward import LearnedReward, fit_reward
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
from pgjax.rlhf.reliability import (
    Estimate,
    Verdicts,
    accuracy_bound,
    agreement_of,
    alpha_of,
    cohen_kappa,
    first_shown_chosen,
    kappas_of,
    krippendorff_alpha,
    position_bias,
    self_consistency,
    verdicts,
)
from pgjax.rlhf.reward_models import (
    RewardModel,
    ensemble_score,
    preference_disagreement,
    reward_model,
    reward_modelling,
    scores_of,
)
from pgjax.rlhf.scaling_laws import Fit, fit_best_of_n, fit_rl, predict_best_of_n, predict_rl
from pgjax.rlhf.selection import best_of_n, best_of_n_kl
from pgjax.rlhf.settings import FeedbackHyperparameters, FeedbackSettings

__all__ = [
    "Annotators",
    "Calibration",
    "Direct",
    "Estimate",
    "Evaluation",
    "Feedback",
    "FeedbackHyperparameters",
    "FeedbackSettings",
    "Fit",
    "Gold",
    "LearnedReward",
    "RankingLine",
    "Rankings",
    "RewardModel",
    "Tuned",
    "Verdicts",
    "accuracy_bound",
    "agreement_of",
    "alpha_of",
    "bayes_accuracy",
    "best_of_n",
    "best_of_n_kl",
    "calibration",
    "cohen_kappa",
    "common_words",
    "distinct_n",
    "ensemble_score",
    "feedback",
    "first_shown_chosen",
    "fit_best_of_n",
    "fit_reward",
    "fit_rl",
    "grammar_gold",
    "implicit_reward",
    "kappas_of",
    "krippendorff_alpha",
    "length_gold",
    "letter_share",
    "load_rankings",
    "output_of",
    "pair_accuracy",
    "plackett_luce_loss",
    "position_bias",
    "predict_best_of_n",
    "predict_rl",
    "preference_disagreement",
    "preferred",
    "rank",
    "ranking_lines",
    "reward_model",
    "reward_modelling",
    "save_preferences",
    "save_rankings",
    "scores_of",
    "self_consistency",
    "self_overlap",
    "split_by_prompt",
    "task_id",
    "tastes",
    "utilities",
    "verdicts",
    "word_values",
]
