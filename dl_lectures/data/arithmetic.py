"""Sums as two sequences of characters: '97+805' is to become '902'.

All problems with numbers up to a size are listed, and some are held out before
anything is drawn, so that none of those is ever learned from. Slides: deck 003,
"Sequence to sequence".
"""

import numpy as np

from dl_lectures.data.pairs import STOP, Pairs, pack
from dl_lectures.types import UsageError

SYMBOLS = '0123456789+'
NUM_TOKENS = 3 + len(SYMBOLS)


def encode(text: str) -> list[int]:
  """Characters as tokens.

  >>> encode('10+2')
  [4, 3, 13, 5]
  """
  return [3 + SYMBOLS.index(character) for character in text]


def decode(tokens: np.ndarray) -> str:
  """Tokens as characters, up to STOP.

  >>> decode(np.array([4, 3, STOP, 0]))
  '10'
  """
  text = ''
  for token in tokens:
    if token == STOP:
      break
    text += SYMBOLS[token - 3] if token >= 3 else '?'
  return text


def split(digits: int, num_held_out: int) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of problems to learn from, and of those held out.

  Number n is the problem n // 10^digits + n % 10^digits. The split is the same
  for every seed.

  Args:
    digits: of the largest summand.
    num_held_out: how many problems are held out.

  Raises:
    UsageError: digits out of 1 to 4, or nothing left to learn from.
  """
  if not 1 <= digits <= 4:
    raise UsageError(f'sums of {digits} digits; 1 to 4 are possible')
  count = 100**digits
  if not 0 < num_held_out < count:
    raise UsageError(
      f'{num_held_out} problems held out; 1 to {count - 1} are possible'
    )
  order = np.random.default_rng(0).permutation(count)
  return order[num_held_out:], order[:num_held_out]


def pairs(numbers: np.ndarray, digits: int) -> Pairs:
  """Problems by their numbers.

  Args:
    numbers: [N] integers.
    digits: of the largest summand; S = 2 digits + 1 and T = digits + 1.

  >>> some = pairs(np.array([97805]), 3)
  >>> decode(some.source[0][: some.lengths[0]]), decode(some.target[0][1:])
  ('97+805', '902')
  """
  problems = [divmod(number, 10**digits) for number in numbers.tolist()]
  return pack(
    [encode(f'{a}+{b}') for a, b in problems],
    [encode(str(a + b)) for a, b in problems],
    (2 * digits + 1, digits + 1),
  )
