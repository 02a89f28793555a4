"""Backpropagation by hand: nodes, their backward passes, and chains of them.

A node is two functions. Forward makes its output of its inputs; backward gets
delta, the gradient of the loss E by that output, and gives the gradient by each
of the inputs, which is delta times the node's Jacobian:

          x, W, ...  ──> forward ──> y = f(x, W, ...)
                            |
  dE/dx, dE/dW, ...  <── backward <── delta = dE/dy

Weights and targets are inputs like any other. A network is a chain of nodes,
z_{l+1} = f_l(z_l; w_l), and its backward pass the recursion of the slides:

  delta_l = delta_{l+1} df_l/dz_l        dE/dw_l = delta_{l+1} df_l/dw_l

Nothing here is differentiated by JAX; the tests compare with it.

Slides: deck 001, "Modular backpropagation"; deck 004, "Neural networks as
computational graphs". Three of their lines would not train:

- deck 004 has t - x for the gradient of the cross entropy with logits; it is
  p - t with p = softmax(x);
- deck 004's softmax and linear layer lack a transposition: the gradient by W of
  y = x W + b is x^T delta, that by x is delta W^T;
- deck 003's first listing of a recurrent network adds dh where the chain rule
  multiplies by it (`analysis.properties.chain_gradients` has it right).

Source: Rumelhart, Hinton & Williams, "Learning representations by
back-propagating errors", Nature 323 (1986). Functions are of one example; for a
batch there is `jax.vmap`.

Shapes: I and J the sizes of inputs, O that of the output.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from dl_lectures.types import Array


class Node(NamedTuple):
  """A node of a computational graph.

  Attributes:
    forward: (*inputs) -> y.
    backward: (delta, *inputs) -> the gradients by the inputs, a tuple. Delta is
      shaped as y, each gradient as its input.

  >>> x, w, b = jnp.array([1.0, 2.0]), jnp.array([[3.0], [4.0]]), jnp.zeros(1)
  >>> linear.forward(x, w, b).tolist()
  [11.0]
  >>> [g.tolist() for g in linear.backward(jnp.ones(1), x, w, b)]
  [[3.0, 4.0], [[1.0], [2.0]], [1.0]]
  """

  forward: Callable[..., Array]
  backward: Callable[..., tuple[Array, ...]]


def forward_pass(
  nodes: Sequence[Node], weights: Sequence[tuple[Array, ...]], x: Array
) -> list[Array]:
  """The outputs of a chain, z_{l+1} = f_l(z_l; w_l).

  Args:
    nodes: f_0 to f_{L-1}, each with what comes from below as its first input.
    weights: their other inputs, () where there are none.
    x: z_0.

  Returns:
    z_0 to z_L; the backward pass needs all but the last.
  """
  z = [x]
  for node, w in zip(nodes, weights, strict=True):
    z.append(node.forward(z[-1], *w))
  return z


def backward_pass(
  nodes: Sequence[Node],
  weights: Sequence[tuple[Array, ...]],
  z: Sequence[Array],
  delta: Array,
) -> tuple[list[Array], list[tuple[Array, ...]]]:
  """The delta recursion, from the last node of a chain to the first.

  Args:
    nodes: of the chain.
    weights: their other inputs.
    z: z_0 to z_L, of `forward_pass`.
    delta: dE/dz_L; 1 where the last node is the loss.

  Returns:
    delta_0 to delta_L, and dE/dw_l of each node.

  >>> nodes, weights = [sigmoid, quadratic], [(), (jnp.array([1.0]),)]
  >>> z = forward_pass(nodes, weights, jnp.array([0.0]))
  >>> deltas, gradients = backward_pass(nodes, weights, z, jnp.array(1.0))
  >>> [delta.tolist() for delta in deltas]  # (.5 - 1) .5 (1 - .5), .5 - 1, 1
  [[-0.125], [-0.5], 1.0]
  """
  deltas, gradients = [delta], []
  for node, w, x in reversed([*zip(nodes, weights, z[:-1], strict=True)]):
    below, *by_weights = node.backward(deltas[0], x, *w)
    deltas.insert(0, below)
    gradients.insert(0, tuple(by_weights))
  return deltas, gradients


def _linear(x: Array, w: Array, b: Array) -> Array:
  return x @ w + b


def _linear_backward(
  delta: Array, x: Array, w: Array, b: Array
) -> tuple[Array, ...]:
  del b
  return w @ delta, jnp.outer(x, delta), delta


# y = x W + b, of x [I], W [I, O], b [O].
linear = Node(_linear, _linear_backward)


def _sigmoid(x: Array) -> Array:
  # Neither exponential overflows.
  small = jnp.exp(-jnp.abs(x))
  return jnp.where(x >= 0, 1.0, small) / (1 + small)


def _sigmoid_backward(delta: Array, x: Array) -> tuple[Array, ...]:
  y = _sigmoid(x)
  return (delta * y * (1 - y),)


# y = 1 / (1 + exp(-x)), of each element.
sigmoid = Node(_sigmoid, _sigmoid_backward)


def _relu(x: Array) -> Array:
  return jnp.maximum(x, 0)


def _relu_backward(delta: Array, x: Array) -> tuple[Array, ...]:
  return (jnp.where(x > 0, delta, 0),)


# y = max(x, 0), of each element; its slope at 0 is taken as 0.
relu = Node(_relu, _relu_backward)


def _softmax(x: Array) -> Array:
  exp = jnp.exp(x - jnp.max(x))
  return exp / jnp.sum(exp)


def _softmax_backward(delta: Array, x: Array) -> tuple[Array, ...]:
  # dy_i/dx_j = y_i (1{i = j} - y_j), without the matrix.
  y = _softmax(x)
  return (y * (delta - jnp.dot(delta, y)),)


# y_i = exp(x_i) / sum_j exp(x_j), of x [I].
softmax = Node(_softmax, _softmax_backward)


def _cross_entropy(p: Array, t: Array) -> Array:
  return -jnp.dot(t, jnp.log(p))


def _cross_entropy_backward(
  delta: Array, p: Array, t: Array
) -> tuple[Array, ...]:
  return -delta * t / p, -delta * jnp.log(p)


# E = -sum_i t_i log p_i, of probabilities p [I] and targets t [I]; infinite
# where a p is 0 for which t is not: see the next one.
cross_entropy = Node(_cross_entropy, _cross_entropy_backward)


def _log_softmax(x: Array) -> Array:
  x = x - jnp.max(x)
  return x - jnp.log(jnp.sum(jnp.exp(x)))


def _cross_entropy_with_logits(x: Array, t: Array) -> Array:
  return -jnp.dot(t, _log_softmax(x))


def _cross_entropy_with_logits_backward(
  delta: Array, x: Array, t: Array
) -> tuple[Array, ...]:
  # Of targets that sum to 1: p - t.
  by_logits = jnp.sum(t) * _softmax(x) - t
  return delta * by_logits, -delta * _log_softmax(x)


# The same of logits x [I], p = softmax(x), finite whatever they are.
cross_entropy_with_logits = Node(
  _cross_entropy_with_logits, _cross_entropy_with_logits_backward
)


def _maximum(x: Array) -> Array:
  return jnp.max(x)


def _maximum_backward(delta: Array, x: Array) -> tuple[Array, ...]:
  return (jnp.where(jnp.arange(x.shape[0]) == jnp.argmax(x), delta, 0),)


# y = max_i x_i, of x [I]; of equal ones the first gets the gradient.
maximum = Node(_maximum, _maximum_backward)


def _conditional(x: Array, p: Array) -> Array:
  return p @ x


def _conditional_backward(
  delta: Array, x: Array, p: Array
) -> tuple[Array, ...]:
  return jnp.outer(p, delta), x @ delta


# y = sum_i p_i x_i, of branches x [I, O] and p [I]: one-hot for a condition,
# probabilities for one that is learned. What is not taken gets no gradient.
conditional = Node(_conditional, _conditional_backward)


def _quadratic(x: Array, t: Array) -> Array:
  return jnp.sum(jnp.square(x - t)) / 2


def _quadratic_backward(delta: Array, x: Array, t: Array) -> tuple[Array, ...]:
  return delta * (x - t), delta * (t - x)


# E = |x - t|^2 / 2.
quadratic = Node(_quadratic, _quadratic_backward)


def _multiplicative(
  x: Array, z: Array, w: Array, u: Array, v: Array, b: Array
) -> Array:
  return jnp.einsum('i,ijo,j->o', x, w, z) + z @ u + x @ v + b


def _multiplicative_backward(
  delta: Array, x: Array, z: Array, w: Array, u: Array, v: Array, b: Array
) -> tuple[Array, ...]:
  del b
  return (
    jnp.einsum('ijo,j,o->i', w, z, delta) + v @ delta,
    jnp.einsum('ijo,i,o->j', w, x, delta) + u @ delta,
    jnp.einsum('i,j,o->ijo', x, z, delta),
    jnp.outer(z, delta),
    jnp.outer(x, delta),
    delta,
  )


# y = x W z + z U + x V + b, of x [I], z [J], W [I, J, O], U [J, O], V [I, O],
# b [O]: Jayakumar et al., "Multiplicative interactions and where to find them",
# ICLR 2020, equation 1.
multiplicative = Node(_multiplicative, _multiplicative_backward)

# By the name of the slides.
NODES: dict[str, Node] = {
  'linear': linear,
  'sigmoid': sigmoid,
  'relu': relu,
  'softmax': softmax,
  'cross entropy': cross_entropy,
  'cross entropy with logits': cross_entropy_with_logits,
  'max': maximum,
  'conditional': conditional,
  'quadratic': quadratic,
  'multiplicative': multiplicative,
}


def jacobian(node: Node, inputs: Sequence[Any], which: int) -> Array:
  """A node's local Jacobian by one of its inputs, row by row.

  Args:
    node: any.
    inputs: of its forward.
    which: the input's number.

  Returns:
    [*shape of y, *shape of the input].

  >>> jacobian(softmax, [jnp.zeros(2)], 0).tolist()
  [[0.25, -0.25], [-0.25, 0.25]]
  """
  y = node.forward(*inputs)
  rows = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
  found = [node.backward(row, *inputs)[which] for row in rows]
  return jnp.stack(found).reshape(*y.shape, *jnp.shape(inputs[which]))
