"""Maps of capture the flag: every one is valid, fair and as far as it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import capture_maps
from dl_lectures.types import UsageError


@functools.cache
def compiled(size, players):
  draw = functools.partial(capture_maps.draw, size=size, players=players)
  return jax.jit(
    jax.vmap(lambda key, indoor: draw(key, indoor=indoor), (0, None))
  )


def drawn(count, size, players=2, indoor=0.5):
  """Maps with a leading axis, as arrays of NumPy."""
  keys = jax.random.split(jax.random.key(0), count)
  return jax.device_get(compiled(size, players)(keys, indoor))


def worlds(maps):
  """The maps one by one."""
  for i in range(len(maps.base)):
    yield capture_maps.Map(*(x[i] for x in maps))


def steps_to(goal, closed):
  """Steps to a cell from all from which a way leads there, by a queue."""
  size = closed.shape[0]
  found, queue = {goal: 0}, [goal]
  for cell in queue:
    for beside in (cell - 1, cell + 1, cell - size, cell + size):
      if not closed.reshape(-1)[beside] and beside not in found:
        found[beside] = found[cell] + 1
        queue.append(beside)
  return found


def not_passable(world):
  """Walls, bases and pads."""
  closed = world.walls.copy()
  closed.reshape(-1)[world.base] = True
  closed.reshape(-1)[world.pad] = True
  return closed


@pytest.mark.parametrize(
  ('size', 'players', 'indoor'),
  [(11, 2, 0.5), (9, 2, 1.0), (12, 2, 0.0), (13, 3, 0.5)],
)
def test_256_of_256_maps_are_valid(size, players, indoor):
  maps = drawn(256, size=size, players=players, indoor=indoor)
  last = size * size - 1
  np.testing.assert_array_equal(maps.walls, maps.walls[:, ::-1, ::-1])
  np.testing.assert_array_equal(maps.base, last - maps.base[:, ::-1])
  turned = last - np.roll(maps.pad, players, axis=1)
  np.testing.assert_array_equal(maps.pad, turned)
  for world in worlds(maps):
    closed = not_passable(world)
    assert closed[[0, -1]].all()
    assert closed[:, [0, -1]].all()
    ends = [*world.base, *world.pad]
    assert not world.walls.reshape(-1)[ends].any()
    assert len(set(ends)) == 2 + 2 * players
    start, goal = (int(base) for base in world.base)
    reached = steps_to(start, closed)
    # Nothing is cut off, though nobody walks through bases and pads.
    assert len(reached) == 1 + (~closed).sum()
    by = np.array([1, -1, size, -size])
    for end in ends:
      assert set(end + by) & set(reached)
    ways = [way for way in start + by if not closed.reshape(-1)[way]]
    assert len(ways) >= 3
    # Whichever of them is blocked, there is a way from the other base.
    for way in ways:
      blocked = closed.copy()
      blocked.reshape(-1)[way] = True
      assert set(goal + by) & set(steps_to(start, blocked))


def test_both_styles_differ_and_maps_do():
  indoor, outdoor = (
    drawn(64, size=12, indoor=share).walls for share in (1.0, 0.0)
  )
  for walls in (indoor, outdoor):
    assert len({w.tobytes() for w in walls}) == 64
  # Walls of rooms stand in rows and columns, rocks anywhere.
  inside = slice(1, -1)

  def lines(walls):
    share = walls[:, inside, inside].mean(axis=1)
    return np.sort(share, axis=1)[:, -2:].mean()

  assert lines(indoor) > lines(outdoor) + 0.05
  assert 0.1 < outdoor[:, inside, inside].mean() < 0.4
  assert 0.1 < indoor[:, inside, inside].mean() < 0.5


def test_distances_are_those_of_a_queue():
  maps = drawn(4, size=12)
  found = jax.jit(jax.vmap(capture_maps.distances))(maps)
  for world, steps in zip(worlds(maps), np.asarray(found), strict=True):
    closed = not_passable(world)
    for goal in [*world.base, *world.pad, *np.flatnonzero(~closed)[::7]]:
      expected = np.full(144, capture_maps.UNREACHABLE)
      for cell, far in steps_to(int(goal), closed).items():
        expected[cell] = far
      np.testing.assert_array_equal(steps[:, goal], expected)
    np.testing.assert_array_equal(steps, steps[::-1, ::-1])


def test_a_key_makes_one_map_and_it_can_be_read():
  key = jax.random.key(3)
  draw = jax.jit(functools.partial(capture_maps.draw, size=9))
  one, other = draw(key), draw(key)
  jax.tree.map(np.testing.assert_array_equal, one, other)
  lines = capture_maps.to_text(one).splitlines()
  assert len(lines) == 9
  turned = '\n'.join(line[::-1] for line in lines[::-1])
  assert turned.translate(str.maketrans('ABab', 'BAba')) == '\n'.join(lines)
  assert one.walls.dtype == jnp.bool_
  assert one.base.dtype == one.pad.dtype == jnp.int32


@pytest.mark.parametrize(
  ('size', 'players', 'told'),
  [
    (8, 2, 'at least 9 x 9'),
    (9, 7, 'at least 11 x 11'),
    (11, 0, 'teams of 0'),
  ],
)
def test_what_cannot_be_is_told_in_one_line(size, players, told):
  with pytest.raises(UsageError, match=told) as error:
    capture_maps.draw(jax.random.key(0), size, players)
  assert '\n' not in str(error.value)
