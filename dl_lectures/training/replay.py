"""Experience replay: a ring buffer for one lane, to be mapped over many.

A lane is one source of experience: a game, an environment. Its ring keeps the
newest `capacity` items and forgets the oldest. Everything here is unbatched,
pure and free of host traffic, so that `jax.vmap` gives a buffer of many lanes
[L, capacity, ...] that shards over its lanes, and a jitted step that donates
its state updates it in place.

A ring of `Lesson`s may be filled by `keep` instead of `append` and drawn from
by `sample_lessons` instead of `sample`: it then holds what is hardest rather
than what is newest, as the lessons buffer of RUDDER does (Arjona-Medina et al.,
NeurIPS 2019), where an episode's priority is the error of its predicted return.

Experience replay: Lin (1992), "Self-improving reactive agents"; as the window
of the last games it is the replay buffer of AlphaGo Zero (Silver et al. 2017,
Methods, "Optimization").
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.types import Array, UsageError


class Replay(NamedTuple):
  """One lane's ring.

  Attributes:
    items: a tree of [capacity, ...] arrays; the slots not yet written are 0.
    cursor: [] int32, the slot that the next item goes to.
    size: [] int32, the number of items held; 0 says that there is nothing.
  """

  items: Any
  cursor: Array
  size: Array


class Lesson(NamedTuple):
  """An item and how much there is to be learned from it.

  Attributes:
    item: a tree of arrays.
    priority: [] float32.
  """

  item: Any
  priority: Array


def init(item: Any, capacity: int) -> Replay:
  """An empty ring.

  Args:
    item: a tree of arrays (or of `jax.ShapeDtypeStruct`), the shapes and
      dtypes of one item; its values are not used.
    capacity: the number of items held.

  Returns:
    The ring; one item takes as many bytes as `item`.

  Raises:
    UsageError: if the capacity is not positive.

  >>> init({'x': jnp.zeros((3,), jnp.int8)}, capacity=5).items['x'].shape
  (5, 3)
  """
  if capacity < 1:
    raise UsageError(f'a replay of {capacity} items; at least 1 is possible')
  return Replay(
    items=jax.tree.map(
      lambda x: jnp.zeros((capacity, *x.shape), x.dtype), item
    ),
    cursor=jnp.zeros((), jnp.int32),
    size=jnp.zeros((), jnp.int32),
  )


def append(replay: Replay, items: Any, mask: Array) -> Replay:
  """Writes the rows of `items` that `mask` marks, in order, over the oldest.

  Args:
    replay: the ring.
    items: a tree of [n, ...] arrays, the oldest first; n <= capacity.
    mask: [n] bool, the rows that count (a game that ends early leaves rows
      without a meaning). The others leave no trace.

  Returns:
    The ring after it.

  Raises:
    UsageError: if the rows could outnumber the slots.
    ValueError: if the items' shapes or dtypes are not the ring's.

  >>> ring = init(jnp.float32(0), capacity=3)
  >>> rows, mask = jnp.array([1.0, 2.0, 3.0]), jnp.array([True, False, True])
  >>> append(ring, rows, mask).items.tolist()
  [1.0, 3.0, 0.0]
  """
  capacity = _capacity(replay)
  (n,) = mask.shape
  if n > capacity:
    raise UsageError(
      f'{n} items appended at once to a replay of {capacity}; '
      f'at most {capacity} are possible'
    )

  def check(ring: Array, x: Array) -> None:
    if x.shape != (n, *ring.shape[1:]) or x.dtype != ring.dtype:
      raise ValueError(
        f'items of {x.dtype}{list(x.shape)} appended to a ring that takes '
        f'{ring.dtype}{[n, *ring.shape[1:]]}'
      )

  jax.tree.map(check, replay.items, items)
  rank = jnp.cumsum(mask, dtype=jnp.int32)  # counts the row itself
  slot = (replay.cursor + rank - 1) % capacity
  # A row that does not count is sent past the end, each to a place of its own:
  # unique targets need no atomic updates on a GPU.
  slot = jnp.where(mask, slot, capacity + jnp.arange(n, dtype=jnp.int32))
  added = rank[-1] if n else jnp.int32(0)
  return Replay(
    items=jax.tree.map(
      lambda ring, x: ring.at[slot].set(x, mode='drop', unique_indices=True),
      replay.items,
      items,
    ),
    cursor=(replay.cursor + added) % capacity,
    size=jnp.minimum(replay.size + added, capacity),
  )


def sample(replay: Replay, uniform: Array) -> Any:
  """Draws items with replacement.

  The draw is ordered by age: 0 is the oldest item held and values close to 1
  the newest, so `uniform` may be shaped beforehand (`1 - .5 * uniform` draws
  from the newer half alone).

  Args:
    replay: the ring. One of size 0 gives zeros: check `size` first.
    uniform: [k] float in [0, 1), the caller's random numbers.

  Returns:
    A tree of [k, ...] arrays.

  >>> ring = init(jnp.float32(0), capacity=2)
  >>> ring = append(ring, jnp.array([7.0, 8.0]), jnp.array([True, True]))
  >>> sample(ring, jnp.array([0.6, 0.0, 0.9])).tolist()
  [8.0, 7.0, 8.0]
  """
  age = jnp.floor(uniform * replay.size).astype(jnp.int32)
  # The product may round up to `size` itself.
  age = jnp.clip(age, 0, jnp.maximum(replay.size - 1, 0))
  slot = (replay.cursor - replay.size + age) % _capacity(replay)
  return jax.tree.map(
    lambda ring: ring.at[slot].get(mode='promise_in_bounds'), replay.items
  )


def keep(replay: Replay, lessons: Lesson, mask: Array) -> Replay:
  """Writes lessons over those of lower priority; the order of time is nothing.

  The ring then holds the lessons of the highest priorities of both. Between
  equals the one that is there stays, or the first of those that come.

  Args:
    replay: a ring of lessons: `init(Lesson(item, jnp.float32(0)), capacity)`.
    lessons: [n, ...] arrays and [n] priorities, any n.
    mask: [n] bool, the rows that count. One whose priority is not finite does
      not.

  Returns:
    The ring after it.

  >>> ring = init(Lesson(jnp.int32(0), jnp.float32(0)), capacity=2)
  >>> new = Lesson(jnp.array([1, 2, 3]), jnp.array([0.5, 0.1, 0.9]))
  >>> ring = keep(ring, new, jnp.ones(3, bool))
  >>> sorted(ring.items.item.tolist()), int(ring.size)
  ([1, 3], 2)
  """
  capacity = _capacity(replay)
  held = jnp.arange(capacity) < replay.size
  old = jnp.where(held, replay.items.priority, -jnp.inf)
  counts = mask & jnp.isfinite(lessons.priority)
  new = jnp.where(counts, lessons.priority, -jnp.inf)
  # The best newcomer meets the worst lesson, the second best the second worst:
  # once one of them loses, all after it do.
  pairs = min(capacity, len(new))
  worst, best = jnp.argsort(old)[:pairs], jnp.argsort(-new)[:pairs]
  wins = new[best] > old[worst]
  slot = jnp.where(wins, worst, capacity + jnp.arange(pairs))
  size = replay.size + jnp.sum(wins & ~held[worst], dtype=jnp.int32)
  return Replay(
    items=jax.tree.map(
      lambda ring, x: ring.at[slot].set(
        x[best], mode='drop', unique_indices=True
      ),
      replay.items,
      lessons,
    ),
    cursor=jnp.where(
      replay.size == capacity, replay.cursor, size % capacity
    ).astype(jnp.int32),
    size=size,
  )


def sample_lessons(
  replay: Replay, uniform: Array, temperature: float
) -> tuple[Lesson, Array]:
  """Draws lessons with replacement, by softmax(priority / temperature).

  Args:
    replay: a ring of lessons. One of size 0 gives zeros: check `size` first.
    uniform: [k] float in [0, 1), the caller's random numbers.
    temperature: above 0, in units of the priorities; many times their
      differences is uniform.

  Returns:
    [k] lessons, and [k] int32, their slots, for `reprioritise`.

  >>> ring = init(Lesson(jnp.int32(0), jnp.float32(0)), capacity=4)
  >>> new = Lesson(jnp.array([1, 2]), jnp.array([1.0, 0.0]))  # .73 and .27
  >>> ring = keep(ring, new, jnp.ones(2, bool))
  >>> sample_lessons(ring, jnp.array([0.2, 0.7, 0.9]), 1.0)[0].item.tolist()
  [1, 1, 2]
  """
  held = jnp.arange(_capacity(replay)) < replay.size
  priority = replay.items.priority
  highest = jnp.max(priority, where=held, initial=jnp.finfo(jnp.float32).min)
  weight = jnp.where(held, jnp.exp((priority - highest) / temperature), 0.0)
  total = jnp.cumsum(weight)
  slot = jnp.searchsorted(total, uniform * total[-1], side='right')
  # The product may round up to the total.
  slot = jnp.clip(slot, 0, jnp.maximum(replay.size - 1, 0)).astype(jnp.int32)
  lessons = jax.tree.map(
    lambda ring: ring.at[slot].get(mode='promise_in_bounds'), replay.items
  )
  return lessons, slot


def reprioritise(replay: Replay, slot: Array, priority: Array) -> Replay:
  """Tells lessons their new priorities, once they have been learned from.

  Args:
    replay: a ring of lessons.
    slot: [k] int32, of `sample_lessons`; a slot that occurs twice must have the
      same priority both times.
    priority: [k] float32. What is not finite becomes the lowest of all: such a
      lesson is drawn last and goes first.

  Returns:
    The ring after it.

  >>> ring = init(Lesson(jnp.int32(0), jnp.float32(0)), capacity=2)
  >>> new = Lesson(jnp.array([1, 2]), jnp.array([0.5, 0.1]))
  >>> ring = keep(ring, new, jnp.ones(2, bool))
  >>> ring = reprioritise(ring, jnp.array([0]), jnp.array([7.0]))
  >>> ring.items.item.tolist(), ring.items.priority.round(1).tolist()[0]
  ([1, 2], 7.0)
  """
  lowest = jnp.finfo(jnp.float32).min
  priority = jnp.where(jnp.isfinite(priority), priority, lowest)
  priorities = replay.items.priority.at[slot].set(priority)
  return replay._replace(items=replay.items._replace(priority=priorities))


def _capacity(replay: Replay) -> int:
  return jax.tree.leaves(replay.items)[0].shape[0]
