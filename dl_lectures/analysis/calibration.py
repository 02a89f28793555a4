"""Scores as probabilities, and how far these can be believed.

Platt, "Probabilistic outputs for support vector machines", 1999: a logistic
curve is fitted to scores of examples that nothing was learned from. It changes
no ranking, unless it falls.

Shapes: N examples. Labels are 1 and 0; another one (a blank) is left out.
"""

from typing import NamedTuple

import numpy as np

from dl_lectures.types import UsageError


class Curve(NamedTuple):
  """p = 1 / (1 + exp(-(slope * score + offset)))."""

  slope: float
  offset: float


def platt(scores: np.ndarray, labels: np.ndarray) -> Curve:
  """The curve under which the labels are likeliest.

  Labels are drawn towards each other as in Platt's section 2.2, as if one more
  of either kind had been seen, so that few examples give no certainty. A slope
  below 0 is not possible: then the scores say nothing, and the curve is flat.

  Args:
    scores: [N].
    labels: [N].

  Raises:
    UsageError: no label.

  >>> curve = platt(np.array([-1, 1] * 50), np.array([0, 1] * 49 + [1, 0]))
  >>> round(curve.slope, 1), abs(round(curve.offset, 1))
  (3.2, 0.0)
  """
  told = (labels == 0) | (labels == 1)
  x, y = np.asarray(scores, float)[told], np.asarray(labels)[told] == 1
  if not x.size:
    raise UsageError('no label to fit a curve to; at least 1 is needed')
  n = np.array([(~y).sum(), y.sum()])
  target = np.where(y, (n[1] + 1) / (n[1] + 2), 1 / (n[0] + 2))
  prior = float(target.mean())
  flat = Curve(0.0, float(np.log(prior / (1 - prior))))
  # Standardised, Newton's steps need no care.
  mean, spread = x.mean(), x.std()
  if not n.all() or spread < 1e-9:
    return flat
  design = np.stack([(x - mean) / spread, np.ones_like(x)], axis=-1)
  w = np.array([0.0, flat.offset])
  for _ in range(100):
    p = 1 / (1 + np.exp(-np.clip(design @ w, -30, 30)))
    gradient = design.T @ (p - target)
    curvature = (design * (p * (1 - p))[:, None]).T @ design
    step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
    # Never far in one step: the curve is flat where all is certain.
    w -= step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
    if np.abs(step).max() < 1e-10:
      break
  if w[0] <= 0:
    return flat
  slope = w[0] / spread
  return Curve(float(slope), float(w[1] - slope * mean))


def probability(curve: Curve, scores: np.ndarray) -> np.ndarray:
  """Scores as probabilities.

  >>> probability(Curve(1.0, 0.0), np.array([0.0])).tolist()
  [0.5]
  """
  z = curve.slope * np.asarray(scores, float) + curve.offset
  return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def log_loss(p: np.ndarray, labels: np.ndarray) -> float:
  """The mean of -log p of what is so, in nats; NaN without a label.

  >>> round(log_loss(np.array([0.5, 0.9]), np.array([1, -1])), 3)
  0.693
  """
  p, labels = np.asarray(p, float), np.asarray(labels)
  told = (labels == 0) | (labels == 1)
  if not told.any():
    return float('nan')
  right = np.where(labels == 1, p, 1 - p)[told]
  return float(-np.log(np.maximum(right, 1e-12)).mean())


def reliability(
  p: np.ndarray, labels: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What was said and what was so, of as many examples in each bin.

  Args:
    p: probabilities, of any shape.
    labels: of the same shape.
    bins: at most.

  Returns:
    The mean probability of each bin, the share of actives, and how many.

  >>> said, so, count = reliability(np.array([0.1, 0.9]), np.array([0, 1]), 2)
  >>> said.tolist(), so.tolist(), count.tolist()
  ([0.1, 0.9], [0.0, 1.0], [1, 1])
  """
  told = (labels == 0) | (labels == 1)
  p, labels = np.asarray(p)[told], np.asarray(labels)[told]
  order = np.argsort(p, kind='stable')
  parts = [part for part in np.array_split(order, bins) if part.size]
  return (
    np.array([p[part].mean() for part in parts]),
    np.array([labels[part].mean() for part in parts]),
    np.array([part.size for part in parts]),
  )
