"""A reward that is computed on the host, by a function in Python: a program's tests, a parser, another model's verdict.

The texts leave the device when they are whole, are decoded and handed to the function, and its numbers go back, in the
midst of a compiled program. Meanwhile the device waits. Under `vmap` the texts of all runs arrive in one call.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import HostError, InputError, first_line
from pgjax.text.environment import Judge, Judgement, Texts
from pgjax.text.tokens import EOS, PAD
from pgjax.trees import PyTree

SHOWN = 60  # characters of a text that an error quotes
# Bytes of an array that a callback gets. JAX copies larger ones in the background, by the very threads that wait for
# the callbacks of all devices to return, if there are no more of them: then all wait for ever (2 cores, 2 devices).
PIECE = 2**16


class HostText(NamedTuple):
    """A whole text, as a function on the host gets it."""

    prompt: str
    output: str
    ended: bool  # whether it ended by itself, with eos
    number: int  # which of the prompts it goes on from, to look up what belongs to it


HostFunction = Callable[[Sequence[HostText]], Sequence[Any]]


def host_reward(function: HostFunction, decode: Callable[[Any], str], time_limit: float = 60.0) -> Judge:
    """The judge whose reward a function in Python computes, for E texts at a time, or those of all runs of a batch.

    What it says must depend on the texts alone: how often and when it is called, and with which other texts, the
    compiler decides. It is called by one thread at a time. Its numbers are not differentiated.

    Args:
        function: From texts to as many finite numbers, in their order.
        decode: From tokens [n] to a text, such as a tokenizer's.
        time_limit: Seconds that a call may take. What takes longer is left running while the program ends.

    Raises:
        InputError: If the time limit is not above 0.
        HostError: From `sweep`, if the function fails, takes too long or returns anything else; it says of which text.
            Elsewhere JAX raises a `JaxRuntimeError` that quotes it, see `pgjax.errors.raised_on_host`.

    Example:
        >>> from pgjax.text.tokens import tokenizer_for
        >>> from pgjax.text.environment import Texts
        >>> judge = host_reward(lambda texts: [text.output.count("a") for text in texts], tokenizer_for("ab").decode)
        >>> tokens = jnp.array([[1, 3, 3, 2], [1, 4, 3, 0]])  # bos, then aa and an end, or ba
        >>> texts = Texts(tokens, jnp.array([[False, True, True, True], [False, True, True, False]]), jnp.arange(2))
        >>> judge(texts, ()).reward.tolist()
        [2.0, 1.0]
    """
    if not time_limit > 0:
        raise InputError(f"expected a time limit above 0 s for a reward on the host, got {time_limit}")
    one_at_a_time = threading.Lock()

    def called(*pieces: Any) -> np.ndarray:
        rows = np.concatenate([np.asarray(piece) for piece in pieces])
        texts = [
            HostText(
                prompt=decode(~row[1:][row[1:] < ~PAD]),
                output=decode(row[1:][row[1:] >= 0]),
                ended=bool((row[1:] == EOS).any()),
                number=int(row[0]),
            )
            for row in rows
        ]
        with one_at_a_time:
            return within(time_limit, lambda: checked(function, texts), texts)

    @jax.custom_batching.custom_vmap
    def rewards(rows: jax.Array) -> jax.Array:
        pieces = jnp.array_split(rows, min(len(rows), -(-rows.size * rows.dtype.itemsize // PIECE)))
        return jax.pure_callback(called, jax.ShapeDtypeStruct(rows.shape[:1], jnp.result_type(float)), *pieces)

    @rewards.def_vmap
    def of_all_runs(runs: int, _: Any, rows: jax.Array) -> tuple[jax.Array, bool]:
        return rewards(rows.reshape(-1, rows.shape[-1])).reshape(runs, -1), True

    def judge(texts: Texts, params: PyTree) -> Judgement:
        # A row is the number of its prompt and the text: ~token in the prompt, which is below 0, token in the output.
        coded = jnp.where(texts.output, texts.tokens, ~texts.tokens)
        return Judgement(rewards(jnp.concatenate([texts.prompt[:, None], coded], axis=1)))

    return judge


def checked(function: HostFunction, texts: Sequence[HostText]) -> np.ndarray:
    """What a function says of texts, [n].

    Raises:
        HostError: If it fails, or returns anything but a finite number for each.
    """
    try:
        said = list(function(texts))
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise HostError(f"expected a reward of {quoted(failing(function, texts))}, got {what}") from error
    if len(said) != len(texts):
        raise HostError(f"expected {len(texts)} rewards for {len(texts)} texts, got {len(said)}")
    rewards = np.full(len(said), np.nan, jnp.result_type(float))
    for i, number in enumerate(said):
        with contextlib.suppress(TypeError, ValueError), np.errstate(over="ignore"):
            rewards[i] = np.nan if isinstance(number, str | bytes) else number
        if not np.isfinite(rewards[i]):
            raise HostError(f"expected a finite number as the reward of {quoted(texts[i])}, got {number!r}")
    return rewards


def failing(function: HostFunction, texts: Sequence[HostText]) -> HostText:
    """The first of some texts of which a function fails alone, or the first of all."""
    for text in texts:
        try:
            function([text])
        except Exception:
            return text
    return texts[0]


def within(seconds: float, call: Callable[[], np.ndarray], texts: Sequence[HostText]) -> np.ndarray:
    """What a call returns, or raises.

    Raises:
        HostError: If it takes longer; its thread, which nothing can stop, does not keep the program from ending.
    """
    answers: queue.SimpleQueue[tuple[np.ndarray | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        found, error = answers.get(timeout=seconds)
    except queue.Empty:
        told = f"got none; the first is {quoted(texts[0])}"
        raise HostError(f"expected rewards of {len(texts)} texts within {seconds:g} s, {told}") from None
    if error is not None:
        raise error
    assert found is not None
    return found


def quoted(text: HostText) -> str:
    """A text as an error quotes it, in one line."""
    prompt, output = (part if len(part) <= SHOWN else part[: SHOWN - 1] + "…" for part in (text.prompt, text.output))
    return f"the output {output!r} to the prompt {prompt!r}"
