"""The methods: what they begin with, what is predicted, what they forget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import rooms
from dl_lectures.ops import redistribution
from dl_lectures.training import tabular, tabular_methods

WORLD = rooms.make(4)
DEMOS = rooms.demonstrations(WORLD, jax.random.key(0), 2)
LEVEL = jnp.full((WORLD.num_states, 1, 4), 0.5)


def test_first_values_have_the_mean_and_the_spread():
  drawn = tabular.random_table(jax.random.key(0), 5000)
  table = np.asarray(tabular_methods.first_values(drawn, 0.2, 0.01))
  assert table.mean() == pytest.approx(0.2, abs=0.001)
  assert table.std() == pytest.approx(0.01, rel=0.05)
  same = tabular_methods.first_values(drawn, 1.0, 0.5)
  np.testing.assert_allclose(same, drawn, atol=1e-6)


def test_a_failure_that_is_given_out_evenly_is_worth_so_much():
  lost = rooms.Episodes(
    jnp.zeros((1, 201), jnp.int32),
    jnp.zeros((1, 200), jnp.int32),
    jnp.zeros((1, 200)).at[0, -1].set(rooms.TIMEOUT_RETURN),
    jnp.ones((1, 200), bool),
  )
  paid = tabular.uniform_credit(*jax.tree.map(lambda x: x[0], lost))
  worth = paid[: tabular_methods.WINDOW].sum()
  assert float(worth) == pytest.approx(tabular_methods.FAILED_WINDOW)


def test_demonstrations_are_cloned_in_the_unit_of_what_is_learnt():
  method = tabular_methods.credited(LEVEL, DEMOS, tabular.uniform_credit)
  published = tabular_methods.credited(
    LEVEL, DEMOS, tabular.uniform_credit, clone_returns=True
  )
  returns = tabular_methods.cloned(LEVEL, DEMOS)
  np.testing.assert_array_equal(published.table, returns.table)
  # The first cell of a demonstration: 20 of its steps, each an equal part.
  cell, action = DEMOS.state[0, 0], DEMOS.action[0, 0]
  steps = DEMOS.mask[0].sum()
  assert (DEMOS.state[0, 1:steps] != cell).all()
  assert (DEMOS.state[1, : DEMOS.mask[1].sum()] != cell).all()
  total = DEMOS.reward[0].sum()
  assert float(method.table[cell, 0, action]) == pytest.approx(
    total * min(tabular_methods.WINDOW, steps) / steps, rel=1e-4
  )
  assert float(returns.table[cell, 0, action]) == pytest.approx(total, rel=1e-5)
  assert not method.online
  assert returns.online


def test_a_history_is_beside_what_the_method_is():
  event = jnp.where(jnp.arange(WORLD.num_states) < 3, 1, -1)
  plain = tabular_methods.shaped(LEVEL, DEMOS)
  method = tabular_methods.remembering(plain, event, 2)
  assert method.table.shape == (WORLD.num_states, 4, 4)
  np.testing.assert_array_equal(method.table[:, 3], plain.table[:, 0])
  assert int(method.history(jnp.int32(0), jnp.int32(2))) == 2
  assert method.potential is plain.potential


@pytest.mark.slow
def test_rudder_predicts_the_returns_it_was_shown():
  params = tabular_methods.fit_predictor(WORLD, DEMOS, jax.random.key(1))
  seen = tabular_methods.encode(
    rooms.features(WORLD), jnp.asarray(DEMOS.state[:, :-1]), DEMOS.action
  )
  predicted = tabular_methods.predictor().apply(params, seen)
  error = redistribution.prediction_error(
    predicted, DEMOS.reward.sum(1), jnp.asarray(DEMOS.mask)
  )
  assert error.final < 0.1
  assert error.running < 1.0


def test_a_predicted_credit_sums_to_the_return():
  net = tabular_methods.predictor()
  zeros = jnp.zeros((1, 3, 12 + 23 + 4))
  params = jax.jit(net.init)(jax.random.key(0), zeros)
  credit = tabular_methods.predicted_credit(WORLD, params)
  one = jax.tree.map(lambda x: jnp.asarray(x[0]), DEMOS)
  paid = credit(*one)
  assert float(paid.sum()) == pytest.approx(float(one.reward.sum()), abs=1e-4)
  assert not np.asarray(paid)[~np.asarray(one.mask)].any()
  # Not all alike: it is the predictor that pays.
  assert np.asarray(paid)[np.asarray(one.mask)].std() > 1e-4
