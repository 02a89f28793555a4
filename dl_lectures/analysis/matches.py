"""Matches between players of a board game, and what they are rated.

A player is a function of positions: it neither knows nor keeps anything else.
AlphaGo and AlphaZero are judged so (Silver et al. 2016, Extended Data Table 7;
2018, figure 1); a pool with fixed members, not the last opponent alone, keeps
the scale honest. Slides: deck 000, "AlphaZero: One Algorithm, Three Games".
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures import search
from dl_lectures.envs import games
from dl_lectures.ops import ratings
from dl_lectures.types import Array, Key

# (states [B], key) -> actions [B], legal ones.
Player = Callable[[Any, Key], Array]


class Standing(NamedTuple):
  """One player's place in a round robin.

  Attributes:
    name: the player's.
    elo: its rating; the first player's is 0.
    error: its standard error.
    score: the share of points it took.
    games: the number it played.
  """

  name: str
  elo: float
  error: float
  score: float
  games: int


def random_player(game: games.Game) -> Player:
  """Plays any legal move."""

  def choose(states: Any, key: Key) -> Array:
    legal = jax.vmap(game.legal_mask)(states)
    return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))

  return jax.jit(choose)


def rollout_player(game: games.Game, num_simulations: int) -> Player:
  """Searches with a uniform prior and one random game as each leaf's value.

  Monte Carlo tree search as it was before networks (Coulom 2006; Kocsis &
  Szepesvari 2006), with the selection rule of AlphaZero.

  Args:
    game: the rules.
    num_simulations: random games a move.
  """
  model = rollout_model(game)

  def choose(states: Any, key: Key) -> Array:
    legal = jax.vmap(game.legal_mask)(states)
    zeros = jnp.zeros(legal.shape[:1])
    root = search.RootFnOutput(
      jnp.where(legal, 0.0, -1e9), zeros, jax.vmap(game.compact)(states)
    )
    return search.alphazero_policy(
      None,
      key,
      root,
      model,
      num_simulations,
      ~legal,
      dirichlet_fraction=0.0,
      temperature=0.0,
    ).action

  return jax.jit(choose)


def rollout_model(game: games.Game) -> search.RecurrentFn:
  """The rules, and the result of a random game as a position's value."""

  def playout(state: Any, key: Key) -> Array:
    def ply(carry):
      state, key = carry
      key, move_key = jax.random.split(key)
      logits = jnp.where(game.legal_mask(state), 0.0, -jnp.inf)
      return game.step(state, jax.random.categorical(move_key, logits)), key

    return game.reward(
      jax.lax.while_loop(lambda c: ~game.terminal(c[0]), ply, (state, key))[0]
    )

  def recurrent_fn(params, rng_key, action, states):
    del params
    mover = jax.vmap(game.to_play)(states)
    states = jax.vmap(game.step)(states, action)
    player = jax.vmap(game.to_play)(states)
    keys = jax.random.split(rng_key, action.shape[0])
    over = jax.vmap(game.terminal)(states)
    result = jax.vmap(playout)(states, keys)

    def of(who: Array) -> Array:
      return jnp.take_along_axis(result, who[:, None], axis=1)[:, 0]

    legal = jax.vmap(game.legal_mask)(states)
    return search.RecurrentFnOutput(
      reward=jnp.where(over, of(mover), 0.0),
      discount=jnp.where(over, 0.0, jnp.where(player == mover, 1.0, -1.0)),
      prior_logits=jnp.where(legal, 0.0, -1e9),
      value=jnp.where(over, 0.0, of(player)),
    ), jax.vmap(game.compact)(states)

  return recurrent_fn


def play_match(
  game: games.Game,
  first: Player,
  second: Player,
  key: Key,
  num_games: int,
  random_plies: int = 2,
) -> float:
  """Plays a match of games, each opening once with either side.

  Players that draw nothing at random would play one game over and over, so
  that games open with a few random plies, the same for both halves.

  Args:
    game: the rules; players alternate.
    first: a player.
    second: the other.
    key: consumed.
    num_games: an even number, half of them begun by each.
    random_plies: legal moves at random before either player moves.

  Returns:
    The points of the first player: a win is 1, a draw 1/2.
  """
  half = num_games // 2
  step, terminal = jax.jit(jax.vmap(game.step)), jax.vmap(game.terminal)
  opening_key, key = jax.random.split(key)
  states = jax.vmap(game.init)(jax.random.split(opening_key, half))
  anyone = random_player(game)
  for ply in range(random_plies):
    states = step(states, anyone(states, jax.random.fold_in(opening_key, ply)))
  # In the one half the first player is player 0 of the game, in the other 1.
  boards = [states, states]
  for ply in range(random_plies, game.max_plies):
    if all(bool(terminal(board).all()) for board in boards):
      break
    movers = (first, second) if ply % 2 == 0 else (second, first)
    for i, mover in enumerate(movers):
      move_key = jax.random.fold_in(key, 2 * ply + i)
      boards[i] = step(boards[i], mover(boards[i], move_key))
  results = [
    np.asarray(jax.vmap(game.reward)(b))[:, i] for i, b in enumerate(boards)
  ]
  return float(sum((1 + r).sum() / 2 for r in results))


def round_robin(
  game: games.Game,
  players: dict[str, Player],
  key: Key,
  num_games: int,
  pairs: Sequence[tuple[str, str]] | None = None,
) -> list[Standing]:
  """Plays every pair against each other and rates the players.

  Args:
    game: the rules.
    players: by name; the first is the anchor, at 0 Elo.
    key: consumed.
    num_games: of each pair; even.
    pairs: the pairs to play; all by default.

  Returns:
    A standing for each, in the players' order.
  """
  names = list(players)
  if pairs is None:
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
  points = np.zeros((len(names), len(names)))
  for n, (a, b) in enumerate(pairs):
    won = play_match(
      game, players[a], players[b], jax.random.fold_in(key, n), num_games
    )
    points[names.index(a), names.index(b)] = won
    points[names.index(b), names.index(a)] = num_games - won
  return standings(names, points)


def standings(names: Sequence[str], points: np.ndarray) -> list[Standing]:
  """Rates players by the points [n, n] that each took from each other.

  >>> [s.score for s in standings('ab', np.array([[0, 1], [3, 0]]))]
  [0.25, 0.75]
  """
  rated = ratings.bradley_terry(points)
  played = (points + points.T).sum(axis=1)
  return [
    Standing(name, float(elo), float(error), float(got / n), int(n))
    for name, elo, error, got, n in zip(
      names, rated.elo, rated.error, points.sum(axis=1), played, strict=True
    )
  ]
