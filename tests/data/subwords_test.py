"""Subwords: a plain reading of the paper as the oracle, and nothing is lost."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.data import subwords
from dl_lectures.data.pairs import PAD, START, STOP
from dl_lectures.types import UsageError

LINES = [
  'Two young, White males are outside near many bushes.',
  'Several men in hard hats are operating a giant pulley system.',
  "A boy's hat isn't the men's: 3.5 hats!",
  'the man and the woman and the other man',
]


def merged_by_counting_anew(lines, size):
  """Section 3.2, listing 1: all pairs are counted before each merge."""
  words = collections.Counter(w for line in lines for w in subwords.words(line))
  parts = {word: tuple(word) for word in words}
  symbols = {c for word in words for c in word}
  merges = []
  while subwords.UNKNOWN + 1 + len(symbols) < size:
    counts = collections.Counter()
    for word, symbol in parts.items():
      for i in range(len(symbol) - 1):
        counts[symbol[i : i + 2]] += words[word]
    best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
    if best is None or counts[best] < 2:
      break
    merges.append(best)
    symbols.add(best[0] + best[1])
    for word, symbol in parts.items():
      i, new = 0, []
      while i < len(symbol):
        wide = 2 if symbol[i : i + 2] == best else 1
        new.append(''.join(symbol[i : i + wide]))
        i += wide
      parts[word] = tuple(new)
  return merges, parts


@pytest.mark.parametrize('size', [45, 60, 80, 1000])
def test_merges_and_words_are_the_papers(size):
  vocabulary = subwords.learn(LINES, size)
  merges, parts = merged_by_counting_anew(LINES, size)
  assert list(vocabulary.ranks) == merges
  for word, symbols in parts.items():
    (tokens,) = subwords.encode(vocabulary, [word.replace(subwords.BLANK, ' ')])
    if word.startswith(subwords.BLANK):
      assert subwords.split(vocabulary, tokens) == list(symbols)
  assert vocabulary.size <= size
  assert len(set(vocabulary.symbols)) == len(vocabulary.symbols)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("aab ,.é'9-", min_size=1), min_size=1, max_size=4))
def test_a_line_comes_back_with_single_blanks(lines):
  lines = [' '.join(line.split()) for line in [*lines, 'a b']]
  vocabulary = subwords.learn(lines, 40)
  encoded = subwords.encode(vocabulary, lines)
  assert [subwords.decode(vocabulary, row) for row in encoded] == lines
  assert all(subwords.UNKNOWN < t < vocabulary.size for r in encoded for t in r)


def test_what_was_never_seen_is_shown_as_unknown():
  vocabulary = subwords.learn(['ab ab'], 10)
  (tokens,) = subwords.encode(vocabulary, ['aX b'])
  assert tokens.count(subwords.UNKNOWN) == 1
  assert subwords.decode(vocabulary, tokens) == 'a\ufffd b'


def test_reading_ends_at_the_end():
  vocabulary = subwords.learn(['ab ab'], 10)
  (tokens,) = subwords.encode(vocabulary, ['ab'])
  row = np.array([*tokens, STOP, *tokens, PAD, START])
  assert subwords.decode(vocabulary, row) == 'ab'


@pytest.mark.parametrize(
  ('lines', 'size', 'message'),
  [
    (['', ' '], 100, 'lines without a word'),
    (['abc'], 7, 'a vocabulary of 7; at least 8'),
  ],
)
def test_what_is_refused(lines, size, message):
  with pytest.raises(UsageError, match=message):
    subwords.learn(lines, size)
