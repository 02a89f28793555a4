"""Rankings: against counts of pairs, the paper's formula, and its limits."""

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.analysis import ranking

ranked = st.lists(
  st.tuples(st.integers(-3, 3), st.sampled_from([0, 1, -1])),
  min_size=1,
  max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(some=ranked)
def test_auc_is_the_share_of_pairs_in_order(some):
  scores, labels = np.array(some).T
  pairs = [
    (a > b) + (a == b) / 2
    for a in scores[labels == 1]
    for b in scores[labels == 0]
  ]
  found = ranking.roc_auc(scores, labels)
  if pairs:
    assert found == pytest.approx(np.mean(pairs), abs=1e-12)
    assert ranking.roc_auc(-scores, labels) == pytest.approx(1 - found)
  else:
    assert math.isnan(found)


def test_the_mean_is_over_tasks_that_have_both_kinds():
  scores = np.array([[3, 1, 0], [2, 2, 1], [1, 3, 2]])
  labels = np.array([[1, 1, 1], [0, 0, 1], [-1, 0, -1]])
  assert ranking.mean_auc(scores, labels) == (1 + 0) / 2
  assert math.isnan(ranking.mean_auc(scores, np.ones((3, 3), int)))


def test_enrichment_by_hand():
  labels = np.zeros(200, int)
  labels[[0, 2, 50, 199]] = 1
  scores = -np.arange(200.0)
  # One of the first two is active, of all one in fifty.
  assert ranking.enrichment(scores, labels, 0.01) == pytest.approx(25)
  assert ranking.enrichment(scores, labels, 1.0) == pytest.approx(1)
  # Blanks are not ranked.
  labels[1] = -1
  assert ranking.enrichment(scores, labels, 0.01) == pytest.approx(199 / 4)
  assert math.isnan(ranking.enrichment(scores, 0 * labels))


@settings(max_examples=25, deadline=None)
@given(some=ranked, share=st.sampled_from([0.01, 0.1, 0.5]))
def test_ties_count_as_chance_would_order_them(some, share):
  scores, labels = np.array(some).T
  if not (labels == 1).any():
    return
  assert ranking.enrichment(0 * scores, labels, share) == pytest.approx(1)
  draw = np.random.default_rng(0)
  broken = [
    ranking.enrichment(
      scores + draw.uniform(0, 0.5, len(scores)), labels, share
    )
    for _ in range(200)
  ]
  spread = np.std(broken) / math.sqrt(200)
  found = ranking.enrichment(scores, labels, share)
  assert abs(found - np.mean(broken)) <= 5 * spread + 1e-9


@pytest.mark.parametrize('n', [1, 7, 100])
@pytest.mark.parametrize('alpha', [5.0, 20.0])
def test_bedroc_is_the_papers_formula(n, alpha):
  draw = np.random.default_rng(n)
  total = 400
  labels = draw.permutation(np.arange(total) < n).astype(int)
  ranks = 1 + np.flatnonzero(labels)
  share = n / total
  rie = np.mean(np.exp(-alpha * ranks / total)) / (
    (1 - math.exp(-alpha)) / (math.exp(alpha / total) - 1) / total
  )
  expected = rie * share * math.sinh(alpha / 2) / (
    math.cosh(alpha / 2) - math.cosh(alpha / 2 - alpha * share)
  ) + 1 / (1 - math.exp(alpha * (1 - share)))
  found = ranking.bedroc(-np.arange(total), labels, alpha)
  assert found == pytest.approx(expected, abs=1e-9)


def test_bedroc_by_chance_is_its_mean_over_orders():
  draw = np.random.default_rng(0)
  labels = np.arange(500) < 25
  found = [ranking.bedroc(draw.random(500), labels) for _ in range(600)]
  assert np.mean(found) == pytest.approx(
    ranking.bedroc_by_chance(0.05), abs=5 * np.std(found) / 600**0.5
  )
  assert math.isnan(ranking.bedroc(np.arange(3), np.ones(3, int)))


def test_rdkit_says_the_same():
  if importlib.util.find_spec('rdkit') is None:
    pytest.skip('RDKit is not installed: pip install rdkit')
  scoring = importlib.import_module('rdkit.ML.Scoring.Scoring')
  draw = np.random.default_rng(1)
  labels = draw.random(1000) < 0.05
  scores = draw.normal(size=1000) + labels
  rows = sorted(zip(-scores, labels, strict=True))
  assert ranking.bedroc(scores, labels) == pytest.approx(
    scoring.CalcBEDROC(rows, 1, 20.0), abs=1e-6
  )
  assert ranking.roc_auc(scores, labels) == pytest.approx(
    scoring.CalcAUC(rows, 1), abs=1e-3
  )
  assert ranking.enrichment(scores, labels, 0.01) == pytest.approx(
    scoring.CalcEnrichment(rows, 1, [0.01])[0]
  )
