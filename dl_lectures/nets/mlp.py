"""Multilayer perceptrons: plain, residual, self-normalising."""

import functools
from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.ops import selu
from dl_lectures.types import Array


class MLP(hk.Module):
  """Linear layers with an activation between them: [..., C] -> [..., D].

  >>> net = hk.without_apply_rng(hk.transform(lambda x: MLP([32, 10])(x)))
  >>> images = jax.numpy.zeros([2, 784])
  >>> net.apply(net.init(jax.random.key(0), images), images).shape
  (2, 10)
  """

  def __init__(
    self,
    output_sizes: Sequence[int],
    activation: Callable[[Array], Array] = jax.nn.relu,
    activate_final: bool = False,
    w_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      output_sizes: the layers' widths; the last one is D.
      activation: applied after every layer but the last.
      activate_final: whether it is applied after the last one too.
      w_init: initialiser of the weights; by default truncated normal with
        variance 2 / fan-in where an activation follows, else 1 / fan-in.
      name: the module's name.
    """
    super().__init__(name=name)
    self.output_sizes = tuple(output_sizes)
    self.activation, self.activate_final = activation, activate_final
    self.w_init = w_init

  def __call__(self, x: Array) -> Array:
    for layer, size in enumerate(self.output_sizes):
      active = self.activate_final or layer < len(self.output_sizes) - 1
      w_init = self.w_init or hk.initializers.VarianceScaling(1.0 + active)
      x = hk.Linear(size, w_init=w_init)(x)
      if active:
        x = self.activation(x)
    return x


class ResidualMLP(hk.Module):
  """A linear layer and residual blocks of two: [..., C] -> [..., D].

    x <- relu(linear(x)),  num_blocks times  x <- relu(x + W_2 relu(W_1 x))

  The second layer of every block starts at zero, as in Fixup (Zhang et al.
  2019, section 3): each block is the identity at first.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: ResidualMLP(8, 2)(x)))
  >>> boards = jax.numpy.zeros([2, 84])
  >>> net.apply(net.init(jax.random.key(0), boards), boards).shape
  (2, 8)
  """

  def __init__(self, width: int, num_blocks: int, name: str | None = None):
    """Makes the module.

    Args:
      width: D, of every layer.
      num_blocks: the number of residual blocks.
      name: the module's name.
    """
    super().__init__(name=name)
    self.width, self.num_blocks = width, num_blocks

  def __call__(self, x: Array) -> Array:
    linear = functools.partial(hk.Linear, self.width)
    he_normal = hk.initializers.VarianceScaling(2.0)
    x = jax.nn.relu(linear(w_init=he_normal)(x))
    for block in range(self.num_blocks):
      with hk.name_scope(f'block_{block}'):
        y = jax.nn.relu(linear(w_init=he_normal)(x))
        x = jax.nn.relu(x + linear(w_init=jnp.zeros)(y))
    return x


def lecun_normal() -> hk.initializers.Initializer:
  """Normal weights of variance 1 / fan-in, with which SELU is normalised."""
  return hk.initializers.VarianceScaling(1.0, 'fan_in', 'normal')


class SeluMLP(hk.Module):
  """A self-normalising network: [..., C] -> [..., D].

  Klambauer et al., "Self-normalizing neural networks", 2017: LeCun-normal
  weights and SELU hold every layer's activations near mean 0 and variance 1,
  for inputs that are so themselves.

  >>> net = hk.transform(lambda x: SeluMLP([32, 32, 10], dropout=0.05)(x, True))
  >>> x = jax.random.normal(jax.random.key(0), [2, 784])
  >>> params = net.init(jax.random.key(1), x)
  >>> net.apply(params, jax.random.key(2), x).shape
  (2, 10)
  """

  def __init__(
    self,
    output_sizes: Sequence[int],
    dropout: float = 0.0,
    activate_final: bool = False,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      output_sizes: the layers' widths; the last one is D.
      dropout: share of each activation that alpha dropout drops in training.
      activate_final: whether the last layer has an activation (and dropout).
      name: the module's name.
    """
    super().__init__(name=name)
    self.output_sizes = tuple(output_sizes)
    self.dropout, self.activate_final = dropout, activate_final

  def __call__(self, x: Array, is_training: bool = False) -> Array:
    """Applies the layers; in training dropout needs a key."""
    for layer, size in enumerate(self.output_sizes):
      x = hk.Linear(size, w_init=lecun_normal())(x)
      if self.activate_final or layer < len(self.output_sizes) - 1:
        x = selu.selu(x)
        if self.dropout and is_training:
          x = selu.alpha_dropout(hk.next_rng_key(), self.dropout, x)
    return x
