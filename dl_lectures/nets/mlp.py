"""The multilayer perceptron."""

from collections.abc import Callable, Sequence

import haiku as hk
import jax

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
