"""What stands on a trunk: AlphaGo Zero's policy and value head."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.nets.convolution import Conv2D, Normalise, apply_norm
from dl_lectures.types import Array, UsageError

# Nearly uniform policies and values near 0: an untrained network then hardly
# prejudices the first searches, and no two priors tie.
_nearly_zero = hk.initializers.VarianceScaling(0.01)
_he_normal = hk.initializers.VarianceScaling(2.0)


class PolicyValue(NamedTuple):
  """What a network says about a position.

  Attributes:
    logits: [N, A], of the policy; illegal moves are not masked.
    value: [N] in [-1, 1], the expected result of the player to move.
  """

  logits: Array
  value: Array


class PolicyValueHead(hk.Module):
  """Policy and value of a position from its features.

  AlphaGo Zero's two heads (Silver et al. 2017, Methods, "Neural network
  architecture"). Policy: 1x1 convolution, norm, ReLU, linear. Value: 1x1
  convolution, norm, ReLU, linear, ReLU, linear, tanh. Without a norm the first
  ReLU of each is left out too: a trunk's features are not negative, so a single
  channel of them would be dead from the start as often as not.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: PolicyValueHead(7)(x)))
  >>> features = jnp.ones([2, 6, 7, 32])
  >>> logits, value = net.apply(net.init(jax.random.key(0), features), features)
  >>> logits.shape, value.shape
  ((2, 7), (2,))
  """

  def __init__(
    self,
    num_actions: int,
    policy_channels: int = 2,
    value_channels: int = 1,
    hidden: int = 256,
    norm: Callable[[], Normalise] | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      num_actions: A.
      policy_channels: channels of the policy's 1x1 convolution; 0 for the
        head of AlphaZero's chess and shogi, a 3x3 convolution and then a plane
        of the board for each kind of move, action = kinds * cell + kind.
      value_channels: channels of the value's 1x1 convolution.
      hidden: width of the value's hidden layer.
      norm: as for `ResidualTower`.
      name: the module's name.
    """
    super().__init__(name=name)
    self.num_actions = num_actions
    self.policy_channels, self.value_channels = policy_channels, value_channels
    self.hidden, self.norm = hidden, norm

  def __call__(
    self, features: Array, is_training: bool | None = None
  ) -> PolicyValue:
    """Reads features [N, H, W, C] or [N, C]; `is_training` is the norm's."""
    linear = functools.partial(hk.Linear, w_init=_nearly_zero)
    if features.ndim == 2:
      with hk.name_scope('policy'):
        logits = linear(self.num_actions)(features)
      with hk.name_scope('value'):
        value = linear(1)(features)
      return PolicyValue(logits, jnp.tanh(jnp.squeeze(value, axis=-1)))

    def squeeze(channels: int) -> Array:
      with_bias = self.norm is None
      x = Conv2D(channels, 1, with_bias=with_bias, w_init=_he_normal)(features)
      if self.norm is not None:
        x = jax.nn.relu(apply_norm(self.norm, x, is_training=is_training))
      return hk.Flatten()(x)

    with hk.name_scope('policy'):
      if self.policy_channels:
        logits = linear(self.num_actions)(squeeze(self.policy_channels))
      else:
        logits = self._planes(features, is_training)
    with hk.name_scope('value'):
      hidden = hk.Linear(self.hidden, w_init=_he_normal)(
        squeeze(self.value_channels)
      )
      value = linear(1)(jax.nn.relu(hidden))
    return PolicyValue(logits, jnp.tanh(jnp.squeeze(value, axis=-1)))

  def _planes(self, features: Array, is_training: bool | None) -> Array:
    _, height, width, channels = features.shape
    kinds, rest = divmod(self.num_actions, height * width)
    if rest:
      raise UsageError(
        f'{self.num_actions} actions are no whole number of planes of '
        f'{height}x{width}; policy_channels of 1 and more are possible'
      )
    x = Conv2D(channels, 3, with_bias=self.norm is None, w_init=_he_normal)(
      features
    )
    if self.norm is not None:
      x = apply_norm(self.norm, x, is_training=is_training)
    x = Conv2D(kinds, 1, w_init=_nearly_zero)(jax.nn.relu(x))
    return hk.Flatten()(x)
