"""Bots of capture the flag: each is better than the one before."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import capture_bots, capture_maps
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.ops import ratings
from dl_lectures.types import UsageError

RULES = ctf.Rules(size=11, length=128)
LADDER = (
  capture_bots.at_random,
  capture_bots.mixed(capture_bots.walker, 0.75),
  capture_bots.walker,
  capture_bots.tagger,
  capture_bots.team,
)


@functools.cache
def tournament():
  """Positions of 48 games of each pair, [pairs, games, time, ...]."""
  pairs = np.array(list(itertools.combinations(range(len(LADDER)), 2)))

  def one_of(number):
    def choose(*position):
      return jnp.stack([bot(*position) for bot in LADDER])[number]

    return choose

  # Compiled once for all pairs.
  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, None))
  @functools.partial(jax.vmap, in_axes=(None, 0))
  def games(pair, key):
    first, second = (one_of(number) for number in pair)
    return capture_bots.play(RULES, first, second, key)

  keys = jax.random.split(jax.random.key(0), 48)
  return pairs, jax.device_get(games(pairs, keys))


def test_the_ladder_is_strictly_ordered():
  pairs, states = tournament()
  points = np.zeros((len(LADDER), len(LADDER)))
  for (first, second), score in zip(pairs, states.score[:, :, -1], strict=True):
    lead = np.sign(score[:, 0] - score[:, 1])
    points[first, second] = ((1 + lead) / 2).sum()
    points[second, first] = ((1 - lead) / 2).sum()
  rated = ratings.bradley_terry(points)
  assert (np.diff(rated.elo) > 50).all(), rated
  # Those that follow paths beat the random one, and not by drawing.
  assert (points[2:, 0] / 48 > 0.9).all(), points


def test_games_are_played_by_the_rules():
  _, states = tournament()
  assert states.score.shape == (10, 48, RULES.length + 1, 2)
  np.testing.assert_array_equal(states.time[0, 0], np.arange(RULES.length + 1))
  cells = np.sort(states.place, axis=-1)
  assert (np.diff(cells, axis=-1) > 0).all()


def test_a_walker_takes_the_shortest_way():
  rules = ctf.Rules(size=12)

  # The other team does not move, and chance is left out.
  def alone(rules, state, steps, key):
    action = capture_bots.walker(rules, state, steps, key)
    return action.at[1:].set(ctf.NOTHING)

  def play(key):
    return capture_bots.play(rules, alone, _stands, key)

  states = jax.device_get(
    jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 16))
  )
  steps = jax.jit(jax.vmap(capture_maps.distances))(
    jax.tree.map(lambda x: x[:, 0], states.world)
  )
  for i in range(16):
    base = states.world.base[i, 0]
    there = int(steps[i, base[0] + 12, base[1]])
    took = int(np.argmax(states.carries[i, :, 0]))
    # From the pad round the corner, and here and there astray.
    assert there <= took <= 2 * there + 6
    assert states.score[i, -1, 0] >= 1


def _stands(rules, state, steps, key):
  del state, steps, key
  return jnp.full(rules.agents, ctf.NOTHING)


def test_a_share_of_one_is_chance_and_none_is_the_bot():
  state = jax.jit(ctf.reset, static_argnums=0)(RULES, jax.random.key(1))
  steps = jax.jit(capture_maps.distances)(state.world)
  keys = jax.random.split(jax.random.key(2), 200)

  def actions(share):
    bot = capture_bots.mixed(_stands, share)
    choose = jax.vmap(lambda key: bot(RULES, state, steps, key))
    return np.asarray(jax.jit(choose)(keys))

  assert (actions(0.0) == ctf.NOTHING).all()
  counts = np.bincount(actions(1.0).reshape(-1), minlength=8)
  assert (np.abs(counts - 100) < 50).all()
  assert 0.3 < (actions(0.5) != ctf.NOTHING).mean() < 0.6


def test_no_such_share_is_told_in_one_line():
  with pytest.raises(UsageError, match='share=2'):
    capture_bots.mixed(capture_bots.walker, 2)
