"""What a model of sequences can do, measured instead of ticked.

Slides: deck 003, whose table says of every model whether the order of its
input matters to it, whether it takes sequences of any length, whether it is
differentiable, whether it relates pairs of elements, and whether it preserves
what was long ago. Here each box is a number of a model and its weights:

  order          how far p(next) moves when the past is shuffled
  gradient       how much an element d steps back counts, against the last one
  pairs          how far two elements' effects are from adding up
  differentiable the gradient against finite differences, in 64 bits
  reach          the furthest element that counts at all
  length         the loss far beyond the length of the training
  adding, recall two tasks that need memory, and a past that is looked up

Models here read features [B, T, F], so that an element may be changed a little;
tokens are one-hot vectors, and `on_tokens` gives a model back that reads them.

Shapes: B batch, T time, F features, D outputs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.nets.sequence import SequenceModel
from dl_lectures.types import Array, Key, UsageError


def on_tokens(model: SequenceModel, vocab_size: int) -> SequenceModel:
  """A model of V features, reading tokens as one-hot vectors.

  >>> from dl_lectures.nets import sequence
  >>> model = on_tokens(sequence.gru(4, 5), 5)
  >>> tokens = jnp.array([[0, 4, 2]])
  >>> weights = model.init(jax.random.key(0), tokens)
  >>> model.apply(weights, None, tokens).shape
  (1, 3, 5)
  """

  def reading(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    def of_tokens(*arguments, **rest):
      before, x, after = arguments[:at], arguments[at], arguments[at + 1 :]
      return call(*before, jax.nn.one_hot(x, vocab_size), *after, **rest)

    return of_tokens

  return model._replace(
    init=reading(model.init, 1),
    apply=reading(model.apply, 2),
    apply_from=reading(model.apply_from, 3),
    step=reading(model.step, 2),
    vocab_size=vocab_size,
  )


def order_sensitivity(
  model: SequenceModel, weights: Any, x: Array, key: Key
) -> Array:
  """How far the prediction moves when all but the last element are shuffled.

  The mean total variation, half the sum of |p - q|, of the softmax at the end:
  0 for a model that only counts, at most 1.

  Args:
    model: with logits.
    weights: its weights.
    x: [B, T, F].
    key: consumed; each sequence gets an order of its own.

  Returns:
    [] float32.
  """
  keys = jax.random.split(key, x.shape[0])
  shuffled = jax.vmap(jax.random.permutation)(keys, x[:, :-1])
  shuffled = jnp.concatenate([shuffled, x[:, -1:]], axis=1)

  def predict(x: Array) -> Array:
    return jax.nn.softmax(model.apply(weights, None, x)[:, -1])

  # One program for both: rounded in the same way.
  p, q = jax.lax.map(predict, jnp.stack([x, shuffled]))
  return jnp.mean(jnp.sum(jnp.abs(p - q), axis=-1)) / 2


def gradient_by_lag(
  model: SequenceModel, weights: Any, x: Array, key: Key
) -> Array:
  """How much the last output depends on the element d steps before it.

  The norm of the gradient of a random combination of the outputs, averaged
  over the sequences.

  Args:
    model: any.
    weights: its weights.
    x: [B, T, F].
    key: consumed.

  Returns:
    [T] float32; lag 0 is the last element itself.

  >>> from dl_lectures.nets import sequence
  >>> model = sequence.dilated(4, 3, rates=(1, 2))
  >>> x = jnp.ones([2, 8, 3])
  >>> weights = model.init(jax.random.key(0), x)
  >>> gradient = gradient_by_lag(model, weights, x, jax.random.key(1))
  >>> (gradient[4:] == 0).all().item()
  True
  """

  def combined(x: Array) -> Array:
    last = model.apply(weights, None, x)[:, -1]
    return jnp.sum(last * jax.random.normal(key, last.shape))

  norms = jnp.linalg.norm(jax.grad(combined)(x), axis=-1)
  return jnp.mean(norms, axis=0)[::-1]


def interaction_by_lag(
  model: SequenceModel, weights: Any, x: Array, other: Array, lags: Array
) -> Array:
  """How far the effects of two elements are from adding up.

  With f the last output, the last element and the one d before it as they are
  (0) or changed (1): |f11 - f10 - f01 + f00| / |f01 - f00|, the last index
  being that of the last element.

  Args:
    model: any.
    weights: its weights.
    x: [B, T, F].
    other: [B, T, F], what elements are changed to.
    lags: [L] int32, at least 1.

  Returns:
    [L] float32, of norms averaged over the sequences; 0 for a sum.
  """

  end = x.shape[1] - 1

  def changed(at: Array) -> Array:
    here = jnp.arange(x.shape[1]) == at
    return jnp.where(here[None, :, None], other, x)

  past = jax.vmap(lambda lag: changed(end - lag))(lags)
  variants = jnp.concatenate(
    [past, past.at[:, :, end].set(other[None, :, end])], axis=0
  )
  variants = jnp.concatenate(
    [jnp.stack([x, changed(jnp.int32(end))]), variants], axis=0
  )
  # All at once: [2 + 2 L, B, T, F].
  y = model.apply(weights, None, variants.reshape(-1, *x.shape[1:]))[:, -1]
  y = y.reshape(-1, x.shape[0], y.shape[-1])
  f00, f01 = y[0], y[1]
  f10, f11 = jnp.split(y[2:], 2)
  mixed = f11 - f10 - (f01 - f00)[None]
  norms = jnp.mean(jnp.linalg.norm(mixed, axis=-1), axis=-1)
  return norms / jnp.mean(jnp.linalg.norm(f01 - f00, axis=-1))


def finite_difference_error(
  model: SequenceModel, weights: Any, x: Array, key: Key, size: float = 1e-7
) -> float:
  """The gradient of the weights against central differences, in 64 bits.

  Args:
    model: any.
    weights: its weights.
    x: [B, T, F].
    key: consumed: a random direction, and a random combination of outputs.
    size: of the steps. Longer ones carry some ReLU over its kink, where the
      difference is not the slope.

  Returns:
    The relative error of the slope in that direction; about 1e-9 for code
    that is right throughout.
  """
  draw = np.random.default_rng(int(jax.random.bits(key)))
  params, net_state = weights
  wide = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
  direction = jax.tree.map(lambda w: draw.normal(size=w.shape), wide)

  def moved(by: float) -> Any:
    return jax.tree.map(lambda w, d: w + by * d, wide, direction)

  with jax.enable_x64(True):
    inputs = jnp.asarray(x, jnp.float64)
    y = jax.eval_shape(model.apply, (wide, net_state), None, inputs)
    noise = draw.normal(size=y.shape)
    slope_at = functools.partial(_slope, model, net_state, inputs, noise)
    ahead, behind = slope_at(moved(size))[0], slope_at(moved(-size))[0]
    exact = sum(
      np.vdot(g, d)
      for g, d in zip(
        jax.tree.leaves(slope_at(wide)[1]),
        jax.tree.leaves(direction),
        strict=True,
      )
    )
    return float(abs(exact - (ahead - behind) / (2 * size)) / abs(exact))


@functools.partial(jax.jit, static_argnums=0)
def _slope(model, net_state, x, noise, params):
  """A combination of all outputs, and its gradient."""

  def combined(params):
    return jnp.mean(model.apply((params, net_state), None, x) * noise)

  return jax.value_and_grad(combined)(params)


def live_share(model: SequenceModel, weights: Any, x: Array, key: Key) -> Array:
  """The share of the parameters that the output depends on at all, []."""
  params, net_state = weights

  def combined(params: Any) -> Array:
    y = model.apply((params, net_state), None, x)
    return jnp.sum(y * jax.random.normal(key, y.shape))

  gradients = jax.tree.leaves(jax.grad(combined)(params))
  alive = sum(jnp.sum(g != 0) for g in gradients)
  return jnp.float32(alive) / sum(g.size for g in gradients)


def loss_by_length(
  model: SequenceModel,
  weights: Any,
  tokens: np.ndarray,
  length: int,
  factors: Sequence[int] = (1, 2, 4, 8),
  windows: int = 32,
) -> dict[int, float | None]:
  """The loss at the end of sequences longer than those of the training.

  Of windows of so many times the length the last half length counts: what a
  model has become by then, and not how it began.

  Args:
    model: of tokens.
    weights: its weights.
    tokens: [N], a text.
    length: that of the training.
    factors: how many times longer.
    windows: at equal distances in the text.

  Returns:
    Factor -> nats a token; None where the model refuses such a length.

  Raises:
    UsageError: the text is too short for one window.
  """
  found: dict[int, float | None] = {}
  counted = max(length // 2, 1)
  for factor in factors:
    size = factor * length
    if len(tokens) <= size:
      raise UsageError(
        f'a text of {len(tokens)} tokens for windows of {size}; at most '
        f'{max(len(tokens) - 1, 0)} are possible'
      )
    start = np.linspace(0, len(tokens) - size - 1, windows).astype(int)
    batch = np.asarray(tokens)[start[:, None] + np.arange(size + 1)]
    try:
      logits = model.apply(weights, None, batch[:, :-1])[:, -counted:]
    except UsageError:
      found[factor] = None
      continue
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch[:, -counted:]
    )
    found[factor] = float(jnp.mean(losses))
  return found


def fewest_layers(
  rates: Sequence[int], kernel_size: int, lag: int
) -> int | None:
  """The shortest path through dilated convolutions from an element `lag` back.

  A recurrent network needs `lag` steps, attention one.

  Args:
    rates: of the layers.
    kernel_size: taps of each.
    lag: 0 for the element itself.

  Returns:
    How many layers have to look back, 0 for `lag` 0; None if no path is there.

  >>> [fewest_layers((1, 2, 4, 8), 2, lag) for lag in (1, 7, 8, 15, 16)]
  [1, 3, 1, 4, None]
  """
  best: dict[int, int] = {0: 0}
  for rate in rates:
    further = dict(best)
    for reached, layers in best.items():
      for tap in range(1, kernel_size):
        there = reached + tap * rate
        further[there] = min(further.get(there, layers + 1), layers + 1)
    best = further
  return best.get(lag)


def chain_gradients(weight: float, start: float, steps: int) -> np.ndarray:
  """The slides' listing: how h_t = tanh(w h_{t-1}) depends on h_0.

  Each step multiplies by (1 - h_t^2) w; the listing that adds instead is wrong,
  and one that starts at 0 stays there.

  Args:
    weight: w.
    start: h_0.
    steps: T.

  Returns:
    [T] float64, d h_t / d h_0 of t = 1 to T.

  >>> chain_gradients(1.0, 0.5, 3).round(3).tolist()
  [0.786, 0.64, 0.534]
  """
  h, slope, slopes = start, 1.0, []
  for _ in range(steps):
    h = float(np.tanh(weight * h))
    slope = (1 - h**2) * weight * slope
    slopes.append(slope)
  return np.array(slopes)


class Task(NamedTuple):
  """A made-up problem that a property is needed for.

  Attributes:
    draw: key, batch size -> (x [B, T, F], target); consumes the key.
    loss: (y [B, T, D], target) -> [] to be made small.
    score: (y [B, T, D], target) -> [], what is reported.
    num_features: F.
    num_outputs: D.
    baseline: the score of who ignores the past.
  """

  draw: Callable[[Key, int], tuple[Array, Any]]
  loss: Callable[[Array, Any], Array]
  score: Callable[[Array, Any], Array]
  num_features: int
  num_outputs: int
  baseline: float


def adding(length: int) -> Task:
  """Two numbers among many are marked; their sum is asked for at the end.

  Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9
  (1997), section 5.4, as Arjovsky, Shah & Bengio (2016) set it: numbers from
  [0, 1], one mark in each half. Who always says 1 has a mean squared error of
  2 Var(U) = 1/6, which is the baseline.

  Args:
    length: T, even.
  """
  if length < 2 or length % 2:
    raise UsageError(f'an adding problem of {length}; 2, 4, 6, ... is possible')
  half = length // 2

  def draw(key: Key, batch_size: int) -> tuple[Array, Array]:
    numbers, marks = jax.random.split(key)
    value = jax.random.uniform(numbers, (batch_size, length))
    at = jax.random.randint(marks, (batch_size, 2), 0, half)
    at += jnp.array([[0, half]])
    marked = jnp.sum(jax.nn.one_hot(at, length), axis=1)
    target = jnp.sum(value * marked, axis=1)
    return jnp.stack([value, marked], axis=-1), target

  def error(y: Array, target: Array) -> Array:
    return jnp.mean(jnp.square(y[:, -1, 0] - target))

  return Task(draw, error, error, 2, 1, 1 / 6)


def associative_recall(
  pairs: int, num_keys: int = 32, num_values: int = 16
) -> Task:
  """Keys with values are shown, then the keys in another order: which value?

  Ba et al., "Using fast weights to attend to the recent past", NIPS 2016, with
  a pair as one element, and all keys asked for. An element is the one-hot key,
  the one-hot value, and whether it asks. Guessing is right once in V.

  Args:
    pairs: K, all keys of a sequence different.
    num_keys: to choose from, at least K.
    num_values: V.
  """
  if not 1 <= pairs <= num_keys:
    raise UsageError(f'{pairs} pairs; 1 to {num_keys} are possible')

  def draw(key: Key, batch_size: int) -> tuple[Array, Array]:
    keys, values, order = jax.random.split(key, 3)
    uniform = jax.random.uniform(keys, (batch_size, num_keys))
    shown = jnp.argsort(uniform, axis=1)[:, :pairs]
    value = jax.random.randint(values, (batch_size, pairs), 0, num_values)
    uniform = jax.random.uniform(order, (batch_size, pairs))
    asked = jnp.argsort(uniform, axis=1)

    def pick(x: Array) -> Array:
      return jnp.take_along_axis(x, asked, axis=1)

    whole = jnp.concatenate([shown, pick(shown)], axis=1)
    told = jax.nn.one_hot(value, num_values)
    told = jnp.concatenate([told, jnp.zeros_like(told)], axis=1)
    asks = jnp.concatenate(
      [jnp.zeros((batch_size, pairs, 1)), jnp.ones((batch_size, pairs, 1))],
      axis=1,
    )
    one_hot = jax.nn.one_hot(whole, num_keys)
    return jnp.concatenate([one_hot, told, asks], axis=-1), pick(value)

  def loss(y: Array, target: Array) -> Array:
    return jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(y[:, pairs:], target)
    )

  def accuracy(y: Array, target: Array) -> Array:
    return jnp.mean(jnp.argmax(y[:, pairs:], axis=-1) == target)

  num_features = num_keys + num_values + 1
  return Task(draw, loss, accuracy, num_features, num_values, 1 / num_values)


def learn(
  model: SequenceModel,
  task: Task,
  key: Key,
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
  chunk: int = 50,
) -> Any:
  """Trains a model on a task, on fresh sequences at each update.

  Adam, gradients cut to a norm of 1, a cosine down to a tenth of the rate.

  Args:
    model: of the task's features and outputs.
    task: what is learned.
    key: consumed.
    steps: updates, rounded up to whole chunks.
    batch_size: sequences of an update.
    learning_rate: the first one.
    chunk: updates of one compiled call.

  Returns:
    The weights.
  """
  first, later = jax.random.split(key)
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adam(optax.cosine_decay_schedule(learning_rate, steps, 0.1)),
  )
  x, _ = task.draw(first, 1)
  params, net_state = jax.jit(model.init)(first, x)

  def loss(params, x, target):
    return task.loss(model.apply((params, net_state), None, x), target)

  def update(state, batch):
    params, opt_state = state
    gradients = jax.grad(loss)(params, *batch)
    changes, opt_state = optimizer.update(gradients, opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), None

  @functools.partial(jax.jit, donate_argnums=0)
  def many(state, key):
    keys = jax.random.split(key, chunk)
    # Drawn before the loop: inside it random numbers are slow on the CPU.
    batches = jax.vmap(lambda key: task.draw(key, batch_size))(keys)
    return jax.lax.scan(update, state, batches)[0]

  state = params, jax.jit(optimizer.init)(params)
  for i in range(-(-steps // chunk)):
    state = many(state, jax.random.fold_in(later, i))
  return state[0], net_state


def evaluate(
  model: SequenceModel, weights: Any, task: Task, key: Key, size: int = 512
) -> float:
  """The task's score on fresh sequences; consumes the key."""

  @jax.jit
  def score(weights):
    x, target = task.draw(key, size)
    return task.score(model.apply(weights, None, x), target)

  return float(score(weights))


class Properties(NamedTuple):
  """A row of the table.

  Attributes:
    order: see `order_sensitivity`.
    gradient: [T], see `gradient_by_lag`, as a share of that at lag 1.
    pairs: [L], see `interaction_by_lag`.
    lags: [L], those of `pairs`.
    reach: the largest lag with a gradient.
    error: see `finite_difference_error`.
    live: see `live_share`.
  """

  order: float
  gradient: np.ndarray
  pairs: np.ndarray
  lags: tuple[int, ...]
  reach: int
  error: float
  live: float


def properties(
  model: SequenceModel,
  weights: Any,
  x: Array,
  key: Key,
  lags: Sequence[int] = (2, 8, 32),
) -> Properties:
  """The deck's table, one row of it, measured.

  Args:
    model: with logits.
    weights: its weights, trained or not.
    x: [B, T, F], B at least 2, T more than the largest of the lags.
    key: consumed.
    lags: at which pairs are looked at.

  Returns:
    The row.

  Raises:
    UsageError: sequences too short, or one alone.
  """
  if x.shape[0] < 2 or x.shape[1] <= max(lags):
    raise UsageError(
      f'sequences of shape {list(x.shape)}; two or more, of at least '
      f'{max(lags) + 1} elements, are possible'
    )
  order, gradient, pairs, live = map(
    np.asarray, _measure(model, weights, x, jnp.array(lags), key)
  )
  return Properties(
    order=float(order),
    gradient=gradient / gradient[1],
    pairs=pairs,
    lags=tuple(lags),
    reach=int(np.flatnonzero(gradient).max()),
    error=finite_difference_error(model, weights, x[:2], key),
    live=float(live),
  )


@functools.partial(jax.jit, static_argnums=0)
def _measure(model, weights, x, lags, key):
  one, two, three = jax.random.split(key, 3)
  return (
    order_sensitivity(model, weights, x, one),
    gradient_by_lag(model, weights, x, two),
    # Another sequence's elements are what elements are changed to.
    interaction_by_lag(model, weights, x, jnp.roll(x, 1, axis=0), lags),
    live_share(model, weights, x, three),
  )


def table(rows: dict[str, Properties]) -> str:
  """The rows as a text, for terminals and notebooks.

  >>> row = Properties(0.5, np.full(4, 0.5), np.zeros(1), (2,), 3, 1e-9, 1.0)
  >>> print(table({'GRU': row}))
  model                 order  grad@2  grad@3  pair@2  reach  diff err  live
  GRU                    .500    .500    .500    .000      3     1e-09  100%
  """
  first = next(iter(rows.values()))
  lags = sorted({*first.lags, len(first.gradient) - 1})
  heads = [
    f'{"model":<20}{"order":>7}',
    *(f'{f"grad@{lag}":>8}' for lag in lags),
    *(f'{f"pair@{lag}":>8}' for lag in first.lags),
    f'{"reach":>7}{"diff err":>10}{"live":>6}',
  ]
  lines = [''.join(heads)]
  for name, row in rows.items():
    cells = [
      f'{name:<20}{_short(row.order):>7}',
      *(f'{_short(row.gradient[lag]):>8}' for lag in lags),
      *(f'{_short(pair):>8}' for pair in row.pairs),
      f'{row.reach:>7}{row.error:>10.0e}{row.live:>6.0%}',
    ]
    lines.append(''.join(cells))
  return '\n'.join(lines)


def _short(value: float) -> str:
  """Three decimals, or the exponent where they would all be 0."""
  if value == 0 or 1e-3 <= value < 1:
    return f'{value:.3f}'.removeprefix('0')
  return f'{value:.3g}' if value >= 1 else f'{value:.0e}'
