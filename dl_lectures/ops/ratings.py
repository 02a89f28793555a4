"""Ratings from results: the Bradley-Terry model on Elo's scale.

Elo, "The Rating of Chessplayers" (1978); Bradley & Terry, Biometrika 39
(1952); Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of
Statistics 32 (2004). AlphaGo's and AlphaZero's figures are on this scale.
"""

from typing import NamedTuple

import numpy as np

ELO_PER_NAT = 400 / np.log(10)


class Ratings(NamedTuple):
  """Ratings of n players.

  Attributes:
    elo: [n] float64, in Elo points; the anchor's is 0.
    error: [n] float64, standard errors in Elo points; the anchor's is 0.
  """

  elo: np.ndarray
  error: np.ndarray


def expected_score(elo_difference: np.ndarray | float) -> np.ndarray:
  """The share of points that a player so much stronger takes.

  >>> round(float(expected_score(400)), 4)
  0.9091
  """
  return 1 / (1 + 10 ** (-np.asarray(elo_difference, float) / 400))


def bradley_terry(
  points: np.ndarray, anchor: int = 0, prior_games: float = 1.0
) -> Ratings:
  """Maximum a posteriori ratings of players from the points they took.

  P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400)); a draw is half a point. The
  posterior is concave and is climbed by Newton's method; the errors are those
  of its curvature.

  Args:
    points: [n, n], points that player i took from player j, in all.
    anchor: the player whose rating is fixed at 0.
    prior_games: drawn games added to each pair that met, spread so that a
      clean sweep has a finite rating; 0 for maximum likelihood.

  Returns:
    The ratings.

  Raises:
    ValueError: points are negative, or some player never met the others.

  >>> ratings = bradley_terry(np.array([[0, 10], [30, 0]]), prior_games=0)
  >>> ratings.elo.round(1).tolist()
  [0.0, 190.8]
  """
  points = np.asarray(points, float)
  n = len(points)
  if points.shape != (n, n) or (points < 0).any():
    raise ValueError(f'points must be a square of numbers >= 0: {points!r}')
  met = (points + points.T) > 0
  points = points + prior_games / 2 * met
  games = points + points.T
  free = np.arange(n) != anchor
  if not _connected(met):
    raise ValueError('some players never met the others: no common scale')

  strength = np.zeros(n)
  for _ in range(100):
    p = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
    gradient = (points - games * p).sum(axis=1)
    weight = games * p * (1 - p)
    hessian = np.diag(weight.sum(axis=1)) - weight
    step = np.zeros(n)
    step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
    # A Newton step from far away may overshoot: none is longer than 1 nat.
    step /= max(1.0, np.abs(step).max())
    strength += step
    if np.abs(step).max() < 1e-10:
      break
  error = np.zeros(n)
  covariance = np.linalg.inv(hessian[np.ix_(free, free)])
  error[free] = np.sqrt(np.diag(covariance))
  return Ratings(strength * ELO_PER_NAT, error * ELO_PER_NAT)


def _connected(met: np.ndarray) -> bool:
  reached = np.zeros(len(met), bool)
  reached[0] = True
  for _ in range(len(met)):
    reached = reached | met[reached].any(axis=0)
  return bool(reached.all())


def wilson_interval(
  successes: float, trials: float, z: float = 1.96
) -> tuple[float, float]:
  """A confidence interval of a share (Wilson, JASA 22, 1927).

  >>> [round(x, 3) for x in wilson_interval(8, 10)]
  [0.49, 0.943]
  """
  share = successes / trials
  centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
  half = (
    z
    / (1 + z * z / trials)
    * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
  )
  return float(centre - half), float(centre + half)
