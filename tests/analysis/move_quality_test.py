"""Players whose quality is known beforehand."""

import jax
import numpy as np
import pytest

from dl_lectures.analysis import move_quality
from dl_lectures.data import connect_four
from dl_lectures.envs import connect_four as game


@pytest.fixture(scope='module')
def table():
  return connect_four.load()


def rows_of(table, states):
  """The table's rows that states are of, by their number of stones and look."""
  looks = {}
  shown = move_quality.positions(table.moves.tolist())
  for row, look in enumerate(np.asarray(jax.vmap(game.observe)(shown))):
    looks[look.tobytes()] = row
  seen = np.asarray(jax.vmap(game.observe)(states))
  return np.array([looks[look.tobytes()] for look in seen])


def test_positions_are_those_of_their_moves():
  moves = ['4', '445566', '']
  states = move_quality.positions(moves)
  for i, text in enumerate(moves):
    alone = game.from_moves(text)
    np.testing.assert_array_equal(
      game.observe(jax.tree.map(lambda x, i=i: x[i], states)),
      game.observe(alone),
    )


def test_a_perfect_player_keeps_all_and_the_worst_nothing(table):
  keeps = connect_four.keeps_result(table)
  wastes = ~keeps & (table.scores > connect_four.ILLEGAL)
  found = move_quality.judge(
    {
      0: lambda states: np.argmax(wastes[rows_of(table, states)], axis=-1),
      1: lambda states: np.argmax(keeps[rows_of(table, states)], axis=-1),
    },
    every=9,
  )
  for name in move_quality.POSITIONS:
    assert found[f'{name}/0'].kept == 0
    assert found[f'{name}/1'].kept == 1
    assert found[f'{name}/1'].low < 1 <= found[f'{name}/1'].high + 1e-12


def test_random_moves_are_counted_not_played(table):
  chance = move_quality.of_random_moves('random_late')
  rng = np.random.default_rng(0)
  legal = table.scores > connect_four.ILLEGAL
  which = (
    connect_four.is_decisive(table)
    & (table.style == 0)
    & np.isin(table.ply, (15, 19, 24))
  )
  keeps = connect_four.keeps_result(table)[which]
  shares = [
    np.mean(
      [
        keep[rng.choice(np.flatnonzero(can))]
        for keep, can in zip(keeps, legal[which], strict=True)
      ]
    )
    for _ in range(20)
  ]
  assert chance.positions == which.sum()
  np.testing.assert_allclose(np.mean(shares), chance.kept, atol=0.02)


def test_one_move_ahead_is_the_known_baseline():
  # Counted independently, over the sampled games' own way to play.
  for name, kept in (('random_late', 0.848), ('semi_strong_early', 0.489)):
    found = move_quality.of_tactical_moves(name)
    assert abs(found.kept - kept) < 0.001
    assert found.positions == 675


def test_claims_are_held_to_their_bars_beside_their_baselines():
  def quality(kept):
    return move_quality.Quality(kept, kept - 0.02, kept + 0.02, 675)

  names = ('random_late/0', 'random_late/256', 'semi_strong_early/256')
  found = dict(zip(names, map(quality, (0.81, 0.97, 0.91)), strict=True))
  untrained = dict(zip(names, map(quality, (0.3, 0.9, 0.66)), strict=True))
  theory = np.array([0.01, 0.03, 0.1, 0.72, 0.1, 0.03, 0.01])
  raw, random, semi, centre, order = move_quality.claims(
    found, untrained, theory
  )
  assert [c.met for c in (raw, random, semi, centre, order)] == [
    True,
    False,
    True,
    True,
    True,
  ]
  assert raw.baseline == pytest.approx(0.848, abs=0.001)
  assert (random.baseline, semi.baseline) == (0.9, 0.66)
  assert semi.interval == (0.89, 0.93)
  # The edge before its neighbour: not as theory has it.
  *_, order = move_quality.claims(
    found, untrained, theory[[1, 0, 2, 3, 4, 6, 5]]
  )
  assert order.met is False
