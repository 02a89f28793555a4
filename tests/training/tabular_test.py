"""The tabular learner: numbers by hand, NumPy oracles, equal stopping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import rooms
from dl_lectures.envs.rooms import Episodes
from dl_lectures.training import tabular
from dl_lectures.training.tabular import Episode, Method, Protocol

WORLD = rooms.make(4)
S = WORLD.num_states
_, ACTIONS = rooms.optimal(WORLD)
DEMOS = rooms.demonstrations(WORLD, jax.random.key(5), 10)


def no_credit(states, actions, rewards, mask):
  del states, actions, mask
  return rewards


def episode_of(states, actions, rewards, codes=None):
  """A short episode, padded to 200 steps."""
  n = len(actions)
  pad = rooms.HORIZON - n
  codes = codes or [0] * (n + 1)
  return Episode(
    jnp.array(states + [states[-1]] * pad),
    jnp.array(codes + [codes[-1]] * pad),
    jnp.array(actions + [0] * pad),
    jnp.array(rewards + [0.0] * pad, jnp.float32),
    jnp.arange(rooms.HORIZON) < n,
  )


def demo_of(states, actions, rewards):
  one = episode_of(states, actions, rewards)
  batch = jax.tree.map(lambda x: x[None], one)
  return Episodes(batch.state, batch.action, batch.reward, batch.mask)


def oracle_sweep(table, episode, rewards, rate, targets, margin=None):
  """The same updates, one after another, in NumPy."""
  table = np.array(table, float)
  length = int(episode.mask.sum())
  rewards = np.asarray(rewards, float)
  for t in range(length):
    s, c, a = (int(x[t]) for x in (episode.state, episode.code, episode.action))
    values = table[s, c].copy()
    error = 0.0
    for n, bootstrap in targets:
      target = rewards[t : min(t + n, length)].sum()
      if bootstrap and t + n < length:
        later = int(episode.state[t + n]), int(episode.code[t + n])
        target += table[later].max()
      error += target - values[a]
    table[s, c, a] += rate * error
    if margin is not None:
      bound = values + margin
      bound[a] = values[a]
      rival = int(np.argmax(bound))
      table[s, c, a] += rate
      table[s, c, rival] -= rate
  return table


@pytest.fixture(scope='module')
def some_episode():
  draw = np.random.default_rng(0)
  n = 37
  return episode_of(
    draw.integers(6, size=n + 1).tolist(),
    draw.integers(4, size=n).tolist(),
    draw.normal(size=n).round(2).tolist(),
    draw.integers(3, size=n + 1).tolist(),
  )


@pytest.mark.parametrize(
  ('num_steps', 'bootstrap'), [(1, True), (1, False), (5, True), (20, False)]
)
def test_redistributed_learns_what_numpy_learns(
  some_episode, num_steps, bootstrap
):
  table = jax.random.normal(jax.random.key(0), (6, 3, 4))
  credit = lambda s, a, r, m: 2 * r + s[:-1]  # noqa: E731
  after = tabular.redistributed(credit, num_steps, bootstrap)
  found = after(table, some_episode, 0.3, jax.random.key(0))
  paid = 2 * some_episode.reward + some_episode.state[:-1]
  expected = oracle_sweep(
    table, some_episode, paid, 0.3, [(num_steps, bootstrap)]
  )
  np.testing.assert_allclose(found, expected, atol=2e-4)


def test_what_credit_says_after_the_end_counts_for_nothing(some_episode):
  table = jnp.ones((6, 3, 4))

  def loud(states, actions, rewards, mask):
    del states, actions
    return jnp.where(mask, rewards, jnp.nan)

  found, expected = (
    tabular.redistributed(credit, 20, False)(
      table, some_episode, 0.1, jax.random.key(0)
    )
    for credit in (loud, no_credit)
  )
  np.testing.assert_array_equal(found, expected)


def test_dqfd_learns_what_numpy_learns(some_episode):
  own = some_episode._replace(code=jnp.zeros_like(some_episode.code))
  demo = demo_of([0, 3, 2, 5], [1, 1, 3], [0.0, 0.0, 3.0])
  table = jax.random.normal(jax.random.key(0), (6, 1, 4))
  after = tabular.replay(demo, num_steps=2, margin=0.8)
  found = after(table, own, 0.2, jax.random.key(0))
  expected = oracle_sweep(table, own, own.reward, 0.2, [(2, True)])
  shown = episode_of([0, 3, 2, 5], [1, 1, 3], [0.0, 0.0, 3.0])
  both = [(1, True), (2, True)]
  expected = oracle_sweep(expected, shown, shown.reward, 0.2, both, 0.8)
  np.testing.assert_allclose(found, expected, atol=2e-4)


def test_rehearsing_makes_the_shown_actions_the_best():
  table = tabular.random_table(jax.random.key(0), S)
  straight = rooms.demonstrations(
    WORLD._replace(slip=0.0), jax.random.key(0), 2, noise=0.0
  )
  taught = tabular.rehearse(table, straight, 0.1, passes=40)
  best = np.asarray(taught[straight.state[:, :-1], 0].argmax(-1))
  mask = straight.mask
  assert (best == straight.action)[mask].all()


def test_clone_is_mean_return_times_frequency():
  demos = jax.tree.map(
    lambda x, y: jnp.concatenate([x, y]),
    demo_of([0, 1], [2], [3.0]),
    demo_of([0, 0, 1], [2, 1], [0.0, 1.0]),
  )
  found = tabular.clone(jnp.full((2, 2, 4), 7.0), demos)
  # Cell 0: action 2 twice (returns 3 and 1), action 1 once (return 1).
  np.testing.assert_allclose(found[0, 0], [7, 1 / 3, 4 / 3, 7], rtol=1e-6)
  np.testing.assert_array_equal(found[0, 0], found[0, 1])
  assert (np.asarray(found[1]) == 7).all()


def test_progress_rises_along_a_demonstration():
  potential = tabular.progress(DEMOS, S)
  assert potential.shape == (S, 1)
  first, last = DEMOS.state[0, 0], DEMOS.state[0, DEMOS.mask[0].sum() - 1]
  assert potential[first, 0] < 0.3
  assert 2.4 < potential[last, 0] < 3.2
  unseen = np.setdiff1d(np.arange(S), DEMOS.state)
  assert not np.asarray(potential)[unseen].any()


def test_uniform_credit_sums_to_the_return():
  episode = episode_of([0, 1, 2, 3], [0, 0, 0], [1.0, 0.0, 2.0])
  credit = tabular.uniform_credit(
    episode.state, episode.action, episode.reward, episode.mask
  )
  assert credit[:4].tolist() == [1, 1, 1, 0]


def test_visited_remembers_a_set():
  event = jnp.array([0, 1, 2, 3, -1])
  history, codes = tabular.visited(event, 3)
  assert codes == 8
  seen = [jnp.int32(0)]
  for cell in (1, 4, 2, 1, 3, 0):
    seen.append(history(seen[-1], jnp.int32(cell)))
  assert [int(code) for code in seen] == [0, 2, 2, 6, 6, 6, 7]


# Two blocks of two episodes; one program for all tests of what is online.
ONLINE = Protocol(
  block=2, num_evaluations=8, num_confirmations=8, max_episodes=4
)
EXPLORE, SLIP = np.float32(0.2), np.float32(0.01)


@jax.jit
def learn_online(table, potential, rate, key):
  method = Method(table, potential=potential)
  return tabular.learn(WORLD, method, rate, key, 99.0, ONLINE)


def test_the_optimal_table_plays_well_and_no_rate_changes_nothing():
  best = jnp.asarray(np.eye(4, dtype=np.float32)[ACTIONS[0]][:, None])
  outcome = learn_online(best, jnp.zeros((S, 1)), 0.0, jax.random.key(0))
  np.testing.assert_array_equal(outcome.table, best)
  assert outcome.episodes == 4
  assert not outcome.solved
  assert ((outcome.returns > 3.0) & (outcome.returns < 3.2)).all()


def test_evaluation_agrees_with_exact_values():
  best = jnp.asarray(np.eye(4, dtype=np.float32)[ACTIONS[0]][:, None])
  evaluate = jax.jit(
    lambda key, needed: tabular.evaluate(
      WORLD, Method(best), best, key, 2000, 0.0, needed
    )
  )
  mean = evaluate(jax.random.key(0), True)
  assert abs(mean - rooms.attainable(WORLD)) < 0.003
  assert evaluate(jax.random.key(0), False) == 0


def q_learning_oracle(table, rate, key, potential):
  """The same two blocks, transition by transition, in NumPy float64."""
  table = np.array(table, float)[:, 0]
  one = np.float32(1)
  for block in range(2):
    keys = jax.random.split(jax.random.fold_in(key, block), 3)
    start_key, step_key, _ = jax.random.split(keys[0], 3)
    starts = jax.random.choice(start_key, jnp.asarray(WORLD.starts), (2,))
    uniforms = np.asarray(jax.random.uniform(step_key, (400,)))
    rows = uniforms.reshape(2, 200)
    for state, numbers in zip(starts.tolist(), rows, strict=True):
      for t, u in enumerate(numbers):
        action = int(table[state].argmax())
        # One number for all: what is left of it is uniform again.
        if u < EXPLORE:
          u = u / EXPLORE * 4
          action = int(u)
          u -= action
        else:
          u = (u - EXPLORE) / (one - EXPLORE)
        moved = action
        if u < SLIP:
          u = u / SLIP * 4
          moved = int(u)
          u -= moved
        else:
          u = (u - SLIP) / (one - SLIP)
        after = int(WORLD.next_state[state, moved])
        if after == rooms.BY_CHANCE:
          after = int(WORLD.back[int(u * 20)])
        at_goal = after == WORLD.goal
        over = at_goal or t == 199
        reward = 3 + 53.32 / 200 - (t + 1) / 200 if at_goal else float(over)
        reward += (0.0 if over else potential[after]) - potential[state]
        best = 0.0 if over else table[after].max()
        table[state, action] += rate * (reward + best - table[state, action])
        state = after
        if over:
          break
  return table


def test_q_learning_with_shaping_is_that_of_numpy():
  key = jax.random.key(3)
  table = tabular.clone(tabular.random_table(key, S), DEMOS)
  potential = tabular.progress(DEMOS, S)
  found = learn_online(table, potential, 0.1, key)
  phi = np.asarray(potential, float)[:, 0]
  expected = q_learning_oracle(table, 0.1, key, phi)
  np.testing.assert_allclose(found.table[:, 0], expected, atol=1e-4)
  assert np.abs(expected - np.asarray(table)[:, 0]).max() > 0.05


def test_shaping_is_another_table_to_begin_with():
  """Wiewiora, "Potential-based shaping and Q-value initialization", 2003."""
  potential = tabular.progress(DEMOS, S)
  table = tabular.random_table(jax.random.key(0), S)
  key = jax.random.key(1)
  shaped = learn_online(table, potential, 0.1, key)
  plain = learn_online(table + potential[..., None], 0 * potential, 0.1, key)
  np.testing.assert_allclose(
    shaped.table + potential[..., None], plain.table, atol=1e-4
  )
  # It plays by the table that it has, without the potential.
  assert not np.allclose(shaped.table, plain.table, atol=0.1)


LONG = Protocol(
  block=2, num_evaluations=2, num_confirmations=40, max_episodes=300
)


def solve(demos, key, bar):
  """Monte Carlo, with a history, learnt after the episode."""
  history, codes = tabular.visited(jnp.asarray(WORLD.position[:, 2] - 20), 3)
  table = tabular.clone(tabular.random_table(key, S, codes), demos)
  method = Method(
    table,
    history,
    online=False,
    after=tabular.redistributed(no_credit, 200, bootstrap=False),
  )
  return tabular.learn(WORLD, method, 0.3, key, bar, LONG)


def test_what_is_finished_stays_and_what_is_reached_is_confirmed():
  """Three seeds that end at different times, and three that are one."""
  keys = jax.random.split(jax.random.key(2), 3)
  bars = jnp.array([1.5, 2.0, 99.0])
  run = jax.jit(jax.vmap(solve, in_axes=(None, 0, 0)))
  together = run(DEMOS, keys, bars)
  crossed = 0
  for i in range(3):
    same = np.full(3, i)
    one = jax.tree.map(lambda x: x[0], run(DEMOS, keys[same], bars[same]))
    jax.tree.map(
      lambda x, y, i=i: np.testing.assert_array_equal(x, y[i]), one, together
    )
    played = int(one.episodes) // 2
    returns = np.asarray(one.returns)
    assert np.isfinite(returns[:played]).all()
    assert np.isnan(returns[played:]).all()
    if one.solved:
      assert returns[played - 1] >= bars[i]
      crossed += (returns[: played - 1] >= bars[i]).sum()
  assert together.solved.tolist() == [True, True, False]
  assert together.episodes[2] == 300
  assert len(set(together.episodes.tolist())) == 3
  # Two episodes reach by luck what forty fresh ones do not confirm.
  assert crossed > 0


def test_a_lower_cap_needs_no_other_program():
  run = jax.jit(
    lambda cap: tabular.learn(
      WORLD,
      Method(tabular.random_table(jax.random.key(0), S)),
      0.1,
      jax.random.key(0),
      99.0,
      ONLINE,
      cap,
    )
  )
  short, whole = run(2), run(1000)
  assert (int(short.episodes), int(whole.episodes)) == (2, 4)
  assert short.returns[0] == whole.returns[0]
  assert np.isnan(short.returns[1])
