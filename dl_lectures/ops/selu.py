"""Scaled exponential linear units: moments, fixed points, alpha dropout.

Klambauer, Unterthiner, Mayr & Hochreiter, "Self-normalizing neural networks",
NeurIPS 2017, arXiv 1706.02515 [K]. Slides: deck 002, "Self-normalizing
networks".

A unit of a layer sees z = sum of w_i x_i over many inputs, about normal. If
those have mean mu and variance nu, and the unit's weights the sum omega and the
sum of squares tau, then z ~ N(mu omega, nu tau), and the mean and variance of
selu(z) are known in closed form: `moments`, [K] equations 4 and 5. A fixed
point of that map which attracts is what keeps activations normalised through
any number of layers without a layer that normalises them.

The moments are of float64 on the host, where a fixed point is good to 1e-9.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dl_lectures.types import Array, Key, UsageError


class Selu(NamedTuple):
  """The two constants of the activation.

  Attributes:
    scale: lambda, the slope for z > 0.
    alpha: -scale * alpha is the limit for z -> -infinity.
  """

  scale: float
  alpha: float


# The fixed point (0, 1); [K], equation 14.
STANDARD = Selu(1.0507009873554805, 1.6732632423543772)


class Moments(NamedTuple):
  """Mean and variance of a layer's activations."""

  mean: np.ndarray
  variance: np.ndarray


def selu(x: Array, constants: Selu = STANDARD) -> Array:
  """scale * (x if x > 0 else alpha * (e^x - 1)), elementwise: [K], equation 2.

  >>> [round(y, 4) for y in selu(jnp.array([-1.0, 0.0, 2.0])).tolist()]
  [-1.1113, 0.0, 2.1014]
  """
  # The branch not taken must not overflow: its gradient would be NaN.
  negative = constants.alpha * jnp.expm1(jnp.minimum(x, 0))
  return constants.scale * jnp.where(x > 0, x, negative)


class _Parts(NamedTuple):
  """Expectations over z ~ N(m, v), of which all moments are made."""

  positive: np.ndarray  # E[max(z, 0)]
  positive_square: np.ndarray  # E[max(z, 0)^2]
  negative: np.ndarray  # E[1 - e^min(z, 0)]
  negative_square: np.ndarray  # E[(1 - e^min(z, 0))^2]


def _parts(m: np.ndarray, v: np.ndarray) -> _Parts:
  root = np.sqrt(2 * v)
  density = np.exp(-((m / root) ** 2)) * np.sqrt(v / (2 * np.pi))
  below = special.erfc(m / root) / 2  # P(z < 0)

  def exponential(k):
    """E[e^(kz); z < 0], which neither overflows nor cancels."""
    at = (m + k * v) / root
    with np.errstate(over='ignore', invalid='ignore'):
      direct = np.exp(k * m + k * k * v / 2) * special.erfc(at)
      scaled = np.exp(-((m / root) ** 2)) * special.erfcx(at)
    return np.where(at > 0, scaled, direct) / 2

  return _Parts(
    m * (1 - below) + density,
    (m * m + v) * (1 - below) + m * density,
    below - exponential(1),
    below - 2 * exponential(1) + exponential(2),
  )


def moments(
  mean: np.ndarray | float,
  variance: np.ndarray | float,
  omega: np.ndarray | float = 0.0,
  tau: np.ndarray | float = 1.0,
  constants: Selu = STANDARD,
) -> Moments:
  """From one layer's mean and variance to the next one's: [K], equations 4, 5.

  Args:
    mean: of the inputs, of any shape.
    variance: of the inputs, more than 0.
    omega: the sum of a unit's weights.
    tau: the sum of their squares, more than 0; 1 / fan-in for each weight's
      variance (LeCun) makes it 1 in the mean.
    constants: of the activation.

  Returns:
    Mean and variance of the activations, float64.

  >>> mean, variance = moments(0.0, 1.0)
  >>> bool(abs(mean) < 1e-15), bool(abs(variance - 1) < 1e-15)
  (True, True)
  """
  m = np.asarray(mean, float) * omega
  parts = _parts(m, np.asarray(variance, float) * tau)
  scale, alpha = constants
  new = scale * (parts.positive - alpha * parts.negative)
  square = scale**2 * (parts.positive_square + alpha**2 * parts.negative_square)
  return Moments(new, square - new**2)


def fixed_point(
  mean: float, variance: float, omega: float = 0.0, tau: float = 1.0
) -> Selu:
  """The constants with which `moments` leaves a mean and variance as they are.

  Of scale and scale * alpha, the mean is linear and the second moment a sum of
  squares, so that a quadratic equation has them. Of its two roots it takes the
  steeper activation. Whether the fixed point attracts is for `slope` to say.

  Args:
    mean: of the activations.
    variance: of the activations, more than 0.
    omega: the sum of a unit's weights.
    tau: the sum of their squares, more than 0.

  Returns:
    Scale and alpha.

  Raises:
    UsageError: no increasing activation of this form has the fixed point.

  >>> constants = fixed_point(0.0, 1.0)
  >>> bool(max(abs(np.subtract(constants, STANDARD))) < 1e-12)
  True
  """
  if not (variance > 0 and tau > 0):
    raise UsageError(
      f'variance {variance} and tau {tau}; more than 0 is possible'
    )
  parts = _parts(np.array(mean * omega), np.array(variance * tau))
  a, p, b, c = map(float, parts)
  # lambda a - beta b = mean and lambda^2 p + beta^2 c = mean^2 + variance,
  # where beta = lambda alpha; beta goes out by the first.
  ratio = c / b**2
  square = p + ratio * a**2
  half = ratio * a * mean
  rest = ratio * mean**2 - (mean**2 + variance)
  under = half**2 - square * rest
  scale = (half + np.sqrt(max(under, 0.0))) / square
  beta = (scale * a - mean) / b
  if under < 0 or not (scale > 0 and beta >= 0):
    raise UsageError(
      f'no SELU has the fixed point (mean {mean}, variance {variance}) with '
      f'omega {omega} and tau {tau}; a mean nearer to 0 is possible'
    )
  return Selu(float(scale), float(beta / scale))


def slope(
  mean: float,
  variance: float,
  omega: float = 0.0,
  tau: float = 1.0,
  constants: Selu = STANDARD,
) -> float:
  """The spectral norm of the Jacobian of `moments`: below 1 it contracts.

  >>> slope(0.0, 1.0) < 1
  True
  """
  step = 1e-6

  def central(mean_step, variance_step):
    ahead, behind = (
      moments(
        mean + d * mean_step,
        variance + d * variance_step,
        omega,
        tau,
        constants,
      )
      for d in (step, -step)
    )
    return (np.array(ahead) - np.array(behind)) / (2 * step)

  jacobian = np.stack([central(1, 0), central(0, 1)], axis=1)
  return float(np.linalg.norm(jacobian, 2))


def alpha_dropout(key: Key, rate: float, x: Array) -> Array:
  """Dropout that keeps mean 0 and variance 1: [K], "New dropout technique".

  What is dropped becomes the activation's lower limit, -scale * alpha, and
  not 0; an affine map then restores both moments.

  Args:
    key: consumed.
    rate: the share that is dropped, 0 <= rate < 1.
    x: activations, of any shape.

  Returns:
    Activations of the same shape.

  >>> x = jax.random.normal(jax.random.key(0), [100_000])
  >>> y = alpha_dropout(jax.random.key(1), 0.1, x)
  >>> bool(abs(y.mean()) < 0.02), bool(abs(y.var() - 1) < 0.02)
  (True, True)
  """
  keep = 1 - rate
  limit = -STANDARD.scale * STANDARD.alpha
  kept = jax.random.bernoulli(key, keep, x.shape)
  spread = (keep + limit**2 * keep * rate) ** -0.5
  shift = -spread * rate * limit
  return (spread * jnp.where(kept, x, limit) + shift).astype(x.dtype)
