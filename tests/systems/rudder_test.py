"""RUDDER: its parts against NumPy, resumption, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.envs import delayed
from dl_lectures.systems import rudder

TINY = rudder.Config(
  runs=2,
  task='charge',
  horizon=4,
  deltas=False,
  episodes_per_step=5,
  first_lesson=20,
  lessons=40,
  first_updates=8,
  updates_per_step=4,
  batch_size=4,
  units=4,
  window=20,
  greedy_score=True,
  max_episodes=60,
  baseline_episodes=100,
)


@functools.cache
def parts(config=TINY):
  task = delayed.make(config.task, config.horizon)
  return task, rudder.network(config)


@functools.cache
def compiled(config=TINY):
  """A jitted step, and the state before it."""
  task, net = parts(config)
  step = jax.jit(rudder.make_step(config, task, net))
  init = jax.jit(lambda key: rudder.init(config, task, net, key))
  return step, init(jax.random.key(3))


@functools.cache
def played(name='charge', horizon=4, n=16):
  task = delayed.make(name, horizon)
  play = jax.jit(
    lambda key: delayed.episodes(task, key, delayed.uniform_policy, n)
  )
  return task, play(jax.random.key(1))


def take(tree, i):
  return jax.tree.map(lambda x: x[i], tree)


def table_of(task):
  shape = (task.num_rows, task.num_actions)
  return jax.random.normal(jax.random.key(2), shape)


def test_sequences_hold_states_actions_and_consequences():
  task, batch = played()
  episode = take(batch, 0)
  whole = np.asarray(
    rudder.encode(task, episode.observation, episode.action, False)
  )
  assert whole.shape == (4, 3 + 2 + 3)
  np.testing.assert_array_equal(whole[:, :3], episode.observation[:-1])
  np.testing.assert_array_equal(whole[:, 3:5], np.eye(2)[episode.action])
  np.testing.assert_array_equal(whole[:, 5:], episode.observation[1:])
  deltas = np.asarray(
    rudder.encode(task, episode.observation, episode.action, True)
  )
  np.testing.assert_array_equal(deltas[0, :3], episode.observation[0])
  assert (deltas[1:, :3] == 0).all()
  # What is seen after each step can be added up again.
  again = deltas[0, :3] + np.cumsum(deltas[:, 5:], axis=0)
  np.testing.assert_allclose(again, episode.observation[1:], atol=1e-6)


def test_the_loss_is_the_mean_of_squares():
  task, net = parts()
  sequence = jnp.zeros((2, 4, 2 * task.num_features + task.num_actions))
  params = jax.jit(net.init)(jax.random.key(0), sequence)
  # Predictions of the same episode differ by nothing: only targets do, and
  # the errors would cancel out in a mean of errors.
  predicted = np.asarray(net.apply(params, sequence))
  np.testing.assert_array_equal(predicted[0], predicted[1])
  offset = 10 * predicted[0, -1]
  lessons = rudder.Lesson(sequence, jnp.array([offset + 20, offset - 20]))
  total, (_, metrics) = rudder.loss(
    TINY, net, params, {}, jax.random.key(0), lessons
  )
  target = np.asarray(lessons.total)[:, None] / 10
  error = (predicted - target) ** 2
  assert float(metrics['final_loss']) == pytest.approx(4, rel=1e-5)
  assert float(total) == pytest.approx(4 + 0.5 * error.mean(), rel=1e-5)


def test_redistributed_rewards_sum_to_the_return():
  config = dataclasses.replace(TINY, task='trace_back', horizon=6)
  task, net = parts(config)
  _, batch = played('trace_back', 6)
  sequence = jax.vmap(lambda s, a: rudder.encode(task, s, a, True))(
    batch.observation, batch.action
  )
  params = jax.jit(net.init)(jax.random.key(0), sequence)
  new = rudder.redistribute(config, net, params, batch, sequence)
  total = batch.reward.sum(axis=1)
  np.testing.assert_allclose(new.reward.sum(axis=1), total, atol=1e-4)
  g = 10 * np.asarray(net.apply(params, sequence))
  np.testing.assert_allclose(new.reward[:, 0], g[:, 0], rtol=1e-5)
  np.testing.assert_allclose(new.reward[:, 1:-1], np.diff(g)[:, :-1], atol=1e-5)


def naive(table, episode, target, rate):
  table = np.array(table)
  for t, at in enumerate(zip(episode.row, episode.action, strict=False)):
    table[at] += rate * (target(table, t) - table[at])
  return table


@pytest.mark.parametrize('name', ['watch_repair', 'trace_back'])
def test_estimates_equal_loops(name):
  task, batch = played(name, 6)
  table = table_of(task)
  before = np.asarray(table)
  for episode in (take(batch, 0), take(batch, 5)):
    legal = jax.vmap(task.legal)(episode.row)
    paid = jax.random.normal(jax.random.key(9), (6,))

    def bootstrapped(_, t, episode=episode, legal=legal):
      if t == 5:
        return episode.reward[t]
      return episode.reward[t] + max(
        before[episode.row[t + 1], a]
        for a in range(task.num_actions)
        if legal[t + 1, a]
      )

    for got, target in (
      (
        rudder.estimate_q(table, episode, paid, 0.3),
        lambda _, t, paid=paid: paid[t],
      ),
      (rudder.estimate_td(table, episode, legal, 0.3), bootstrapped),
      (
        rudder.estimate_mc(table, episode, 0.3),
        lambda _, t, episode=episode: episode.reward[t:].sum(),
      ),
    ):
      want = naive(before, episode, target, 0.3)
      np.testing.assert_allclose(got, want, atol=1e-4)


def test_policy_gradient_is_the_gradient_of_paid_log_probabilities():
  task, batch = played('watch_repair', 6)
  table = table_of(task)
  episode = take(batch, 0)
  legal = jax.vmap(task.legal)(episode.row)
  paid = jax.random.normal(jax.random.key(9), (6,))

  def objective(table):
    logits = jnp.where(legal, table[episode.row], -jnp.inf)[:-1]
    log_pi = jax.nn.log_softmax(logits)
    taken = jnp.take_along_axis(log_pi, episode.action[:, None], axis=1)[:, 0]
    return jnp.sum(paid * taken)

  got = rudder.ascend_policy(table, episode, legal, paid, 0.1)
  want = table + 0.1 * jax.grad(objective)(table)
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_softmax_policies():
  table = jnp.log(jnp.array([[0.2, 0.3, 0.5]]))
  policy = rudder.softmax_policy(table)
  uniform = jax.random.uniform(jax.random.key(0), (4_000, 2))
  act = jax.vmap(policy, (None, None, 0))
  for legal, want in (
    ([True, True, True], [0.2, 0.3, 0.5]),
    ([True, False, True], [2 / 7, 0, 5 / 7]),
    ([True, True, False], [0.4, 0.6, 0]),
  ):
    actions = act(jnp.int32(0), jnp.array(legal), uniform)
    shares = np.bincount(actions, minlength=3) / len(uniform)
    np.testing.assert_allclose(shares, want, atol=0.03)
    assert shares[~np.array(legal)].sum() == 0


def test_the_bar_counts_once_and_on_a_full_window():
  config = dataclasses.replace(TINY, bar=0.75)
  progress = rudder.new_progress(config)
  record = jax.jit(functools.partial(rudder.record, config))
  solved = []
  for score in (1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0):
    progress = record(progress, jnp.float32(score))
    solved.append(int(progress.solved))
  # Four blocks of five episodes are a window: at 20 episodes the mean is .75.
  assert solved == [0, 0, 0, 20, 20, 20, 20, 20, 20]


def test_stopping_and_resuming_changes_nothing():
  step, state = compiled()
  key = jax.random.key(7)

  def run(state, steps):
    for _ in range(steps - 1):
      state, _ = step(state, None, key)
    return step(state, None, key)

  whole, metrics = run(state, 8)
  halfway, _ = run(state, 4)
  copied = jax.tree.map(np.asarray, halfway)
  resumed, _ = run(copied, 4)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics))
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  # The lessons have begun: parameters move, and so do the tables.
  moved = jax.tree.map(
    lambda a, b: float(jnp.max(jnp.abs(a - b))),
    (state.learners.train.params, state.learners.table),
    (whole.learners.train.params, whole.learners.table),
  )
  assert min(jax.tree.leaves(moved)) > 0
  assert int(whole.learners.lessons.size[0]) == 40


def test_runs_side_by_side_are_the_runs_alone():
  step, state = compiled()
  key = jax.random.key(7)
  task, net = parts()
  learn = jax.jit(rudder.make_learn(TINY, task, net))
  alone = take(state.learners, 1)
  for i in range(5):
    state, _ = step(state, None, key)
    alone, _ = learn(
      alone, jnp.int32(i), jnp.float32(0.1), jax.random.fold_in(key, 1)
    )
  np.testing.assert_allclose(state.learners.table[1], alone.table, atol=1e-4)
  np.testing.assert_array_equal(
    state.learners.lessons.items.sequence[1], alone.lessons.items.sequence
  )


def test_nothing_is_learned_from_before_the_first_lesson():
  step, state = compiled()
  after = state
  for _ in range(3):
    after, _ = step(after, None, jax.random.key(7))
  assert (np.asarray(after.learners.table) == TINY.optimism).all()
  jax.tree.map(
    np.testing.assert_array_equal,
    state.learners.train.params,
    after.learners.train.params,
  )
  assert int(after.learners.lessons.size[0]) == 15


def test_baselines_learn_to_charge():
  config = dataclasses.replace(TINY, baseline_episodes=3_000, window=50)
  task, _ = parts()
  keys = jax.random.split(jax.random.key(0), 2)
  for method in rudder.BASELINES:
    learn = jax.jit(
      functools.partial(rudder.learn_baseline, config, task, method, 0.1)
    )
    solved, scores = learn(keys)
    assert (solved > 0).all()
    blocks = np.asarray(scores >= 0).sum(axis=1)
    assert (blocks == solved.max() // 5).all()
    for run, episodes in enumerate(solved):
      last = np.asarray(scores[run])[: episodes // 5][-10:]
      assert last.mean() >= 0.94


@pytest.mark.slow
def test_it_learns_to_charge_and_reports(tmp_path):
  config = dataclasses.replace(
    rudder.PRESETS['smoke'], runs=1, baseline_episodes=500
  )
  metrics = rudder.train(config, workdir=str(tmp_path))
  assert metrics['solved'] == 1
  assert metrics['r2'] > 0.5
  assert metrics['sum_error'] < 1e-4
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  names = [claim['name'] for claim in summary['claims']]
  assert any('redistributed sum' in name for name in names)
  assert (tmp_path / 'figures' / 'rudder.png').exists()


@pytest.mark.parametrize(('preset', 'seen'), [('paper', 0), ('laptop', 18)])
def test_parameters_of_the_network(preset, seen):
  task, net = parts(rudder.PRESETS[preset])
  sequence = jnp.zeros((1, task.horizon, 2 * task.num_features + 2))
  params = jax.jit(net.init)(jax.random.key(0), sequence)
  count = sum(x.size for x in jax.tree.leaves(params))
  # Cell input from 18 features, input gate from 16 units, two biases, a head;
  # where the input gate sees the input too, as often again.
  assert count == (18 + seen) * 16 + 16 * 16 + 2 * 16 + 17


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'runs': 0}, r'config.runs=0; at least 1'),
    ({'task': 'watches'}, r"unknown task 'watches'"),
    ({'horizon': 4}, r'watch repair of 4 steps'),
    ({'window': 30}, r'config.window=30; the multiples of'),
    ({'lessons': 10}, r'config.lessons=10; at least 25'),
    ({'learner': 'a2c'}, r"config.learner='a2c'; possible: q, policy"),
    ({'return_scale': 0.0}, r'config.return_scale=0.0; more than 0'),
    ({'epsilon': 1.5}, r'config.epsilon=1.5; 0 to 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(rudder.Config(), **changes)
