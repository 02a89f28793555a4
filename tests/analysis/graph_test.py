"""Computational graphs: their values and Jacobians are the function's."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import graph as graphs


@pytest.fixture(scope='module')
def network():
  def forward(x):
    h = jax.nn.relu(hk.Linear(4)(x))
    return jax.nn.log_softmax(hk.Linear(3)(h))

  net = hk.without_apply_rng(hk.transform(forward))
  x = jax.random.normal(jax.random.key(1), (2, 5))
  params = jax.jit(net.init)(jax.random.key(0), x)
  return net, params, x, graphs.trace(net.apply, params, x)


def test_values_are_the_networks(network):
  net, params, x, graph = network
  (output,) = graph.outputs
  np.testing.assert_allclose(
    graph.values[output], jax.jit(net.apply)(params, x), atol=1e-6
  )
  assert 'params.linear.w' in graph.inputs
  assert 'x' in graph.inputs
  names = [node.name for node in graph.nodes]
  assert names.count('dot_general') == 2
  # Calls within are looked into.
  assert not {*names} & {*graphs._CALLS}
  # In an order in which they may be computed.
  known = {*graph.inputs.values(), *graph.constants}
  for node in graph.nodes:
    assert {*node.inputs} <= known
    known.add(node.output)


def test_the_chain_rule_gives_jaxs_gradient(network):
  net, params, x, graph = network
  (output,) = graph.outputs
  found = graphs.chain(graph, output)
  by_params, by_x = jax.jit(jax.jacrev(net.apply, argnums=(0, 1)))(params, x)
  for name, wanted in (
    ('params.linear.w', by_params['linear']['w']),
    ('params.linear_1.b', by_params['linear_1']['b']),
    ('x', by_x),
  ):
    number = graph.inputs[name]
    size = graph.values[number].size
    np.testing.assert_allclose(
      found[number], np.reshape(wanted, (6, size)), atol=1e-5
    )


def test_paths_are_summed():
  graph = graphs.trace(lambda x: x * x + x, jnp.float32(3.0))
  assert [node.name for node in graph.nodes] == ['mul', 'add']
  (by_first, by_second) = graphs.local_jacobians(graph, graph.nodes[0])
  assert by_first == by_second == [[3]]
  found = graphs.chain(graph, graph.outputs[0])
  assert found[graph.inputs['x']] == [[7]]


def test_whole_numbers_have_no_gradient():
  graph = graphs.trace(lambda x, i: x[i] * 2, jnp.arange(3.0), jnp.int32(1))
  found = graphs.chain(graph, graph.outputs[0])
  assert found[graph.inputs['x']].tolist() == [[0, 2, 0]]
  assert graph.inputs['i'] not in found


def test_it_is_drawn(network):
  *_, graph = network
  page = graphs.draw(graph, jacobians=False)
  (axes,) = page.axes
  shown = [text.get_text() for text in axes.texts]
  assert 'params.linear.w\n5x4' in shown
  small = graphs.trace(lambda x: jnp.tanh(x) * 2, jnp.ones(2))
  texts = [text.get_text() for text in graphs.draw(small).axes[0].texts]
  assert any(text.startswith('2x2, |J|') for text in texts)
