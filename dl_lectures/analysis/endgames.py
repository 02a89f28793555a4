"""Chess endgames of three men solved backwards, and players judged by that.

A table of all positions tells how many plies the stronger side needs to mate
when both play as well as can be. It is made over our own rules: every legal
position and all its moves once, then sweeps in which a position is worth one
ply more than the best (White) or the most stubborn (Black) of what follows,
until nothing changes (retrograde analysis; Thompson, "Retrograde analysis of
certain endgames", ICCA Journal 1986).

    squares [N, 3] --rules--> what follows [N, 35] --sweeps--> plies [N]

Only a tenth of the positions is looked at: those with White's king in the
triangle a8-d8-d5. The others are their images in the symmetries of the square.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.analysis import move_quality, strength
from dl_lectures.envs import chess, chess_endgames, games
from dl_lectures.ops import ratings
from dl_lectures.types import Array, Claim, Key, at_least

# Of won positions, what share 200 simulations of a trained player are to win.
BARS = {'chess_kqk': 0.99, 'chess_krk': 0.95}

Choose = Callable[[Any], np.ndarray]  # states [B] -> actions [B]

NEVER = 1 << 14  # plies to a mate that never comes
_MOST_MOVES = 35  # of a king, 8, and a queen, 27
_CHUNK = 4096

# [10]: White's king in the triangle; [64]: its place in that list.
_TRIANGLE = np.array([8 * r + c for r in range(4) for c in range(r, 4)])


class Endgame(NamedTuple):
  """A solved endgame.

  Attributes:
    name: the game's, in `chess_endgames.PIECES`.
    plies: [2, 10, 64, 64] int32, plies to mate by side to move (White, Black)
      and place of White's king, White's piece, Black's king; `NEVER` where
      there is none or the position is not legal.
    legal: [2, 10, 64, 64] bool.
    counts: (White to move, Black to move), the number of legal positions on
      the whole board.
  """

  name: str
  plies: np.ndarray
  legal: np.ndarray
  counts: tuple[int, int]


class Verdict(NamedTuple):
  """How a player did with the stronger side against the perfect defender.

  Attributes:
    games: the number played, all won at their beginning.
    won: how many were mate in the end.
    spoiled: in how many a move of the player gave the win away, or a position
      came up for the third time. Who only runs out of his fifty moves has not
      won, and is not counted here.
    plies: of the games won, the mean length.
    best_plies: the mean length of the same with best play.
  """

  games: int
  won: int
  spoiled: int
  plies: float
  best_plies: float


@functools.cache
def _images() -> tuple[np.ndarray, np.ndarray]:
  """[64, 64]: the image of a square in the symmetry chosen by a king's square.

  Also [64]: the place of the king's image in the triangle.
  """
  cells = np.arange(64).reshape(8, 8)
  maps = [
    np.argsort(np.rot90(cells[:, ::flip], turns).reshape(-1))
    for flip in (1, -1)
    for turns in range(4)
  ]
  place = np.full(64, -1)
  place[_TRIANGLE] = np.arange(len(_TRIANGLE))
  images = np.zeros((64, 64), np.int32)
  king_place = np.zeros(64, np.int32)
  for king in range(64):
    chosen = next(m for m in maps if place[m[king]] >= 0)
    images[king], king_place[king] = chosen, place[chosen[king]]
  return images, king_place


def row_of(squares: Array) -> Array:
  """Returns the row [] of a position [3] in a table of 10 * 64 * 64."""
  images, king_place = map(jnp.asarray, _images())
  wk, man, bk = squares
  return (king_place[wk] * 64 + images[wk, man]) * 64 + images[wk, bk]


@functools.partial(jax.jit, static_argnums=0)
def _look(piece: int, squares: Array, black_moves: Array):
  """Of positions [N, 3]: legal, mated, and the rows that follow [N, 35].

  A row that is no position, since there are fewer moves, is -1; one in which
  White's piece has been taken is -2.
  """

  def one(squares):
    legal = chess_endgames.is_legal(piece, squares, black_moves)
    state = chess_endgames.position(piece, squares, black_moves)
    mask = chess.legal_mask(state)
    (moves,) = jnp.nonzero(mask, size=_MOST_MOVES, fill_value=-1)

    def follow(move):
      after = chess.play_on(state, move)
      _, low, middle, high = after.boards[0]
      bare = jnp.sum(jax.lax.population_count(low | middle | high)) == 2
      row = row_of(chess_endgames.squares_of(after))
      return jnp.where(move < 0, -1, jnp.where(bare, -2, row))

    mated = state.ending == chess.CHECKMATE
    return legal, legal & mated, jax.vmap(follow)(moves)

  return jax.lax.map(one, squares, batch_size=256)


@functools.cache
def solve(name: str) -> Endgame:
  """Solves an endgame; ten seconds on one core, once.

  Args:
    name: one of `chess_endgames.PIECES`.
  """
  piece = chess_endgames.PIECES[name]
  grid = np.meshgrid(_TRIANGLE, np.arange(64), np.arange(64), indexing='ij')
  squares = np.stack(grid, -1).reshape(-1, 3)
  looked = []
  for black_moves in (False, True):
    parts = [
      jax.device_get(_look(piece, part, jnp.bool_(black_moves)))
      for part in np.split(squares, len(squares) // _CHUNK)
    ]
    looked.append([np.concatenate(x) for x in zip(*parts, strict=True)])
  (w_legal, _, w_next), (b_legal, b_mated, b_next) = looked
  plies = jax.device_get(_sweep(w_legal, w_next, b_legal, b_mated, b_next))
  shape = (2, len(_TRIANGLE), 64, 64)
  legal = np.stack([w_legal, b_legal])
  # Of each image in the triangle there are so many on the whole board.
  _, king_place = _images()
  weight = np.bincount(king_place)
  counts = (legal.reshape(shape).sum((2, 3)) * weight).sum(1)
  return Endgame(
    name,
    np.stack(plies).reshape(shape),
    legal.reshape(shape),
    (int(counts[0]), int(counts[1])),
  )


@jax.jit
def _sweep(w_legal, w_next, b_legal, b_mated, b_next):
  """Plies to mate [N] with White and with Black to move."""

  def after(plies, rows, nothing, taken):
    found = plies[jnp.maximum(rows, 0)]
    found = jnp.where(rows == -1, nothing, found)
    return jnp.where(rows == -2, taken, found)

  def sweep(carry):
    white, black, _ = carry
    best = jnp.min(after(black, w_next, NEVER, NEVER), axis=1)
    new_white = jnp.where(w_legal, jnp.minimum(best + 1, NEVER), NEVER)
    # Who has no move and is not mated is stalemated: -1 + 1 is no win.
    worst = jnp.max(after(new_white, b_next, -1, NEVER), axis=1)
    worst = jnp.where(worst < 0, NEVER, worst)
    new_black = jnp.where(b_legal, jnp.minimum(worst + 1, NEVER), NEVER)
    new_black = jnp.where(b_mated, 0, new_black)
    changed = jnp.any(new_white != white) | jnp.any(new_black != black)
    return new_white, new_black, changed

  start = jnp.full(w_legal.shape, NEVER)
  first = (start, jnp.where(b_mated, 0, NEVER), jnp.bool_(True))
  white, black, _ = jax.lax.while_loop(lambda c: c[2], sweep, first)
  return white, black


def plies_to_mate(endgame: Endgame, states: chess.State) -> np.ndarray:
  """Returns plies to mate [B] of states [B]; `NEVER` once the piece is lost."""
  rows, side, bare = jax.device_get(_locate(states))
  found = endgame.plies.reshape(2, -1)[side, rows]
  return np.where(bare, NEVER, found)


@jax.jit
def _locate(states: chess.State):
  def one(state):
    _, low, middle, high = state.boards[0]
    men = jnp.sum(jax.lax.population_count(low | middle | high))
    return row_of(chess_endgames.squares_of(state)), state.ply % 2, men == 2

  return jax.vmap(one)(states)


def judge(
  endgame: Endgame,
  choose: Choose,
  key: Key,
  num_games: int,
) -> Verdict:
  """Lets a player win won positions against the most stubborn defence.

  Args:
    endgame: solved.
    choose: states [B] -> actions [B], the player's.
    key: of the positions at which games begin; consumed.
    num_games: B.
  """
  game = chess_endgames.make(endgame.name)
  step = jax.jit(jax.vmap(game.step))
  start = jax.jit(jax.vmap(game.init))(jax.random.split(key, 2 * num_games))
  won = np.flatnonzero(plies_to_mate(endgame, start) < NEVER)[:num_games]
  states = jax.tree.map(lambda x: x[won], start)
  best = plies_to_mate(endgame, states)
  spoiled = np.zeros(len(won), bool)
  length = np.zeros(len(won), int)
  for ply in range(game.max_plies):
    over = np.asarray(jax.vmap(game.terminal)(states))
    if over.all():
      break
    length += ~over
    if ply % 2 == 0:
      actions = np.zeros(len(won), np.int32)
      going = np.flatnonzero(~over)
      actions[going] = choose(
        jax.tree.map(lambda x, i=going: np.asarray(x)[i], states)
      )
    else:
      actions = defend(endgame, game, states)
    states = step(states, jnp.asarray(actions))
    if ply % 2 == 0:
      spoiled |= plies_to_mate(endgame, states) >= NEVER
  spoiled |= np.asarray(states.ending) == chess.REPETITION
  mated = np.asarray(jax.vmap(game.reward)(states))[:, 0] > 0
  return Verdict(
    games=len(won),
    won=int(mated.sum()),
    spoiled=int(spoiled.sum()),
    plies=float(length[mated].mean()) if mated.any() else float('nan'),
    best_plies=float(best[mated].mean()) if mated.any() else float('nan'),
  )


def defend(endgame: Endgame, game: games.Game, states: Any) -> np.ndarray:
  """Black's moves [B] that put the mate off for longest, or for ever."""
  rows, moves = jax.device_get(_replies(game, states))
  plies = endgame.plies[0].reshape(-1)[np.maximum(rows, 0)]
  plies = np.where(rows == -2, NEVER, plies)
  plies = np.where(rows == -1, -1, plies)
  best = np.argmax(plies, axis=1)
  return moves[np.arange(len(moves)), best]


@functools.partial(jax.jit, static_argnums=0)
def _replies(game: games.Game, states: Any):
  def one(state):
    # A bare king has eight moves at most.
    (moves,) = jnp.nonzero(game.legal_mask(state), size=8, fill_value=-1)

    def follow(move):
      after = game.step(state, move)
      _, low, middle, high = after.boards[0]
      bare = jnp.sum(jax.lax.population_count(low | middle | high)) == 2
      row = row_of(chess_endgames.squares_of(after))
      return jnp.where(move < 0, -1, jnp.where(bare, -2, row))

    return jax.vmap(follow)(moves), moves

  return jax.vmap(one)(states)


def examine(
  name: str, players: Mapping[int, Choose], every: int = 1
) -> dict[str, move_quality.Quality]:
  """Judges players by their number of simulations.

  Args:
    name: of the endgame.
    players: states [B] -> actions [B], by their number of simulations.
    every: of 400 games one in so many is played.

  Returns:
    'won/200' and the like -> the share of games won; 'kept/200' -> the share in
    which the win was never given away.
  """
  found = {}
  for num_simulations, choose in players.items():
    verdict = judge(solve(name), choose, jax.random.key(0), 400 // every)
    for what, number in (
      ('won', verdict.won),
      ('kept', verdict.games - verdict.spoiled),
    ):
      low, high = ratings.wilson_interval(number, verdict.games)
      found[f'{what}/{num_simulations}'] = move_quality.Quality(
        number / verdict.games, low, high, verdict.games
      )
  return found


def claims(
  name: str,
  found: Mapping[str, move_quality.Quality],
  untrained: Mapping[str, move_quality.Quality],
  opening_prior: np.ndarray,
) -> list[Claim]:
  """What `examine` found, beside the same search with an untrained network."""
  del opening_prior  # the games have no opening
  made = []
  for what, bar in (('won', BARS[name]), ('kept', 0.99)):
    most = max(int(key.split('/')[1]) for key in found)
    quality = found[f'{what}/{most}']
    made.append(
      at_least(
        {
          'won': f'won positions won, {most} simulations',
          'kept': f'wins never given away, {most} simulations',
        }[what],
        quality.kept,
        bar,
        interval=(quality.low, quality.high),
        baseline=untrained[f'{what}/{most}'].kept,
        baseline_name='the same search, untrained network',
      )
    )
  return made


def panels(
  name: str,
  records: Sequence[Mapping[str, Any]],
  found: Mapping[str, move_quality.Quality],
  untrained: Mapping[str, move_quality.Quality],
) -> list[strength.Panel]:
  """How the share of wins grew in training, and with search.

  Args:
    name: of the endgame.
    records: the run's metrics: 'seconds', and at times the names that `examine`
      gives.
    found: of the trained player.
    untrained: of the same with the network it began with.
  """
  searches = sorted({int(key.split('/')[1]) for key in found})
  judged = [r for r in records if f'won/{searches[0]}' in r]
  seconds = [r['seconds'] for r in judged]
  players = {n: f'{n} simulations' if n else 'raw network' for n in searches}
  most = searches[-1]
  return [
    strength.accuracy_over_training(
      f'{name}: won against the perfect defender',
      seconds,
      {players[n]: [r[f'won/{n}'] for r in judged] for n in searches},
      {f'untrained, {most} simulations': untrained[f'won/{most}'].kept},
    ),
    strength.quality_by_search(
      searches, {'won': [found[f'won/{n}'] for n in searches]}
    ),
  ]
