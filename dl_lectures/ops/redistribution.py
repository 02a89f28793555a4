"""Reward redistribution: a return is paid where it was earned.

RUDDER, Arjona-Medina et al., "RUDDER: return decomposition for delayed
rewards", NeurIPS 2019 [R]: a function g predicts the return G from the steps so
far, and each step is paid the change of the prediction that it caused:

    g_t     = g(first t + 1 steps),   g_{-1} = 0
    R_t     = g_t - g_{t-1}
    residual = G - g_T, what the prediction misses

    reward      0    0    0    0    0    8
    g           1    1    5    5    8    8
    R           1    0    4    0    3    0    residual 0

With the residual paid too, the rewards of every episode sum to its return,
whatever g is: the new task is return-equivalent to the old one and has the same
optimal policies ([R] theorem 1). A good g makes it easy besides: with g = q~,
the return expected after each action, no reward is left to be expected later
(kappa = 0, [R] theorem 2). Slides: deck 002, "RUDDER: Return Decomposition".

The contract, in one call, `redistribute(batch, method)`:

  `Trajectory`      episodes in, padded to one length, with a mask
  `Method`          anything that values prefixes: Trajectory -> g [B, T]. A
                    network, a profile's prefix scores, random numbers. It is
                    called with rewards that are 0 after the end.
  `Redistribution`  rewards out

Methods that are here: `uniform` and `original`, the baselines that know
nothing; `shaping(potential)`, the baseline that is told something;
`accumulate(contributions)`, of which `integrated_gradients` are one kind;
`in_chunks(predict, carry, size)`, a long episode piece by piece.

Everything but `pad` is pure and may be jitted; shapes are always checked,
values only outside jit.

Episodes of any environment become a batch with `pad`; with gymnasium:

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

    batch = pad([play(env, policy, seed) for seed in range(100)])
    new = redistribute(batch, lambda batch: net.apply(params, batch))
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, UsageError


class Trajectory(NamedTuple):
  """Episodes, each in its row, from left to right.

  Attributes:
    observation: a tree of [B, T, ...] arrays: what was seen before each action.
    action: a tree of [B, T, ...] arrays, discrete or continuous.
    reward: [B, T], paid for each action; after the end it counts for nothing.
    mask: [B, T] bool, the steps that happened: true, then false.
  """

  observation: Any
  action: Any
  reward: Array
  mask: Array


class Redistribution(NamedTuple):
  """Rewards where they were earned.

  Attributes:
    reward: [B, T] float32; 0 after the end.
    residual: [B] float32, G - g_T, already paid unless the correction is
      'none'; 0 where the original rewards are kept.
    predicted_return: [B] float32, g_T.
    quality: [B] float32 in [0, 1], of the prediction g_T: see `quality`.
  """

  reward: Array
  residual: Array
  predicted_return: Array
  quality: Array


Method = Callable[[Trajectory], Array]
Correction = Literal['last', 'uniform', 'none']


def redistribute(
  batch: Trajectory,
  method: Method,
  *,
  correction: Correction = 'last',
  min_quality: float = 0.0,
) -> Redistribution:
  """Pays every step the change of the predicted return ([R] equation 6).

  The rewards of each episode sum to its return with 'last' and 'uniform', and
  with 'none' they do so together with the residual.

  Args:
    batch: the episodes. One without steps is possible: it is paid nothing.
    method: g; gives the predicted return of each prefix, [B, T]. What it says
      after the end counts for nothing.
    correction: the residual is paid at the last step, evenly over all steps, or
      not at all. The last step keeps a causal g causal: a reward does not
      depend on what comes after it.
    min_quality: episodes of a lower quality keep their original rewards, as do
      those for which g is not finite, at any quality. [R]'s code: .8.

  Returns:
    The redistribution.

  Raises:
    UsageError: shapes that do not fit; outside jit also a mask with holes and
      rewards that are not finite. (Inside, an episode ends at its first hole,
      and keeps its original rewards where one is not finite.)

  >>> batch = pad([([0, 1, 2], [1, 1, 0], [0.0, 0.0, 8.0])])
  >>> new = redistribute(batch, lambda batch: jnp.array([[1.0, 5.0, 6.0]]))
  >>> new.reward.tolist(), new.residual.tolist()
  ([[1.0, 4.0, 3.0]], [2.0])
  >>> new = redistribute(
  ...   batch, lambda batch: batch.observation * 1.0, correction='uniform'
  ... )
  >>> new.reward.tolist(), new.residual.tolist()
  ([[2.0, 3.0, 3.0]], [6.0])
  """
  batch = check(batch)
  mask, reward = batch.mask, batch.reward
  g = jnp.asarray(method(batch), jnp.float32)
  if g.shape != mask.shape:
    raise UsageError(
      f'the method gave values of shape {list(g.shape)}; '
      f'{list(mask.shape)} is possible, one for each step'
    )
  if correction not in ('last', 'uniform', 'none'):
    raise UsageError(
      f"correction={correction!r}; 'last', 'uniform' and 'none' are possible"
    )
  return _pay(g, reward, mask, min_quality, correction)


@functools.partial(jax.jit, static_argnames='correction')
def _pay(
  g: Array, reward: Array, mask: Array, min_quality: Array, correction: str
) -> Redistribution:
  g = jnp.where(mask, g, 0.0)
  before = jnp.pad(g[:, :-1], ((0, 0), (1, 0)))
  difference = jnp.where(mask, g - before, 0.0)
  returns = jnp.sum(reward, axis=1)
  predicted = jnp.sum(jnp.where(_last(mask), g, 0.0), axis=1)
  # Not G - g_T: the sum is then exact to its own rounding, however large g is.
  residual = returns - jnp.sum(difference, axis=1)

  if correction == 'last':
    paid = _last(mask).astype(jnp.float32)
  elif correction == 'uniform':
    paid = mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
  else:
    paid = jnp.zeros_like(difference)
  redistributed = difference + paid * residual[:, None]

  finite = jnp.all(jnp.isfinite(redistributed), axis=1) & jnp.isfinite(residual)
  finite &= jnp.all(jnp.isfinite(g), axis=1)
  fit = jnp.where(finite, quality(returns, predicted, jnp.any(mask, 1)), 0.0)
  keep = finite & (fit >= min_quality)
  return Redistribution(
    reward=jnp.where(keep[:, None], redistributed, reward),
    residual=jnp.where(keep, residual, 0.0),
    predicted_return=jnp.where(finite, predicted, 0.0),
    quality=fit,
  )


def quality(
  returns: Array, predicted: Array, mask: Array | None = None
) -> Array:
  """How well returns are predicted: 1 - (G - g)^2 / (G^2 + sqrt|mean G|).

  As in the code of [R] for Atari games; clipped to [0, 1]. A return of 0 in a
  batch whose mean is 0 is either predicted exactly, 1, or not, 0.

  Args:
    returns: [B], G.
    predicted: [B], g_T.
    mask: [B] bool, the episodes that count for the mean; all by default.

  Returns:
    [B] float32.

  >>> quality(jnp.array([4.0, -4.0, 4.0]), jnp.array([4.0, -2.0, 9.0])).round(3)
  Array([1.   , 0.767, 0.   ], dtype=float32)
  """
  mask = jnp.ones(returns.shape, bool) if mask is None else mask
  mean = jnp.sum(jnp.where(mask, returns, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
  # Roots, so that the square of a large return does not overflow.
  scale = jnp.hypot(returns, jnp.abs(mean) ** 0.25)
  error = jnp.abs(returns - predicted)
  relative = jnp.where(
    error == 0, 0.0, error / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)
  )
  return 1 - jnp.square(jnp.minimum(relative, 1.0))


class PredictionError(NamedTuple):
  """Mean squares of what a predicted return misses.

  Attributes:
    final: [] over the episodes, at their last steps.
    running: [] over all steps: the return is to be known as early as it can be
      ([R] section 4, "continuous prediction").
  """

  final: Array
  running: Array


def prediction_error(
  predicted: Array, returns: Array, mask: Array
) -> PredictionError:
  """What a return predictor is trained on: the mean of squares.

  Not the square of the mean, on which the published tutorial trains: it does
  not see errors that cancel out. An episode without steps counts for nothing.

  Args:
    predicted: [B, T], g.
    returns: [B], G.
    mask: [B, T] bool.

  Returns:
    The two errors; a loss is a weighted sum of them.

  >>> error = prediction_error(
  ...   jnp.array([[0.0, 4.0], [1.0, 9.0]]),
  ...   jnp.array([2.0, 0.0]),
  ...   jnp.array([[True, True], [True, False]]),
  ... )
  >>> error.final.tolist(), error.running.tolist()
  (2.5, 3.0)
  """
  # Masked before it is squared: what stands after the end has no gradient.
  error = jnp.square(jnp.where(mask, predicted - returns[:, None], 0.0))
  episodes = jnp.maximum(jnp.sum(jnp.any(mask, axis=1)), 1)
  return PredictionError(
    final=jnp.sum(jnp.where(_last(mask), error, 0.0)) / episodes,
    running=jnp.sum(error) / jnp.maximum(jnp.sum(mask), 1),
  )


def uniform(batch: Trajectory) -> Array:
  """A method: the return in equal parts. It looks ahead, at the return.

  >>> batch = pad([([0, 1], [1, 1], [0.0, 8.0])])
  >>> redistribute(batch, uniform).reward.tolist()
  [[4.0, 4.0]]
  """
  returns = jnp.sum(jnp.where(batch.mask, batch.reward, 0.0), 1, keepdims=True)
  steps = jnp.sum(batch.mask, axis=1, keepdims=True)
  so_far = jnp.cumsum(batch.mask, axis=1)
  return returns * (so_far / jnp.maximum(steps, 1))


def original(batch: Trajectory) -> Array:
  """A method: the rewards as they are, up to the rounding of their sums.

  >>> batch = pad([([0, 1], [1, 1], [3.0, 8.0])])
  >>> redistribute(batch, original).reward.tolist()
  [[3.0, 8.0]]
  """
  return jnp.cumsum(jnp.where(batch.mask, batch.reward, 0.0), axis=1)


def shaping(potential: Callable[[Any], Array], discount: float = 1.0) -> Method:
  """Potential-based shaping: r + discount * phi(s') - phi(s).

  Ng, Harada & Russell, "Policy invariance under reward transformations", ICML
  1999. After the last step phi is 0. The rewards are exactly theirs with
  correction 'none'; the residual, phi of the first state where the discount is
  1, is paid by the others and changes no optimal policy either. Its quality
  says nothing: shaping predicts no return.

  Args:
    potential: phi, of `batch.observation`: a tree of [B, T, ...] -> [B, T].
    discount: gamma.

  Returns:
    A method.

  >>> batch = pad([([0.0, 1.0, 3.0], [1, 1, 0], [0.0, 0.0, 8.0])])
  >>> method = shaping(lambda observation: 10 * observation)
  >>> redistribute(batch, method, correction='none').reward.tolist()
  [[10.0, 20.0, -22.0]]
  """

  def shaped(batch: Trajectory) -> Array:
    phi = jnp.where(batch.mask, potential(batch.observation), 0.0)
    after = jnp.pad(phi[:, 1:], ((0, 0), (0, 1)))
    return batch.reward + discount * after - phi

  return accumulate(shaped)


def accumulate(contributions: Method) -> Method:
  """A method from what each step contributes: the sums of the steps so far.

  >>> batch = pad([([1.0, 3.0], [1, 0], [0.0, 8.0])])
  >>> method = accumulate(lambda batch: 2 * batch.observation)
  >>> redistribute(batch, method).predicted_return.tolist()
  [8.0]
  """

  def method(batch: Trajectory) -> Array:
    return jnp.cumsum(jnp.where(batch.mask, contributions(batch), 0.0), axis=1)

  return method


def integrated_gradients(
  predict: Method, batch: Trajectory, steps: int = 64
) -> Array:
  """What each step contributes to the prediction of the whole episode.

  Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks", ICML
  2017, equation 1: x times the mean gradient on the way from 0 to x, by the
  midpoint rule. The contributions of an episode sum to g_T(x) - g_T(0). They
  look at the whole episode, so they are not causal; differences of predictions
  are what [R] prefers.

  To redistribute by them:
  `accumulate(lambda batch: integrated_gradients(predict, batch))`.

  Args:
    predict: g, differentiable in the float leaves of observations and actions.
      Integers (a discrete action, a token) are held as they are.
    batch: the episodes.
    steps: the number of points on the way.

  Returns:
    [B, T] float32; 0 after the end.

  Raises:
    UsageError: there is no float in observations and actions.

  >>> batch = pad([([1.0, 3.0], [1, 0], [0.0, 8.0])])
  >>> def predict(batch):
  ...   return jnp.cumsum(batch.observation, axis=1) ** 2
  >>> integrated_gradients(predict, batch).round(4).tolist()
  [[4.0, 12.0]]
  """
  leaves, tree = jax.tree.flatten((batch.observation, batch.action))
  leaves = [jnp.asarray(x) for x in leaves]
  moves = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]
  if not any(moves):
    raise UsageError(
      'integrated gradients of integers alone; at least one float among '
      'observations and actions is possible, such as a one-hot code'
    )
  inputs = [x for x, moving in zip(leaves, moves, strict=True) if moving]
  last = _last(batch.mask)

  def final(moving: list[Array]) -> Array:
    rest = iter(moving)
    whole = [
      next(rest) if moves_ else x
      for x, moves_ in zip(leaves, moves, strict=True)
    ]
    observation, action = jax.tree.unflatten(tree, whole)
    g = predict(batch._replace(observation=observation, action=action))
    return jnp.sum(jnp.where(last, g, 0.0))  # episodes are independent

  def add(total: list[Array], share: Array) -> tuple[list[Array], None]:
    gradient = jax.grad(final)([(share * x).astype(x.dtype) for x in inputs])
    return jax.tree.map(jnp.add, total, gradient), None

  shares = (jnp.arange(steps) + 0.5) / steps
  total, _ = jax.lax.scan(add, [jnp.zeros_like(x) for x in inputs], shares)
  contributions = sum(
    jnp.sum(x * y / steps, axis=tuple(range(2, x.ndim)))
    for x, y in zip(inputs, total, strict=True)
  )
  return jnp.where(batch.mask, contributions, 0.0).astype(jnp.float32)


def in_chunks(
  predict: Callable[[Any, Trajectory], tuple[Any, Array]], carry: Any, size: int
) -> Method:
  """A method that goes through long episodes piece by piece.

  Memory, of activations above all, is then that of one piece. A predictor that
  hands its whole state on gives what it gives at once.

  Args:
    predict: (carry, piece) -> (carry, g): a piece is a Trajectory of [B, size,
      ...]; g, [B, size], may use the carry and the piece.
    carry: the predictor's state before the first step.
    size: steps of a piece; the last one is padded with zeros.

  Returns:
    A method.

  >>> def predict(total, piece):
  ...   g = total[:, None] + jnp.cumsum(piece.observation, axis=1)
  ...   return g[:, -1], g
  >>> batch = pad([([1.0, 3.0, 2.0], [1, 0, 0], [0.0, 0.0, 8.0])])
  >>> in_chunks(predict, jnp.zeros(1), size=2)(batch).tolist()
  [[1.0, 4.0, 6.0]]
  """
  if size < 1:
    raise UsageError(f'pieces of {size} steps; at least 1 is possible')

  def method(batch: Trajectory) -> Array:
    num_episodes, length = batch.mask.shape
    pieces = -(-length // size)

    def cut(x: Array) -> Array:
      widths = [(0, 0)] * x.ndim
      widths[1] = (0, pieces * size - length)
      x = jnp.pad(x, widths)
      x = x.reshape(num_episodes, pieces, size, *x.shape[2:])
      return jnp.moveaxis(x, 1, 0)

    _, g = jax.lax.scan(predict, carry, jax.tree.map(cut, batch))
    return jnp.moveaxis(g, 0, 1).reshape(num_episodes, -1)[:, :length]

  return method


def pad(
  episodes: Sequence[tuple[Any, Any, Any]], length: int | None = None
) -> Trajectory:
  """Episodes of different lengths as one batch; NumPy, on the host.

  Args:
    episodes: (observations, actions, rewards), of n steps each: trees of
      [n, ...] arrays, or lists with one entry a step.
    length: T; the longest episode's by default.

  Returns:
    A Trajectory, filled up with zeros.

  Raises:
    UsageError: no episode, one without a step or longer than `length`, or one
      whose observations, actions and rewards are not equally many.

  >>> pad([([5, 6], [1, 0], [0.0, 1.0]), ([7], [1], [3.0])]).reward.tolist()
  [[0.0, 1.0], [3.0, 0.0]]
  """
  if not episodes:
    raise UsageError('no episodes; at least 1 is possible')
  rows = []
  for i, (observation, action, reward) in enumerate(episodes):
    # A list is of steps; any other tree is of arrays.
    row = [
      jax.tree.map(np.asarray, np.asarray(x) if isinstance(x, list) else x)
      for x in (observation, action, np.asarray(reward, np.float32))
    ]
    counts = [len(x) if x.ndim else 0 for x in jax.tree.leaves(row)]
    if min(counts) != max(counts) or not counts[-1]:
      raise UsageError(
        f'episode {i} has leaves of {counts} steps (observations, actions, '
        'rewards); equally many, at least 1, are possible'
      )
    rows.append(row)
  longest = max(len(row[2]) for row in rows)
  length = longest if length is None else length
  if longest > length:
    raise UsageError(
      f'an episode of {longest} steps; at most length={length} are possible'
    )

  def stack(*steps: np.ndarray) -> Array:
    whole = np.zeros((len(steps), length, *steps[0].shape[1:]), steps[0].dtype)
    for i, x in enumerate(steps):
      whole[i, : len(x)] = x
    return jnp.asarray(whole)

  observation, action, reward = jax.tree.map(stack, *rows)
  lengths = np.array([len(row[2]) for row in rows])
  mask = jnp.asarray(np.arange(length)[None, :] < lengths[:, None])
  return Trajectory(observation, action, reward, mask)


def check(batch: Trajectory) -> Trajectory:
  """The batch as it is used, or an error: see `redistribute`.

  Returns:
    The batch with float32 rewards that are 0 after the end, and a mask that
    ends at its first hole.

  Raises:
    UsageError: see `redistribute`.

  >>> check(Trajectory(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.zeros(3),
  ...                  jnp.ones((2, 3), bool)))
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: rewards of shape [3]; [B, T] is possible
  """
  reward, mask = jnp.asarray(batch.reward), jnp.asarray(batch.mask)
  if reward.ndim != 2:
    raise UsageError(
      f'rewards of shape {list(reward.shape)}; [B, T] is possible'
    )
  if not reward.size:
    raise UsageError(
      f'an empty batch, [B, T] = {list(reward.shape)}; at least [1, 1] is '
      'possible'
    )
  if mask.shape != reward.shape or mask.dtype != bool:
    raise UsageError(
      f'a mask of {mask.dtype}{list(mask.shape)}; '
      f'bool{list(reward.shape)} is possible'
    )
  for name in ('observation', 'action'):
    for x in jax.tree.leaves(getattr(batch, name)):
      if np.shape(x)[:2] != reward.shape:
        raise UsageError(
          f'an {name} of shape {list(np.shape(x))}; '
          f'{[*reward.shape]} and more is possible'
        )
  try:
    flags, numbers = np.asarray(mask), np.asarray(reward, np.float32)
    holes = np.flatnonzero(np.any(flags[:, 1:] > flags[:, :-1], axis=1))
    broken = np.flatnonzero(np.any(flags & ~np.isfinite(numbers), axis=1))
  except jax.errors.TracerArrayConversionError:
    holes = broken = np.zeros(0, int)  # values are not known inside jit
  if holes.size:
    raise UsageError(
      f'the mask of episode {holes[0]} has a hole; true values and then false '
      'ones are possible'
    )
  if broken.size:
    raise UsageError(
      f'episode {broken[0]} has a reward that is not finite; numbers are '
      'possible'
    )
  return _until_the_end(batch, reward, mask)


@jax.jit
def _until_the_end(batch: Trajectory, reward: Array, mask: Array) -> Trajectory:
  mask = jnp.cumsum(~mask, axis=1) == 0
  reward = jnp.where(mask, reward.astype(jnp.float32), 0.0)
  return batch._replace(reward=reward, mask=mask)


def _last(mask: Array) -> Array:
  """[B, T] bool, true at the last step of each episode."""
  after = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
  return mask & ~after
