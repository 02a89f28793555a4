"""What to check before training a classifier for long: a list that runs.

Slides: deck 004, "Practical issues": a network whose code is wrong still learns
something, so look before it does. In a few hundred updates on a few dozen
examples these are seen:

  shapes        logits are [examples, classes]
  mixing        no example's logits depend on another example
  first loss    of a network that knows nothing, log(number of classes)
  not finite    NaN and infinities, in losses, gradients and parameters
  no gradient   parameters that the loss never depends on
  dead units    units that no example moves any more
  growth        of the weights, which a rate that is too high blows up
  overfitting   a small sample is learned by heart; else more will not be either

Shapes: B examples, K classes, T updates.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures.types import Array, Key

# What is still taken as sound. Each is far from what either a sound or a broken
# network has, so that no check depends on luck.
_MIXING = 1e-3
_FIRST_LOSS = 0.5, 2.0  # times log K
_DEAD = 0.5  # share of the units
_GROWTH = 20.0
_LAST_LOSS = 0.4  # times log K


class Finding(NamedTuple):
  """What one check has found.

  Attributes:
    name: what was looked at.
    value: what was found.
    wanted: what a sound network has, in words.
    passed: whether it does.
  """

  name: str
  value: float | str
  wanted: str
  passed: bool


class Watch(NamedTuple):
  """A small sample as it is learned.

  Attributes:
    loss: [T], before each update, nats.
    accuracy: [T], likewise.
    weight_norm: [T], of all parameters, after each update.
    grad_norm: [T].
  """

  loss: Any
  accuracy: Any
  weight_norm: Any
  grad_norm: Any


def diagnose(
  net: hk.TransformedWithState,
  x: np.ndarray,
  label: np.ndarray,
  num_classes: int,
  optimizer: optax.GradientTransformation,
  key: Key,
  *,
  steps: int = 500,
) -> tuple[list[Finding], Watch | None]:
  """Checks a network on a small sample, before it is trained.

  Args:
    net: apply(params, net_state, key, x, learns) -> logits, net_state.
    x: [B, ...], a few dozen examples.
    label: [B] int32.
    num_classes: K.
    optimizer: that of the training, at the rate that it begins with.
    key: consumed.
    steps: T, updates on the sample.

  Returns:
    The findings, and the sample as it was learned; of logits in a wrong shape
    only that finding, and None.

  >>> draw = np.random.default_rng(0)
  >>> x, label = draw.normal(size=(8, 3)), np.arange(8) % 2
  >>> net = hk.transform_with_state(
  ...   lambda x, learns: hk.Linear(8)(x)[:, None])
  >>> found, _ = diagnose(net, x, label, 2, optax.adam(0.1), jax.random.key(0))
  >>> found[0].value, found[0].wanted, found[0].passed
  ('[8, 1, 8]', '[8, 2]', False)
  """
  shape = jax.eval_shape(functools.partial(_begin, net), key, jnp.asarray(x))[
    -1
  ].shape
  shapes = Finding(
    'shape of the logits',
    str([*shape]),
    str([len(x), num_classes]),
    [*shape] == [len(x), num_classes],
  )
  if not shapes.passed:
    return [shapes], None
  seen = jax.device_get(_run(net, optimizer, steps, key, x, label))
  watch, alone, beside = seen.watch, seen.alone, seen.beside
  mixing = float(np.abs(alone[0] - beside[0]).max() / (np.abs(alone).max() + 1))
  chance = float(np.log(num_classes))
  first_loss = _cross_entropy(alone, label) / chance
  unused = [name for name, total in _named(seen.used) if not np.any(total)]
  dead = _dead_share(seen.slopes)
  bad = sum(int(np.sum(~np.isfinite(v))) for v in (*watch, alone))
  bad += sum(
    int(np.sum(~np.isfinite(leaf))) for leaf in jax.tree.leaves(seen.after)
  )
  growth = _growth(seen.before, seen.after)
  findings = [
    shapes,
    Finding(
      'change of logits by the other examples',
      mixing,
      f'at most {_MIXING}',
      mixing <= _MIXING,
    ),
    Finding(
      'first loss by log(number of classes)',
      first_loss,
      f'{_FIRST_LOSS[0]} to {_FIRST_LOSS[1]}',
      _FIRST_LOSS[0] <= first_loss <= _FIRST_LOSS[1],
    ),
    Finding('numbers that are not finite', bad, '0', bad == 0),
    Finding(
      'parameters without a gradient',
      ', '.join(unused) or 'none',
      'none',
      not unused,
    ),
    Finding('share of dead units', dead, f'at most {_DEAD}', dead <= _DEAD),
    Finding(
      'growth of the weights',
      growth,
      f'at most {_GROWTH:g} times',
      growth <= _GROWTH,
    ),
    Finding(
      f'share of {len(x)} examples learned by heart',
      float(watch.accuracy[-1]),
      '1',
      bool(watch.accuracy[-1] == 1),
    ),
    Finding(
      'their last loss by log(number of classes)',
      float(watch.loss[-1]) / chance,
      f'at most {_LAST_LOSS}',
      float(watch.loss[-1]) <= _LAST_LOSS * chance,
    ),
  ]
  return findings, watch


class _Seen(NamedTuple):
  """What one run gives to be looked at."""

  alone: Any  # logits at first
  beside: Any  # the same with all examples equal to the first one
  before: Any  # parameters
  after: Any
  used: Any  # the sum of |gradient| over the updates
  slopes: Any  # of some combination of logits, by the parameters, at the end
  watch: Watch


def _begin(
  net: hk.TransformedWithState, key: Key, x: Array
) -> tuple[Any, Any, Array]:
  """Parameters, state, and logits."""
  params, net_state = net.init(key, x, True)
  logits, _ = net.apply(params, net_state, key, x, False)
  return params, net_state, logits


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
  net: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  steps: int,
  key: Key,
  x: Array,
  label: Array,
) -> _Seen:
  """Everything in one program: it is compiled once."""
  init_key, noise_key, step_key = jax.random.split(key, 3)
  before, net_state, alone = _begin(net, init_key, x)
  beside, _ = net.apply(
    before, net_state, init_key, jnp.repeat(x[:1], len(x), axis=0), False
  )

  def loss(params, net_state, key):
    logits, net_state = net.apply(params, net_state, key, x, True)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    right = jnp.mean(jnp.argmax(logits, axis=-1) == label)
    return jnp.mean(entropy), (net_state, right)

  def step(carry, key):
    params, net_state, opt_state, used = carry
    (value, (net_state, right)), gradient = jax.value_and_grad(
      loss, has_aux=True
    )(params, net_state, key)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    used = jax.tree.map(lambda total, g: total + jnp.abs(g), used, gradient)
    seen = value, right, optax.tree.norm(params), optax.tree.norm(gradient)
    return (params, net_state, opt_state, used), Watch(*seen)

  used = jax.tree.map(jnp.zeros_like, before)
  carry = before, net_state, optimizer.init(before), used
  (after, net_state, _, used), watch = jax.lax.scan(
    step, carry, jax.random.split(step_key, steps)
  )
  noise = jax.random.normal(noise_key, alone.shape)

  def combined(params):
    logits, _ = net.apply(params, net_state, noise_key, x, False)
    return jnp.sum(logits * noise)

  slopes = jax.grad(combined)(after)
  return _Seen(alone, beside, before, after, used, slopes, watch)


def _cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
  """The mean of -log softmax(logits)[label], nats."""
  total = np.logaddexp.reduce(logits, axis=1)
  return float(np.mean(total - logits[np.arange(len(label)), label]))


def _dead_share(slopes: Any) -> float:
  """Of all weights' outputs those whose weights all have no slope."""
  dead = total = 0
  for name, slope in _named(slopes):
    if name.endswith('/w') and slope.ndim >= 2:
      still = ~np.any(slope.reshape(-1, slope.shape[-1]), axis=0)
      dead, total = dead + int(still.sum()), total + slope.shape[-1]
  return dead / max(total, 1)


def _growth(before: Any, after: Any) -> float:
  """The largest growth of weights, against 1 / sqrt(fan-in) for zeros."""
  growth = 0.0
  for (name, old), (_, new) in zip(_named(before), _named(after), strict=True):
    if name.endswith('/w') and old.ndim >= 2:
      usual = np.sqrt(old.shape[-1] / old.size)
      start = max(float(np.sqrt(np.mean(old**2))), usual)
      growth = max(growth, float(np.sqrt(np.mean(new**2))) / start)
  return growth if np.isfinite(growth) else float('inf')


def _named(tree: Any) -> list[tuple[str, np.ndarray]]:
  """A network's parameters by their names, such as 'linear/w'."""
  return [
    ('/'.join(str(part.key) for part in path), np.asarray(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def draw(watch: Watch, num_classes: int) -> Figure:
  """The loss and the norms while the sample is learned."""
  figure = Figure(figsize=(9, 3.4), layout='constrained')
  left, right = figure.subplots(1, 2)
  left.semilogy(watch.loss, label='loss, nats')
  left.axhline(np.log(num_classes), ls=':', color='k', label='log(classes)')
  left.set(xlabel='updates on the sample', ylabel='cross entropy')
  right.semilogy(watch.weight_norm, label='weights')
  right.semilogy(watch.grad_norm, label='gradient')
  right.set(xlabel='updates on the sample', ylabel='norm')
  for axes in (left, right):
    axes.legend(frameon=False)
    axes.spines[['top', 'right']].set_visible(False)
  return figure


def table(findings: Sequence[Finding]) -> str:
  """The findings for a terminal, a line each.

  >>> print(table([Finding('share of dead units', 0.75, 'at most 0.5', False)]))
  WRONG  share of dead units: 0.75, wanted: at most 0.5
  """
  return '\n'.join(
    f'{"ok   " if finding.passed else "WRONG"}  {finding.name}: '
    f'{_show(finding.value)}, wanted: {finding.wanted}'
    for finding in findings
  )


def _show(value: float | str) -> str:
  return value if isinstance(value, str) else f'{value:.3g}'
