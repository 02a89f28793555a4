"""Pairs of sequences as arrays: what is given, and what is wanted for it.

Slides: deck 003, "Sequence to sequence".

Shapes: N pairs, S tokens of the longest source, T of the longest target.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dl_lectures.types import UsageError

PAD, START, STOP = range(3)


class Pairs(NamedTuple):
  """Sequences and those that they are to become.

  Attributes:
    source: [N, S] int32, padded on the right with PAD.
    lengths: [N] int32, of the sources.
    target: [N, T + 2] int32: START, the target, STOP, then PAD.
  """

  source: np.ndarray
  lengths: np.ndarray
  target: np.ndarray


def pack(
  sources: Sequence[Sequence[int]],
  targets: Sequence[Sequence[int]],
  longest: tuple[int, int] | None = None,
) -> Pairs:
  """Lists of tokens as arrays.

  >>> some = pack([[5, 6], [7]], [[8], [9, 9]])
  >>> some.source.tolist(), some.lengths.tolist(), some.target.tolist()
  ([[5, 6], [7, 0]], [2, 1], [[1, 8, 2, 0], [1, 9, 9, 2]])

  Args:
    sources: N of them, none empty.
    targets: as many.
    longest: (S, T); by default those of the longest that there are.

  Raises:
    UsageError: an empty source, or one of more tokens than there is room for.
  """
  if not sources or not all(map(len, sources)):
    raise UsageError('an empty source; at least 1 token is possible')
  found = max(map(len, sources)), max(map(len, targets))
  room = longest or found
  for kind, here, possible in zip(
    ('source', 'target'), found, room, strict=True
  ):
    if here > possible:
      raise UsageError(
        f'a {kind} of {here} tokens; 1 to {possible} is possible'
      )
  source = np.full((len(sources), room[0]), PAD, np.int32)
  target = np.full((len(sources), room[1] + 2), PAD, np.int32)
  for i, (given, wanted) in enumerate(zip(sources, targets, strict=True)):
    source[i, : len(given)] = given
    target[i, : len(wanted) + 2] = [START, *wanted, STOP]
  lengths = np.array([len(given) for given in sources], np.int32)
  return Pairs(source, lengths, target)


def pick(pairs: Pairs, which: np.ndarray | slice) -> Pairs:
  """Some of the pairs, by their numbers."""
  return Pairs(*(leaf[which] for leaf in pairs))


def shuffled(
  pairs: Pairs, batch_size: int, seed: int, step: int
) -> Iterator[Pairs]:
  """All pairs in a new order again and again; batch i depends on (seed, i).

  >>> some = pack([[5], [6], [7]], [[5], [6], [7]])
  >>> epoch = [batch.source[0, 0] for _, batch in zip(
  ...   range(3), shuffled(some, batch_size=1, seed=0, step=0))]
  >>> sorted(map(int, epoch))
  [5, 6, 7]

  Args:
    pairs: N of them.
    batch_size: B; the N mod B that are left over wait for another order.
    seed: of the orders.
    step: batches before this one are left out.

  Yields:
    B pairs.

  Raises:
    UsageError: B is larger than N.
  """
  count = len(pairs.source)
  if batch_size > count:
    raise UsageError(
      f'a batch of {batch_size} of {count} pairs; 1 to {count} is possible'
    )
  each = count // batch_size
  while True:
    epoch, place = divmod(step, each)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    for start in range(place * batch_size, each * batch_size, batch_size):
      yield pick(pairs, order[start : start + batch_size])
      step += 1
