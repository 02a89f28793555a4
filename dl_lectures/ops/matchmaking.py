"""Who plays whom in a population, and what results do to ratings.

In a round each agent plays exactly one game, against and beside agents of about
its own strength: a game whose end is known beforehand teaches nobody. All
shapes are fixed, so that a round is part of a compiled program: the agents of
all games are a permutation of the population.

Source: Jaderberg et al., "Human-level performance in 3D multiplayer games with
population-based reinforcement learning", Science 364, 2019: who plays beside
the first agent is drawn by a normal density of the chance to win, round one
half with a deviation of 1/6. Drawn without replacement by Gumbel noise and the
largest values (Kool et al., "Stochastic beams and where to find them", ICML
2019). Elo, "The Rating of Chessplayers", 1978.

>>> elo = jnp.array([0.0, 10.0, 900.0, 910.0])
>>> games = draw_games(jax.random.key(0), elo, 2)
>>> sorted(sorted(game) for game in games.tolist())
[[0, 1], [2, 3]]
"""

import jax
import jax.numpy as jnp

from dl_lectures.types import Array, Key, UsageError


def win_probability(elo: Array, rival: Array) -> Array:
  """The share of points that `elo` takes from `rival`; any one shape.

  >>> round(float(win_probability(jnp.float32(400), jnp.float32(0))), 4)
  0.9091
  """
  return jax.nn.sigmoid((elo - rival) * (jnp.log(10.0) / 400))


def draw_games(
  key: Key, elo: Array, players: int, spread: float = 1 / 6
) -> Array:
  """Draws the games of a round.

  The first agent of a game is any that has none yet; the others are drawn
  without replacement from those that are left, with the weight
  exp(-(p - 1/2)^2 / (2 spread^2)), where p is the chance of the first to win.
  Then seats are drawn: the last to be drawn are not always a team.

  Args:
    key: consumed.
    elo: [P] float32, of all agents.
    players: of a game, k; with two teams the first half of them is the one.
    spread: the smaller, the closer are those who meet.

  Returns:
    [P / k, k] int32, numbers of agents, each of them once.

  Raises:
    UsageError: P agents cannot be split into games of k.
  """
  members = elo.shape[0]
  if players < 1 or members < players or members % players:
    raise UsageError(
      f'a population of {members} for games of {players}; a multiple of '
      f'{max(players, 1)} is possible'
    )

  def one_game(free: Array, noise: tuple[Array, Array, Array]):
    first_noise, gumbel, seat_noise = noise
    first = jnp.argmax(jnp.where(free, first_noise, -1.0))
    chance = win_probability(elo[first], elo)
    weight = -(((chance - 0.5) / spread) ** 2) / 2
    # The first is drawn for certain, and who is taken never.
    value = jnp.where(free, weight + gumbel, -jnp.inf).at[first].set(jnp.inf)
    _, drawn = jax.lax.top_k(value, players)
    return free.at[drawn].set(False), drawn[jnp.argsort(seat_noise)]

  games = members // players
  first_key, gumbel_key, seat_key = jax.random.split(key, 3)
  noise = (
    jax.random.uniform(first_key, (games, members)),
    jax.random.gumbel(gumbel_key, (games, members)),
    jax.random.uniform(seat_key, (games, players)),
  )
  free = jnp.ones(members, bool)
  return jax.lax.scan(one_game, free, noise)[1].astype(jnp.int32)


def updated_ratings(
  elo: Array, games: Array, points: Array, rate: float = 16.0
) -> Array:
  """Elo's update after games of two teams: [P] float32.

  A team is rated as the mean of its players, and each of them gains what it
  gains: `rate` times the points it took beyond those expected. The sum of all
  ratings stays the same.

  Args:
    elo: [P] float32.
    games: [G, k] int32, k even: the first half of a row against the second.
    points: [G] float32, that the first team took: 1, 1/2 or 0.
    rate: the most that one game can give.

  Raises:
    UsageError: an odd number of players cannot be two teams.

  >>> after = updated_ratings(
  ...   jnp.zeros(4), jnp.array([[0, 1, 2, 3]]), jnp.ones(1), 10.0
  ... )
  >>> after.tolist()
  [5.0, 5.0, -5.0, -5.0]
  """
  if games.shape[1] % 2:
    raise UsageError(
      f'games of {games.shape[1]}; two teams need an even number'
    )
  teams = games.reshape(games.shape[0], 2, -1)
  rated = jnp.mean(elo[teams], axis=2)  # [G, 2]
  gain = rate * (points - win_probability(rated[:, 0], rated[:, 1]))
  gains = jnp.broadcast_to(jnp.stack([gain, -gain], 1)[..., None], teams.shape)
  return elo.at[teams].add(gains)
