"""Alignment features against slow loops, and contacts that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.data import coevolution as drawn
from dl_lectures.ops import coevolution

LENGTH, STATES = 5, coevolution.STATES


@pytest.fixture(scope='module')
def rows():
  """A small alignment with gaps and X, some rows alike."""
  random = np.random.default_rng(0)
  rows = random.integers(22, size=(40, LENGTH)).astype(np.int8)
  rows[10:20] = rows[0]
  rows[15:20, 0] = 21
  return rows


def test_covariances_are_those_of_numpy(rows):
  weights = coevolution.sequence_weights(rows, 0.8)
  states = coevolution.states(rows)
  first, second = (
    coevolution.one_hot(states[:, at], STATES)[:, :20] for at in (1, 4)
  )
  block = np.cov(first.T, second.T, aweights=weights, bias=True)[:20, 20:]
  found = coevolution.covariance_size(rows)
  assert found[1, 4] == pytest.approx(np.linalg.norm(block), rel=1e-4)
  np.testing.assert_allclose(found, found.T, rtol=1e-4)


@pytest.mark.parametrize('identity', [0.62, 0.8])
def test_weights_are_the_published_loop(rows, identity):
  count = np.ones(len(rows))
  for i in range(len(rows)):
    for j in range(i + 1, len(rows)):
      if np.sum(rows[i] == rows[j]) > identity * LENGTH:
        count[i] += 1
        count[j] += 1
  found = coevolution.sequence_weights(rows, identity)
  np.testing.assert_allclose(found, 1 / count, rtol=1e-6)


def test_weights_do_not_depend_on_how_many_rows_are_compared_at_once(
  rows, monkeypatch
):
  expected = coevolution.sequence_weights(rows)
  monkeypatch.setattr(coevolution, '_AT_ONCE', 7)
  np.testing.assert_array_equal(coevolution.sequence_weights(rows), expected)


def test_profile_by_hand(rows):
  weights = coevolution.sequence_weights(rows)
  expected = np.zeros((LENGTH, 22))
  for row, weight in zip(rows, weights, strict=True):
    for i, letter in enumerate(row):
      expected[i, letter] += weight
  found = coevolution.profile(rows, weights)
  np.testing.assert_allclose(found, expected / weights.sum(), rtol=1e-5)
  without = coevolution.profile(rows, weights, gaps=False)
  kept = expected[:, :21]
  np.testing.assert_allclose(
    without, kept / kept.sum(1, keepdims=True), rtol=1e-5
  )


def test_a_column_of_gaps_has_no_profile():
  rows = np.full((3, 2), coevolution.GAP, np.int8)
  assert not coevolution.profile(rows, gaps=False).any()


def test_gaps_and_deletions_of_the_published_example():
  # AACDBDFJGBMA, two rows of which have gaps: columns 0, 1 and 5, 6.
  rows = np.zeros((3, 12), np.int8)
  rows[1, :2] = rows[2, 5:7] = coevolution.GAP
  expected = np.zeros((12, 12))
  expected[:2, :2] = expected[5:7, 5:7] = 1 / 3
  np.testing.assert_allclose(coevolution.gap_matrix(rows), expected)
  deletions = np.array([[0, 2], [1, 0], [0, 3], [0, 1]])
  found = coevolution.deletion_probability(deletions)
  assert found.tolist() == [0.25, 0.75]


def test_mean_field_is_the_inverse_covariance_of_a_slow_loop(rows):
  share, q = 0.3, STATES
  weights = coevolution.sequence_weights(rows, 0.8)
  total = weights.sum()
  state = np.minimum(rows, q - 1)
  single = np.zeros((LENGTH, q))
  both = np.zeros((LENGTH, LENGTH, q, q))
  for row, weight in zip(state, weights, strict=True):
    for i in range(LENGTH):
      single[i, row[i]] += weight / total
      for j in range(LENGTH):
        both[i, j, row[i], row[j]] += weight / total
  single = (1 - share) * single + share / q
  both = (1 - share) * both + share / q**2
  covariance = np.zeros((LENGTH, q - 1, LENGTH, q - 1))
  for i in range(LENGTH):
    both[i, i] = np.diag(single[i])
    for j in range(LENGTH):
      block = both[i, j] - np.outer(single[i], single[j])
      covariance[i, :, j] = block[:-1, :-1]
  size = LENGTH * (q - 1)
  inverse = np.linalg.inv(covariance.reshape(size, size))
  expected = -inverse.reshape(LENGTH, q - 1, LENGTH, q - 1)
  found = coevolution.mean_field(rows, pseudocount=share)
  for i in range(LENGTH):
    assert not found.couplings[i, i].any()
    for j in range(LENGTH):
      if i != j:
        np.testing.assert_allclose(
          found.couplings[i, j, :-1, :-1],
          expected[i, :, j],
          rtol=2e-3,
          atol=2e-4,
        )
  # Mean-field equation: log of P(a) / P(q) = h(a) + sum of J times P.
  log_odds = np.log(single / single[:, -1:])
  mean = np.einsum('ijab,jb->ia', found.couplings, single)
  np.testing.assert_allclose(found.fields + mean, log_odds, atol=1e-3)


def test_independent_columns_have_no_couplings():
  # With the pseudocount alone all states are alike.
  rows = np.zeros((1, 3), np.int8)
  model = coevolution.mean_field(rows, pseudocount=1.0)
  assert np.abs(model.couplings).max() < 1e-3


def test_pseudo_likelihood_is_a_slow_loop(rows):
  random = np.random.default_rng(1)
  fields = random.normal(size=(LENGTH, STATES)).astype(np.float32)
  couplings = random.normal(size=(LENGTH, LENGTH, STATES, STATES))
  for i in range(LENGTH):
    couplings[i, i] = 0
    for j in range(i):
      couplings[i, j] = couplings[j, i].T
  state = coevolution.states(rows)
  weights = np.full(len(rows), 1 / len(rows), np.float32)
  expected = 0.0
  for row in state:
    for i in range(LENGTH):
      energy = fields[i] + sum(
        couplings[i, j][:, row[j]] for j in range(LENGTH)
      )
      expected -= energy[row[i]] - np.log(np.sum(np.exp(energy)))
  expected /= len(rows)
  expected += 0.1 * np.sum(fields**2)
  for i in range(LENGTH):
    for j in range(i + 1, LENGTH):
      expected += 0.1 * np.sum(couplings[i, j] ** 2)
  model = coevolution.Potts(fields, jnp.asarray(couplings, jnp.float32))
  found = coevolution.pseudo_likelihood_loss(model, state, weights, 0.1)
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_pseudo_likelihood_ends_at_a_minimum(rows):
  model = coevolution.pseudo_likelihood(rows, steps=800)
  weights = coevolution.sequence_weights(rows, 0.8)
  weights = jnp.asarray(weights / weights.sum())
  gradient = jax.jit(jax.grad(coevolution.pseudo_likelihood_loss))(
    coevolution.Potts(*map(jnp.asarray, model)),
    jnp.asarray(coevolution.states(rows)),
    weights,
    0.01,
  )
  assert max(float(jnp.abs(g).max()) for g in gradient) < 1e-3
  np.testing.assert_array_equal(
    model.couplings, model.couplings.transpose(1, 0, 3, 2)
  )


def test_frobenius_does_not_depend_on_the_gauge():
  random = np.random.default_rng(2)
  couplings = random.normal(size=(2, 2, STATES, STATES))
  moved = couplings + random.normal(size=(2, 2, STATES, 1))
  moved += random.normal(size=(2, 2, 1, STATES))
  found = coevolution.frobenius(couplings)
  np.testing.assert_allclose(coevolution.frobenius(moved), found, rtol=1e-6)
  block = couplings[0, 1]
  centred = block - block.mean(0) - block.mean(1)[:, None] + block.mean()
  assert found[0, 1] == pytest.approx(np.linalg.norm(centred[:-1, :-1]))


def test_correction_is_a_slow_loop():
  random = np.random.default_rng(3)
  score = random.random((6, 6))
  score = score + score.T
  others = [[score[i, j] for j in range(6) if j != i] for i in range(6)]
  mean = [np.mean(row) for row in others]
  found = coevolution.corrected(score)
  for i in range(6):
    for j in range(6):
      expected = (
        0 if i == j else score[i, j] - mean[i] * mean[j] / np.mean(mean)
      )
      assert found[i, j] == pytest.approx(expected)


@pytest.mark.parametrize('estimate', ['mean_field', 'pseudo_likelihood'])
def test_direct_couplings_are_told_from_indirect_ones(estimate):
  # A chain 0 - 1 - 2 of couplings, and 3 - 4: 0 and 2 depend on each other too,
  # but through 1 alone.
  length, q = 5, 20
  random = np.random.default_rng(4)
  couplings = np.zeros((length, length, q, q), np.float32)
  direct = {(0, 1), (1, 2), (3, 4)}
  for i, j in direct:
    couplings[i, j] = 1.5 * random.normal(size=(q, q))
    couplings[j, i] = couplings[i, j].T
  model = coevolution.Potts(np.zeros((length, q), np.float32), couplings)
  start = random.integers(q, size=(800, length))
  rows = drawn.gibbs(model, start, random.random((20, length, 800)))
  found = getattr(coevolution, estimate)(rows)
  score = coevolution.frobenius(found.couplings)
  pairs = {
    (int(i), int(j)): score[i, j]
    for i, j in zip(*np.triu_indices(length, 1), strict=True)
  }
  assert {*sorted(pairs, key=lambda pair: -pairs[pair])[:3]} == direct
  others = [value for pair, value in pairs.items() if pair not in direct]
  assert min(pairs[pair] for pair in direct) > 1.3 * max(others)
