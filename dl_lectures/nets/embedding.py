"""Tokens and positions as vectors.

Slides: deck 003, "Embeddings" and "Positional encoding".

Shapes: B batch, T time, V vocabulary, D width, H heads.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, UsageError

# What GPT-2 starts from (Radford et al. 2019; its published code).
_normal = hk.initializers.RandomNormal(0.02)


class Embedding(hk.Module):
  """A vector for each of V tokens: [...] int -> [..., D].

  A token that does not exist becomes NaN, which no loss overlooks;
  `check_tokens` says so before.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: Embedding(7, 4)(x)))
  >>> tokens = jnp.array([[3, 0, 6]])
  >>> params = net.init(jax.random.key(0), tokens)
  >>> net.apply(params, tokens).shape
  (1, 3, 4)
  """

  def __init__(
    self,
    vocab_size: int,
    width: int,
    w_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      vocab_size: V.
      width: D.
      w_init: of the vectors [V, D]; normal with deviation 0.02 by default.
      name: the module's name.
    """
    super().__init__(name=name)
    self.vocab_size, self.width = vocab_size, width
    self.w_init = w_init or _normal

  @property
  def vectors(self) -> Array:
    """All of them, [V, D]."""
    shape = self.vocab_size, self.width
    return hk.get_parameter('w', shape, init=self.w_init)

  def __call__(self, tokens: Array) -> Array:
    return jnp.take(self.vectors, tokens, axis=0, mode='fill')

  def logits(self, x: Array) -> Array:
    """The products with all vectors, [..., D] -> [..., V]: a tied head.

    Press & Wolf, "Using the output embedding to improve language models", 2017.
    """
    return x @ self.vectors.T


def sinusoidal(position: Array, width: int) -> Array:
  """The positions of "Attention is all you need": [...] -> [..., D].

  Vaswani et al. 2017, section 3.5: PE(p, 2i) = sin(p / 10000^(2i/D)) and
  PE(p, 2i+1) the cosine.

  >>> sinusoidal(jnp.array([0, 1]), 4).round(3).tolist()[0]
  [0.0, 1.0, 0.0, 1.0]

  Args:
    position: integers.
    width: D, even.
  """
  if width % 2:
    raise UsageError(f'sinusoidal positions of width {width}; even is possible')
  angle = _angles(position, width)
  both = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
  return both.reshape(*position.shape, width)


def rotary(x: Array, position: Array) -> Array:
  """Turns pairs of features by angles that grow with the position.

  Su et al., "RoFormer", 2021, equation 34: then a query's product with a key
  depends on how far apart they are, and on nothing else of where they stand.
  Feature i is paired with feature i + D/2.

  >>> x = jnp.array([[1.0, 0.0]])
  >>> rotary(x, jnp.array([1])).round(3).tolist()  # cos 1, sin 1
  [[0.5400000214576721, 0.8410000205039978]]

  Args:
    x: [..., D], D even.
    position: integers, of the shape of x without D, or one that fits it.
  """
  if x.shape[-1] % 2:
    raise UsageError(
      f'rotary positions of width {x.shape[-1]}; even is possible'
    )
  angle = _angles(position, x.shape[-1])
  sin, cos = jnp.sin(angle).astype(x.dtype), jnp.cos(angle).astype(x.dtype)
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )


def _angles(position: Array, width: int) -> Array:
  """p / 10000^(2i/D), [..., D / 2] float32."""
  rates = np.float32(10000.0 ** (-np.arange(0, width, 2) / width))
  position = jnp.asarray(position, jnp.float32)[..., None]
  return position * rates.reshape((1,) * (position.ndim - 1) + (-1,))


def check_tokens(tokens: Array | np.ndarray, vocab_size: int) -> None:
  """Refuses tokens that do not exist; inside jit nothing can be looked at.

  >>> check_tokens(np.array([3, 65]), 65)
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: token 65; 0 to 64 is possible

  Args:
    tokens: integers of any shape.
    vocab_size: V.

  Raises:
    UsageError: a token is unknown, or they are no integers.
  """
  if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
    raise UsageError(
      f'tokens of type {jnp.result_type(tokens)}; integers are possible'
    )
  try:
    seen = np.asarray(tokens)
  except jax.errors.TracerArrayConversionError:
    return
  wrong = seen[(seen < 0) | (seen >= vocab_size)]
  if wrong.size:
    raise UsageError(f'token {wrong[0]}; 0 to {vocab_size - 1} is possible')
