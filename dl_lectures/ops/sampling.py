"""From logits to a choice: temperature, top-k, nucleus, and the draw.

A processor is a function of logits [..., V] that gives logits [..., V]; several
are applied one after the other. What must not be chosen gets -inf. The makers
below return the same function for the same setting, so that a program compiled
for it is found again.

Slides: deck 003, "Sampling".
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.types import Array, UsageError

Processor = Callable[[Array], Array]


@functools.cache
def temperature(value: float) -> Processor:
  """Divides logits by a temperature: below 1 the likely becomes likelier.

  >>> temperature(0.5)(jnp.array([1.0, 2.0])).tolist()
  [2.0, 4.0]
  """
  if not value > 0:
    raise UsageError(
      f"a temperature of {value}; more than 0 is possible, and 'greedy' for 0"
    )
  return lambda logits: logits / value


@functools.cache
def top_k(k: int) -> Processor:
  """Keeps the k largest logits, and what equals the smallest of them.

  Fan, Lewis & Dauphin, "Hierarchical neural story generation", 2018.

  >>> top_k(2)(jnp.array([1.0, 3.0, 2.0])).tolist()
  [-inf, 3.0, 2.0]
  """
  if k < 1:
    raise UsageError(f'the best {k}; at least 1 is possible')

  def process(logits: Array) -> Array:
    best, _ = lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.where(logits >= best[..., -1:], logits, -jnp.inf)

  return process


@functools.cache
def nucleus(p: float) -> Processor:
  """Keeps the most likely ones that together have a probability of p.

  The smallest set that reaches p, and what equals its least likely member.
  Holtzman et al., "The curious case of neural text degeneration", 2020,
  equation 2.

  >>> logits = jnp.log(jnp.array([0.5, 0.15, 0.3, 0.05]))
  >>> (nucleus(0.75)(logits) > -jnp.inf).tolist()
  [True, False, True, False]
  """
  if not 0 < p <= 1:
    raise UsageError(f'a nucleus of {p}; more than 0 and at most 1 is possible')

  def process(logits: Array) -> Array:
    ordered = jnp.sort(logits, axis=-1, descending=True)
    shares = jax.nn.softmax(ordered)
    before = jnp.cumsum(shares, axis=-1) - shares
    least = jnp.where(before < p, ordered, jnp.inf)
    least = jnp.min(least, axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)

  return process


def process(processors: Sequence[Processor], logits: Array) -> Array:
  """Applies one after the other.

  >>> halved_first = process([temperature(2.0), top_k(1)], jnp.array([1.0, 2]))
  >>> halved_first.tolist()
  [-inf, 1.0]
  """
  for processor in processors:
    logits = processor(logits)
  return logits


def draw(logits: Array, uniform: Array) -> Array:
  """The token that a uniform number stands for: where their sum exceeds it.

  One number a draw, made outside of loops, instead of one for each token.

  >>> thirds = jnp.log(jnp.array([1 / 3, 0, 2 / 3]))
  >>> [int(draw(thirds, jnp.float32(u))) for u in (0, 0.3, 0.4, 0.99)]
  [0, 0, 2, 2]

  Args:
    logits: [V]; one of -inf is never drawn.
    uniform: [] in [0, 1).

  Returns:
    [] int32.
  """
  # In 32 bits: in 16 the sum of many would stand still.
  shares = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
  sums = jnp.cumsum(shares)
  # A sum that is rounded may end a little below 1.
  return jnp.argmax(sums > uniform * sums[-1]).astype(jnp.int32)


def most_likely(logits: Array) -> Array:
  """The first of the largest logits: [..., V] to [...] int32.

  As jnp.argmax, whose reduction of values with their places XLA:CPU does one
  by one.

  >>> most_likely(jnp.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])).tolist()
  [1, 0]
  """
  largest = jnp.max(logits, axis=-1, keepdims=True)
  places = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  # Of what is not a number nothing is smaller.
  return jnp.min(
    jnp.where(logits < largest, logits.shape[-1] - 1, places), axis=-1
  )
