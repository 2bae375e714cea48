"""Reinforcement learning from human feedback: the same REINFORCE, on text, from rankings.

What is listed here is public; the rest may change.
"""

from pgjax.environments.text import Judgement, TextParams, outputs, text, written
from pgjax.policies.transformer import Sizes, transformer, transformer_value
from pgjax.rlhf.best_of_n import best_of_n, best_of_n_kl
from pgjax.rlhf.corpora import Corpus, Grammar, digest, grammar, grammar_corpus, python_docs, read_text, text_corpus
from pgjax.rlhf.diversity import distinct_n, self_overlap
from pgjax.rlhf.feedback import Evaluation, Feedback, LearnedReward, Tuned, feedback
from pgjax.rlhf.gold import Gold, common_words, grammar_gold, length_gold, letter_share, output_of, word_values
from pgjax.rlhf.overoptimisation import Fit, fit_best_of_n, fit_rl, predict_best_of_n, predict_rl
from pgjax.rlhf.preferences import (
    Annotators,
    Calibration,
    Rankings,
    accuracy_ceiling,
    calibration,
    load_rankings,
    pair_accuracy,
    plackett_luce_loss,
    preferred,
    rank,
    save_rankings,
    split_by_prompt,
    tastes,
    utilities,
)
from pgjax.rlhf.pretraining import language_model, mean_log_prob, next_tokens, pretraining
from pgjax.rlhf.reward_model import RewardModel, ensemble_score, reward_model, reward_modelling, scores_of
from pgjax.rlhf.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded, tokenizer_for

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "Annotators",
    "Calibration",
    "Corpus",
    "Evaluation",
    "Feedback",
    "Fit",
    "Gold",
    "Grammar",
    "Judgement",
    "LearnedReward",
    "Rankings",
    "RewardModel",
    "Sizes",
    "TextParams",
    "Tokenizer",
    "Tuned",
    "accuracy_ceiling",
    "best_of_n",
    "best_of_n_kl",
    "calibration",
    "common_words",
    "digest",
    "distinct_n",
    "ensemble_score",
    "feedback",
    "fit_best_of_n",
    "fit_rl",
    "grammar",
    "grammar_corpus",
    "grammar_gold",
    "language_model",
    "left_padded",
    "length_gold",
    "letter_share",
    "load_rankings",
    "mean_log_prob",
    "next_tokens",
    "output_of",
    "outputs",
    "pair_accuracy",
    "plackett_luce_loss",
    "predict_best_of_n",
    "predict_rl",
    "preferred",
    "pretraining",
    "python_docs",
    "rank",
    "read_text",
    "reward_model",
    "reward_modelling",
    "right_padded",
    "save_rankings",
    "scores_of",
    "self_overlap",
    "split_by_prompt",
    "tastes",
    "text",
    "text_corpus",
    "tokenizer_for",
    "transformer",
    "transformer_value",
    "utilities",
    "word_values",
    "written",
]
