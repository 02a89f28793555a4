"""Will redistributed rewards help my task? Measured before anything is built.

RUDDER (Arjona-Medina et al., NeurIPS 2019 [R]) helps where the return is known
long before it is paid: where it can be predicted from what was seen and done,
early, and the rewards say so late. Where they are not delayed it does not, by
the authors' own account. `diagnose` fits a small LSTM to episodes that are at
hand, of any policy, and measures this on episodes that it has not seen. Slides:
deck 002, "RUDDER: Return Decomposition".
"""

import functools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.nets.recurrent import LSTM, RUDDER
from dl_lectures.ops.redistribution import (
  Trajectory,
  check,
  prediction_error,
  redistribute,
)
from dl_lectures.types import Array, UsageError

# An integer of at most so many values is a category, else a number.
MOST_CATEGORIES = 64
FEWEST_EPISODES = 16
BATCH_SIZE = 32
HELD_OUT = 0.25
RANDOM_FEATURES = 64
# What it takes to answer 'likely'.
LEAST_R2 = 0.5
LEAST_SOONER = 0.1


class Diagnosis(NamedTuple):
  """What was measured, on the episodes held out.

  Attributes:
    answer: in words, whether redistribution is likely to help and why.
    r2: of the predicted return at the end: 1 is perfect, 0 or less no better
      than the mean.
    sooner: the share of an episode for which the return is known and not yet
      paid: the mean over all steps of the share of the return's variance that
      the prediction explains, less the share that the rewards so far explain.
      0 where every reward is paid at once.
    moved: the share of all |redistributed reward| that comes before the last
      step; the mean return, which is known before an episode begins, is left
      out. A prediction that wavers moves reward too, to and fro: `sooner` does
      not count that.
    kappa: mean |E[reward still to come | observation, action]| of the
      redistributed rewards, in standard deviations of the return: 0 is optimal
      ([R] theorem 2). The expectation is a regression's, so chance alone makes
      it a little more than 0.
    kappa_before: the same of the original rewards, less their mean.
    sum_error: the largest |sum of the rewards - return|.
    num_held_out: the number of episodes held out.
  """

  answer: str
  r2: float
  sooner: float
  moved: float
  kappa: float
  kappa_before: float
  sum_error: float
  num_held_out: int


def diagnose(
  batch: Trajectory, *, seed: int = 0, units: int = 16, updates: int = 500
) -> Diagnosis:
  """Measures whether redistribution is likely to help; seconds on a CPU.

  Args:
    batch: some hundred episodes, of any policy that does not always do the
      same. Observations and actions may be trees, discrete or continuous.
    seed: of the episodes held out, a quarter, and of the training.
    units: of the LSTM.
    updates: of Adam, of 32 episodes each. Few episodes want few, or the LSTM
      learns them by heart.

  Returns:
    The diagnosis.

  Raises:
    UsageError: fewer than 16 episodes with steps, or what `redistribute`
      refuses.

  >>> draw = np.random.default_rng(0)
  >>> action = jnp.asarray(draw.integers(0, 2, size=(128, 8)))
  >>> reward = jnp.zeros((128, 8)).at[:, -1].set(4.0 * action[:, 1])
  >>> time = jnp.broadcast_to(jnp.arange(8), (128, 8))
  >>> batch = Trajectory(time, action, reward, jnp.ones((128, 8), bool))
  >>> given = diagnose(batch)
  >>> given.answer, given.r2 > 0.9, given.sooner > 0.6
  ('likely: the return is known before it is paid', True, True)
  """
  batch = check(batch)
  mask = np.asarray(batch.mask)
  there = np.flatnonzero(mask.any(axis=1))
  if len(there) < FEWEST_EPISODES:
    raise UsageError(
      f'{len(there)} episodes to diagnose; at least {FEWEST_EPISODES} are '
      'possible, some hundred are good'
    )
  draw = np.random.default_rng(seed)
  order = draw.permutation(there)
  num_held_out = max(2, int(HELD_OUT * len(order)))
  held, seen = order[:num_held_out], order[num_held_out:]

  reward = np.asarray(batch.reward, float)
  returns = reward.sum(axis=1)
  mean, std = returns[seen].mean(), returns[seen].std()
  last = mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1)))
  if std <= 1e-6 * max(1, abs(mean)):
    answer = 'unlikely: the returns do not differ'
    return Diagnosis(answer, 0, 0, 0, 0, 0, 0, num_held_out)

  features = encode(batch, seen)
  rows = seen[draw.integers(len(seen), size=(updates, BATCH_SIZE))]
  predicted = _fit_and_predict(
    jax.random.key(seed),
    features,
    batch.mask,
    jnp.float32((returns - mean) / std),
    jnp.asarray(rows),
    units,
  )
  g = np.asarray(predicted, float)[held] * std  # beyond the mean
  valid, end, returns = mask[held], last[held], returns[held] - mean

  # The rewards beyond the mean, which would all go to the first step.
  beyond = np.where(valid, reward[held], 0) - mean * end
  some = jax.tree.map(lambda x: jnp.asarray(x)[held], batch)
  new = redistribute(
    some._replace(reward=jnp.float32(beyond)), lambda _: jnp.float32(g)
  )
  paid = np.asarray(new.reward, float)
  variance = max(returns.var(), 1e-30)
  r2 = 1 - np.mean((returns - g[end]) ** 2) / variance
  size = np.abs(paid)
  moved = 1 - size[end].sum() / max(size.sum(), 1e-30)
  open_before = _to_come(beyond)
  count = np.maximum(valid.sum(axis=0), 1)
  expected = np.where(valid, open_before, 0).sum(axis=0) / count
  unknown_before = np.where(end, 0, open_before - expected[None]) ** 2
  unknown = np.where(end, 0, returns[:, None] - g) ** 2
  sooner = float(np.mean((unknown_before - unknown)[valid]) / variance)
  x = np.asarray(features, float)[held]
  kappa, kappa_before = (
    _mean_expected(x, _to_come(rewards), valid) / std
    for rewards in (paid, beyond)
  )
  return Diagnosis(
    answer=_answer(r2, sooner),
    r2=float(r2),
    sooner=sooner,
    moved=float(moved),
    kappa=float(kappa),
    kappa_before=float(kappa_before),
    sum_error=float(np.abs(paid.sum(axis=1) - returns).max()),
    num_held_out=num_held_out,
  )


def encode(batch: Trajectory, episodes: np.ndarray | None = None) -> Array:
  """Observations and actions as numbers for a network, [B, T, F].

  Whole numbers from 0 to at most 63 become one-hot codes; all else is
  standardised and flattened. Not for jit: how many values there are is read
  from the batch.

  Args:
    batch: the episodes.
    episodes: those whose mean and deviation are taken; all by default.

  Returns:
    [B, T, F] float32, 0 after the end.

  Raises:
    UsageError: a step has an observation or action that is not finite.

  >>> batch = Trajectory(jnp.array([[[1.0], [3.0]]]), jnp.array([[0, 2]]),
  ...                    jnp.zeros((1, 2)), jnp.ones((1, 2), bool))
  >>> encode(batch).tolist()
  [[[-1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]]
  """
  mask = np.asarray(batch.mask)
  chosen = mask.copy()
  if episodes is not None:
    chosen[np.setdiff1d(np.arange(len(mask)), episodes)] = False
  columns = []
  for leaf in jax.tree.leaves((batch.observation, batch.action)):
    x = np.asarray(leaf)
    x = x.reshape(*mask.shape, -1)
    whole = np.issubdtype(x.dtype, np.integer) or x.dtype == bool
    if not np.all(np.isfinite(x[mask])):
      raise UsageError(
        'an observation or action is not finite; numbers are possible'
      )
    top = int(x[mask].max()) + 1
    if whole and x[mask].min() >= 0 and top <= MOST_CATEGORIES:
      x = x[..., None] == np.arange(top)
    else:
      values = x[chosen].astype(float)
      deviation = values.std(axis=0)
      x = (x - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    columns.append(x.reshape(*mask.shape, -1).astype(np.float32))
  features = np.concatenate(columns, axis=-1)
  return jnp.asarray(np.where(mask[..., None], features, 0))


def _predict(features: Array, mask: Array, units: int) -> Array:
  h = LSTM(units, RUDDER)(features, mask=mask)
  return hk.Linear(1)(h)[..., 0]


@functools.partial(jax.jit, static_argnames='units')
def _fit_and_predict(key, features, mask, returns, rows, units):
  """Trains on the rows [updates, n] in turn, and predicts all episodes."""
  net = hk.without_apply_rng(
    hk.transform(functools.partial(_predict, units=units))
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(optax.cosine_decay_schedule(1e-2, len(rows))),
  )

  def loss(params, row):
    g = net.apply(params, features[row], mask[row])
    error = prediction_error(g, returns[row], mask[row])
    return error.final + 0.5 * error.running

  def update(state, row):
    params, opt_state = state
    gradient = jax.grad(loss)(params, row)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), None

  params = net.init(key, features[:1], mask[:1])
  (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), rows)
  return net.apply(params, features, mask)


def _to_come(reward: np.ndarray) -> np.ndarray:
  """[B, T], the sum of the rewards after each step."""
  return reward[:, ::-1].cumsum(axis=1)[:, ::-1] - reward


def _mean_expected(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
  """Mean |E[y | x, t]|, each half of the episodes expected from the other.

  By ridge regression on random features, which know of interactions: a key is
  worth something at the time of the key.
  """
  length = mask.shape[1]
  time = np.broadcast_to(np.arange(length) / length, mask.shape)[..., None]
  x = np.concatenate([x, 2 * time - 1, np.ones_like(time)], axis=-1)
  draw = np.random.default_rng(0)
  w = draw.normal(size=(x.shape[-1], RANDOM_FEATURES))
  x = np.concatenate([x, np.maximum(x @ w, 0) / np.sqrt(x.shape[-1])], axis=-1)
  half = np.arange(len(mask)) < len(mask) // 2
  total = 0.0
  for fit in (half, ~half):
    a, b = x[fit][mask[fit]], y[fit][mask[fit]]
    # As strong as one episode, so that rare values do not run wild.
    gram = a.T @ a + length * np.eye(a.shape[1])
    weights = np.linalg.solve(gram, a.T @ b)
    total += np.abs(x[~fit][mask[~fit]] @ weights).sum()
  return total / mask.sum()


def _answer(r2: float, sooner: float) -> str:
  if r2 < LEAST_R2:
    return 'unlikely: the return is not predicted from what is seen and done'
  if sooner < LEAST_SOONER:
    return 'unlikely: the return is not known before it is paid'
  return 'likely: the return is known before it is paid'
