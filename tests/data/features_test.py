"""What the network reads and what it is to say, and crops of both."""

import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.data import coevolution, features, proteins
from dl_lectures.ops import coevolution as ops
from dl_lectures.ops import distogram, geometry


@pytest.fixture(scope='module')
def chain():
  return proteins.load()['1crn_A']


@pytest.fixture(scope='module')
def made(chain):
  return coevolution.alignment(chain, 30, np.random.default_rng(0))


def test_features_are_those_of_the_alignment(chain, made):
  read = features.features(made)
  length = len(chain.sequence)
  assert read.pairs.shape == (length, length, 3)
  assert read.residues.shape == (length, 53)
  assert read.pairs.dtype == read.residues.dtype == np.float32
  np.testing.assert_allclose(read.pairs, read.pairs.swapaxes(0, 1), atol=1e-5)
  np.testing.assert_array_equal(read.pairs[..., 2], ops.gap_matrix(made.rows))
  letters = read.residues[:, :21].argmax(axis=1)
  np.testing.assert_array_equal(letters, proteins.encode(chain.sequence))
  weights = ops.sequence_weights(made.rows)
  np.testing.assert_allclose(
    read.residues[:, 21:43], ops.profile(made.rows, weights), rtol=1e-6
  )
  # Scores are in units of their own deviation.
  apart = np.triu_indices(length, 4)
  assert read.pairs[..., 0][apart].std() == pytest.approx(1, abs=0.02)


def test_couplings_are_added_when_asked_for(made):
  read = features.features(made, couplings=True)
  np.testing.assert_allclose(
    read.pairs[..., :3], features.features(made).pairs, rtol=1e-3
  )
  each = read.pairs[..., features.SCORES :].astype(float)
  length = len(each)
  each = each.reshape(length, length, 21, 21)
  size = ops.frobenius(ops.mean_field(made.rows).couplings)
  found = np.sqrt((each[..., :20, :20] ** 2).sum((2, 3)))
  far = np.triu_indices(length, 4)
  # All of them in one unit, which is their deviation.
  np.testing.assert_allclose(
    found[far] / size[far], found[9, 30] / size[9, 30], rtol=1e-2
  )
  assert each[far].std() == pytest.approx(1, abs=0.01)
  covariance = ops.corrected(ops.covariance_size(made.rows))
  np.testing.assert_allclose(
    read.pairs[..., 3], covariance / covariance[far].std(), rtol=0.02, atol=0.01
  )
  assert read.residues.shape[1] == 53 + 21


@pytest.mark.parametrize('couplings', [False, True])
@pytest.mark.parametrize(
  'rows', [['ACDEFGHIKL'], ['ACDEFG', 'ACDEFA'], ['AC', 'CA', 'AA']]
)
def test_a_sequence_alone_and_a_short_one_have_features(rows, couplings):
  made = proteins.Alignment(
    rows[0],
    np.stack([proteins.encode(row) for row in rows]),
    np.zeros((len(rows), len(rows[0])), np.int32),
  )
  read = features.features(made, couplings)
  assert all(np.isfinite(x).all() for x in read)


def test_background_knows_length_place_and_glycine():
  read = features.background('AGA')
  assert read.pairs.shape == (3, 3, 0)
  assert read.residues[:, 0].tolist() == [0, 1, 0]
  np.testing.assert_array_equal(
    read.residues[:, 1:], features.background('GAG').residues[:, 1:]
  )


def test_labels_are_those_of_the_structure(chain):
  truth = features.labels(chain)
  length = len(chain.sequence)
  distance = np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)
  np.testing.assert_array_equal(
    truth.distances, np.asarray(distogram.bin_index(distance))
  )
  torsions, _ = geometry.torsions(jnp.asarray(chain.backbone))
  known = truth.torsions >= 0
  assert known.tolist() == [False] + [True] * (length - 2) + [False]
  phi, psi = np.divmod(truth.torsions[known], features.TORSION_BINS)
  for index, angle in ((phi, torsions[:, 0]), (psi, torsions[:, 1])):
    off = features.TORSION_CENTRES[index] - np.asarray(angle)[known]
    assert np.abs(np.rad2deg(np.angle(np.exp(1j * off)))).max() <= 5.001
  # Crambin: strands at both ends, helices 7-19 and 23-30.
  assert (truth.structure[8:17] == 1).all()
  assert (truth.structure == 2).any()


def test_a_crop_is_a_part_and_nothing_beyond_the_chain(made):
  read = features.features(made)
  length = len(read.residues)
  rows, columns = np.arange(-3, 9), np.arange(length - 5, length + 7)
  part = features.crop(read, rows, columns)
  assert int(part.offset) == length - 2
  assert part.row_mask.tolist() == [False] * 3 + [True] * 9
  assert part.column_mask.tolist() == [True] * 5 + [False] * 7
  np.testing.assert_array_equal(part.pairs[3:, :5], read.pairs[:9, -5:])
  np.testing.assert_array_equal(part.row_pairs[3:, 3:], read.pairs[:9, :9])
  np.testing.assert_array_equal(part.column_pairs[:5, :5], read.pairs[-5:, -5:])
  np.testing.assert_array_equal(part.rows[3:], read.residues[:9])
  np.testing.assert_array_equal(part.columns[:5], read.residues[-5:])
  assert not part.pairs[:3].any()
  assert not part.pairs[:, 5:].any()
  assert not part.rows[:3].any()
  few = features.crop(read, rows, columns, around=2)
  np.testing.assert_array_equal(few.pairs, part.pairs)
  np.testing.assert_array_equal(few.row_pairs, part.row_pairs[..., :2])
  np.testing.assert_array_equal(few.column_pairs, part.column_pairs[..., :2])


def test_labels_of_a_crop(chain):
  truth = features.labels(chain)
  places = np.arange(-2, 4)
  distances, rows, columns = features.crop_labels(truth, places, places)
  assert (distances[:2] == -1).all()
  assert (distances[:, :2] == -1).all()
  assert (np.diagonal(distances) == -1).all()
  assert distances[2, 3] == truth.distances[0, 1]
  np.testing.assert_array_equal(rows, columns)
  assert (rows[:, :2] == -1).all()
  assert rows[1, 2:].tolist() == truth.structure[:4].tolist()
