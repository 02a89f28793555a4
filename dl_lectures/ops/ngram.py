"""N-grams: what follows is predicted from the n - 1 tokens before, by counting.

Interpolated modified Kneser-Ney smoothing (Chen & Goodman, "An empirical study
of smoothing techniques for language modeling", Computer Speech and Language 13,
1999, section 3): each order takes a discount off its counts and gives what it
has saved to the order below,

    p_k(w | c) = (N(c w) - D(N(c w))) / N(c .)  +  gamma(c) p_{k-1}(w | c'),

c' is c without its first token, and below order 1 all tokens are alike. The
highest order counts occurrences; a lower one counts in how many different
contexts w has followed c, since it is asked only where the context is new.
Discounts D(1), D(2), D(3+) come from how many n-grams occur 1, 2, 3, 4 times.

Slides: deck 003, "N-grams".

N-grams are numbered: one of k tokens is (number of its first k - 1, last token)
in a sorted array, so that fitting is k sorts and asking is k binary searches,
for whole texts at once.
"""

from typing import NamedTuple

import numpy as np

from dl_lectures.types import UsageError

_UNSEEN = -1


class Order(NamedTuple):
  """What is known of the n-grams of k tokens, U_k of them.

  Attributes:
    keys: [U_k] int64, ascending: number of the first k - 1 tokens * V + last.
    share: [U_k] float64, the discounted count over the context's total.
    left: [U_(k-1)] float64, gamma of each context; 1 where the context has no
      counts, so that it says nothing.
  """

  keys: np.ndarray
  share: np.ndarray
  left: np.ndarray


class NGram(NamedTuple):
  """A fitted model.

  Attributes:
    orders: of 1 to n tokens.
    num_tokens: V, the size of the vocabulary.
  """

  orders: tuple[Order, ...]
  num_tokens: int


def fit(tokens: np.ndarray, num_tokens: int, order: int) -> NGram:
  """Counts a text.

  Args:
    tokens: [T] integers in [0, num_tokens).
    num_tokens: V, the size of the vocabulary.
    order: n; n - 1 tokens of context.

  Returns:
    The model; host arrays, about 24 bytes for each n-gram that occurs.

  Raises:
    UsageError: a text shorter than n tokens, or with tokens out of range.

  >>> text = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2])
  >>> model = fit(text, num_tokens=3, order=2)
  >>> distribution(model, np.array([0])).round(2).tolist()
  [0.14, 0.72, 0.14]
  """
  tokens = _check(tokens, num_tokens)
  if order < 1:
    raise UsageError(f'an order of {order}; at least 1 is possible')
  if len(tokens) < order:
    raise UsageError(
      f'a text of {len(tokens)} tokens for n-grams of {order}; at least '
      f'{order} are possible'
    )
  # The n-gram of k tokens that ends at t, for all t >= k - 1.
  keys, numbers, occurrences, first = [], [], [], []
  before = np.zeros(len(tokens) + 1, np.int64)
  for _ in range(order):
    code = before[:-1] * num_tokens + tokens[len(tokens) - len(before) + 1 :]
    unique, start, number, count = np.unique(
      code, return_index=True, return_inverse=True, return_counts=True
    )
    keys.append(unique)
    first.append(start)
    numbers.append(number)
    occurrences.append(count)
    before = number
  orders = []
  for k in range(order):
    count = occurrences[k]
    if k + 1 < order:
      # Row i of order k + 1 ends where row i + 1 of order k does.
      suffix = numbers[k][1:][first[k + 1]]
      count = np.bincount(suffix, minlength=len(count))
    contexts = len(keys[k - 1]) if k else 1
    orders.append(_discounted(keys[k], count, contexts, num_tokens))
  return NGram(tuple(orders), num_tokens)


def log_prob(model: NGram, tokens: np.ndarray) -> np.ndarray:
  """The log-probability of every token after those before it, in nats.

  Args:
    model: from `fit`.
    tokens: [T]; the first n - 1 have a shorter context.

  Returns:
    [T] float64.

  >>> model = fit(np.array([0, 1, 0, 1, 2]), num_tokens=3, order=2)
  >>> log_prob(model, np.array([0, 1])).round(3).tolist()
  [-1.099, -0.182]
  """
  tokens = _check(tokens, model.num_tokens)
  p = np.full(len(tokens), 1 / model.num_tokens)
  # What stands before t: nothing, which is known, then ever more tokens.
  context = np.zeros(len(tokens), np.int64)
  for order in model.orders:
    number = _find(order, context, tokens, model.num_tokens)
    p = _interpolate(order, context, number, p)
    context = np.concatenate([[_UNSEEN], number[:-1]])
  return np.log(p)


def distribution(model: NGram, context: np.ndarray) -> np.ndarray:
  """The probabilities of all tokens after a context.

  Args:
    model: from `fit`.
    context: [T]; its last n - 1 tokens count.

  Returns:
    [V] float64; they sum to 1.
  """
  context = _check(context, model.num_tokens)
  context = context[len(context) - min(len(context), len(model.orders) - 1) :]
  every = np.arange(model.num_tokens)
  p = np.full(model.num_tokens, 1 / model.num_tokens)
  for k, order in enumerate(model.orders[: len(context) + 1]):
    # The number of the last k tokens.
    number = np.zeros(1, np.int64)
    for below, token in zip(
      model.orders, context[len(context) - k :], strict=False
    ):
      number = _find(below, number, token[None], model.num_tokens)
    here = np.repeat(number, len(every))
    p = _interpolate(
      order, here, _find(order, here, every, model.num_tokens), p
    )
  return p


def sample(
  model: NGram, prompt: np.ndarray, uniform: np.ndarray, temperature: float = 1
) -> np.ndarray:
  """Goes on with a text, token by token.

  Args:
    model: from `fit`.
    prompt: [P], may be empty.
    uniform: [N] in [0, 1), the caller's random numbers.
    temperature: below 1 prefers the likely.

  Returns:
    [N] int64, what follows the prompt.

  >>> model = fit(np.array([0, 1, 2] * 20), num_tokens=3, order=3)
  >>> sample(model, np.array([0]), np.full(4, 0.5)).tolist()
  [1, 2, 0, 1]
  """
  if temperature <= 0:
    raise UsageError(f'a temperature of {temperature}; above 0 is possible')
  text = list(_check(prompt, model.num_tokens))
  for u in uniform:
    p = distribution(model, np.array(text, np.int64)) ** (1 / temperature)
    total = np.cumsum(p)
    text.append(min(np.searchsorted(total, u * total[-1], 'right'), len(p) - 1))
  return np.array(text[len(prompt) :], np.int64)


def _check(tokens: np.ndarray, num_tokens: int) -> np.ndarray:
  tokens = np.asarray(tokens)
  if tokens.size and (tokens.min() < 0 or tokens.max() >= num_tokens):
    raise UsageError(
      f'token {tokens.max() if tokens.min() >= 0 else tokens.min()}; 0 to '
      f'{num_tokens - 1} are possible'
    )
  return tokens.astype(np.int64)


def _discounted(
  keys: np.ndarray, count: np.ndarray, contexts: int, num_tokens: int
) -> Order:
  """One order from its counts; [CG] equations 22 and 23 for the discounts."""
  context = keys // num_tokens
  n1, n2, n3, n4 = (max(int(np.sum(count == i)), 1) for i in (1, 2, 3, 4))
  y = n1 / (n1 + 2 * n2)
  wanted = np.array(
    [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
  )
  # Counts of a short text may call for none at all; then nothing would be left
  # for what it does not have. y is the discount where all counts share one.
  wanted = np.where(wanted > 0, np.minimum(wanted, [1, 2, 3]), y)
  discounts = np.concatenate([[0.0], wanted])
  saved = discounts[np.minimum(count, 3)]
  total = np.bincount(context, count, contexts)
  left = np.bincount(context, saved, contexts) / np.maximum(total, 1)
  return Order(
    keys,
    (count - saved) / np.maximum(total, 1)[context],
    np.where(total > 0, left, 1.0),
  )


def _find(
  order: Order, context: np.ndarray, tokens: np.ndarray, num_tokens: int
) -> np.ndarray:
  """The numbers of the n-grams (context, token), or `_UNSEEN`."""
  key = context * num_tokens + tokens
  at = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
  return np.where((context >= 0) & (order.keys[at] == key), at, _UNSEEN)


def _interpolate(
  order: Order, context: np.ndarray, number: np.ndarray, below: np.ndarray
) -> np.ndarray:
  """p_k from p_(k-1), where the context is known; elsewhere p_(k-1)."""
  known = context >= 0
  share = np.where(number >= 0, order.share[number], 0.0)
  return np.where(known, share + order.left[context] * below, below)
