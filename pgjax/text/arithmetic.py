"""Additions that are worked out in text, digit by digit, and whose answer can be checked.

"47+85=" is a prompt, and "7+5+0=12,4+8+1=13#132" what is to follow it: from the last digit on, the two digits and the
carry, and their sum with two digits; then a mark and the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pgjax.checks import whole_number
from pgjax.errors import InputError
from pgjax.text.environment import Judge, Judgement, Texts
from pgjax.text.tokens import BOS, EOS, Characters, left_padded, right_padded
from pgjax.trees import PyTree

MARK = "#"  # stands before an answer
CHARACTERS = Characters("0123456789+=," + MARK)
LARGEST_SUM = 19  # of two digits and a carry


class Additions(NamedTuple):
    """N problems: to add two numbers of as many digits."""

    first: np.ndarray  # [N] int
    second: np.ndarray  # [N] int
    digits: np.ndarray  # [N] int, of each of the two

    @property
    def prompts(self) -> np.ndarray:
        """The problems as prompts, [N, W] int32: pads, bos, "47+85="."""
        width = 2 * int(self.digits.max()) + 3
        rows = [[BOS, *CHARACTERS.encode(f"{a}+{b}=")] for a, b, _ in self.rows()]
        return left_padded([np.asarray(row) for row in rows], width)

    @property
    def answers(self) -> np.ndarray:
        """What is to be written after the mark, [N, digits + 2] int32: the sum, eos, pads."""
        rows = [[*CHARACTERS.encode(str(a + b)), EOS] for a, b, _ in self.rows()]
        return right_padded([np.asarray(row) for row in rows], int(self.digits.max()) + 2)

    @property
    def length(self) -> int:
        """T, tokens of the longest right output, eos included."""
        return longest_output(int(self.digits.max()))

    def rows(self) -> list[tuple[int, int, int]]:
        """(first, second, digits) of each problem, as Python's integers."""
        return list(zip(self.first.tolist(), self.second.tolist(), self.digits.tolist(), strict=True))

    def part(self, chosen: slice) -> "Additions":
        """Some of the problems."""
        return Additions(*(field[chosen] for field in self))


def longest_output(digits: int) -> int:
    """T for numbers of so many digits: for each "7+5+0=12" and what follows it, then the answer and eos.

    Example:
        >>> longest_output(2) == len("7+5+0=12,4+8+1=13#132") + 1
        True
    """
    return 9 * digits + digits + 2


def additions(seed: int, n: int, digits: Sequence[int] = (1, 2, 3)) -> Additions:
    """N different problems, as many of each length as of the others, in random order.

    Args:
        seed: Of the draw.
        n: N, of all lengths together; that of each is N over the number of lengths, rounded up for the first of them.
        digits: Lengths of the numbers to add, each 1 to 9.

    Raises:
        InputError: If a length is out of range or there twice, or there are not so many different problems.

    Example:
        >>> problems = additions(seed=0, n=4, digits=(1, 2))
        >>> sorted(problems.digits.tolist()), problems.prompts.shape
        ([1, 1, 2, 2], (4, 7))
    """
    lengths = [whole_number("digits of a number to add", length, 1, 9) for length in digits]
    if not lengths or len(set(lengths)) < len(lengths):
        raise InputError(f"expected one or more lengths of numbers, each once, got {lengths}")
    whole_number("problems", n, 1)
    rng = np.random.default_rng([seed, 0])
    parts = []
    for i, length in enumerate(lengths):
        count = n // len(lengths) + (i < n % len(lengths))
        least, numbers = (10 ** (length - 1), 9 * 10 ** (length - 1)) if length > 1 else (0, 10)
        if count > numbers**2:
            raise InputError(f"expected at most {numbers**2} problems of {length} digits, got {count}")
        which = rng.choice(numbers**2, count, replace=False)
        parts.append(np.stack([least + which // numbers, least + which % numbers, np.full(count, length)]))
    first, second, size = rng.permutation(np.concatenate(parts, axis=1), axis=1)
    return Additions(first, second, size)


def worked(problems: Additions, seed: int = 0, noise: float = 0.0) -> list[str]:
    """Outputs that work the problems out, N texts.

    Args:
        problems: Which.
        seed: Of the mistakes.
        noise: Probability that a sum of digits is mistaken: it is one of the other numbers from 0 to 19 then, and the
            carry and all that follows is made of that, the answer too.

    Raises:
        InputError: If the noise is not from 0 to 1.

    Example:
        >>> worked(Additions(np.array([47]), np.array([85]), np.array([2])))
        ['7+5+0=12,4+8+1=13#132']
    """
    if not 0 <= noise <= 1:
        raise InputError(f"expected a probability of mistakes from 0 to 1, got {noise}")
    rng, texts = np.random.default_rng([seed, 1]), []
    for a, b, digits in problems.rows():
        steps, answer, carry = [], "", 0
        for place in range(digits):
            x, y = a // 10**place % 10, b // 10**place % 10
            total = x + y + carry
            if rng.random() < noise:
                total = (total + 1 + int(rng.integers(LARGEST_SUM))) % (LARGEST_SUM + 1)
            steps.append(f"{x}+{y}+{carry}={total:02d}")
            answer, carry = f"{total % 10}{answer}", total // 10
        texts.append(",".join(steps) + MARK + (f"{carry}" if carry else "") + answer)
    return texts


def worked_examples(problems: Additions, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Texts to learn from, [N, W + T] int32: bos, a problem, how it is worked out (see `worked`), eos, pads."""
    outputs = worked(problems, seed, noise)
    rows = [
        [BOS, *CHARACTERS.encode(f"{a}+{b}={output}"), EOS]
        for (a, b, _), output in zip(problems.rows(), outputs, strict=True)
    ]
    return right_padded([np.asarray(row) for row in rows], problems.prompts.shape[1] + problems.length)


def answer_check(mark: int) -> Judge:
    """The judge that gives 1 to an output whose first mark is followed by the right answer and eos, and 0 to others.

    What stands before the mark does not matter. It notes `answered`, whether there is a mark. The prompts' data are the
    answers, [N, A] int32: tokens, eos, pads.

    Args:
        mark: The token that stands before an answer.
    """

    def judge(texts: Texts, params: PyTree) -> Judgement:
        answer = texts.data
        marked = (texts.tokens == mark) & texts.output
        padded = jnp.pad(jnp.where(texts.output, texts.tokens, 0), ((0, 0), (0, answer.shape[1])))
        place = jnp.argmax(marked, axis=1)[:, None] + 1 + jnp.arange(answer.shape[1])[None]
        said = jnp.take_along_axis(padded, place, axis=1)
        answered = jnp.any(marked, axis=1)
        right = jnp.asarray(answered & jnp.all(said == answer, axis=1), float)
        return Judgement(right, {"answered": jnp.asarray(answered, float)})

    return judge
