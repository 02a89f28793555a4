"""N-gram models of molecules: what a sum over pieces can tell, and cannot."""

import numpy as np
import pytest

from dl_lectures.analysis import ranking, smiles_ngrams
from dl_lectures.data import molecules
from dl_lectures.types import UsageError

TABLE = molecules.made(600)
PARTS = molecules.split(TABLE)


@pytest.mark.parametrize('kind', smiles_ngrams.KINDS)
def test_pieces_are_found_and_blanks_are_left_out(kind):
  texts = [[TABLE.smiles[i] for i in part] for part in PARTS]
  labels = [TABLE.labels[part] for part in PARTS]
  found = smiles_ngrams.scores(
    kind, texts[0], labels[0], texts[1], labels[1], texts[2]
  )
  assert found.shape == labels[2].shape
  pyridine, either, _ = (
    ranking.roc_auc(*pair) for pair in zip(found.T, labels[2].T, strict=True)
  )
  assert pyridine > 0.999
  assert 0.5 < either < 0.95
  # A label that is turned into a blank has no say.
  lied = labels[0].copy()
  lied[lied == molecules.MISSING] = -7
  again = smiles_ngrams.scores(
    kind, texts[0], lied, texts[1], labels[1], texts[2]
  )
  np.testing.assert_array_equal(found, again)


def test_a_task_of_one_kind_of_label_has_no_score():
  some = ['CCO', 'CCN', 'CO', 'CN']
  labels = np.array([[1, 1], [0, 1], [1, -1], [0, 1]])
  found = smiles_ngrams.scores('ridge', some, labels, some, labels, some)
  assert not found[:, 1].any()
  assert found[0, 0] > found[1, 0]


def test_no_such_model():
  with pytest.raises(UsageError, match="'svm'; possible: logistic regression"):
    smiles_ngrams.scores('svm', [], np.zeros((0, 1)), [], np.zeros((0, 1)), [])
