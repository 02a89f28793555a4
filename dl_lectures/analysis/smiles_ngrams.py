"""What counting pieces of text says about molecules: two linear models.

Pieces of one to four characters of SMILES are counted (a count n as
log(1 + n)), and for each task a ridge or a logistic regression is fitted to the
labels that there are. Both are scikit-learn's. They know nothing of rings or of
the order of far pieces, and are hard to beat on few molecules.

Shapes: N molecules, K tasks; labels are 1 and 0, another one is a blank.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dl_lectures.analysis import ranking
from dl_lectures.types import UsageError

KINDS = ('logistic regression', 'ridge')
# How little the weights are held back: what is tried, the least first.
_STRENGTHS = {
  'logistic regression': (0.003, 0.03, 0.3),
  'ridge': (0.001, 0.01, 0.1),
}
LONGEST = 4


def scores(
  kind: str,
  train: Sequence[str],
  labels: np.ndarray,
  valid: Sequence[str],
  valid_labels: np.ndarray,
  test: Sequence[str],
) -> np.ndarray:
  """Scores of molecules that were not seen, [N', K].

  How much the weights are held back is chosen on `valid`, one for all tasks.

  Args:
    kind: one of `KINDS`.
    train: N molecules to learn from.
    labels: [N, K].
    valid: molecules to choose by.
    valid_labels: their labels.
    test: N' molecules.

  Raises:
    UsageError: no such model.

  >>> some = ['CCO', 'CCN', 'CO', 'CN', 'CCCO', 'CCCN']
  >>> labels = np.array([[1], [0]] * 3)
  >>> found = scores('ridge', some, labels, some, labels, ['OC', 'NC'])
  >>> bool(found[0, 0] > found[1, 0])
  True
  """
  if kind not in KINDS:
    raise UsageError(f'model {kind!r}; possible: {", ".join(KINDS)}')
  from sklearn.feature_extraction import text

  counter: Any = text.CountVectorizer(
    analyzer='char', ngram_range=(1, LONGEST), lowercase=False, min_df=2
  )

  def counted(molecules: Sequence[str], learn: bool = False) -> Any:
    made = counter.fit_transform if learn else counter.transform
    return made(molecules).astype(np.float64).log1p()

  learned, chosen_by, asked = (
    counted(train, True),
    counted(valid),
    counted(test),
  )
  best = max(
    (_fit(kind, strength, learned, labels) for strength in _STRENGTHS[kind]),
    key=lambda models: np.nan_to_num(
      ranking.mean_auc(_score(models, chosen_by), valid_labels)
    ),
  )
  return _score(best, asked)


def _fit(kind: str, strength: float, x: Any, labels: np.ndarray) -> list[Any]:
  """A model for each task; None where there is but one kind of label."""
  from sklearn import linear_model

  models = []
  for column in labels.T:
    told = (column == 0) | (column == 1)
    y = column[told]
    if len({*y.tolist()}) < 2:
      models.append(None)
      continue
    if kind == 'ridge':
      model = linear_model.RidgeClassifier(
        alpha=1 / strength, class_weight='balanced', solver='sparse_cg'
      )
    else:
      model = linear_model.LogisticRegression(
        C=strength, class_weight='balanced', solver='liblinear', tol=1e-3
      )
    models.append(model.fit(x[told], y))
  return models


def _score(models: Sequence[Any], x: Any) -> np.ndarray:
  return np.stack(
    [
      np.zeros(x.shape[0]) if model is None else model.decision_function(x)
      for model in models
    ],
    axis=-1,
  )
