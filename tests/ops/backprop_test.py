"""Backward passes written by hand, against automatic differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import backprop

# Sizes of two inputs, and of an output.
N, M, D = 5, 4, 3


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def normal(*shapes, seed=0):
  draw = np.random.default_rng(seed)
  return [jnp.asarray(draw.normal(size=shape)) for shape in shapes]


def simplex(size, seed=1):
  (x,) = normal((size,), seed=seed)
  return jnp.exp(x) / jnp.exp(x).sum()


INPUTS = {
  'linear': lambda: normal((N,), (N, D), (D,)),
  'sigmoid': lambda: normal((N,)),
  'relu': lambda: normal((N,)),
  'softmax': lambda: normal((N,)),
  'cross entropy': lambda: [simplex(N), simplex(N, 2)],
  'cross entropy with logits': lambda: normal((N,), (N,)),
  'max': lambda: normal((N,)),
  'conditional': lambda: [*normal((N, D)), simplex(N)],
  'quadratic': lambda: normal((N,), (N,)),
  'multiplicative': lambda: normal((N,), (M,), (N, M, D), (M, D), (N, D), (D,)),
}


@jax.jit
def compare(inputs):
  """Of each node the gradients by its inputs and its Jacobians, both ways."""
  found, wanted = {}, {}
  for name, given in inputs.items():
    node = backprop.NODES[name]
    y, pullback = jax.vjp(node.forward, *given)
    (delta,) = normal(y.shape, seed=7)
    every = tuple(range(len(given)))
    found[name] = (
      node.backward(delta, *given),
      tuple(backprop.jacobian(node, given, which) for which in every),
    )
    wanted[name] = (
      pullback(delta),
      jax.jacobian(node.forward, argnums=every)(*given),
    )
  return found, wanted


@pytest.fixture(scope='module')
def compared():
  with jax.enable_x64(True):
    return compare({name: make() for name, make in INPUTS.items()})


@pytest.mark.parametrize('name', backprop.NODES)
def test_every_node_is_autodiffs(name, compared):
  found, wanted = (one[name] for one in compared)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for mine, theirs in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    assert mine.dtype == jnp.float64
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_forward_is_what_others_compute():
  (x,) = normal((N,))
  nodes = backprop.NODES
  for name, wanted in (
    ('sigmoid', jax.nn.sigmoid(x)),
    ('relu', jax.nn.relu(x)),
    ('softmax', jax.nn.softmax(x)),
    ('max', x.max()),
  ):
    np.testing.assert_allclose(nodes[name].forward(x), wanted, atol=1e-12)
  t = jax.nn.one_hot(2, N)
  wanted = -jax.nn.log_softmax(x)[2]
  by_logits = backprop.cross_entropy_with_logits.forward(x, t)
  by_chance = backprop.cross_entropy.forward(jax.nn.softmax(x), t)
  np.testing.assert_allclose([by_logits, by_chance], wanted, atol=1e-12)


def test_a_chain_is_autodiffs_layer_by_layer():
  nodes = [
    backprop.linear,
    backprop.relu,
    backprop.linear,
    backprop.sigmoid,
    backprop.linear,
    backprop.cross_entropy_with_logits,
  ]
  x, w1, b1, w2, b2, w3, b3 = normal(
    (N,), (N, 8), (8,), (8, 6), (6,), (6, D), (D,)
  )
  t = jax.nn.one_hot(1, D, dtype=x.dtype)
  weights = [(w1, b1), (), (w2, b2), (), (w3, b3), (t,)]

  def loss(x, weights):
    w1, b1 = weights[0]
    w2, b2 = weights[2]
    w3, b3 = weights[4]
    h = jax.nn.relu(x @ w1 + b1)
    h = jax.nn.sigmoid(h @ w2 + b2)
    return -jnp.sum(weights[5][0] * jax.nn.log_softmax(h @ w3 + b3))

  @jax.jit
  def both(x, weights):
    z = backprop.forward_pass(nodes, weights, x)
    found = backprop.backward_pass(nodes, weights, z, jnp.ones_like(z[-1]))

    def rest(layer, value):
      return backprop.forward_pass(nodes[layer:], weights[layer:], value)[-1]

    # Every delta in between is the gradient of the rest of the chain.
    deltas = [
      jax.grad(functools.partial(rest, layer))(z[layer])
      for layer in range(1, len(nodes))
    ]
    by_x, by_weights = jax.grad(loss, argnums=(0, 1))(x, weights)
    return z, found, ([by_x, *deltas, jnp.ones_like(z[-1])], by_weights)

  z, found, wanted = both(x, weights)
  np.testing.assert_allclose(z[-1], loss(x, weights), atol=1e-12)
  assert [d.shape for d in found[0]] == [value.shape for value in z]
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for mine, theirs in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_a_batch_is_vmapped():
  nodes = [backprop.linear, backprop.softmax, backprop.cross_entropy]
  xs, w, b = normal((7, N), (N, D), (D,))
  ts = jax.nn.one_hot(jnp.arange(7) % D, D, dtype=xs.dtype)

  def gradient(x, t):
    weights = [(w, b), (), (t,)]
    z = backprop.forward_pass(nodes, weights, x)
    delta = jnp.ones_like(z[-1])
    return backprop.backward_pass(nodes, weights, z, delta)[1][0][0]

  def loss(w):
    return -jnp.sum(ts * jax.nn.log_softmax(xs @ w + b[None]))

  found = jax.jit(jax.vmap(gradient))(xs, ts).sum(0)
  np.testing.assert_allclose(found, jax.jit(jax.grad(loss))(w), atol=1e-10)


def test_the_slides_slips_are_not_the_gradient():
  x, w, b = normal((N,), (N, N), (N,))
  t = jax.nn.one_hot(0, N)
  loss = backprop.cross_entropy_with_logits
  right = jax.jit(jax.grad(loss.forward))(x, t)
  np.testing.assert_allclose(loss.backward(1.0, x, t)[0], right, atol=1e-12)
  # As written, t - x, a step downhill would go uphill.
  assert jnp.dot(t - x, right) < 0
  by_w = jax.jit(jax.jacobian(backprop.linear.forward, argnums=1))(x, w, b)
  delta = jnp.arange(1.0, N + 1)
  right = jnp.einsum('oij,o->ij', by_w, delta)
  found = backprop.linear.backward(delta, x, w, b)
  np.testing.assert_allclose(found[1], right, atol=1e-12)
  assert np.abs(found[1].T - right).max() > 0.1
  assert np.abs(found[0] - delta @ w).max() > 0.1


def test_logits_of_any_size_are_finite():
  x, t = jnp.array([1000.0, 0.0, -1000.0]), jnp.array([0.0, 0.0, 1.0])
  node = backprop.cross_entropy_with_logits
  assert node.forward(x, t) == 2000
  assert node.backward(1.0, x, t)[0].tolist() == [1, 0, -1]
  assert not np.isfinite(backprop.cross_entropy.forward(jax.nn.softmax(x), t))
  assert backprop.sigmoid.forward(x).tolist() == [1, 0.5, 0]


def test_only_the_winner_and_the_taken_branch_learn():
  x = jnp.array([1.0, 3.0, 3.0])
  assert backprop.maximum.backward(jnp.array(2.0), x)[0].tolist() == [0, 2, 0]
  branches, taken = jnp.arange(6.0).reshape(3, 2), jnp.array([0.0, 1.0, 0.0])
  assert backprop.conditional.forward(branches, taken).tolist() == [2, 3]
  by_branch, by_choice = backprop.conditional.backward(
    jnp.array([5.0, 6.0]), branches, taken
  )
  assert by_branch.tolist() == [[0, 0], [5, 6], [0, 0]]
  assert by_choice.tolist() == [6, 28, 50]
