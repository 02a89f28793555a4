"""Translators without a network, to see what one is worth.

Slides: deck 003, "Sequence to sequence".
"""

import collections
from collections.abc import Mapping, Sequence

from dl_lectures.data import subwords


def most_frequent(lines: Sequence[str]) -> str:
  """The line that occurs most often, the first of those.

  >>> most_frequent(['a man', 'a dog', 'a dog'])
  'a dog'
  """
  return collections.Counter(lines).most_common(1)[0][0]


def dictionary(
  sources: Sequence[str], targets: Sequence[str]
) -> dict[str, str]:
  """For each word the one that it most often meets, and few others do.

  The largest Dice coefficient: twice the number of pairs of lines that have
  both words, by the numbers of lines with either (Melamed, "Models of
  translational equivalence among words", Computational Linguistics 26, 2000,
  section 3).

  >>> dictionary(['ein Hund', 'ein Kind'], ['a dog', 'a child'])['▁Kind']
  '▁child'

  Args:
    sources: N lines.
    targets: N lines, what they are in the other language.

  Returns:
    Word -> word, as `subwords.words` cuts them.
  """
  here, there = collections.Counter(), collections.Counter()
  both: dict[str, collections.Counter] = collections.defaultdict(
    collections.Counter
  )
  for source, target in zip(sources, targets, strict=True):
    target_words = list(dict.fromkeys(subwords.words(target)))
    there.update(target_words)
    for word in dict.fromkeys(subwords.words(source)):
      here[word] += 1
      both[word].update(target_words)
  return {
    word: max(
      met, key=lambda other: 2 * met[other] / (here[word] + there[other])
    )
    for word, met in both.items()
    if met
  }


def word_by_word(meanings: Mapping[str, str], line: str) -> str:
  """A line with each word looked up; one that is not there stays.

  >>> word_by_word({'▁ein': '▁a', '▁Hund': '▁dog'}, 'ein Hund bellt')
  'a dog bellt'
  """
  found = [meanings.get(word, word) for word in subwords.words(line)]
  return ''.join(found).replace(subwords.BLANK, ' ').strip()
