"""Linear layers whose gradients are fast for sequences.

Of y = x w with x [B, T, F], autodiff and XLA:CPU make the gradient of w out of
transposed copies, in each of which everything added to the residual stream may
be worked out anew: a quarter of the time of a small GPT's update. Here both
gradients are products of matrices.
"""

import haiku as hk
import jax
from jax import lax

from dl_lectures.types import Array


@jax.custom_vjp
def product(x: Array, w: Array) -> Array:
  """x w: [..., F] times [F, D] is [..., D]; differentiable in reverse mode.

  >>> import jax.numpy as jnp
  >>> x, w = jnp.ones([2, 3, 4]), jnp.ones([4, 5])
  >>> product(x, w).shape, jax.grad(lambda w: product(x, w).sum())(w)[0, 0]
  ((2, 3, 5), Array(6., dtype=float32))
  """
  y = _rows(x) @ w
  return y.reshape(*x.shape[:-1], w.shape[1])


def weight_gradient(x: Array, d_y: Array) -> Array:
  """The gradient of w [F, D] in y = x w.

  Args:
    x: [..., F].
    d_y: the gradient of y, [..., D].
  """
  x, d_y = _rows(x), _rows(d_y)
  if x.shape[1] <= d_y.shape[1]:
    return x.T @ d_y
  # The product that XLA would make of it takes twice as long when x is wider.
  return lax.optimization_barrier(d_y.T @ x).T


def _rows(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _forward(x, w):
  return product(x, w), (x, w)


def _backward(saved, d_y):
  x, w = saved
  d_x = _rows(d_y) @ w.T
  return d_x.reshape(x.shape), weight_gradient(x, d_y)


product.defvjp(_forward, _backward)


class Linear(hk.Linear):
  """`hk.Linear`, of the same parameters, by `product`.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: Linear(5)(x)))
  >>> x = jax.numpy.ones([2, 3, 4])
  >>> params = net.init(jax.random.key(0), x)
  >>> net.apply(params, x).shape, jax.tree.map(jax.numpy.shape, params)
  ((2, 3, 5), {'linear': {'b': (5,), 'w': (4, 5)}})
  """

  def __call__(self, inputs: Array) -> Array:
    """[..., F] to [..., D]."""
    features = inputs.shape[-1]
    shape = features, self.output_size
    w_init = self.w_init or hk.initializers.TruncatedNormal(features**-0.5)
    w = hk.get_parameter('w', shape, inputs.dtype, init=w_init)
    y = product(inputs, w)
    if self.with_bias:
      b = hk.get_parameter('b', shape[1:], inputs.dtype, init=self.b_init)
      y += b.reshape((1,) * (y.ndim - 1) + b.shape)
    return y
