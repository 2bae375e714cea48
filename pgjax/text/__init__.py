"""Text: tokens, corpora, the environment whose episodes are texts, and language models.

What is listed here is public; the rest may change.
"""

from pgjax.text.arithmetic import Additions, additions, answer_check, worked, worked_examples
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
from pgjax.text.decoder import transformer, transformer_value
from pgjax.text.environment import Judgement, TextParams, Texts, outputs, text_environment, written
from pgjax.text.generation import generate
from pgjax.text.grammars import Grammar, grammar
from pgjax.text.host import HostText, host_reward
from pgjax.text.json_lines import prompt_of
from pgjax.text.language_models import language_model, mean_log_prob, next_tokens, pretraining
from pgjax.text.layouts import GPT2, LLAMA, PLAIN, Layout, TransformerConfig
from pgjax.text.subwords import Subwords, load_subwords, train_subwords
from pgjax.text.tokens import BOS, EOS, PAD, Characters, Tokenizer, left_padded, right_padded, tokenizer_for
from pgjax.text.weights import load_gpt2, load_weights, save_gpt2, save_weights

__all__ = [
    "BOS",
    "EOS",
    "GPT2",
    "LLAMA",
    "PAD",
    "PLAIN",
    "Additions",
    "Characters",
    "Corpus",
    "Grammar",
    "HostText",
    "Judgement",
    "Layout",
    "Pair",
    "Subwords",
    "TextParams",
    "Texts",
    "Tokenizer",
    "TransformerConfig",
    "additions",
    "answer_check",
    "digest",
    "generate",
    "grammar",
    "grammar_corpus",
    "host_reward",
    "language_model",
    "left_padded",
    "load_gpt2",
    "load_pairs",
    "load_subwords",
    "load_weights",
    "mean_log_prob",
    "next_tokens",
    "outputs",
    "pairs_corpus",
    "pretraining",
    "prompt_of",
    "python_docs",
    "read_text",
    "right_padded",
    "save_gpt2",
    "save_weights",
    "text_corpus",
    "text_environment",
    "tokenizer_for",
    "train_subwords",
    "transformer",
    "transformer_value",
    "worked",
    "worked_examples",
    "written",
]
