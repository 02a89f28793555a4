"""BLEU: how much of a translation stands in the reference, by n-grams.

Papineni, Roukos, Ward & Zhu, "BLEU: a method for automatic evaluation of
machine translation", ACL 2002, section 2.3:

    BLEU = BP exp(mean over n = 1 ... 4 of log p_n),   BP = min(1, e^(1 - r/c))

p_n is the share of the translations' n-grams that stand in their reference,
each at most as often as there; c and r are the lengths of all translations and
of all references. Counted over the whole corpus.

What a word is changes the figure, so it is fixed here as sacrebleu has it
(Post, "A call for clarity in reporting BLEU scores", WMT 2018), whose
`corpus_bleu` without further arguments gives the same number: case counts,
lines are cut as mteval-v13a cuts them, one reference each, and where an order
has no match at all, it gets half of one, the next such order a quarter, and so
on.
"""

import collections
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dl_lectures.types import UsageError

_ENTITIES = {'&quot;': '"', '&amp;': '&', '&lt;': '<', '&gt;': '>'}
# One after the other: ASCII that stands alone; full stops and commas, unless
# between digits; the hyphen after a digit.
_CUTS = (
  (re.compile(r'([!-&(-+:-@\[-`{-~/])'), r' \1 '),
  (re.compile(r'([^0-9])([.,])'), r'\1 \2 '),
  (re.compile(r'([.,])([^0-9])'), r' \1 \2'),
  (re.compile(r'([0-9])-'), r'\1 - '),
)


class Bleu(NamedTuple):
  """A score and what it is made of.

  Attributes:
    value: 0 to 100.
    precisions: p_1 to p_4, 0 to 1, smoothed where there is no match.
    brevity_penalty: BP.
  """

  value: float
  precisions: tuple[float, ...]
  brevity_penalty: float


def tokens(line: str) -> list[str]:
  """A line as mteval-v13a cuts it.

  >>> tokens('A 3.5-metre "wall", almost.')
  ['A', '3.5', '-', 'metre', '"', 'wall', '"', ',', 'almost', '.']
  """
  for entity, character in _ENTITIES.items():
    line = line.replace(entity, character)
  line = f' {line} '
  for pattern, parts in _CUTS:
    line = pattern.sub(parts, line)
  return line.split()


def count(translations: Sequence[str], references: Sequence[str]) -> np.ndarray:
  """What of each line BLEU is made of; it is a function of their sums.

  Args:
    translations: N lines.
    references: N lines.

  Returns:
    [N, 10] int64: for n = 1 to 4 the n-grams that stand in the reference, for
    n = 1 to 4 all n-grams, the words, and those of the reference.

  Raises:
    UsageError: not as many of both, or none.
  """
  if not translations or len(translations) != len(references):
    raise UsageError(
      f'{len(translations)} translations and {len(references)} references; as '
      'many of both, and at least one, are possible'
    )
  rows = []
  for translation, reference in zip(translations, references, strict=True):
    ours, theirs = tokens(translation), tokens(reference)
    grams = [(_ngrams(ours, n), _ngrams(theirs, n)) for n in range(1, 5)]
    found = [(own & other).total() for own, other in grams]
    total = [own.total() for own, _ in grams]
    rows.append([*found, *total, len(ours), len(theirs)])
  return np.array(rows, np.int64)


def score(counts: np.ndarray) -> Bleu:
  """BLEU from sums of counts, [10].

  >>> lines = ['the cat sat on the mat'], ['the cat sat on a mat']
  >>> round(score(count(*lines).sum(0)).value, 2)
  53.73
  """
  found, total = counts[:4].tolist(), counts[4:8].tolist()
  length, reference_length = counts[8:].tolist()
  penalty = 0.0
  if length:
    penalty = math.exp(min(0.0, 1 - reference_length / length))
  if not found[0]:
    return Bleu(0.0, (0.0,) * 4, penalty)
  precisions, credit = [], 1.0
  for matches, possible in zip(found, total, strict=True):
    if not matches:
      credit /= 2
    precisions.append((matches or credit) / possible if possible else 0.0)
  mean = math.prod(precisions) ** 0.25
  return Bleu(100 * penalty * mean, tuple(precisions), penalty)


def _ngrams(line: Sequence[str], n: int) -> collections.Counter:
  return collections.Counter(zip(*(line[i:] for i in range(n)), strict=False))
