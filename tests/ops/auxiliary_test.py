"""UNREAL's tasks, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import auxiliary
from dl_lectures.types import UsageError


def test_changes_are_counted_in_their_region():
  view = jnp.zeros((3, 1, 6, 6), jnp.uint8)
  view = view.at[1, 0, 5, 0].set(0b101).at[2, 0, 5, 0].set(0b100)
  change = auxiliary.cell_change(view, 3)
  assert change.shape == (2, 1, 9)
  expected = np.zeros((2, 9))
  expected[:, 6] = np.array([2, 1]) / (4 * 8)
  np.testing.assert_allclose(change[:, 0], expected)


def test_views_that_cannot_be_divided_are_refused():
  with pytest.raises(UsageError, match='2 regions a side of 9 cells'):
    auxiliary.cell_change(jnp.zeros((2, 1, 9, 9), jnp.uint8), 2)


def test_control_learns_the_lambda_return_of_the_best_action():
  q = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 2, 4)))
  change = jnp.array([[[1.0, 0.0]], [[0.0, 2.0]], [[9.0, 9.0]]])
  discount = jnp.array([[0.5], [0.5], [0.5]])
  action = jnp.array([[1], [3], [0]])
  best = np.asarray(q).max(axis=-1)[:, 0]
  last = np.array([0.0, 2.0]) + 0.5 * best[2]
  first = np.array([1.0, 0.0]) + 0.5 * (0.1 * best[1] + 0.9 * last)
  error = [first - q[0, 0, :, 1], last - q[1, 0, :, 3]]
  np.testing.assert_allclose(
    auxiliary.control_loss(q, action, change, discount),
    0.5 * np.mean(np.square(error)),
    rtol=1e-5,
  )
  # Targets are constants: only what was done is moved.
  moved = jax.grad(auxiliary.control_loss)(q, action, change, discount)
  assert np.argwhere(moved[:, 0, 0]).tolist() == [[0, 1], [1, 3]]


def test_rewards_and_no_rewards_count_alike():
  logits = jnp.zeros((4, 1, 3)).at[:, :, 0].set(5.0)
  reward = jnp.array([[0.0], [0.0], [0.0], [-1.0]])
  log_probs = np.asarray(jax.nn.log_softmax(logits[0, 0]))
  np.testing.assert_allclose(
    auxiliary.reward_loss(logits, reward),
    -(log_probs[0] + log_probs[2]) / 2,
    rtol=1e-6,
  )
  nothing = auxiliary.reward_loss(logits, jnp.zeros((4, 1)))
  np.testing.assert_allclose(nothing, -log_probs[0] / 2, rtol=1e-5)
