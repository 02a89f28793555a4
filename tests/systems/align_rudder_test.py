"""Align-RUDDER: the five steps, exact returns, causality, resumption."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures import training, types
from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.ops import alignment, redistribution
from dl_lectures.systems import align_rudder
from dl_lectures.training import report, tabular

ROOMS = rooms_lib.make(4)
TINY = align_rudder.Config(
  num_rooms=4,
  num_demonstrations=3,
  max_events=5,
  runs=2,
  num_steps=4,
  num_evaluations=4,
  num_confirmations=4,
)
STEPS = 8


@pytest.fixture(scope='module')
def demos():
  return rooms_lib.demonstrations(ROOMS, jax.random.key(0), 4)


@pytest.fixture(scope='module')
def knowledge(demos):
  return align_rudder.understand(demos, ROOMS.num_states, 5)[0]


def by_hand():
  """States 0, 1, 2 are events; 3 is elsewhere; a nat is worth 10."""
  score = jnp.array([[1.0, -1, -1, -1], [-1, 2, -1, -1], [-1, -1, 3, -1]])
  profile = alignment.Profile(score, jnp.zeros(()))
  return align_rudder.Knowledge(
    jnp.array([0, 1, 2, 3]), profile, jnp.float32(10)
  )


def a_batch(states, lengths, rewards):
  """Episodes of states [B, T + 1], of so many steps, paid at their end."""
  states, lengths = np.array(states), np.array(lengths)
  steps = np.arange(states.shape[1] - 1)
  last = steps == lengths[:, None] - 1
  return align_rudder.trajectory(
    rooms_lib.Episodes(
      jnp.asarray(states, jnp.int32),
      jnp.zeros((len(states), len(steps)), jnp.int32),
      jnp.asarray(np.where(last, np.array(rewards)[:, None], 0), jnp.float32),
      jnp.asarray(steps < lengths[:, None]),
    )
  )


def test_rewards_by_hand():
  # Elsewhere, back again, on to 1, to 2, back; then one that goes nowhere.
  batch = a_batch(
    [[0, 3, 0, 1, 2, 1], [0, 3, 3, 0, 0, 0], [0, 1, 2, 2, 2, 2]],
    [5, 3, 1],
    [60.0, 7.0, 20.0],
  )
  method = align_rudder.redistribute(by_hand())
  new = redistribution.redistribute(batch, method)
  assert new.reward.tolist() == [
    [0, 0, 20, 30, 10],
    [0, 0, 7, 0, 0],
    [20, 0, 0, 0, 0],
  ]
  assert new.predicted_return.tolist() == [50, 0, 20]
  assert new.residual.tolist() == [10, 7, 0]


def test_the_learners_credit_is_that_of_the_batch():
  batch = a_batch([[0, 3, 0, 1, 2, 1], [0, 3, 3, 0, 0, 0]], [5, 3], [60.0, 6])
  states = jnp.concatenate(
    [batch.observation.state[:, :1], batch.observation.next_state], 1
  )
  for correction in align_rudder.CORRECTIONS:
    new = redistribution.redistribute(
      batch, align_rudder.redistribute(by_hand()), correction=correction
    )
    give = jax.jit(align_rudder.credit(by_hand(), correction))
    for i in range(2):
      found = give(states[i], batch.action[i], batch.reward[i], batch.mask[i])
      np.testing.assert_allclose(found, new.reward[i], atol=1e-5)
  with pytest.raises(types.UsageError, match="correction='first'"):
    align_rudder.credit(by_hand(), 'first')  # pyrefly: ignore


@jax.jit
def redistributed(knowledge, batch):
  method = align_rudder.redistribute(knowledge)
  return [
    redistribution.redistribute(batch, method, correction=correction)
    for correction in ('last', 'uniform')
  ]


states_of_episodes = st.lists(
  st.integers(0, ROOMS.num_states - 1), min_size=STEPS + 1, max_size=STEPS + 1
)


@settings(max_examples=30, deadline=None)
@given(states_of_episodes, st.integers(1, STEPS), st.floats(-9, 9, width=32))
def test_returns_are_kept_exactly(knowledge, states, length, paid):
  # Any episode: most fail, many hold a single event or none.
  batch = a_batch([states], [length], [paid])
  for new in redistributed(knowledge, batch):
    np.testing.assert_allclose(new.reward.sum(), paid, atol=1e-5)
    assert np.isfinite(new.reward).all()
    assert (new.reward[0, length:] == 0).all()


@settings(max_examples=30, deadline=None)
@given(states_of_episodes, states_of_episodes, st.integers(1, STEPS - 1))
def test_rewards_do_not_know_the_future(knowledge, states, others, cut):
  one = a_batch([states], [STEPS], [3.0])
  two = a_batch([states[: cut + 1] + others[cut + 1 :]], [STEPS], [1.0])
  first, second = (redistributed(knowledge, b)[0].reward for b in (one, two))
  np.testing.assert_array_equal(first[0, :cut], second[0, :cut])


def test_demonstrations_are_predicted_on_average(demos, knowledge):
  batch = align_rudder.trajectory(demos)
  new = redistribution.redistribute(batch, align_rudder.redistribute(knowledge))
  np.testing.assert_allclose(new.residual.mean(), 0, atol=1e-4)
  np.testing.assert_allclose(
    new.predicted_return.mean(), demos.reward.sum(1).mean(), rtol=1e-5
  )
  # Most of the return is paid on the way, and never less than nothing.
  early = new.reward[:, :-1] * batch.mask[:, 1:]
  assert (early >= -1e-6).all()
  assert early.sum() > 0.5 * new.reward.sum()


def test_the_steps_in_turn(demos):
  event, sequences = align_rudder.define_events(demos, ROOMS.num_states, 5, 0.9)
  assert len(sequences) == 4
  assert all((np.diff(x) != 0).all() for x in sequences)
  # Every state of a demonstration has an event, every other is elsewhere.
  seen = np.unique(demos.state)
  elsewhere = event.max()
  assert (event[seen] < elsewhere).all()
  assert (np.delete(event, seen) == elsewhere).all()
  frequency, matrix = align_rudder.score_events(sequences, elsewhere + 1)
  assert frequency.argmin() == elsewhere
  rows = align_rudder.align(sequences, matrix)
  kept = [row[row >= 0].tolist() for row in rows]
  assert kept == [x.tolist() for x in sequences]
  # The goal is an event of its own.
  assert {x[-1] for x in sequences} == {event[ROOMS.goal]}
  assert (event == event[ROOMS.goal]).sum() == 1


def test_one_demonstration(demos):
  one = jax.tree.map(lambda x: x[:1], demos)
  batch = align_rudder.trajectory(demos)
  for most in (2, 5):
    knowledge, rows = align_rudder.understand(one, ROOMS.num_states, most)
    assert len(rows) == 1
    for new in redistributed(knowledge, batch):
      np.testing.assert_allclose(
        new.reward.sum(1), demos.reward.sum(1), atol=1e-5
      )
  knowledge, rows = align_rudder.understand(one, ROOMS.num_states, 2)
  assert rows.tolist() == [[0, 1]]  # on the way, and there


def test_a_single_event_earns_nothing_on_the_way(demos):
  # A demonstration that stays where it begins.
  still = jax.tree.map(lambda x: x[:1], demos)
  still = still._replace(
    state=np.full_like(still.state, 7), mask=np.arange(200)[None] < 3
  )
  knowledge, rows = align_rudder.understand(still, ROOMS.num_states, 5)
  assert rows.tolist() == [[0]]
  assert knowledge.scale == 0
  batch = align_rudder.trajectory(demos)
  for new in redistributed(knowledge, batch):
    np.testing.assert_allclose(
      new.reward.sum(1), batch.reward.sum(1), rtol=1e-6
    )
    assert (new.predicted_return == 0).all()


def test_first_values_by_hand():
  # 0, elsewhere, 1, 2: paid 0, 20, 30; windows of two steps.
  demo = rooms_lib.Episodes(
    jnp.array([[0, 3, 1, 2]]),
    jnp.array([[1, 2, 3]]),
    jnp.array([[0.0, 0, 50]]),
    jnp.full((1, 3), True),
  )
  give = align_rudder.credit(by_hand())
  values = tabular.clone_credit(jnp.full((4, 1, 4), 0.5), demo, give, 2)
  expected = np.full((4, 4), 0.5)
  expected[0, 1], expected[3, 2], expected[1, 3] = 20, 50, 30
  np.testing.assert_allclose(values[:, 0], expected, atol=1e-5)


def test_no_demonstration_is_told(demos):
  none = jax.tree.map(lambda x: x[:0], demos)
  with pytest.raises(types.UsageError, match='at least one'):
    align_rudder.understand(none, ROOMS.num_states)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('num_demonstrations', 0, 'at least 1'),
    ('max_events', 1, 'at least 2'),
    ('epsilon', 1.5, '0 to 1'),
    ('gap', 0.5, 'at most 0'),
    ('correction', 'first', 'last, uniform, none'),
  ],
)
def test_settings_that_cannot_be(field, value, words):
  with pytest.raises(types.UsageError, match=words):
    align_rudder.Config(**{field: value})
  with pytest.raises(types.UsageError, match='there are 4 or 8'):
    align_rudder.train(align_rudder.Config(num_rooms=5), workdir=None)


@pytest.mark.slow
def test_a_stopped_run_ends_as_the_uninterrupted_one(tmp_path):
  def stop(step, state):
    del state
    if step == 2:
      os.kill(os.getpid(), signal.SIGTERM)

  whole, parts = str(tmp_path / 'whole'), str(tmp_path / 'parts')
  expected = align_rudder.train(TINY, workdir=whole)
  align_rudder.train(TINY, workdir=parts, hooks=[training.Hook(stop, 1)])
  assert report.finished(parts, TINY) is None
  found = align_rudder.train(TINY, workdir=parts)
  assert found == expected
  assert expected['sum_error'] <= 1e-5

  summary = report.finished(whole, TINY)
  assert summary is not None
  assert [claim['exact'] for claim in summary['claims']] == [False, True, False]
  assert (tmp_path / 'whole' / 'figures' / 'align_rudder.png').exists()


@pytest.mark.slow
def test_two_demonstrations_save_episodes():
  config = align_rudder.Config(runs=6, num_steps=60, seed=3)
  metrics = align_rudder.train(config, workdir=None)
  assert metrics['solved'] == 1
  assert metrics['episodes'] <= 0.7 * metrics['baseline_episodes']
