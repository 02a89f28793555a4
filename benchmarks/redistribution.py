"""Return decomposition against plain loops of the same algorithms.

What the authors' code does step by step in Python is here one program over
many seeds or episodes. All arms are interleaved in one process. Values
are medians of CPU time, over all threads, because wall-clock time on a machine
that is shared is that of its other users; beside them stands
`ratio_of_fastest`, and the largest difference of the two arms' results:

- lstm_updates: an update of RUDDER's return predictor (16 units, 8 episodes of
  51 steps, final and continuous prediction, Adam), 16 seeds side by side
  against one after the other; microseconds an update of one seed. Against a
  loop in NumPy with gradients by hand, and one in PyTorch with autograd, as the
  authors' code is.
- rooms_steps: a step of eight rooms with its update of the Q-table, 16 seeds
  one after the other, each of a block of 64 episodes with its random numbers
  and the evaluation of one more; microseconds a step of one seed. The plain
  loop is given its random numbers.
- profile_alignment: the scores of all 200 prefixes of an episode against a
  profile of 16 columns, 64 episodes; microseconds an episode.

  python -m benchmarks.redistribution
"""

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.nets import recurrent
from dl_lectures.ops import alignment
from dl_lectures.training import host, tabular

BARS = {'lstm_updates': 50, 'rooms_steps': 250, 'profile_alignment': 100}
HAS_TORCH = importlib.util.find_spec('torch') is not None

SEEDS, UNITS, BATCH, STEPS, FEATURES = 16, 16, 8, 51, 10
RATE, B1, B2, EPS = 1e-2, 0.9, 0.999, 1e-8


def predictor() -> hk.Transformed:
  """RUDDER's LSTM with a linear head: [B, T, F] -> g [B, T]."""

  def forward(x):
    return hk.Linear(1)(recurrent.LSTM(UNITS, recurrent.RUDDER)(x))[..., 0]

  return hk.without_apply_rng(hk.transform(forward))


def numpy_update(weights: list, moments: list, count: int, x, returns) -> None:
  """One update as one would write it with NumPy; in place.

  Args:
    weights: W [F, H], U [H, H], b [2 H], v [H, 1], a [1].
    moments: Adam's, two of each.
    count: updates so far.
    x: [B, T, F].
    returns: [B].
  """
  w_x, w_h, b, v, a = weights
  batch, steps, _ = x.shape
  h = np.zeros((batch, UNITS), np.float32)
  hidden, gates, cells, predicted = [h], [], [], []
  for t in range(steps):
    i = 1 / (1 + np.exp(-(h @ w_h + b[:UNITS])))
    z = np.tanh(x[:, t] @ w_x + b[UNITS:])
    h = h + i * z
    hidden.append(h)
    gates.append(i)
    cells.append(z)
    predicted.append(h @ v + a)

  gradients = [np.zeros_like(weight) for weight in weights]
  d_h = np.zeros_like(h)
  for t in reversed(range(steps)):
    error = predicted[t][:, 0] - returns
    # Mean square of the last one, and half of that of all.
    d_g = error / (batch * steps)
    if t == steps - 1:
      d_g = d_g + 2 * error / batch
    d_g = d_g[:, None]
    d_h = d_h + d_g @ v.T
    gradients[3] += hidden[t + 1].T @ d_g
    gradients[4] += d_g.sum(0)
    i, z = gates[t], cells[t]
    d_i, d_z = d_h * z * i * (1 - i), d_h * i * (1 - z * z)
    gradients[0] += x[:, t].T @ d_z
    gradients[1] += hidden[t].T @ d_i
    gradients[2][:UNITS] += d_i.sum(0)
    gradients[2][UNITS:] += d_z.sum(0)
    d_h = d_h + d_i @ w_h.T

  for weight, gradient, (first, second) in zip(
    weights, gradients, moments, strict=True
  ):
    first += (1 - B1) * (gradient - first)
    second += (1 - B2) * (gradient * gradient - second)
    scaled = first / (1 - B1 ** (count + 1))
    root = np.sqrt(second / (1 - B2 ** (count + 1)))
    weight -= RATE * scaled / (root + EPS)


def lstm_updates(updates: int = 4) -> tuple[dict[str, Callable], int, int]:
  """Arms that return weights after so many updates; ours of all seeds."""
  net = predictor()
  keys = jax.random.split(jax.random.key(0), SEEDS)
  shape = (SEEDS, updates, BATCH, STEPS, FEATURES)
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  returns = x[..., 0].sum(-1)
  params = jax.vmap(net.init, (0, None))(keys, x[0, 0])
  optimizer = optax.adam(RATE, B1, B2, EPS)

  def loss(params, x, returns):
    error = net.apply(params, x) - returns[:, None]
    return jnp.mean(error[:, -1] ** 2) + 0.5 * jnp.mean(error**2)

  def train(params, x, returns):
    def update(carry, batch):
      params, state = carry
      gradient = jax.grad(loss)(params, *batch)
      change, state = optimizer.update(gradient, state)
      return (optax.apply_updates(params, change), state), None

    start = params, optimizer.init(params)
    return jax.lax.scan(update, start, (x, returns))[0][0]

  ours = jax.jit(jax.vmap(train))
  placed = jax.device_put((x, returns))

  def listed(params):
    lstm, head = params['lstm'], params['linear']
    parts = lstm['w_x'], lstm['w_h'], lstm['b'], head['w'], head['b']
    return [np.asarray(part) for part in parts]

  def peer():
    weights = [part[0].copy() for part in listed(params)]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for count in range(updates):
      numpy_update(weights, moments, count, x[0, count], returns[0, count])
    return weights

  arms = {
    'ours': lambda: listed(jax.block_until_ready(ours(params, *placed))),
    'numpy': peer,
  }
  if HAS_TORCH:
    start = [part[0] for part in listed(params)]
    arms['torch'] = lambda: torch_updates(start, x[0], returns[0])
  return arms, updates * SEEDS, updates


def torch_updates(weights: list, x, returns) -> list:
  """The same as one would write it with PyTorch, on one thread.

  Args:
    weights: as in `numpy_update`.
    x: [updates, B, T, F].
    returns: [updates, B].

  Returns:
    The weights after all updates.
  """
  pt = torch()
  params = [pt.tensor(weight, requires_grad=True) for weight in weights]
  w_x, w_h, b, v, a = params
  optimizer = pt.optim.Adam(params, RATE, (B1, B2), EPS)
  for batch, target in zip(pt.tensor(x), pt.tensor(returns), strict=True):
    h = pt.zeros(batch.shape[0], UNITS)
    predicted = []
    for t in range(batch.shape[1]):
      i = pt.sigmoid(h @ w_h + b[:UNITS])
      h = h + i * pt.tanh(batch[:, t] @ w_x + b[UNITS:])
      predicted.append((h @ v + a)[:, 0])
    error = (pt.stack(predicted, 1) - target[:, None]) ** 2
    optimizer.zero_grad()
    (error[:, -1].mean() + 0.5 * error.mean()).backward()
    optimizer.step()
  return [param.detach().numpy() for param in params]


def torch() -> Any:
  """PyTorch, on one thread."""
  module = importlib.import_module('torch')
  module.set_num_threads(1)
  return module


def numpy_episodes(world, table, starts, uniforms, rate, epsilon) -> int:
  """Q-learning as one would write it with NumPy; the table is in place.

  Args:
    world: the rooms.
    table: [C, 4].
    starts: [E], first cells.
    uniforms: [E, T, 3], to explore, to slip and to choose a door.
    rate: of learning.
    epsilon: of exploration.

  Returns:
    The number of steps.
  """
  count = 0
  for start, drawn in zip(starts, uniforms, strict=True):
    state = start
    for t, (explore, slip, door) in enumerate(drawn):
      if explore < epsilon:
        action = int(explore * (4 / epsilon))
      else:
        action = np.argmax(table[state])
      moved = int(slip * (4 / world.slip)) if slip < world.slip else action
      after = world.next_state[state, moved]
      if after == rooms_lib.BY_CHANCE:
        after = world.back[int(door * len(world.back))]
      over = after == world.goal or t + 1 == rooms_lib.HORIZON
      reward = 0.0
      if after == world.goal:
        reward = rooms_lib.goal_return(t + 1)
      elif over:
        reward = rooms_lib.TIMEOUT_RETURN
      target = reward if over else reward + table[after].max()
      table[state, action] += rate * (target - table[state, action])
      state = after
      count += 1
      if over:
        break
  return count


def rooms_steps(episodes: int = 64) -> tuple[dict[str, Callable], int, int]:
  """Arms that return Q-tables; ours of all seeds."""
  world = rooms_lib.make(8)
  rate, epsilon = 0.1, 0.2
  protocol = tabular.Protocol(
    block=episodes,
    num_evaluations=1,
    num_confirmations=0,
    max_episodes=episodes,
    epsilon=epsilon,
  )
  keys = jax.random.split(jax.random.key(2), SEEDS)
  tables = jax.vmap(tabular.random_table, (0, None))(keys, world.num_states)

  def learn(table, key):
    method = tabular.Method(table)
    return tabular.learn(world, method, rate, key, np.inf, protocol).table

  ours = jax.jit(lambda *given: jax.lax.map(lambda one: learn(*one), given))
  starts, uniforms = drawn_by_learn(world, keys[0], episodes, epsilon)
  first = np.asarray(tables[0, :, 0])

  def peer():
    table = first.copy()
    numpy_episodes(world, table, starts, uniforms, rate, epsilon)
    return [table]

  steps = numpy_episodes(world, first.copy(), starts, uniforms, rate, epsilon)

  def all_tables():
    found = jax.block_until_ready(ours(tables, keys))
    return [np.asarray(found)[:, :, 0]]

  return {'ours': all_tables, 'numpy': peer}, steps * SEEDS, steps


def drawn_by_learn(
  world: rooms_lib.Rooms, key: jax.Array, episodes: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
  """The starts and uniforms of the first block of `tabular.learn`.

  It makes one number do for all three; here they are taken apart.
  """
  block_key = jax.random.split(jax.random.fold_in(key, 0), 3)[0]
  start_key, step_key, _ = jax.random.split(block_key, 3)
  starts = jax.random.choice(start_key, jnp.asarray(world.starts), (episodes,))
  explore = jax.random.uniform(step_key, (episodes * rooms_lib.HORIZON,))
  explores, rest = rooms_lib.split(explore, epsilon)
  slip = jnp.where(explores, rooms_lib.pick(rest, 4)[1], rest)
  slips, rest = rooms_lib.split(slip, world.slip)
  door = jnp.where(slips, rooms_lib.pick(rest, 4)[1], rest)
  uniforms = jnp.stack([explore, slip, door], -1)
  return np.asarray(starts), np.asarray(uniforms).reshape(episodes, -1, 3)


def numpy_prefix_scores(score, gap, sequence) -> np.ndarray:
  """Needleman and Wunsch's table, cell by cell; the best of each row."""
  columns = len(score)
  above = np.arange(columns + 1) * gap
  best = np.zeros(len(sequence), np.float32)
  for t, event in enumerate(sequence):
    row = np.empty(columns + 1)
    row[0] = above[0] + gap
    for j in range(columns):
      row[j + 1] = max(
        above[j] + score[j, event], above[j + 1] + gap, row[j] + gap
      )
    best[t] = row.max()
    above = row
  return best


def profile_alignment(
  episodes: int = 64, length: int = 200, columns: int = 16, events: int = 12
) -> tuple[dict[str, Callable], int, int]:
  """Arms that return scores of all prefixes; ours of all episodes."""
  random = np.random.default_rng(0)
  score = random.normal(size=(columns, events)).astype(np.float32)
  sequences = random.integers(events, size=(episodes, length))
  profile = alignment.Profile(jnp.asarray(score), jnp.float32(-0.1))
  ours = jax.jit(jax.vmap(alignment.prefix_scores, (None, 0)))
  placed = jnp.asarray(sequences, jnp.int32)
  return (
    {
      'ours': lambda: [np.asarray(ours(profile, placed))],
      'numpy': lambda: [numpy_prefix_scores(score, -0.1, sequences[0])],
    },
    episodes,
    1,
  )


CASES = {
  'lstm_updates': (lstm_updates, ('numpy', 'torch')),
  'rooms_steps': (rooms_steps, ('numpy',)),
  'profile_alignment': (profile_alignment, ('numpy',)),
}


def measure(
  name: str, rounds: int = 21, **sizes: int
) -> Iterator[dict[str, Any]]:
  """The lines of a case, one for each peer.

  Args:
    name: of the case.
    rounds: how often each arm is timed.
    sizes: arguments of the case.
  """
  make, peers = CASES[name]
  arms, ours_count, peer_count = make(**sizes)
  first = {arm: call() for arm, call in arms.items()}  # and compiled
  times = {arm: [] for arm in arms}
  for _ in range(rounds):
    for arm, call in arms.items():
      start = time.process_time()
      call()
      times[arm].append(1e6 * (time.process_time() - start))
  ours = np.array(times['ours']) / ours_count
  for kind in peers:
    line = {
      'name': name,
      'unit': 'microseconds of CPU time',
      'ours': float(np.median(ours)),
      'side_by_side': ours_count // peer_count,
      'bar': BARS[name],
    }
    if kind not in arms:
      yield line | {
        'peer': f'{kind}, not installed: pip install dl_lectures[benchmarks]',
        'peer_value': None,
        'ratio': None,
        'met': None,
      }
      continue
    peer = np.array(times[kind]) / peer_count
    ratio = float(np.median(peer) / np.median(ours))
    version = (np if kind == 'numpy' else torch()).__version__
    yield line | {
      'peer': f'plain loop, {kind} {version}',
      'peer_value': float(np.median(peer)),
      'ratio': ratio,
      'ratio_of_fastest': float(peer.min() / ours.min()),
      'largest_difference': max(
        float(np.abs(a[0] - b).max())
        for a, b in zip(first['ours'], first[kind], strict=True)
      ),
      'met': ratio >= BARS[name],
    }


def main() -> None:
  """Prints one line a measurement."""
  names = timing.cases_to_run(__doc__, CASES)
  host.tune_allocator()
  host.enable_compile_cache()
  tabular.one_kernel_a_loop()
  for name in names:
    for line in measure(name):
      timing.show(line)


if __name__ == '__main__':
  main()
