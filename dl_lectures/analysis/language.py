"""How well a text is predicted: by a model of sequences, and by counting.

All figures are cross-entropies in nats a token: the mean of -log p of what
follows. Per character e to its power is the perplexity, and divided by log 2
it is bits per character.

Shapes: B batch, T time, N tokens of a text.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes

from dl_lectures.data import text
from dl_lectures.nets.sequence import SequenceModel
from dl_lectures.ops import ngram
from dl_lectures.types import Array, UsageError

ORDERS = (1, 2, 3, 5, 8)


def ngram_losses(
  corpus: text.Corpus, orders: Sequence[int] = ORDERS
) -> dict[int, float]:
  """What counting reaches on the held-out tenth of a text.

  Modified Kneser-Ney (`ops.ngram`) fitted to the first 90%. Every token is
  predicted, the first ones with what context there is.

  Args:
    corpus: the text.
    orders: the lengths of n-grams, the predicted token among them.

  Returns:
    Order -> nats a token.

  >>> corpus = text.from_text('the cat sat on the mat. ' * 40)
  >>> ngram_losses(corpus, [1, 5])[1] > 10 * ngram_losses(corpus, [1, 5])[5]
  True
  """
  held_out = corpus.held_out
  return {
    order: float(
      -ngram.log_prob(
        ngram.fit(corpus.train, corpus.vocabulary.size, order), held_out
      ).mean()
    )
    for order in orders
  }


def cross_entropy(logits: Array, targets: Array) -> Array:
  """-log p of each target: [..., V] and [...] to [...], nats.

  >>> cross_entropy(jnp.zeros([1, 4]), jnp.array([2])).round(3).tolist()
  [1.3860000371932983]
  """
  return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def loss_by_position(
  model: SequenceModel,
  weights: Any,
  tokens: np.ndarray,
  length: int,
  batch_size: int = 64,
) -> np.ndarray:
  """The mean loss at each position of windows side by side.

  Every token but the first is predicted once: after 1 to T tokens, those of
  its window. The mean over the positions is what nanoGPT estimates from
  random windows; the last position has all the context the model knows.

  Args:
    model: a language model.
    weights: its weights.
    tokens: [N], N > T; of the tail less than a window is left out.
    length: T.
    batch_size: windows at once; the last ones are predicted alone.

  Returns:
    [T] float64, nats.

  Raises:
    UsageError: a text shorter than a window.
  """
  text.check_length(tokens, length)
  num_windows = (len(tokens) - 1) // length
  batch_size = min(batch_size, num_windows)
  at = np.arange(num_windows)[:, None] * length + np.arange(length + 1)
  windows = np.asarray(tokens)[at]
  total = np.zeros(length)
  for start in range(0, num_windows, batch_size):
    # A last batch of another size would be compiled for itself.
    first = min(start, num_windows - batch_size)
    losses = np.asarray(
      _window_losses(model.apply, weights, windows[first : first + batch_size])
    )
    total += losses[start - first :].sum(axis=0, dtype=np.float64)
  return total / num_windows


@functools.partial(jax.jit, static_argnums=0)
def _window_losses(apply, weights: Any, windows: Array) -> Array:
  logits = apply(weights, None, windows[:, :-1])
  return cross_entropy(logits, windows[:, 1:])


def loss_in_stream(
  model: SequenceModel,
  weights: Any,
  tokens: np.ndarray,
  length: int,
  lanes: int = 16,
  memory: int | None = None,
) -> float:
  """The mean loss of a text that is read on and on, with a carry.

  The text is cut into lanes; each begins with nothing known and goes on from
  piece to piece with what the model remembers.

  Args:
    model: a language model.
    weights: its weights.
    tokens: [N].
    length: T of a piece; of the tail of a lane less than that is left out.
    lanes: as many, or fewer in a short text.
    memory: length of a key-value cache; T by default.

  Returns:
    Nats a token.

  Raises:
    UsageError: a text shorter than a piece.
  """
  text.check_length(tokens, length)
  lanes = max(min(lanes, (len(tokens) - 1) // length), 1)
  pieces = (len(tokens) - 1) // lanes // length
  span = pieces * length
  at = np.arange(lanes)[:, None] * ((len(tokens) - 1) // lanes)
  lane = np.asarray(tokens)[at + np.arange(span + 1)]
  carry = model.initial_state(lanes, length if memory is None else memory)
  total = 0.0
  for i in range(pieces):
    piece = lane[:, i * length : (i + 1) * length + 1]
    losses, carry = _piece_losses(model.apply_from, weights, carry, piece)
    total += float(losses)
  return total / pieces


@functools.partial(jax.jit, static_argnums=0)
def _piece_losses(
  apply_from, weights: Any, carry: Any, piece: Array
) -> tuple[Array, Any]:
  logits, carry = apply_from(weights, None, carry, piece[:, :-1])
  return jnp.mean(cross_entropy(logits, piece[:, 1:])), carry


def draw_losses(
  axes: Axes,
  records: Sequence[Mapping[str, Any]],
  counted: Mapping[int, float],
) -> None:
  """A run's `loss` and `valid_loss` against its updates, n-grams beside."""
  highest = 0.0
  for name, color in (('loss', '#9ecae1'), ('valid_loss', '#08519c')):
    known = [(r['step'], r[name]) for r in records if name in r]
    if known:
      axes.plot(*zip(*known, strict=True), color=color, label=name)
      highest = max(highest, *(value for _, value in known))
  if highest:
    axes.legend(frameon=False)
  _draw_ngrams(axes, counted, highest)
  axes.set(xlabel='update', ylabel='nats a token')


def draw_positions(
  axes: Axes,
  losses: np.ndarray,
  counted: Mapping[int, float],
  in_stream: float | None = None,
) -> None:
  """The loss against the tokens seen, [T]; n-grams and a stream beside."""
  seen = np.arange(1, len(losses) + 1)
  axes.plot(seen, losses, color='#08519c', label='from nothing')
  if in_stream is not None:
    axes.axhline(in_stream, color='#d95f0e', label='read on and on')
    axes.legend(frameon=False)
  _draw_ngrams(axes, counted, float(losses.max()))
  axes.set(title='the last tenth', xlabel='tokens seen', ylabel='nats a token')


def _draw_ngrams(
  axes: Axes, counted: Mapping[int, float], highest: float
) -> None:
  axes.spines[['top', 'right']].set_visible(False)
  for order, value in counted.items():
    if value <= highest:
      axes.axhline(value, color='#7a7a7a', lw=0.8, ls='--')
      place = {'fontsize': 7, 'ha': 'right', 'va': 'bottom'}
      axes.annotate(
        f'{order}-gram', (1, value), xycoords=('axes fraction', 'data'), **place
      )


def draw_text(axes: Axes, written: str) -> None:
  """What a model wrote: 16 lines of 110 characters at most."""
  axes.set_axis_off()
  axes.set_title('written', loc='left', fontsize=9)
  shown = ''.join(c if c.isprintable() or c == '\n' else ' ' for c in written)
  axes.text(
    0,
    1,
    '\n'.join(line[:110] for line in shown.split('\n')[:16]),
    family='monospace',
    fontsize=7,
    va='top',
    parse_math=False,
    transform=axes.transAxes,
  )


def bits(nats: float) -> float:
  """Nats as bits.

  >>> bits(math.log(2))
  1.0
  """
  return nats / math.log(2)


def check_orders(orders: Sequence[int]) -> None:
  """Refuses orders of n-grams that are none, in a Config.

  Raises:
    UsageError: one is below 1, or there is none.
  """
  if not orders or min(orders) < 1:
    raise UsageError(
      f'config.ngram_orders={",".join(map(str, orders))}; one or more, each at '
      'least 1, are possible'
    )
