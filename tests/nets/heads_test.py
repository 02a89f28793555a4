import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures import nets


def test_values_are_in_range_and_policies_nearly_uniform_at_first():
  net = hk.without_apply_rng(hk.transform(lambda x: nets.PolicyValueHead(7)(x)))
  features = jax.nn.relu(jax.random.normal(jax.random.key(0), [64, 6, 7, 32]))
  init = jax.jit(net.init)
  for seed in range(4):
    params = init(jax.random.key(seed), features)
    logits, value = net.apply(params, features)
    assert logits.shape == (64, 7)
    assert value.shape == (64,)
    policy = jax.nn.softmax(logits)
    assert 0.05 < jnp.min(policy) < jnp.max(policy) < 0.4
    # No two moves tie, and no channel is dead.
    assert len(np.unique(logits[0])) == 7
    assert jnp.std(value) > 0
    assert jnp.max(jnp.abs(value)) < 0.5
  _, value = net.apply(jax.tree.map(lambda x: 100 * x, params), features)
  assert jnp.max(jnp.abs(value)) <= 1


def test_the_parameters_of_the_network_of_alphazero():
  def network(boards):
    def norm():
      return hk.BatchNorm(True, True, 0.99)

    features = nets.ResidualTower(256, 19, norm)(boards, True)
    return nets.PolicyValueHead(4672, norm=norm)(features, True)

  chess = jax.ShapeDtypeStruct((1, 8, 8, 119), jnp.float32)
  params, _ = jax.eval_shape(
    hk.transform_with_state(network).init, jax.random.key(0), chess
  )
  norm = lambda channels: 2 * channels  # noqa: E731
  stem = 9 * 119 * 256 + norm(256)
  block = 2 * (9 * 256 * 256 + norm(256))
  policy = 256 * 2 + norm(2) + (64 * 2 + 1) * 4672
  value = 256 * 1 + norm(1) + (64 + 1) * 256 + (256 + 1)
  expected = stem + 19 * block + policy + value
  assert sum(x.size for x in jax.tree.leaves(params)) == expected
