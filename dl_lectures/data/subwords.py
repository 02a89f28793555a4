"""Words in pieces: the frequent ones whole, the rare ones letter by letter.

Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword
units", ACL 2016, section 3.2: one starts from characters, and the two
neighbours that occur most often become one symbol, again and again. No word is
unknown then, and a vocabulary of thousands is enough.

A line is cut into runs of letters and digits, and single other characters; what
follows a blank begins with `BLANK`, so that nothing but the number of blanks is
lost:

    'A boy, 5.' -> '▁A' '▁boy' ',' '▁5' '.'

Slides: deck 003, "Sequence to sequence".
"""

import collections
import heapq
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dl_lectures.data.pairs import PAD, START, STOP
from dl_lectures.types import UsageError

# After the tokens of `data.pairs`: a character that was never seen.
UNKNOWN = 1 + max(PAD, START, STOP)
BLANK = '▁'
_SHOWN = {UNKNOWN: '\ufffd'}
_PIECES = re.compile(rf'{BLANK}?\w+|{BLANK}?[^\w{BLANK}]')


class Subwords(NamedTuple):
  """A vocabulary, and how words are put together from it.

  Attributes:
    symbols: token UNKNOWN + 1 + i is the i-th of them: characters, then what
      they were merged to.
    ranks: of two neighbours that become one, earlier merges first.
  """

  symbols: tuple[str, ...]
  ranks: dict[tuple[str, str], int]

  @property
  def size(self) -> int:
    """V, the number of tokens."""
    return UNKNOWN + 1 + len(self.symbols)


def words(line: str) -> list[str]:
  """A line in pieces that no symbol goes beyond.

  >>> words('A boy, 5.')
  ['▁A', '▁boy', ',', '▁5', '.']
  """
  return _PIECES.findall(''.join(BLANK + part for part in line.split()))


def learn(lines: Iterable[str], size: int) -> Subwords:
  """Merges the most frequent neighbours until there are `size` tokens.

  Of pairs as frequent the first in the alphabet is merged; none is that occurs
  only once.

  >>> vocabulary = learn(['low low low lower', 'newest newest'], size=17)
  >>> vocabulary.symbols[-4:]
  ('lo', 'low', '▁low', 'es')

  Args:
    lines: of text.
    size: V at most.

  Raises:
    UsageError: there are more characters than that, or none.
  """
  counts = collections.Counter(word for line in lines for word in words(line))
  symbols = sorted({character for word in counts for character in word})
  if not symbols:
    raise UsageError('lines without a word; one at least is possible')
  least = UNKNOWN + 1 + len(symbols)
  if size < least:
    raise UsageError(
      f'a vocabulary of {size}; at least {least} is possible, as so many '
      'characters occur'
    )
  pieces = {word: list(word) for word in counts}
  frequency: collections.Counter[tuple[str, str]] = collections.Counter()
  where = collections.defaultdict(set)
  for word, parts in pieces.items():
    for pair in itertools.pairwise(parts):
      frequency[pair] += counts[word]
      where[pair].add(word)
  # Entries that are no longer true are thrown away when they come up.
  heap = [(-count, pair) for pair, count in frequency.items()]
  heapq.heapify(heap)
  ranks: dict[tuple[str, str], int] = {}
  known = set(symbols)
  while heap and least + len(known) - len(symbols) < size:
    count, pair = heapq.heappop(heap)
    if -count != frequency[pair]:
      continue
    if -count < 2:
      break
    ranks[pair] = len(ranks)
    known.add(''.join(pair))
    touched = set()
    for word in where.pop(pair):
      before = pieces[word]
      after = _merge(before, pair)
      pieces[word] = after
      for parts, sign in ((before, -1), (after, 1)):
        for neighbours in itertools.pairwise(parts):
          frequency[neighbours] += sign * counts[word]
          touched.add(neighbours)
          if sign > 0:
            where[neighbours].add(word)
    for neighbours in touched:
      if frequency[neighbours] > 0:
        heapq.heappush(heap, (-frequency[neighbours], neighbours))
  merged = dict.fromkeys(''.join(pair) for pair in ranks)
  return Subwords(
    (*symbols, *(symbol for symbol in merged if symbol not in symbols)), ranks
  )


def _merge(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
  """The parts, with each occurrence of the pair as one."""
  merged: list[str] = []
  for part in parts:
    if merged and (merged[-1], part) == pair:
      merged[-1] += part
    else:
      merged.append(part)
  return merged


def encode(vocabulary: Subwords, lines: Iterable[str]) -> list[list[int]]:
  """Lines as tokens.

  >>> vocabulary = learn(['low low lower'], size=12)
  >>> encode(vocabulary, ['low owl', 'lox'])
  [[9, 11, 9, 6, 8, 5], [9, 10, 3]]
  """
  numbers = {s: UNKNOWN + 1 + i for i, s in enumerate(vocabulary.symbols)}
  seen: dict[str, list[int]] = {}
  found = []
  for line in lines:
    tokens: list[int] = []
    for word in words(line):
      if word not in seen:
        parts = _split(vocabulary, word)
        seen[word] = [numbers.get(part, UNKNOWN) for part in parts]
      tokens += seen[word]
    found.append(tokens)
  return found


def _split(vocabulary: Subwords, word: str) -> list[str]:
  """A word's symbols: the earliest merge that is possible, until none is."""
  parts = list(word)
  while len(parts) > 1:
    pair = min(
      itertools.pairwise(parts),
      key=lambda pair: vocabulary.ranks.get(pair, len(vocabulary.ranks)),
    )
    if pair not in vocabulary.ranks:
      break
    parts = _merge(parts, pair)
  return parts


def split(
  vocabulary: Subwords, tokens: np.ndarray | Sequence[int]
) -> list[str]:
  """Each token as it reads, up to STOP."""
  found = []
  for token in np.asarray(tokens).tolist():
    if token == STOP:
      break
    if token > UNKNOWN:
      found.append(vocabulary.symbols[token - UNKNOWN - 1])
    else:
      found.append(_SHOWN.get(token, ''))
  return found


def decode(vocabulary: Subwords, tokens: np.ndarray | Sequence[int]) -> str:
  """Tokens as a line, up to STOP.

  >>> vocabulary = learn(['low low lower'], size=12)
  >>> decode(vocabulary, [9, 11, 9, 6, 8, 5, STOP, 5])
  'low owl'
  """
  return ''.join(split(vocabulary, tokens)).replace(BLANK, ' ').strip()
