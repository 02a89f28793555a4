"""Redistribution: exact sums, optimal policies by enumeration, bad input."""

import functools
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures import nets
from dl_lectures.ops import redistribution
from dl_lectures.ops.redistribution import Trajectory, redistribute
from dl_lectures.types import UsageError

CORRECTIONS = ('last', 'uniform', 'none')


@functools.partial(jax.jit, static_argnames=('correction', 'min_quality'))
def given_values(
  batch, g, correction: redistribution.Correction = 'last', min_quality=0.0
):
  return redistribute(
    batch, lambda _: g, correction=correction, min_quality=min_quality
  )


def episodes(reward, lengths, observation=None, action=None) -> Trajectory:
  reward = jnp.asarray(reward, jnp.float32)
  mask = jnp.arange(reward.shape[1])[None, :] < jnp.asarray(lengths)[:, None]
  zeros = jnp.zeros(reward.shape)
  return Trajectory(
    zeros if observation is None else observation,
    zeros if action is None else action,
    reward,
    mask,
  )


def in_a_loop(reward, length, g, correction):
  """The definition, step by step, of one episode."""
  new, before = np.zeros(len(reward)), 0.0
  for t in range(length):
    new[t] = g[t] - before
    before = g[t]
  residual = sum(reward[:length]) - before
  for t in range(length):
    if correction == 'last' and t == length - 1:
      new[t] += residual
    if correction == 'uniform':
      new[t] += residual / length
  return new, residual, before


number = st.floats(-100, 100, width=32)


def table(rows, columns):
  row = st.lists(number, min_size=columns, max_size=columns)
  return st.lists(row, min_size=rows, max_size=rows)


@pytest.mark.parametrize('correction', CORRECTIONS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  reward=table(3, 5),
  g=table(3, 5),
  lengths=st.lists(st.integers(0, 5), min_size=3, max_size=3),
)
def test_sums_to_the_return_for_every_mask(correction, reward, g, lengths):
  batch = episodes(reward, lengths)
  new = given_values(batch, jnp.asarray(g, jnp.float32), correction)
  assert all(bool(jnp.all(jnp.isfinite(x))) for x in new)
  for b, n in enumerate(lengths):
    expected, residual, predicted = in_a_loop(reward[b], n, g[b], correction)
    np.testing.assert_allclose(new.reward[b], expected, atol=2e-4)
    np.testing.assert_allclose(new.residual[b], residual, atol=2e-4)
    np.testing.assert_allclose(new.predicted_return[b], predicted, atol=1e-6)
    rewards = np.asarray(new.reward[b], float)
    assert not rewards[n:].any()
    total = rewards.sum() + float(new.residual[b]) * (correction == 'none')
    wanted = sum(reward[b][:n])
    # Of the numbers' own size: single precision has seven digits.
    scale = 1 + np.abs(rewards).sum()
    assert abs(total - wanted) <= 1e-5 * max(1, scale / 20)


@pytest.mark.parametrize('correction', ['last', 'uniform'])
def test_sums_to_1e_5_at_the_size_of_real_returns(correction):
  draw = np.random.default_rng(0)
  reward = draw.normal(size=(500, 60)).astype(np.float32)
  lengths = draw.integers(1, 61, size=500)
  lengths[:20] = 1  # single-event episodes
  reward[20:40] = 0  # failed ones
  batch = episodes(reward, lengths)
  g = jnp.float32(draw.normal(scale=3, size=reward.shape))
  new = given_values(batch, g, correction)
  returns = np.sum(np.where(batch.mask, reward, 0), axis=1, dtype=float)
  paid = np.asarray(new.reward, float)
  np.testing.assert_allclose(paid.sum(1), returns, atol=1e-5)
  np.testing.assert_allclose(paid[:20, 0], reward[:20, 0], atol=1e-5)


def test_by_hand():
  batch = episodes([[0, 0, 0, 8], [0, 4, 9, 9]], [4, 2])
  g = jnp.array([[1.0, 1.0, 5.0, 6.0], [2.0, 3.0, 7.0, jnp.nan]])
  new = given_values(batch, g, 'last')
  assert new.reward.tolist() == [[1, 0, 4, 3], [2, 2, 0, 0]]
  assert new.residual.tolist() == [2, 1]
  assert new.predicted_return.tolist() == [6, 3]
  new = given_values(batch, g, 'uniform')
  assert new.reward.tolist() == [[1.5, 0.5, 4.5, 1.5], [2.5, 1.5, 0, 0]]
  new = given_values(batch, g, 'none')
  assert new.reward.tolist() == [[1, 0, 4, 1], [2, 1, 0, 0]]


def test_quality_by_hand_and_its_gate():
  # Mean return 4: 1 - 1 / (16 + 2), 1 - 16 / (16 + 2), and 1 of no steps.
  batch = episodes([[0, 4], [0, 4], [7, 7]], [2, 2, 0])
  g = jnp.array([[1.0, 3.0], [5.0, 8.0], [9.0, 9.0]])
  new = given_values(batch, g, min_quality=0.8)
  np.testing.assert_allclose(new.quality, [17 / 18, 2 / 18, 1], rtol=1e-5)
  assert new.reward.tolist() == [[1, 3], [0, 4], [0, 0]]
  # What is kept needs no correction, so nothing is left to be paid.
  assert new.residual.tolist() == [1, 0, 0]
  assert new.predicted_return.tolist() == [3, 8, 0]


def test_quality_is_within_0_and_1_for_any_size():
  returns = jnp.array([0.0, 0.0, 1e30, -1e30, 1e-30, 3e38])
  predicted = jnp.array([0.0, 1.0, 1e30, 1e30, 1e30, -3e38])
  quality = redistribution.quality(returns, predicted)
  # The mean is about 5e37, so 1 is next to 0.
  assert quality.round(6).tolist() == [1, 1, 1, 0, 0, 0]
  alone = redistribution.quality(jnp.zeros(2), jnp.array([0.0, 1e-20]))
  assert alone.tolist() == [1, 0]


def test_prediction_error_is_that_of_a_plain_loop_and_sees_no_padding():
  draw = np.random.default_rng(2)
  g = draw.normal(size=(4, 5)).astype(np.float32)
  returns = draw.normal(size=4).astype(np.float32)
  lengths = [5, 0, 1, 3]
  mask = np.arange(5) < np.array(lengths)[:, None]
  g = np.where(mask, g, np.nan)
  ends = [(g[b, n - 1] - returns[b]) ** 2 for b, n in enumerate(lengths) if n]
  steps = [(g[b, t] - returns[b]) ** 2 for b, t in np.argwhere(mask)]

  def both(g):
    return redistribution.prediction_error(
      g, jnp.asarray(returns), jnp.asarray(mask)
    )

  error = both(jnp.asarray(g))
  np.testing.assert_allclose(error, [np.mean(ends), np.mean(steps)], rtol=1e-6)
  gradient = jax.grad(lambda g: sum(both(g)))(jnp.asarray(g))
  assert np.array_equal(gradient != 0, mask)
  nothing = redistribution.prediction_error(
    *map(jnp.asarray, (g[1:2], returns[1:2], mask[1:2]))
  )
  assert nothing == (0, 0)


@pytest.mark.parametrize(
  'bad', [[np.nan, 1.0], [np.inf, 1.0], [3e38, -3e38]], ids=str
)
def test_a_prediction_that_is_not_finite_keeps_the_rewards(bad):
  batch = episodes([[2, 3], [2, 3]], [2, 2])
  new = given_values(batch, jnp.array([bad, [4.0, 5.0]]))
  assert new.reward.tolist() == [[2, 3], [4, 1]]
  assert new.residual.tolist() == [0, 0]
  assert new.quality.tolist() == [0, 1]


def test_padding_changes_nothing():
  draw = np.random.default_rng(1)
  reward, g = draw.normal(size=(2, 6, 9)).astype(np.float32)
  lengths = [0, 1, 4, 9, 9, 5]
  whole = given_values(episodes(reward, lengths), g, 'uniform', 0.5)
  rubbish = np.full((6, 7), np.nan, np.float32)
  wider = given_values(
    episodes(np.concatenate([reward, rubbish], 1), lengths),
    np.concatenate([g, rubbish], 1),
    'uniform',
    0.5,
  )
  np.testing.assert_array_equal(wider.reward[:, 9:], 0)
  for a, b in zip(
    whole, wider._replace(reward=wider.reward[:, :9]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)
  # An episode without steps is nothing to the others.
  rest = given_values(episodes(reward[1:], lengths[1:]), g[1:], 'uniform', 0.5)
  np.testing.assert_allclose(rest.reward, whole.reward[1:], atol=1e-6)


def test_a_causal_method_pays_without_looking_ahead():
  draw = np.random.default_rng(2)
  observation = jnp.float32(draw.normal(size=(1, 8)))
  method = redistribution.accumulate(lambda batch: batch.observation**2)

  def paid(observation, last_reward):
    reward = jnp.zeros((1, 8)).at[0, 7].set(last_reward)
    batch = episodes(reward, [8], observation=observation)
    return np.asarray(redistribute(batch, method).reward)[0]

  first = paid(observation, 3.0)
  other = paid(observation.at[0, 5:].set(9.0), -70.0)
  np.testing.assert_array_equal(first[:5], other[:5])
  assert not np.any(np.isclose(first[5:], other[5:]))


class Tree(NamedTuple):
  """Every episode of a small MDP: a chooses, k is chance."""

  batch: Trajectory  # [N, T]; observations are (state, time)
  chance: np.ndarray  # [N, T], of the k at each step
  prefix: np.ndarray  # [N, T] int, the number of (s, a)_{0:t}
  value: np.ndarray  # [N, T], E[G | (s, a)_{0:t}] when actions are random
  starts: int
  depth: int


def grow(seed: int, depth=5, states=30, starts=2, delayed=False) -> Tree:
  """All episodes of a random MDP with two actions and two outcomes of each."""
  draw = np.random.default_rng(seed)
  successor = draw.integers(0, states, size=(states, 2, 2))
  chance = draw.dirichlet([1, 1], size=(states, 2))
  # Chance that ends an episode pays at once what theorem 2 pays a step later.
  terminal = draw.random(states) < 0.15 * (not delayed)
  # Small whole numbers: ties between actions, and policies that share them.
  step_reward = draw.integers(-1, 2, size=(states, 2)) * (not delayed)
  final_reward = draw.integers(-2, 3, size=(states, 2)) * 4
  branches = np.indices((starts, *[2, 2] * depth)).reshape(1 + 2 * depth, -1)
  n = branches.shape[1]
  state, alive = branches[0], np.ones(n, bool)
  columns: list[list[Any]] = [[], [], [], [], []]
  for t in range(depth):
    action, k = branches[1 + 2 * t], branches[2 + 2 * t]
    after = successor[state, action, k]
    ends = terminal[after] | (t == depth - 1)
    reward = step_reward[state, action] + ends * final_reward[after, action]
    for column, x in zip(
      columns,
      (state, action, reward, alive, chance[state, action, k]),
      strict=True,
    ):
      column.append(x)
    state, alive = after, alive & ~ends
  state, action, reward, mask, share = (np.stack(x, 1) for x in columns)
  share = np.where(mask, share, 1 / 2)
  prefix = np.stack(
    [
      np.unique(
        np.stack([state, action], 2)[:, : t + 1].reshape(n, -1),
        axis=0,
        return_inverse=True,
      )[1]
      for t in range(depth)
    ],
    axis=1,
  )
  returns = np.where(mask, reward, 0).sum(1)
  weight = share.prod(1)
  value = np.zeros((n, depth))
  for t in range(depth):
    total = np.bincount(prefix[:, t], weight * returns)
    value[:, t] = (total / np.bincount(prefix[:, t], weight))[prefix[:, t]]
  time = np.broadcast_to(np.arange(depth), (n, depth))
  batch = Trajectory(
    jnp.asarray(np.stack([state, time], 2)),
    jnp.asarray(action),
    jnp.float32(reward),
    jnp.asarray(mask),
  )
  return Tree(batch, share, prefix, value, starts, depth)


def dynamic_programming(tree: Tree, reward) -> list[np.ndarray]:
  """Q*(history, a) of every decision at every depth, from the end back."""
  reward = np.asarray(reward, float)
  values, future = [], np.zeros(len(reward))
  for t in reversed(range(tree.depth)):
    shape = (tree.starts * 4**t, 2, 2, -1)
    paid = reward[:, t].reshape(shape)
    # A reward must not tell of what is drawn later.
    assert np.ptp(paid, axis=3).max() < 1e-5
    share = tree.chance[:, t].reshape(shape)[..., 0]
    q = np.sum(share * (paid[..., 0] + future.reshape(shape[:3])), axis=2)
    values.append(q)
    future = q.max(axis=1)
  return values[::-1]


def alive(tree: Tree, t: int) -> np.ndarray:
  mask = np.asarray(tree.batch.mask)[:, t]
  return mask.reshape(tree.starts * 4**t, -1)[:, 0]


def prefix_values(tree: Tree, kind: str) -> np.ndarray:
  draw = np.random.default_rng(7)
  if kind == 'zero':
    return np.zeros(tree.prefix.shape)
  if kind == 'exact':
    return tree.value
  scale = {'random': 3, 'large random': 300}[kind]
  numbers = draw.normal(scale=scale, size=(tree.depth, tree.prefix.max() + 1))
  return numbers[np.arange(tree.depth), tree.prefix]


@functools.cache
def grown(seed: int, delayed: bool = False) -> Tree:
  return grow(seed, delayed=delayed)


@pytest.mark.parametrize('kind', ['zero', 'exact', 'random', 'large random'])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_same_policies_are_optimal_before_and_after(seed, kind):
  tree = grown(seed)
  g = jnp.float32(prefix_values(tree, kind))
  new = given_values(tree.batch, g).reward
  kept = np.where(tree.batch.mask, tree.batch.reward, 0)
  before = dynamic_programming(tree, kept)
  after = dynamic_programming(tree, new)
  decisions = 0
  for t, (old_q, new_q) in enumerate(zip(before, after, strict=True)):
    there = alive(tree, t)
    gap = old_q - old_q.max(1, keepdims=True)
    new_gap = new_q - new_q.max(1, keepdims=True)
    # Not the same best actions only: the same advantage of all of them.
    np.testing.assert_allclose(new_gap[there], gap[there], atol=1e-3)
    assert np.array_equal((new_gap > -2e-3)[there], (gap > -2e-3)[there])
    decisions += np.sum(gap[there] < -2e-3)
  assert decisions > 100  # the choice matters somewhere
  if kind != 'zero':
    assert not np.allclose(new, kept, atol=0.1)


@pytest.mark.parametrize('correction', ['last', 'uniform'])
def test_every_policy_has_its_old_expected_return(correction):
  tree = grown(3)
  g = jnp.float32(prefix_values(tree, 'random'))
  new = np.asarray(given_values(tree.batch, g, correction).reward, float)
  kept = np.where(tree.batch.mask, tree.batch.reward, 0)
  observation = np.asarray(tree.batch.observation)
  state, time = observation[..., 0], observation[..., 1]
  action, mask = np.asarray(tree.batch.action), np.asarray(tree.batch.mask)
  draw = np.random.default_rng(0)
  seen = set()
  for _ in range(50):
    policy = draw.integers(0, 2, size=(30, tree.depth))  # deterministic, Markov
    chosen = np.where(mask, action == policy[state, time], 0.5).prod(1)
    weight = chosen * tree.chance.prod(1) / tree.starts
    assert weight.sum() == pytest.approx(1)
    old = np.sum(weight * kept.sum(1))
    assert np.sum(weight * new.sum(1)) == pytest.approx(old, abs=1e-5)
    seen.add(round(old, 6))
  assert len(seen) > 10


def test_without_a_correction_a_bad_prediction_changes_what_is_optimal():
  """Why the residual is paid: this is what the test above would catch."""
  tree = grown(0)
  g = jnp.float32(prefix_values(tree, 'large random'))
  new = given_values(tree.batch, g, 'none').reward
  kept = np.where(tree.batch.mask, tree.batch.reward, 0)
  before = dynamic_programming(tree, kept)[0].argmax(1)
  assert not np.array_equal(before, dynamic_programming(tree, new)[0].argmax(1))


@pytest.mark.parametrize('seed', [4, 5])
def test_with_exact_values_nothing_is_left_to_expect(seed):
  # All reward comes with the end, so q~ depends on (s, a, t) alone: the
  # second-order Markov case of theorems 2 and 3.
  tree = grown(seed, delayed=True)
  new = np.asarray(
    given_values(tree.batch, jnp.float32(tree.value)).reward, float
  )
  observation = np.asarray(tree.batch.observation)
  state, mask = observation[..., 0], np.asarray(tree.batch.mask)
  action = np.asarray(tree.batch.action)
  pair = state * 2 + action
  weight = tree.chance.prod(1) / tree.starts / 2**tree.depth
  returns = np.where(mask, tree.batch.reward, 0).sum(1)

  def mean(key, x, there):
    """E[x | key], for each key that occurs."""
    keys, inverse = np.unique(key[there], return_inverse=True)
    w = weight[there]
    return keys, np.bincount(inverse, w * x[there]) / np.bincount(inverse, w)

  checked = 0
  for t in range(tree.depth - 1):
    there = mask[:, t]
    for m in range(t + 1, tree.depth):  # kappa(m, t)
      _, kappa = mean(pair[:, t], new[:, t + 1 : m + 1].sum(1), there)
      np.testing.assert_allclose(kappa, 0, atol=1e-6)
    keys, q = mean(pair[:, t], returns, there)
    q_before = dict(zip(keys.tolist(), q, strict=True))
    there = mask[:, t + 1]
    keys, q = mean(pair[:, t + 1], returns, there)
    q_after = dict(zip(keys.tolist(), q, strict=True))
    both, expected = mean(
      pair[:, t] * 60 + pair[:, t + 1], new[:, t + 1], there
    )
    for key, value in zip(both.tolist(), expected, strict=True):
      before, after = divmod(key, 60)
      wanted = q_after[after] - q_before[before]
      assert value == pytest.approx(wanted, abs=1e-5)
      checked += 1
    # Theorem 3: the immediate reward alone knows the advantage.
    keys, immediate = mean(pair[:, t + 1], new[:, t + 1], there)
    for s in np.unique(keys // 2):
      gain = immediate[keys == 2 * s + 1] - immediate[keys == 2 * s]
      assert gain[0] == pytest.approx(
        q_after[2 * s + 1] - q_after[2 * s], abs=1e-5
      )
  assert checked > 30


def test_baselines_by_hand():
  observation = jnp.array([[1.0, 4.0, 2.0], [3.0, 9.0, 9.0]])
  batch = episodes([[1, 0, 5], [2, 9, 9]], [3, 1], observation)
  new = redistribute(batch, redistribution.original)
  assert new.reward.tolist() == [[1, 0, 5], [2, 0, 0]]
  assert new.quality.tolist() == [1, 1]
  new = redistribute(batch, redistribution.uniform)
  np.testing.assert_allclose(new.reward, [[2, 2, 2], [2, 0, 0]], rtol=1e-6)
  shaping = redistribution.shaping(lambda x: x, discount=0.5)
  new = redistribute(batch, shaping, correction='none')
  # r + phi' / 2 - phi; no potential after the end.
  assert new.reward.tolist() == [[1 + 2 - 1, 0 + 1 - 4, 5 - 2], [2 - 3, 0, 0]]
  shaping = redistribution.shaping(lambda x: x)
  new = redistribute(batch, shaping)
  assert new.residual.tolist() == [1, 3]  # phi of the first state
  assert new.reward.tolist() == [[4, -2, 4], [2, 0, 0]]


def test_chunks_of_an_lstm_equal_the_whole():
  draw = np.random.default_rng(3)
  observation = jnp.float32(draw.normal(size=(3, 11, 4)))
  batch = episodes(draw.normal(size=(3, 11)), [11, 6, 2], observation)
  net = hk.without_apply_rng(
    hk.transform(lambda x, *state: nets.LSTM(5).unroll(x, *state))
  )
  params = jax.tree.map(
    lambda x: jnp.float32(draw.normal(scale=0.5, size=x.shape)),
    jax.eval_shape(net.init, jax.random.key(0), observation),
  )

  def predict(state, piece):
    h, state = net.apply(params, piece.observation, state)
    return state, jnp.sum(h, axis=2)

  state = hk.LSTMState(*jnp.zeros((2, 3, 5)))
  whole = predict(state, batch)[1]
  assert np.ptp(whole) > 1
  for size in (4, 50):
    pieces = redistribution.in_chunks(predict, state, size)(batch)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
  with pytest.raises(UsageError, match='at least 1'):
    redistribution.in_chunks(predict, state, 0)


def test_integrated_gradients_are_complete_and_know_their_steps():
  draw = np.random.default_rng(4)
  w = jnp.float32(draw.normal(size=3))
  observation = jnp.float32(draw.normal(size=(2, 5, 3)))
  action = jnp.float32(draw.normal(size=(2, 5)))
  batch = episodes(np.ones((2, 5)), [5, 3], observation, action)

  def predict(batch):
    x = jnp.cumsum(jnp.tanh(batch.observation @ w + batch.action), axis=1)
    return 1 + x + 0.1 * x**3

  @functools.partial(jax.jit, static_argnums=(0, 2))
  def contributions(predict, batch, steps):
    return redistribution.integrated_gradients(predict, batch, steps)

  given = contributions(predict, batch, 200)
  g = np.asarray(predict(batch))
  np.testing.assert_allclose(
    given.sum(1), [g[0, 4] - 1, g[1, 2] - 1], atol=1e-4
  )
  assert not given[1, 3:].any()
  # Of a linear function they are its terms, whatever the number of steps.
  linear = redistribution.accumulate(lambda batch: batch.observation @ w)
  terms = contributions(linear, batch, 1)
  np.testing.assert_allclose(
    terms, jnp.where(batch.mask, observation @ w, 0), atol=1e-6
  )
  method = redistribution.accumulate(
    lambda batch: contributions(predict, batch, 200)
  )
  new = redistribute(batch, method)
  np.testing.assert_allclose(new.reward.sum(1), [5, 3], atol=1e-5)
  with pytest.raises(UsageError, match='one-hot'):
    redistribution.integrated_gradients(
      linear, batch._replace(observation=jnp.ones((2, 5), int), action=None)
    )


def test_integers_are_held_as_they_are():
  action = jnp.array([[0, 1, 1]])
  observation = jnp.array([[1.0, 2.0, 3.0]])
  batch = episodes(np.ones((1, 3)), [3], observation, action)
  method = redistribution.accumulate(
    lambda batch: batch.observation * batch.action
  )
  given = jax.jit(
    lambda batch: redistribution.integrated_gradients(method, batch, 1)
  )(batch)
  np.testing.assert_allclose(given, [[0, 2, 3]], rtol=1e-5)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'reward': jnp.zeros(3)}, r'rewards of shape \[3\]; \[B, T\]'),
    ({'reward': jnp.zeros((2, 3, 1))}, r'rewards of shape \[2, 3, 1\]'),
    ({'reward': jnp.zeros((0, 3))}, r'empty batch.*\[0, 3\]'),
    ({'reward': jnp.zeros((2, 0))}, r'empty batch.*\[2, 0\]'),
    ({'mask': jnp.ones((2, 4), bool)}, r'mask of bool\[2, 4\]; bool\[2, 3\]'),
    ({'mask': jnp.ones((2, 3))}, r'mask of float32'),
    ({'observation': jnp.zeros((3, 2))}, r'observation of shape \[3, 2\]'),
    ({'action': {'a': jnp.zeros(2)}}, r'action of shape \[2\]'),
    (
      {'mask': jnp.array([[True] * 3, [True, False, True]])},
      r'mask of episode 1 has a hole',
    ),
    (
      {'reward': jnp.array([[0, jnp.nan, 0], [0, 0, 0]])},
      r'episode 0 has a reward that is not finite',
    ),
  ],
)
def test_bad_input_is_named(change, message):
  batch = episodes(jnp.zeros((2, 3)), [3, 3])._replace(**change)
  with pytest.raises(UsageError, match=message):
    redistribute(batch, redistribution.uniform)


def test_bad_arguments_are_named():
  batch = episodes(jnp.zeros((2, 3)), [3, 3])
  with pytest.raises(UsageError, match=r"'first'; 'last', 'uniform'"):
    redistribute(batch, redistribution.uniform, correction='first')  # pyrefly: ignore[bad-argument-type]
  with pytest.raises(UsageError, match=r'shape \[2, 3, 1\]; \[2, 3\]'):
    redistribute(batch, lambda _: jnp.zeros((2, 3, 1)))


def test_inside_jit_the_rules_are_the_stated_ones():
  batch = episodes([[1, 2, 4], [jnp.nan, 2, 4]], [3, 3])
  batch = batch._replace(mask=jnp.array([[True, False, True], [True] * 3]))
  new = given_values(batch, jnp.ones((2, 3)))
  assert new.reward[0].tolist() == [1, 0, 0]  # it ends at the hole
  assert np.isnan(new.reward[1, 0])  # as it came
  assert new.reward[1, 1:].tolist() == [2, 4]
  assert new.quality.tolist() == [1, 0]


def test_pad_fills_up_trees_and_lists():
  batch = redistribution.pad(
    [
      ({'x': np.ones((2, 3))}, [0, 1], [1.0, 2.0]),
      ({'x': np.ones((1, 3))}, [1], [5.0]),
    ],
    length=4,
  )
  assert batch.observation['x'].shape == (2, 4, 3)
  assert batch.observation['x'].sum(axis=(1, 2)).tolist() == [6, 3]
  assert batch.action.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
  assert batch.reward.tolist() == [[1, 2, 0, 0], [5, 0, 0, 0]]
  assert batch.mask.sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ([], 'no episodes; at least 1'),
    ([([], [], [])], r'episode 0 has leaves of \[0, 0, 0\] steps'),
    ([([1, 2], [1], [1.0, 2.0])], r'episode 0 has leaves of \[2, 1, 2\]'),
    (
      [([1, 2, 3], [1, 1, 1], [0, 0, 0])],
      'episode of 3 steps; at most length=2',
    ),
  ],
)
def test_pad_refuses(given, message):
  with pytest.raises(UsageError, match=message):
    redistribution.pad(given, length=2)


def test_on_a_stranger_s_environment():
  gymnasium = pytest.importorskip('gymnasium')

  def play(env, policy, seed):
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards, over = [], [], [], False
    while not over:
      observations.append(observation)
      actions.append(policy(observation))
      observation, reward, ended, cut, _ = env.step(actions[-1])
      rewards.append(reward)
      over = ended or cut
    return observations, actions, rewards

  draw = np.random.default_rng(0)
  env = gymnasium.make('CartPole-v1')
  batch = redistribution.pad(
    [play(env, lambda _: draw.integers(2), seed) for seed in range(20)]
  )
  env.close()
  # The pole's own reward, told at the end only.
  returns = jnp.sum(batch.reward, axis=1)
  last = jnp.sum(batch.mask, axis=1) - 1
  delayed = jnp.zeros_like(batch.reward).at[jnp.arange(20), last].set(returns)
  batch = batch._replace(reward=delayed)
  assert batch.observation.shape == (20, batch.reward.shape[1], 4)

  def upright(batch):  # a guess at a return: the more upright, the longer
    return 20 - 60 * jnp.abs(batch.observation[..., 2])

  new = redistribute(batch, upright)
  np.testing.assert_allclose(new.reward.sum(1), returns, atol=1e-4)
  moved = jnp.sum(jnp.abs(new.reward) * (delayed == 0), axis=1)
  assert jnp.all(moved > 1)
