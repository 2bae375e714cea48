"""Text: tokens, corpora, the environment whose episodes are texts, and language models.

What is listed here is public; the rest may change.
"""

from pgjax.text.corpora import (
    Corpus,
    Pair,
    digest,
    grammar_corpus,
    load_pairs,
    pairs_corpus,
    python_docs,
    read_text,
    text_corpus,
)
from pgjax.text.decoder import TransformerConfig, transformer, transformer_value
from pgjax.text.environment import Judgement, TextParams, outputs, text_environment, written
from pgjax.text.generation import generate
from pgjax.text.grammars import Grammar, grammar
from pgjax.text.json_lines import prompt_of
from pgjax.text.language_models import language_model, mean_log_prob, next_tokens, pretraining
from pgjax.text.subwords import Subwords, load_subwords, train_subwords
from pgjax.text.tokens import BOS, EOS, PAD, Characters, Tokenizer, left_padded, right_padded, tokenizer_for

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "Characters",
    "Corpus",
    "Grammar",
    "Judgement",
    "Pair",
    "Subwords",
    "TextParams",
    "Tokenizer",
    "TransformerConfig",
    "digest",
    "generate",
    "grammar",
    "grammar_corpus",
    "language_model",
    "left_padded",
    "load_pairs",
    "load_subwords",
    "mean_log_prob",
    "next_tokens",
    "outputs",
    "pairs_corpus",
    "pretraining",
    "prompt_of",
    "python_docs",
    "read_text",
    "right_padded",
    "text_corpus",
    "text_environment",
    "tokenizer_for",
    "train_subwords",
    "transformer",
    "transformer_value",
    "written",
]
