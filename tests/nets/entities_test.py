"""Entities: sets stay sets, and an action's parts make one distribution."""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import entities
from dl_lectures.types import UsageError

UNITS, SIZE, WIDTH = 3, 2, 8
NOISE = entities.noise_size(UNITS, SIZE * SIZE)

encoder = hk.without_apply_rng(
  hk.transform(lambda *x: entities.EntityEncoder(WIDTH, 2, 2)(*x))
)
head = hk.without_apply_rng(
  hk.transform(
    lambda inputs, given=None, noise=None: entities.ActionHead(WIDTH)(
      *inputs, given=given, noise=noise
    )
  )
)
decide = jax.jit(head.apply)


def of_head(n: int, seed: int = 0, scale: float = 3.0):
  """Inputs of the head, and parameters that prefer some parts to others."""
  keys = jax.random.split(jax.random.key(seed), 5)
  inputs = (
    jax.random.normal(keys[0], (n, 5)),
    jax.random.normal(keys[1], (n, 2 * UNITS, WIDTH)),
    jax.random.normal(keys[2], (n, SIZE, SIZE, 2)),
    jax.random.uniform(keys[3], (n, 2 * UNITS)) < 0.8,
  )
  params = jax.jit(head.init)(jax.random.key(1), inputs)
  leaves, tree = jax.tree.flatten(params)
  drawn = jax.random.split(keys[4], len(leaves))
  leaves = [
    scale * jax.random.normal(k, x.shape) / np.sqrt(x.shape[0])
    for k, x in zip(drawn, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, leaves), inputs


def sequences(alive: list[int]) -> list[list[int]]:
  """All ways to pick at least one of the living, filled with stop."""
  ways = []
  for count in range(1, len(alive) + 1):
    for way in itertools.permutations(alive, count):
      ways.append([*way, *[UNITS] * (UNITS - count)])
  return ways


def test_vectors_change_places_with_their_entities():
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (4, 10, 14))
  alive = jax.random.uniform(keys[1], (4, 10)) < 0.7
  params = jax.jit(encoder.init)(keys[2], x, alive)
  order = np.random.default_rng(0).permutation(10)
  y = encoder.apply(params, x, alive)
  moved = encoder.apply(params, x[:, order], alive[:, order])
  np.testing.assert_allclose(moved, y[:, order], atol=1e-5)
  assert (np.asarray(y)[~np.asarray(alive)] == 0).all()
  # What the dead are does not matter; what the living are does, to all.
  other = encoder.apply(params, jnp.where(alive[..., None], x, 9.0), alive)
  np.testing.assert_allclose(other, y, atol=1e-5)
  first = jnp.argmax(alive, axis=1)
  changed = x.at[jnp.arange(4), first].add(1.0)
  difference = jnp.abs(encoder.apply(params, changed, alive) - y).max(-1)
  assert (np.asarray(difference)[np.asarray(alive)] > 1e-4).all()


def test_scattered_is_where_the_entities_stand():
  draw = np.random.default_rng(0)
  vectors = draw.integers(-8, 8, (3, 6, 2)).astype(np.float32)
  cell = draw.integers(0, 5, (3, 6))
  expected = np.zeros((3, 5, 2), np.float32)
  for n, e in np.ndindex(3, 6):
    expected[n, cell[n, e]] += vectors[n, e]
  found = entities.scatter(jnp.asarray(vectors), jnp.asarray(cell), 5)
  np.testing.assert_array_equal(found, expected)


def test_probabilities_of_all_actions_sum_to_1():
  most = 1 + len(sequences([0, 1, 2])) * (SIZE * SIZE + UNITS)
  params, inputs = of_head(most)
  for row in range(6):
    alive = np.asarray(inputs[3][row])
    own = np.flatnonzero(alive[:UNITS]).tolist()
    foes = np.flatnonzero(alive[UNITS:]).tolist()
    every = [(0, [UNITS] * UNITS, 0, 0)]
    for way in sequences(own):
      every += [(1, way, 0, cell) for cell in range(SIZE * SIZE)]
      every += [(2, way, enemy, 0) for enemy in foes]
    count = len(every)
    every += every[:1] * (most - count)  # One shape, one compilation.
    given = entities.Action(*(jnp.array(x) for x in zip(*every, strict=True)))
    same = jax.tree.map(
      lambda x, row=row: jnp.broadcast_to(x[row], x.shape), inputs
    )
    log_prob = decide(params, same, given).log_prob
    np.testing.assert_allclose(jnp.exp(log_prob[:count]).sum(), 1, atol=1e-5)


def test_no_unit_is_picked_twice_and_no_dead_one():
  n = 1024
  params, inputs = of_head(n, 1, scale=0.5)
  noise = jax.random.gumbel(jax.random.key(2), (n, NOISE))
  drawn = decide(params, inputs, None, noise)
  action = jax.device_get(drawn.action)
  alive = np.asarray(inputs[3])
  lengths = set()
  for row in range(n):
    picked = [u for u in action.picks[row] if u < UNITS]
    assert len(picked) == len(set(picked))
    assert all(alive[row, u] for u in picked)
    # Nothing after stop, and a command is given to somebody.
    assert picked == list(action.picks[row][: len(picked)])
    assert (len(picked) > 0) == (action.kind[row] > 0)
    if action.kind[row] == 2 and alive[row, UNITS:].any():
      assert alive[row, UNITS + action.enemy[row]]
    lengths.add(len(picked))
  assert lengths == {0, 1, 2, 3}
  again = decide(params, inputs, drawn.action)
  np.testing.assert_allclose(again.log_prob, drawn.log_prob, atol=1e-5)
  np.testing.assert_allclose(again.entropy, drawn.entropy, atol=1e-5)


def test_drawn_actions_are_as_frequent_as_their_probabilities():
  n = 1024
  params, inputs = of_head(1, 3, scale=1.0)
  many = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape[1:])), inputs)
  noise = jax.random.gumbel(jax.random.key(0), (n, NOISE))
  drawn = decide(params, many, None, noise)
  rows = np.column_stack([np.asarray(x).reshape(n, -1) for x in drawn.action])
  # Parts that do not count say nothing.
  rows[rows[:, 0] != 2, -2] = 0
  rows[rows[:, 0] != 1, -1] = 0
  _, first, count = np.unique(
    rows, axis=0, return_index=True, return_counts=True
  )
  expected = n * np.exp(np.asarray(drawn.log_prob)[first])
  assert len(count) > 5
  assert (np.abs(count - expected) < 5 * np.sqrt(expected) + 3).all()
  # The entropy along the way is on average that of the whole action.
  surprise = -np.asarray(drawn.log_prob)
  spread = 4 * surprise.std() / np.sqrt(n)
  assert abs(surprise.mean() - float(drawn.entropy.mean())) < spread


def test_picks_change_places_with_the_units():
  params, inputs = of_head(1024, 4, scale=0.5)
  order = np.array([2, 0, 1])
  both = np.concatenate([order, UNITS + np.arange(UNITS)])
  memory, vectors, board, alive = inputs
  moved = memory, vectors[:, both], board, alive[:, both]
  plain, other = decide(params, inputs), decide(params, moved)
  np.testing.assert_allclose(other.log_prob, plain.log_prob, atol=1e-4)
  new_number = np.append(np.argsort(order), UNITS)
  np.testing.assert_array_equal(
    other.action.picks, new_number[np.asarray(plain.action.picks)]
  )


def test_what_is_refused():
  params, inputs = of_head(1)
  action = decide(params, inputs).action
  with pytest.raises(UsageError, match='one of them'):
    head.apply(params, inputs, action, jnp.zeros((1, NOISE)))
  with pytest.raises(UsageError, match=f'noise of length 3; {NOISE}'):
    head.apply(params, inputs, None, jnp.zeros((1, 3)))
