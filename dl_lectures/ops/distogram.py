"""Distograms: what is believed of the distance of each pair, and what it costs.

A distogram is [L, L, 64]: log-probabilities of 64 equal bins from 2 to 22
angstrom for the distance between the CB atoms of two residues (CA of glycine);
what is nearer or farther is in the first or the last bin. From it come contact
probabilities and a smooth potential, negative log-likelihoods by cubic spline,
whose gradient moves atoms (Senior et al., "Improved protein structure
prediction using potentials from deep learning", Nature 577, 2020; slides, deck
000, "Optimise potential with gradient descent").

>>> distance = jnp.array([[0.0, 6.0], [6.0, 0.0]])
>>> believed = blurred(distance, sigma=0.5)
>>> bool(contact_probability(believed)[0, 1] > 0.9)
True
>>> potential = spline(-believed)
>>> at = jnp.array([4.0, 6.0, 8.0])
>>> value, slope = evaluate(jnp.tile(potential[0, 1], (3, 1, 1)), at)
>>> int(jnp.argmin(value)), slope[0] < 0 < slope[2]
(1, Array(True, dtype=bool))
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array

BINS = 64
NEAREST, FARTHEST = 2.0, 22.0
WIDTH = (FARTHEST - NEAREST) / BINS

# Upper edges of all bins but the last.
EDGES = np.linspace(NEAREST, FARTHEST, BINS + 1, dtype=np.float32)[1:-1]
CENTRES = np.linspace(
  NEAREST + WIDTH / 2, FARTHEST - WIDTH / 2, BINS, dtype=np.float32
)

# Bins that count as contact. A contact is nearer than 8 angstrom; the published
# code takes int(6 / 20 * 64) whole bins, and those end at 7.9375.
CONTACT_BINS = int((8.0 - NEAREST) / (FARTHEST - NEAREST) * BINS)


class VonMises(NamedTuple):
  """Normal distributions of angles: density ~ exp(kappa cos(x - mean)).

  Attributes:
    mean: [...], radians.
    kappa: [...], concentration; 0 is uniform, large is 1 / variance.
  """

  mean: Array
  kappa: Array


def bin_index(distance: Array) -> Array:
  """The bin of a distance, [...] int32; 0 to 63.

  >>> bin_index(jnp.array([0.0, 2.4, 7.93, 7.94, 30.0])).tolist()
  [0, 1, 18, 19, 63]
  """
  index = jnp.searchsorted(jnp.asarray(EDGES), distance, side='right')
  return index.astype(jnp.int32)


def pair_distances(points: Array) -> Array:
  """[L, 3] -> [L, L]; the gradient is 0, not NaN, where points meet.

  >>> pair_distances(jnp.array([[0.0, 0, 0], [3, 4, 0]])).tolist()
  [[0.0, 5.0], [5.0, 0.0]]
  """
  square = jnp.sum((points[:, None] - points[None]) ** 2, axis=-1)
  apart = square > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def contact_probability(log_probs: Array) -> Array:
  """The probability of less than 8 angstrom, of 7.9375 to be exact.

  Args:
    log_probs: [..., 64].

  Returns:
    [...], 0 to 1.
  """
  return jnp.sum(jnp.exp(log_probs[..., :CONTACT_BINS]), axis=-1)


def blurred(
  distance: Array,
  sigma: Array | float,
  tail: Array | float = 0.05,
  scale: Array | float = 3.0,
) -> Array:
  """A distogram around given distances: a normal with heavy tails.

  Its tails (Laplace's) reach where a normal would leave an atom without pull.

  Args:
    distance: [...], angstrom.
    sigma: [...] or a number, the normal's deviation in angstrom.
    tail: share of the Laplace distribution.
    scale: its mean deviation in angstrom.

  Returns:
    [..., 64] log-probabilities, at the bins' centres.
  """
  distance = jnp.clip(distance, CENTRES[0], CENTRES[-1])[..., None]
  sigma = jnp.asarray(sigma, jnp.float32)
  sigma = sigma[..., None] if sigma.ndim else sigma
  off = jnp.asarray(CENTRES).reshape((1,) * (distance.ndim - 1) + (-1,))
  off = off - distance
  normal = jax.nn.log_softmax(-0.5 * (off / sigma) ** 2)
  laplace = jax.nn.log_softmax(-jnp.abs(off) / scale)
  return jnp.logaddexp(normal + jnp.log1p(-tail), laplace + jnp.log(tail))


def contacts_only(
  log_probs: Array,
  nearest: float = 3.8,
  tail: float = 0.05,
  scale: float = 3.0,
) -> Array:
  """What is left of a distogram when only contacts are told.

  The probability of a contact is spread evenly over its bins, the rest over
  the others; tails like those of `blurred` pull in what should touch and is
  far, and push out what should not and is near.

  Args:
    log_probs: [..., 64].
    nearest: no two atoms are believed to be nearer, angstrom.
    tail: share of either part that lies on the other's side.
    scale: how far it reaches, angstrom.

  Returns:
    [..., 64] log-probabilities.
  """
  near = contact_probability(log_probs)[..., None]
  touching = np.arange(BINS) < CONTACT_BINS
  away = np.exp(-np.abs(CENTRES - EDGES[CONTACT_BINS - 1]) / scale)

  def part(inside: np.ndarray, outside: np.ndarray) -> Array:
    reach = away * outside
    spread = (1 - tail) * inside / inside.sum() + tail * reach / reach.sum()
    return jnp.asarray(spread, jnp.float32).reshape(
      (1,) * (near.ndim - 1) + (BINS,)
    )

  contact = part(touching & (nearest <= CENTRES), ~touching)
  apart = part(~touching, touching)
  # What is nearer than any two atoms is unlikely, not impossible.
  return jnp.log(jnp.maximum(near * contact + (1 - near) * apart, 1e-4 / BINS))


def spline(values: Array, cutoff: float = FARTHEST) -> Array:
  """The cubic spline through values at the bins' centres, level at both ends.

  Args:
    values: [..., 64], such as -log p, or -log p + log of a reference's p.
    cutoff: it ends at the last centre within it, angstrom.

  Returns:
    [..., 64, 2]: at each centre the value and the slope per angstrom; constant
    beyond the cutoff.
  """
  knots = int(np.searchsorted(CENTRES, cutoff, side='right'))
  inner = values[..., :knots]
  slopes = jnp.einsum('...i,ji->...j', inner, jnp.asarray(_slopes(knots)))
  rest = (*values.shape[:-1], BINS - knots)
  end = jnp.broadcast_to(inner[..., -1:], rest)
  return jnp.stack(
    [
      jnp.concatenate([inner, end], axis=-1),
      jnp.concatenate([slopes, jnp.zeros(rest)], axis=-1),
    ],
    axis=-1,
  )


@functools.cache
def _slopes(knots: int) -> np.ndarray:
  """[n, n]: values -> slopes of the spline through them, 0 at both ends.

  Between the ends its second derivative is continuous:
  s_(i-1) + 4 s_i + s_(i+1) = 3 (y_(i+1) - y_(i-1)) / width.
  """
  left = 4 * np.eye(knots) + np.eye(knots, k=1) + np.eye(knots, k=-1)
  right = 3 * (np.eye(knots, k=1) - np.eye(knots, k=-1)) / WIDTH
  left[[0, -1]] = np.eye(knots)[[0, -1]]
  right[[0, -1]] = 0
  return np.linalg.solve(left, right).astype(np.float32)


def evaluate(table: Array, distance: Array) -> tuple[Array, Array]:
  """Values and slopes of splines; constant below the first centre.

  Args:
    table: [..., 64, 2], of `spline`.
    distance: [...], angstrom.

  Returns:
    The value and the slope, [...] each.
  """
  position = (distance - CENTRES[0]) * (1 / WIDTH)
  cell = jnp.clip(position.astype(jnp.int32), 0, BINS - 2)
  t = position - cell
  inside = (t >= 0) & (t <= 1)
  t = jnp.clip(t, 0.0, 1.0)
  row = np.arange(distance.size, dtype=np.int32).reshape(distance.shape)
  first = 2 * (BINS * row + cell)
  # What is looked up, four numbers that lie together, is kept apart from what
  # is reckoned: of both XLA would make one loop, which no vector unit can run.
  first, t = jax.lax.optimization_barrier((first.ravel(), t))
  flat = table.ravel()
  knots = jax.vmap(lambda k: jax.lax.dynamic_slice(flat, (k,), (4,)))(first)
  knots = jax.lax.optimization_barrier(knots).reshape(*distance.shape, 4)
  y0, m0, y1, m1 = jnp.moveaxis(knots, -1, 0)
  m0, m1 = m0 * WIDTH, m1 * WIDTH
  rise = y1 - y0
  cubic = m0 + m1 - 2 * rise
  square = 3 * rise - 2 * m0 - m1
  value = y0 + t * (m0 + t * (square + t * cubic))
  slope = (m0 + t * (2 * square + 3 * t * cubic)) * (1 / WIDTH)
  return value, jnp.where(inside, slope, 0.0)


def fit_von_mises(
  log_probs: Array, angles: Array, most: float = 50.0
) -> VonMises:
  """The von Mises distribution with the mean direction of a histogram.

  In closed form: the mean of exp(i x) has the direction `mean`, and its length
  R is that of kappa = A^-1(R), approximated to .5% by Fisher ("Statistical
  Analysis of Circular Data", 1993, equation 3.47 and 4.41).

  Args:
    log_probs: [..., B], of bins of an angle.
    angles: [B], their centres in radians.
    most: kappa is no more.

  Returns:
    The distribution, [...].

  >>> angles = jnp.linspace(-jnp.pi, jnp.pi, 36, endpoint=False)
  >>> log_probs = jax.nn.log_softmax(4.0 * jnp.cos(angles - 1.0))
  >>> fit = fit_von_mises(log_probs, angles)
  >>> round(float(fit.mean), 3), round(float(fit.kappa), 1)
  (1.0, 4.0)
  """
  p = jnp.exp(log_probs)
  c = jnp.sum(p * jnp.cos(angles), axis=-1)
  s = jnp.sum(p * jnp.sin(angles), axis=-1)
  return VonMises(
    jnp.arctan2(s, c), jnp.minimum(concentration(jnp.hypot(c, s)), most)
  )


def concentration(resultant: Array) -> Array:
  """kappa of the von Mises distribution whose mean cosine is R, 0 <= R < 1.

  >>> concentration(jnp.array([0.0, 0.5])).round(2).tolist()
  [0.0, 1.149999976158142]
  """
  r = jnp.clip(resultant, 0.0, 1 - 1e-6)
  small = 2 * r + r**3 + 5 * r**5 / 6
  middle = -0.4 + 1.39 * r + 0.43 / (1 - r)
  large = 1 / (r**3 - 4 * r**2 + 3 * r)
  return jnp.where(r < 0.53, small, jnp.where(r < 0.85, middle, large))


def von_mises_nll(angle: Array, law: VonMises) -> Array:
  """-log density of angles, [...] nats."""
  # log I0(k) = log(e^-k I0(k)) + k, which does not overflow.
  norm = jnp.log(2 * jnp.pi * jax.scipy.special.i0e(law.kappa)) + law.kappa
  return norm - law.kappa * jnp.cos(angle - law.mean)
