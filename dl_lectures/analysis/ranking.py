"""How well a ranking finds what it is to find: of molecules, the active ones.

Where two have the same score, chance would order them; every figure here is
the mean over such orders (of BEDROC, its value at their mean rank).

Source: Hanley & McNeil, "The meaning and use of the area under a receiver
operating characteristic (ROC) curve", Radiology 143 (1982); Truchon & Bayly,
"Evaluating virtual screening methods", J. Chem. Inf. Model. 47 (2007). Slides:
deck 002, screening.

Shapes: N ranked. Labels are 1 and 0; what has another one (a blank) is left
out.
"""

import math
from collections.abc import Callable

import numpy as np


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
  """The share of pairs of an active and an inactive that are ordered rightly.

  Args:
    scores: [N], the highest first.
    labels: [N].

  Returns:
    0 to 1; .5 by chance; NaN without both kinds.

  >>> roc_auc(np.array([3, 2, 1, 0]), np.array([1, 0, 1, 0]))
  0.75
  """
  ranks, actives = _ranked(scores, labels)
  n, total = len(actives), len(ranks)
  if not 0 < n < total:
    return math.nan
  # Ranks from the top: an active is beaten by those above it.
  above = actives.sum() - n * (n + 1) / 2
  return float(1 - above / (n * (total - n)))


def mean_auc(scores: np.ndarray, labels: np.ndarray) -> float:
  """The mean `roc_auc` over tasks [N, K]."""
  return mean_over_tasks(roc_auc, scores, labels)


def mean_over_tasks(
  figure: Callable[[np.ndarray, np.ndarray], float],
  scores: np.ndarray,
  labels: np.ndarray,
) -> float:
  """The mean of a figure over those tasks that have it.

  Args:
    figure: (scores [N], labels [N]) -> a number, or NaN.
    scores: [N, K].
    labels: [N, K].

  Returns:
    The mean; NaN where no task has the figure.

  >>> labels = np.array([[1, 1], [0, 1]])
  >>> mean_over_tasks(roc_auc, np.array([[2, 0], [1, 0]]), labels)
  1.0
  """
  found = [figure(*pair) for pair in zip(scores.T, labels.T, strict=True)]
  there = [value for value in found if not math.isnan(value)]
  return float(np.mean(there)) if there else math.nan


def enrichment(
  scores: np.ndarray, labels: np.ndarray, share: float = 0.01
) -> float:
  """How many times more actives the top holds than as many taken by chance.

  Args:
    scores: [N], the highest first.
    labels: [N].
    share: of all that is the top; rounded up to one or more.

  Returns:
    1 by chance, at most 1 / share; NaN without an active.

  >>> enrichment(np.arange(100), np.arange(100) >= 98, share=0.02)
  50.0
  """
  told = (labels == 0) | (labels == 1)
  scores, labels = np.asarray(scores)[told], np.asarray(labels)[told]
  total, n = len(labels), int((labels == 1).sum())
  if not n:
    return math.nan
  top = math.ceil(share * total - 1e-9)
  bound = np.sort(scores)[::-1][top - 1]
  above, at = scores > bound, scores == bound
  # Of those that are level with the last, chance takes some.
  taken = (top - above.sum()) / at.sum()
  found = labels[above].sum() + taken * labels[at].sum()
  return float(found / top / (n / total))


def bedroc(
  scores: np.ndarray, labels: np.ndarray, alpha: float = 20.0
) -> float:
  """An area under the curve that counts the first ranks most: equation 36.

  With alpha 20, the first 8% of the ranks make 80% of it.

  Args:
    scores: [N], the highest first.
    labels: [N].
    alpha: how fast a rank's weight e^(-alpha rank / N) falls.

  Returns:
    From 0 (the actives are last) to 1 (first); NaN without both kinds. What
    chance reaches depends on the share of actives: `bedroc_by_chance`.

  >>> labels = np.arange(1000) < 10
  >>> round(bedroc(-np.arange(1000), labels), 3)
  1.0
  >>> abs(round(bedroc(np.arange(1000), labels), 3))
  0.0
  """
  ranks, actives = _ranked(scores, labels)
  n, total = len(actives), len(ranks)
  if not 0 < n < total:
    return math.nan
  by_chance = (1 - math.exp(-alpha)) / math.expm1(alpha / total) / total
  rie = float(np.exp(-alpha * actives / total).mean()) / by_chance
  return _scaled(rie, n / total, alpha)


def bedroc_by_chance(share: float, alpha: float = 20.0) -> float:
  """The BEDROC of a ranking by chance.

  >>> round(bedroc_by_chance(0.01), 2)
  0.06
  """
  return _scaled(1.0, share, alpha)


def _scaled(rie: float, share: float, alpha: float) -> float:
  """Robust initial enhancement, from its least to its most."""
  least = math.expm1(alpha * share) / (share * math.expm1(alpha))
  most = math.expm1(-alpha * share) / (share * math.expm1(-alpha))
  return (rie - least) / (most - least)


def _ranked(
  scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Ranks from 1 for the highest, all and of the actives; ties share theirs."""
  from scipy import stats

  told = (labels == 0) | (labels == 1)
  ranks = stats.rankdata(-np.asarray(scores, float)[told])
  return ranks, ranks[np.asarray(labels)[told] == 1]
