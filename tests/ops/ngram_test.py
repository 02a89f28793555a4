"""N-grams: against counting in dictionaries, and the figures of a text."""

import collections
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from dl_lectures.ops import ngram
from dl_lectures.types import UsageError

TEXT = pathlib.Path(__file__).parents[2].parent / 'shared/data/text/input.txt'
RNG = np.random.default_rng(0)
# A second-order source with 4 tokens, so that there is something to know.
WEIGHTS = RNG.dirichlet(np.full(4, 0.3), (4, 4))


def draw(length: int, seed: int = 0) -> np.ndarray:
  rng, text = np.random.default_rng(seed), [0, 1]
  while len(text) < length:
    text.append(int(rng.choice(4, p=WEIGHTS[text[-2], text[-1]])))
  return np.array(text)


class Dictionaries:
  """Modified Kneser-Ney straight from the paper's formulas."""

  def __init__(self, text, num_tokens, order):
    text = tuple(map(int, text))
    self.num_tokens, self.order = num_tokens, order
    self.counts = {}
    for k in range(1, order + 1):
      grams = [text[i : i + k] for i in range(len(text) - k + 1)]
      if k < order:
        longer = {text[i : i + k + 1] for i in range(len(text) - k)}
        count = collections.Counter(gram[1:] for gram in longer)
        for gram in grams:
          count[gram] += 0
      else:
        count = collections.Counter(grams)
      self.counts[k] = count

  def probability(self, token, context):
    return self._below(
      token, tuple(context)[-self.order + 1 :] if self.order > 1 else ()
    )

  def _below(self, token, context):
    if context is None:
      return 1 / self.num_tokens
    shorter = context[1:] if context else None
    rest = self._below(token, shorter)
    count = self.counts[len(context) + 1]
    after = {g[-1]: n for g, n in count.items() if g[:-1] == context}
    total = sum(after.values())
    if not total:
      return rest
    n = [max(sum(c == i for c in count.values()), 1) for i in range(5)]
    y = n[1] / (n[1] + 2 * n[2])

    def discount(c):
      if c == 0:
        return 0
      c = min(c, 3)
      return min(max(c - (c + 1) * y * n[c + 1] / n[c], 0), c)

    gamma = sum(map(discount, after.values())) / total
    mine = after.get(token, 0)
    return (mine - discount(mine)) / total + gamma * rest


@pytest.mark.parametrize('order', [1, 2, 3, 5])
def test_it_is_what_dictionaries_count(order):
  text, other = draw(300), draw(60, seed=1)
  model, oracle = ngram.fit(text, 4, order), Dictionaries(text, 4, order)
  found = np.exp(ngram.log_prob(model, other))
  for t, token in enumerate(other):
    context = other[max(0, t - order + 1) : t]
    expected = oracle.probability(int(token), map(int, context))
    assert found[t] == pytest.approx(expected, rel=1e-9)


@hypothesis.given(
  strategies.lists(strategies.integers(0, 4), min_size=4, max_size=40),
  strategies.lists(strategies.integers(0, 4), max_size=8),
  strategies.integers(1, 4),
)
@hypothesis.example([1, 1, 2, 0, 0, 1, 2, 1], [1], 3)  # a discount of nothing
def test_probabilities_sum_to_1_and_are_those_of_the_text(text, seen, order):
  model = ngram.fit(np.array(text), 5, order)
  p = ngram.distribution(model, np.array(seen, int))
  assert p.sum() == pytest.approx(1)
  assert (p > 0).all()
  for token in range(5):
    whole = ngram.log_prob(model, np.array([*seen, token]))
    assert whole[-1] == pytest.approx(np.log(p[token]))


def test_context_helps_as_far_as_the_source_reaches():
  text, other = draw(20_000), draw(5000, seed=2)
  nats = [
    -ngram.log_prob(ngram.fit(text, 4, order), other).mean()
    for order in (1, 2, 3, 6)
  ]
  # The entropy of the source, weighted by what was drawn.
  known = -np.log(WEIGHTS[other[:-2], other[1:-1], other[2:]]).mean()
  assert nats[0] > nats[1] > nats[2]
  assert nats[2] == pytest.approx(known, abs=0.01)
  assert nats[3] == pytest.approx(known, abs=0.03)


def test_samples_follow_the_distribution():
  model = ngram.fit(draw(2000), 4, 3)
  prompt = np.array([1, 2])
  p = ngram.distribution(model, prompt)
  first = [
    ngram.sample(model, prompt, np.array([u]))[0]
    for u in (np.arange(4000) + 0.5) / 4000
  ]
  shares = np.bincount(first, minlength=4) / 4000
  np.testing.assert_allclose(shares, p, atol=1e-3)
  cold = ngram.sample(model, prompt, np.full(1, 0.5), temperature=0.01)
  assert cold[0] == p.argmax()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: ngram.fit(np.array([0, 9]), 4, 1), 'token 9; 0 to 3'),
    (lambda: ngram.fit(np.array([-1, 2]), 4, 1), 'token -1; 0 to 3'),
    (lambda: ngram.fit(np.array([1]), 4, 2), 'a text of 1 tokens'),
    (lambda: ngram.fit(np.array([], int), 4, 1), 'a text of 0 tokens'),
    (lambda: ngram.fit(np.array([1]), 4, 0), 'an order of 0'),
    (
      lambda: ngram.sample(
        ngram.fit(np.array([1]), 4, 1), np.array([]), np.array([0.5]), 0
      ),
      'a temperature of 0',
    ),
  ],
)
def test_bad_input_is_told_in_one_line(call, message):
  with pytest.raises(UsageError, match=message):
    call()


@pytest.mark.skipif(not TEXT.exists(), reason='no ../shared/data/text')
def test_tiny_shakespeare():
  text = TEXT.read_text()
  letters = sorted(set(text))
  tokens = np.array([letters.index(c) for c in text])
  cut = int(0.9 * len(tokens))
  for order, nats in ((2, 2.484), (5, 1.561), (8, 1.519)):
    model = ngram.fit(tokens[:cut], len(letters), order)
    found = -ngram.log_prob(model, tokens[cut:]).mean()
    assert found == pytest.approx(nats, abs=0.001)
