"""How well a player of Connect Four moves, judged by an exact solver.

A position is decisive if some legal move throws its game-theoretic result
away: only there can a player err. The measure is the share of decisive
positions in which the chosen move keeps the result, apart for positions that
random play reached and positions that semi-strong play reached, and by ply.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.analysis import strength
from dl_lectures.data import connect_four
from dl_lectures.envs import games
from dl_lectures.ops import ratings
from dl_lectures.types import Claim, at_least

Choose = Callable[[Any], np.ndarray]  # states [N] -> columns [N], 0 to 6

# The kinds of positions that are judged, of each style where play is hard: by
# name, what they are, their style (0 random, 1 semi-strong) and their plies.
POSITIONS = {
  'random_late': ('random play, plies 15-24', 0, (15, 19, 24)),
  'semi_strong_early': ('semi-strong play, plies 8-12', 1, (8, 10, 12)),
}

# What a run of ten minutes is held to, by kind and simulations a move.
BARS = {
  ('random_late', 0): 0.80,
  ('random_late', 256): 0.98,
  ('semi_strong_early', 0): 0.78,
  ('semi_strong_early', 256): 0.90,
}


class Quality(NamedTuple):
  """The share of decisive positions in which a player kept the result.

  Attributes:
    kept: the share.
    low: of its 95% interval (Wilson).
    high: of the same.
    positions: how many were judged.
  """

  kept: float
  low: float
  high: float
  positions: int


def judge(players: Mapping[int, Choose], every: int = 1) -> dict[str, Quality]:
  """Judges players on the decisive positions of the labelled table.

  Args:
    players: by their number of simulations.
    every: only each so-many-th decisive position is judged.

  Returns:
    'random_late/64' and the like -> quality.
  """
  table = connect_four.load()
  keeps = connect_four.keeps_result(table)
  of_kind = {
    name: np.flatnonzero(_of(table, name))[::every] for name in POSITIONS
  }
  which = np.concatenate(list(of_kind.values()))
  states = positions(table.moves[which].tolist())
  found = {}
  for num_simulations, choose in players.items():
    kept = dict(zip(which, keeps[which, choose(states)], strict=True))
    for name, rows in of_kind.items():
      quality = _quality(np.array([kept[row] for row in rows]))
      found[f'{name}/{num_simulations}'] = quality
  return found


def of_random_moves(name: str) -> Quality:
  """What a player that picks any legal move keeps: the baseline.

  Args:
    name: of a kind of `POSITIONS`.
  """
  table = connect_four.load()
  kept = connect_four.keeps_result(table).sum(axis=1)
  legal = (table.scores > connect_four.ILLEGAL).sum(axis=1)
  return _quality((kept / legal)[_of(table, name)])


def of_tactical_moves(name: str) -> Quality:
  """What a player keeps that sees one move ahead: the stronger baseline.

  It wins at once if it can, else blocks what would lose at once, else moves at
  random, more often near the centre, as the games did that reached the
  semi-strong positions. This is its exact expectation.

  Args:
    name: of a kind of `POSITIONS`.
  """
  table = connect_four.load()
  which = np.flatnonzero(_of(table, name))
  game = games.make('connect_four')
  columns = jnp.arange(game.num_actions)

  def wins(state: Any) -> jax.Array:
    """[7] bool, the columns with which the mover wins at once."""
    mover = game.to_play(state)
    after = jax.vmap(game.step, (None, 0))(state, columns)
    won = jax.vmap(game.reward)(after)[:, mover] > 0
    return won & game.legal_mask(state)

  def shares(state: Any) -> jax.Array:
    """[7], how often the player drops a stone into each column."""
    won = wins(state)
    elsewhere = jax.vmap(game.step, (None, 0))(state, columns)
    theirs = jax.vmap(wins)(elsewhere) & ~jnp.eye(len(columns), dtype=bool)
    # A column that is full is no move, and after it nobody has moved.
    moved = game.legal_mask(state)[:, None]
    blocks = jnp.any(theirs & moved, axis=0)
    centred = (1.0 + jnp.minimum(columns, 6 - columns)) * game.legal_mask(state)
    weights = jnp.where(jnp.any(blocks), blocks, centred)
    weights = jnp.where(jnp.any(won), won, weights)
    return weights / jnp.sum(weights)

  played = jax.jit(jax.vmap(shares))(positions(table.moves[which].tolist()))
  keeps = connect_four.keeps_result(table)[which]
  return _quality(np.sum(np.asarray(played) * keeps, axis=-1))


def positions(moves: Sequence[str]) -> Any:
  """The states [N] that legal games lead to, columns 1-7 as in '4453'."""
  game = games.make('connect_four')
  longest = max(map(len, moves))
  padded = [[int(m) - 1 for m in text.ljust(longest, '0')] for text in moves]

  def play(actions: jax.Array) -> Any:
    def ply(state: Any, action: jax.Array) -> tuple[Any, None]:
      moved = game.step(state, jnp.maximum(action, 0))
      played = jax.tree.map(
        lambda new, old: jnp.where(action >= 0, new, old), moved, state
      )
      return played, None

    return jax.lax.scan(ply, game.init(jax.random.key(0)), actions)[0]

  return jax.jit(jax.vmap(play))(jnp.asarray(padded))


def claims(
  found: Mapping[str, Quality],
  untrained: Mapping[str, Quality],
  opening_prior: np.ndarray,
) -> list[Claim]:
  """The judge's verdict, each share beside what a simple player keeps.

  Args:
    found: of the trained player, by the names that `judge` gives.
    untrained: of the same with the network it began with.
    opening_prior: [7], what the network would play first.
  """
  made = []
  for (name, n), bar in BARS.items():
    quality = found.get(f'{name}/{n}')
    if quality is None:
      continue
    if n == 0:
      baseline = of_tactical_moves(name).kept
      chance = of_random_moves(name).kept
      baseline_name = (
        'wins or blocks at once, else near the centre '
        f'(random moves: {chance:.2f})'
      )
    else:
      baseline = untrained[f'{name}/{n}'].kept
      baseline_name = 'the same search, untrained network'
    player = f'{n} simulations' if n else 'raw network'
    made.append(
      at_least(
        f'results kept, {POSITIONS[name][0]}, {player}',
        quality.kept,
        bar,
        interval=(quality.low, quality.high),
        baseline=baseline,
        baseline_name=baseline_name,
      )
    )
  # Perfect play wins with d, draws with c and e, loses the sooner the farther.
  outwards = [
    opening_prior[list(columns)].mean()
    for columns in ((3,), (2, 4), (1, 5), (0, 6))
  ]
  ordered = all(a > b for a, b in itertools.pairwise(outwards))
  return [
    *made,
    at_least(
      'opening prior of the centre',
      float(opening_prior[3]),
      0.5,
      baseline=1 / 7,
      baseline_name='uniform',
    ),
    at_least(
      'opening prior orders the columns as theory does (1: yes)',
      float(ordered),
      1.0,
      baseline=1 / 24,
      baseline_name='a random order of the four kinds of columns',
    ),
  ]


def panels(
  records: Sequence[Mapping[str, Any]],
  found: Mapping[str, Quality],
  untrained: Mapping[str, Quality],
) -> list[strength.Panel]:
  """What the judge saw, during training and at its end.

  Args:
    records: the run's metrics: 'seconds', at times shares under the names that
      `judge` gives, at times 'opening_prior' [7].
    found: of the trained player.
    untrained: of the same with the network it began with.
  """
  judged = [r for r in records if f'{next(iter(POSITIONS))}/0' in r]
  opened = [r for r in records if 'opening_prior' in r]
  searches = sorted({int(name.split('/')[1]) for name in found})
  drawn = []
  for name, (what, _, _) in POSITIONS.items():
    fixed = {
      'random moves': of_random_moves(name).kept,
      'wins or blocks at once': of_tactical_moves(name).kept,
      f'untrained, {searches[-1]} simulations': untrained[
        f'{name}/{searches[-1]}'
      ].kept,
    }
    kept = {
      f'{n} simulations' if n else 'raw network': [
        r[f'{name}/{n}'] for r in judged
      ]
      for n in searches
    }
    seconds = [r['seconds'] for r in judged]
    drawn.append(strength.accuracy_over_training(what, seconds, kept, fixed))
  return [
    *drawn,
    strength.openings_over_training(
      [r['seconds'] for r in opened],
      np.array([r['opening_prior'] for r in opened]),
      np.sign(connect_four.EMPTY_BOARD_SCORES).tolist(),
      'abcdefg',
    ),
    strength.quality_by_search(
      searches,
      {
        what: [found[f'{name}/{n}'] for n in searches]
        for name, (what, _, _) in POSITIONS.items()
      },
    ),
  ]


def _of(table: connect_four.ConnectFourTable, name: str) -> np.ndarray:
  _, style, plies = POSITIONS[name]
  return (
    connect_four.is_decisive(table)
    & (table.style == style)
    & np.isin(table.ply, plies)
  )


def _quality(kept: np.ndarray) -> Quality:
  share = float(np.mean(kept))
  low, high = ratings.wilson_interval(share * len(kept), len(kept))
  return Quality(share, low, high, len(kept))
