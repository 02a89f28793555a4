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
