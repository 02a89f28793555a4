"""The ring against a plain deque, and what it costs."""

import collections
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.training import replay, sharding
from dl_lectures.types import UsageError

append = jax.jit(replay.append)
sample = jax.jit(replay.sample)
keep = jax.jit(replay.keep)
sample_lessons = jax.jit(replay.sample_lessons)


def _held(ring: replay.Replay) -> list[int]:
  """Everything in the ring, the oldest first."""
  size = int(ring.size)
  ages = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / max(size, 1)
  # One shape for all, so that `sample` compiles once.
  uniform = np.zeros(8, np.float32)
  uniform[:size] = ages
  return np.asarray(sample(ring, jnp.asarray(uniform)))[:size].tolist()


# Rows per call and capacity are static: two of each compile four programs.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  capacity=st.sampled_from([5, 8]),
  calls=st.lists(
    st.sampled_from([3, 5]).flatmap(
      lambda n: st.lists(st.booleans(), min_size=n, max_size=n)
    ),
    max_size=8,
  ),
)
def test_holds_what_a_deque_holds(capacity, calls):
  ring = replay.init(jnp.zeros((), jnp.int32), capacity)
  deque = collections.deque(maxlen=capacity)
  next_item = 1
  for mask in calls:
    items = list(range(next_item, next_item + len(mask)))
    next_item += len(mask)
    deque.extend(
      item for item, counts in zip(items, mask, strict=True) if counts
    )
    ring = append(ring, jnp.array(items), jnp.array(mask))
    assert int(ring.size) == len(deque)
    assert _held(ring) == list(deque)


def test_wraps_by_hand():
  ring = replay.init(jnp.float32(0), capacity=4)
  ring = append(ring, jnp.array([1.0, 2.0, 3.0]), jnp.array([True, True, True]))
  ring = append(
    ring, jnp.array([4.0, 5.0, 6.0]), jnp.array([True, False, True])
  )
  assert ring.items.tolist() == [6.0, 2.0, 3.0, 4.0]
  assert int(ring.cursor) == 1
  assert int(ring.size) == 4


def test_no_row_counts_and_nothing_changes():
  ring = replay.init(jnp.float32(0), capacity=4)
  ring = append(ring, jnp.array([1.0, 2.0]), jnp.array([True, True]))
  after = append(ring, jnp.array([8.0, 9.0]), jnp.array([False, False]))
  assert jax.tree.map(np.array_equal, ring, after) == (True, True, True)


def test_a_full_ring_is_replaced_whole_by_as_many_rows_as_it_holds():
  ring = replay.init(jnp.int32(0), capacity=3)
  full = jnp.ones(3, bool)
  ring = append(ring, jnp.array([1, 2, 3]), full)
  ring = append(ring, jnp.array([4, 5, 6]), full)
  assert ring.items.tolist() == [4, 5, 6]


def test_more_rows_than_slots_are_refused_before_anything_runs():
  ring = replay.init(jnp.int32(0), capacity=3)
  with pytest.raises(UsageError, match=r'4 items .* replay of 3; at most 3'):
    replay.append(ring, jnp.zeros(4, jnp.int32), jnp.ones(4, bool))
  with pytest.raises(UsageError, match='at least 1'):
    replay.init(jnp.int32(0), capacity=0)


@pytest.mark.parametrize(
  'items',
  [jnp.zeros((2, 3), jnp.float32), jnp.zeros((2, 4), jnp.int8)],
  ids=['dtype', 'shape'],
)
def test_items_of_another_kind_are_refused_not_cast(items):
  ring = replay.init(jnp.zeros(3, jnp.int8), capacity=4)
  with pytest.raises(ValueError, match=r'appended to a ring that takes int8'):
    replay.append(ring, items, jnp.ones(2, bool))


def test_an_empty_ring_gives_zeros_and_says_so():
  ring = replay.init({'x': jnp.ones((2,), jnp.int8)}, capacity=3)
  drawn = sample(ring, jnp.array([0.0, 0.99]))
  assert int(ring.size) == 0
  assert drawn['x'].tolist() == [[0, 0], [0, 0]]


def test_the_largest_uniform_draws_the_newest_and_never_an_empty_slot():
  ring = replay.init(jnp.int32(0), capacity=7)
  ring = append(ring, jnp.arange(1, 6), jnp.ones(5, bool))
  almost_one = np.nextafter(np.float32(1), np.float32(0))
  assert sample(ring, jnp.array([0.0, almost_one])).tolist() == [1, 5]


def test_draws_are_uniform():
  ring = replay.init(jnp.int32(0), capacity=4)
  ring = append(ring, jnp.arange(3), jnp.ones(3, bool))
  # Midpoints of 3000 equal cells: exactly 1000 fall on each item.
  uniform = (jnp.arange(3000) + 0.5) / 3000
  counts = jnp.bincount(sample(ring, uniform), length=4)
  assert counts.tolist() == [1000, 1000, 1000, 0]


def _lessons(capacity):
  return replay.init(replay.Lesson(jnp.int32(0), jnp.float32(0)), capacity)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  calls=st.lists(
    st.lists(
      # Few priorities, so that there are ties.
      st.tuples(st.integers(-2, 3), st.booleans()),
      min_size=3,
      max_size=3,
    ),
    max_size=6,
  ),
)
def test_keeps_what_a_list_keeps_that_replaces_its_lowest(calls):
  capacity, ring, held, next_item = 5, _lessons(5), [], 1
  for call in calls:
    priority, mask = zip(*call, strict=True)
    items = range(next_item, next_item + 3)
    next_item += 3
    for item, p, counts in zip(items, priority, mask, strict=True):
      lowest = min((q for q, _ in held), default=None)
      if counts and len(held) < capacity:
        held.append((p, item))
      elif counts and p > lowest:
        held.remove(min(held, key=lambda entry: entry[0]))
        held.append((p, item))
    lessons = replay.Lesson(jnp.array(items), jnp.float32(priority))
    ring = keep(ring, lessons, jnp.array(mask))
    size = int(ring.size)
    assert size == len(held)
    assert int(ring.cursor) == size % capacity
    kept = np.asarray(ring.items.priority)[:size].tolist()
    assert sorted(kept) == sorted(p for p, _ in held)
    # Which of several equals goes is open; what is above them is not.
    floor = min(kept, default=0)
    numbers = np.asarray(ring.items.item)[:size].tolist()
    assert {i for i, p in zip(numbers, kept, strict=True) if p > floor} == {
      i for p, i in held if p > floor
    }


def test_lessons_by_hand_and_more_than_fit_at_once():
  ring = _lessons(3)
  lessons = replay.Lesson(
    jnp.arange(1, 7), jnp.array([0.3, jnp.nan, 0.5, 0.1, 0.5, jnp.inf])
  )
  ring = keep(ring, lessons, jnp.ones(6, bool))
  assert sorted(ring.items.item.tolist()) == [1, 3, 5]
  # Equals do not replace.
  again = replay.Lesson(jnp.array([8, 9]), jnp.array([0.3, 0.4]))
  ring = keep(ring, again, jnp.array([True, True]))
  assert sorted(ring.items.item.tolist()) == [3, 5, 9]
  ring = keep(ring, again, jnp.array([True, False]))
  assert sorted(ring.items.item.tolist()) == [3, 5, 9]
  assert int(ring.size) == 3


def test_lessons_are_drawn_by_softmax():
  priority = np.array([0.0, 1.0, 3.0, -1.0])
  lessons = replay.Lesson(jnp.arange(4), jnp.float32(priority))
  ring = keep(_lessons(6), lessons, jnp.ones(4, bool))
  uniform = (jnp.arange(2000) + 0.5) / 2000
  for temperature in (0.7, 2.0, 1e6):
    drawn, slot = sample_lessons(ring, uniform, temperature)
    share = np.bincount(drawn.item, minlength=4) / 2000
    expected = np.exp(priority / temperature)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=1e-3)
    np.testing.assert_array_equal(ring.items.item[slot], drawn.item)
  drawn, _ = sample_lessons(ring, uniform, 1e-3)
  assert set(drawn.item.tolist()) == {2}
  almost_one = np.nextafter(np.float32(1), np.float32(0))
  drawn, _ = sample_lessons(ring, jnp.array([0.0, almost_one]), 0.7)
  # The best came first; the two empty slots are never drawn.
  assert drawn.item.tolist() == [2, 3]


def test_what_was_learned_goes_first():
  lessons = replay.Lesson(jnp.arange(1, 4), jnp.array([3.0, 2.0, 1.0]))
  ring = keep(_lessons(3), lessons, jnp.ones(3, bool))
  _, slot = sample_lessons(ring, jnp.array([0.0]), 1e-3)
  ring = replay.reprioritise(ring, slot, jnp.array([0.5]))
  new = replay.Lesson(jnp.array([9]), jnp.array([0.7]))
  ring = keep(ring, new, jnp.ones(1, bool))
  assert sorted(ring.items.item.tolist()) == [2, 3, 9]
  # A loss that exploded is not drawn for ever, nor does it break the draw.
  ring = replay.reprioritise(
    ring, jnp.arange(3), jnp.array([jnp.nan, 1.0, 1.0])
  )
  drawn, _ = sample_lessons(ring, jnp.array([0.0, 0.4, 0.9]), 1.0)
  assert drawn.priority.tolist() == [1, 1, 1]
  ring = replay.reprioritise(ring, jnp.arange(3), jnp.full(3, jnp.inf))
  _, slot = sample_lessons(ring, jnp.array([0.0, 0.4, 0.9]), 1.0)
  assert slot.tolist() == [0, 1, 2]


def test_no_lessons_give_zeros_and_say_so():
  ring = _lessons(3)
  drawn, _ = sample_lessons(ring, jnp.array([0.0, 0.99]), 1.0)
  assert int(ring.size) == 0
  assert drawn.item.tolist() == [0, 0]
  assert np.all(np.isfinite(drawn.priority))


def _lanes(lanes: int, capacity: int) -> replay.Replay:
  item = {'board': jnp.zeros(84, jnp.int8), 'policy': jnp.zeros(7)}
  return jax.vmap(lambda _: replay.init(item, capacity))(jnp.arange(lanes))


def _rows(lanes: int, n: int):
  return {
    'board': jnp.ones((lanes, n, 84), jnp.int8),
    'policy': jnp.ones((lanes, n, 7)),
  }


def test_append_to_200000_positions_copies_none_of_them():
  lanes, capacity, n = 256, 782, 8
  ring, rows = jax.eval_shape(
    lambda: (_lanes(lanes, capacity), _rows(lanes, n))
  )
  mask = jax.ShapeDtypeStruct((lanes, n), bool)
  compiled = (
    jax.jit(jax.vmap(replay.append), donate_argnums=0)
    .lower(ring, rows, mask)
    .compile()
  )
  memory = compiled.memory_analysis()
  assert memory is not None
  buffer = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(ring))
  assert buffer > 22e6
  assert memory.alias_size_in_bytes >= buffer
  assert memory.temp_size_in_bytes < buffer / 50


def test_lanes_split_over_devices_append_and_sample_alone_and_alike():
  mesh = sharding.make_mesh(8)
  lanes, capacity, n = 16, 5, 3
  rows = {
    'board': jnp.arange(lanes * n * 84).reshape(lanes, n, 84).astype(jnp.int8),
    'policy': jnp.arange(lanes * n * 7.0).reshape(lanes, n, 7),
  }
  mask = jax.random.bernoulli(jax.random.key(0), 0.6, (lanes, n))
  uniform = jax.random.uniform(jax.random.key(1), (lanes, 4))

  def turn(ring, rows, mask, uniform):
    ring = jax.vmap(replay.append)(ring, rows, mask)
    return ring, jax.vmap(replay.sample)(ring, uniform)

  split = sharding.split(mesh)
  many = partial(jax.jit, in_shardings=split, out_shardings=split)(turn)
  arguments = (_lanes(lanes, capacity), rows, mask, uniform)
  expected = jax.jit(turn)(*arguments)
  compiled = many.lower(*arguments).compile()
  text = compiled.as_text()
  assert text
  for collective in ('all-gather', 'all-reduce', 'all-to-all', 'permute('):
    assert collective not in text
  actual = compiled(*jax.device_put(arguments, split))
  assert jax.tree.all(jax.tree.map(np.array_equal, actual, expected))
