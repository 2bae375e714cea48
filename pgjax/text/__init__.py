"""Text: tokens, corpora, the environment whose episodes are texts, and language models.

What is listed here is public; the rest may change.
"""

from pgjax.text.arithmetic import Additions, additions, answer_check, worked, worked_examples
from pgjax.text.corpora import Corpus, Grammar, digest, grammar, grammar_corpus, python_docs, read_text, text_corpus
from pgjax.text.decoder import TransformerConfig, transformer, transformer_value
from pgjax.text.environment import Judgement, TextParams, Texts, outputs, text_environment, written
from pgjax.text.host import HostText, host_reward
from pgjax.text.language_models import language_model, mean_log_prob, next_tokens, pretraining
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded, tokenizer_for

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "Additions",
    "Corpus",
    "Grammar",
    "HostText",
    "Judgement",
    "TextParams",
    "Texts",
    "Tokenizer",
    "TransformerConfig",
    "additions",
    "answer_check",
    "digest",
    "grammar",
    "grammar_corpus",
    "host_reward",
    "language_model",
    "left_padded",
    "mean_log_prob",
    "next_tokens",
    "outputs",
    "pretraining",
    "python_docs",
    "read_text",
    "right_padded",
    "text_corpus",
    "text_environment",
    "tokenizer_for",
    "transformer",
    "transformer_value",
    "worked",
    "worked_examples",
    "written",
]
