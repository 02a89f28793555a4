"""Drawn alignments: their law, their form, and what shows in them."""

import numpy as np
import pytest

from dl_lectures.data import coevolution, proteins
from dl_lectures.ops import coevolution as ops
from dl_lectures.ops.coevolution import Potts


@pytest.fixture(scope='module')
def chain():
  return proteins.load()['1crn_A']


def test_gibbs_draws_from_the_law_it_is_given():
  # Two residues of three states: all nine probabilities are known.
  random = np.random.default_rng(0)
  fields = random.normal(size=(2, 3)).astype(np.float32)
  couplings = np.zeros((2, 2, 3, 3), np.float32)
  couplings[0, 1] = 2 * random.normal(size=(3, 3))
  couplings[1, 0] = couplings[0, 1].T
  number = 40_000
  rows = coevolution.gibbs(
    Potts(fields, couplings),
    random.integers(3, size=(number, 2)),
    random.random((30, 2, number)),
  )
  weight = np.exp(fields[0][:, None] + fields[1][None] + couplings[0, 1])
  found = np.zeros((3, 3))
  np.add.at(found, (rows[:, 0], rows[:, 1]), 1 / number)
  np.testing.assert_allclose(found, weight / weight.sum(), atol=0.01)


def test_gibbs_repeats_with_the_same_numbers(chain):
  random = np.random.default_rng(1)
  model = coevolution.potts(chain, random, coevolution.Law())
  start = random.integers(20, size=(5, 46))
  uniforms = random.random((2, 46, 5))
  first = coevolution.gibbs(model, start, uniforms)
  np.testing.assert_array_equal(
    first, coevolution.gibbs(model, start, uniforms)
  )
  # Each row is drawn by itself.
  alone = coevolution.gibbs(model, start[2:3], uniforms[:, :, 2:3])
  np.testing.assert_array_equal(first[2:3], alone)


def test_couplings_are_symmetric_and_mostly_contacts(chain):
  law = coevolution.Law(false=10 / len(chain.sequence))
  model = coevolution.potts(chain, np.random.default_rng(2), law)
  swapped = model.couplings.transpose(1, 0, 3, 2)
  np.testing.assert_array_equal(model.couplings, swapped)
  coupled = np.triu(np.abs(model.couplings).sum((2, 3)), 3) > 0
  distance = np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)
  assert coupled.any()
  assert not (coupled & (distance >= 12) & (distance <= 15)).any()
  # A tenth of the false ones are too weak to be kept.
  far = np.sum(coupled & (distance > 15))
  assert far == pytest.approx(10 * 0.9, abs=4)
  none = coevolution.Law(false=0.0, silent=1.0)
  assert not coevolution.potts(
    chain, np.random.default_rng(2), none
  ).couplings.any()


def test_an_alignment_begins_with_the_sequence_and_has_gaps(chain):
  made = coevolution.alignment(chain, 200, np.random.default_rng(3))
  assert made.rows.shape == made.deletions.shape == (200, 46)
  assert made.rows.dtype == np.int8
  np.testing.assert_array_equal(made.rows[0], proteins.encode(chain.sequence))
  gaps = made.rows[1:] == proteins.GAP
  assert 0.02 < gaps.mean() < 0.15
  assert not (made.rows == proteins.UNKNOWN).any()
  assert 0 < (made.deletions > 0).mean() < 0.1
  # Rows are drawn independently: all but few count in full.
  assert ops.sequence_weights(made.rows).sum() > 0.95 * 200


def test_thinning_keeps_the_query_and_repeats_nothing(chain):
  made = coevolution.alignment(chain, 30, np.random.default_rng(4))
  marked = made._replace(rows=np.arange(30)[:, None].repeat(46, 1))
  some = coevolution.thinned(marked, 10, np.random.default_rng(5))
  drawn = some.rows[:, 0].tolist()
  assert drawn[0] == 0
  assert len(set(drawn)) == 10
  every = coevolution.thinned(marked, 99, np.random.default_rng(5))
  assert sorted(every.rows[:, 0]) == list(range(30))


def test_deeper_alignments_show_more_contacts():
  # The knob of this file; bars far from what is found (.3 and .7).
  chain = proteins.load()['1ubi_A']
  made = coevolution.alignment(chain, 512, np.random.default_rng(6))
  distance = np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)
  i, j = np.triu_indices(len(chain.sequence), 6)

  def precision(depth):
    some = coevolution.thinned(made, depth, np.random.default_rng(7))
    model = ops.mean_field(some.rows)
    score = ops.corrected(ops.frobenius(model.couplings))[i, j]
    best = np.argsort(-score)[: len(chain.sequence) // 2]
    return np.mean(distance[i, j][best] < 8)

  shallow, deep = precision(24), precision(512)
  assert deep > shallow + 0.15
  assert deep > 0.4
