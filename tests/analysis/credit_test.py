"""The diagnosis of tasks whose answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import credit
from dl_lectures.ops import redistribution
from dl_lectures.ops.redistribution import Trajectory
from dl_lectures.types import UsageError

B, T = 200, 10


def task(pay, seed=0, shortest=T - 3) -> Trajectory:
  """Random actions; pay(draw, action, mask) are the rewards; lengths differ."""
  draw = np.random.default_rng(seed)
  action = draw.integers(0, 2, size=(B, T))
  lengths = draw.integers(shortest, T + 1, size=B)
  mask = np.arange(T)[None, :] < lengths[:, None]
  time = np.broadcast_to(np.arange(T), (B, T))
  has_key = np.where(time > 2, action[:, 2:3], 0)
  reward = np.where(mask, pay(draw, action, mask), np.nan)
  observation = {'time': jnp.asarray(time), 'key': jnp.asarray(has_key)}
  return Trajectory(observation, *map(jnp.asarray, (action, reward, mask)))


def at_the_end(value, mask):
  last = mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1)))
  return np.where(last, value[:, None], 0.0)


def key_and_door(draw, action, mask):
  # The third action may take a key; the door opens at the end.
  return at_the_end(5 + 4.0 * action[:, 2] + 0.1 * draw.normal(size=B), mask)


@functools.cache
def diagnosis(name):
  pays = {
    'key': key_and_door,
    'chance': lambda draw, action, mask: at_the_end(draw.normal(size=B), mask),
    'at once': lambda draw, action, mask: 1.0 * action,
    'end': lambda draw, action, mask: at_the_end(np.ones(B), mask) * action,
    'equal': lambda draw, action, mask: at_the_end(np.full(B, 3.0), mask),
  }
  # The last action is known for the last one if all episodes are as long.
  batch = task(pays[name], shortest=T if name == 'end' else T - 3)
  return credit.diagnose(batch, updates=400)


def test_a_key_that_opens_a_door_later():
  given = diagnosis('key')
  assert given.answer == 'likely: the return is known before it is paid'
  assert given.r2 > 0.95
  # Known after 3 of 7 to 10 steps, paid at the last.
  assert 0.6 < given.sooner < 0.8
  assert given.moved > 0.9
  # Before: 1 deviation, at 3/4 of the steps.
  assert given.kappa_before > 0.5
  assert given.kappa < 0.1
  assert given.sum_error < 1e-5
  assert given.num_held_out == 50


@pytest.mark.parametrize(
  ('name', 'answer'),
  [
    ('chance', 'unlikely: the return is not predicted'),
    ('at once', 'unlikely: the return is not known before'),
    ('end', 'unlikely: the return is not known before'),
    ('equal', 'unlikely: the returns do not differ'),
  ],
)
def test_tasks_that_it_does_not_help(name, answer):
  given = diagnosis(name)
  assert given.answer.startswith(answer)
  assert all(np.isfinite(x) for x in given[1:])


def test_why_it_does_not_help_them():
  assert diagnosis('chance').r2 < 0.2
  for name in ('at once', 'end'):
    assert diagnosis(name).r2 > 0.9
    assert abs(diagnosis(name).sooner) < 0.05
  # It wavers; of the key .97 is moved.
  assert diagnosis('end').moved < 0.5


def test_the_same_seed_gives_the_same_diagnosis():
  again = credit.diagnose(task(key_and_door), updates=400)
  assert again == diagnosis('key')


def test_encode_takes_trees_of_all_kinds():
  mask = jnp.array([[True, True], [True, False]])
  observation = {
    'a': jnp.array([[[2.0, 7.0], [4.0, 7.0]], [[6.0, 7.0], [jnp.nan, 0.0]]]),
    'b': jnp.array([[True, False], [True, True]]),
  }
  action = jnp.array([[100, 200], [300, -5]])
  batch = Trajectory(observation, action, jnp.zeros((2, 2)), mask)
  scale = np.sqrt(8 / 3)
  expected = np.array(
    [
      [[-2 / scale, 0, 0, 1, -1.2247448], [0, 0, 1, 0, 0]],
      [[2 / scale, 0, 0, 1, 1.2247448], [0, 0, 0, 0, 0]],
    ]
  )
  np.testing.assert_allclose(credit.encode(batch), expected, atol=1e-6)
  # Of the first episode alone: mean 3, deviation 1.
  first = credit.encode(batch, np.array([0]))
  assert first[:, 0, 0].tolist() == [-1, 3]


def test_bad_input_is_named():
  batch = task(key_and_door)
  few = jax.tree.map(lambda x: x[:9], batch)
  with pytest.raises(UsageError, match=r'9 episodes to diagnose; at least 16'):
    credit.diagnose(few)
  broken = batch._replace(observation=jnp.full((B, T), jnp.nan))
  with pytest.raises(UsageError, match='observation or action is not finite'):
    credit.diagnose(broken)
  with pytest.raises(UsageError, match='rewards of shape'):
    credit.diagnose(batch._replace(reward=jnp.zeros(B)))


def test_a_stranger_s_environment():
  gymnasium = pytest.importorskip('gymnasium')
  env, draw = gymnasium.make('CartPole-v1'), np.random.default_rng(0)

  def play(seed):
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards, over = [], [], [], False
    while not over:
      observations.append(observation)
      actions.append(draw.integers(2))
      observation, reward, ended, cut, _ = env.step(actions[-1])
      rewards.append(reward)
      over = ended or cut
    # How long it stood is told at the end only.
    return observations, actions, [0.0] * (len(rewards) - 1) + [sum(rewards)]

  batch = redistribution.pad([play(seed) for seed in range(300)])
  env.close()
  given = credit.diagnose(batch, updates=400)
  # A pole that leans has not long to go.
  assert given.answer == 'likely: the return is known before it is paid'
  assert given.r2 > 0.8
  assert given.kappa < 0.8 * given.kappa_before
  assert given.sum_error < 1e-4
