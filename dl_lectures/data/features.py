"""What AlphaFold's network reads of an alignment, and what it is to say.

The features of Senior et al. (Nature 577, 2020, Methods; the README of their
code), of an alignment alone: no database and no other program is asked. Left
out are what HHblits and PSI-BLAST would add.

>>> from dl_lectures.data import coevolution, proteins
>>> chain = proteins.load()['1crn_A']
>>> made = coevolution.alignment(chain, 20, np.random.default_rng(0))
>>> read = features(made)
>>> read.pairs.shape, read.residues.shape
((46, 46, 3), (46, 53))
>>> rows, columns = np.arange(-8, 8), np.arange(40, 56)
>>> part = crop(read, rows, columns)
>>> part.pairs.shape, int(part.row_mask.sum()), int(part.column_mask.sum())
((16, 16, 3), 8, 6)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.data.proteins import Alignment, Chain, encode
from dl_lectures.ops import coevolution, distogram, geometry, residue_labels

TORSION_BINS = 36
_DEGREES = 2 * np.pi / TORSION_BINS
# Middles of the torsions' bins, radians.
TORSION_CENTRES = (-np.pi + _DEGREES * (np.arange(TORSION_BINS) + 0.5)).astype(
  np.float32
)
UNKNOWN = -1
# Of a pair that are read with its couplings and beside them.
SCORES = 4

# Couplings this far apart in the chain, and farther, are the scale of scores.
_APART = 4
_INDEX_BITS = 5


class Features(NamedTuple):
  """Of a chain of L residues.

  Attributes:
    pairs: [L, L, P] float32; float16 with couplings, of which there are many.
    residues: [L, C] float32.
  """

  pairs: np.ndarray
  residues: np.ndarray


class Labels(NamedTuple):
  """What is true of a chain of L residues.

  Attributes:
    distances: [L, L] uint8, bins of CB distances.
    torsions: [L] int32, 36 bins of phi times 36 of psi; -1 where unknown.
    structure: [L] int32, coil, helix, strand.
    surface: [L] int32, from exposed to buried.
  """

  distances: np.ndarray
  torsions: np.ndarray
  structure: np.ndarray
  surface: np.ndarray


class Crop(NamedTuple):
  """Rows i and columns j of a chain's pairs; see `nets.distogram.Crop`."""

  pairs: np.ndarray
  row_pairs: np.ndarray
  column_pairs: np.ndarray
  rows: np.ndarray
  columns: np.ndarray
  row_mask: np.ndarray
  column_mask: np.ndarray
  offset: np.ndarray


def features(made: Alignment, couplings: bool = False) -> Features:
  """The features of an alignment.

  Of a pair: the size of its coupling, corrected, in units of its deviation
  over the chain; the same in log of the size; the gap matrix; if asked for, the
  size of its covariances, corrected, likewise in units of its deviation (ours),
  and the 441 couplings themselves, in units of theirs. Of a residue: its
  letter, the reweighted profile and its entropy, the deletion probability, how
  many rows there are and how many count, its place.

  Args:
    made: the alignment, of L columns.
    couplings: whether P is 445 instead of 3, and C 74 instead of 53.
  """
  rows, length = made.rows, made.rows.shape[1]
  weights, strict = coevolution.weights_at(rows, (0.62, 0.8))
  model = coevolution.mean_field(rows, strict)
  size = coevolution.frobenius(model.couplings)
  pairs = [
    _scaled(coevolution.corrected(size))[..., None],
    np.log1p(size)[..., None],
    coevolution.gap_matrix(rows)[..., None],
  ]
  profile = coevolution.profile(rows, weights)
  entropy = -np.sum(profile * np.log(np.maximum(profile, 1e-9)), axis=1)
  depth = np.log([len(rows), weights.sum()]) / np.log(10_000)
  residues = [
    coevolution.one_hot(encode(made.query), coevolution.LETTERS - 1),
    profile,
    entropy[:, None] / np.log(coevolution.LETTERS),
    coevolution.deletion_probability(made.deletions)[:, None],
    np.tile(depth, (length, 1)),
    _places(length),
  ]
  if couplings:
    covariance = coevolution.covariance_size(rows, strict)
    pairs.append(_scaled(coevolution.corrected(covariance))[..., None])
    each = _scaled(coevolution.zero_sum(model.couplings))
    pairs.append(each.reshape(length, length, -1))
    residues.append(model.fields)
  return Features(
    np.concatenate(pairs, axis=-1, dtype='e' if couplings else 'f'),
    np.concatenate(residues, axis=-1, dtype=np.float32),
  )


def _scaled(pairs: np.ndarray) -> np.ndarray:
  """In units of the deviation of pairs that are not neighbours, if any is."""
  place = np.arange(len(pairs))
  far = np.abs(place[:, None] - place[None]) >= _APART
  spread = pairs[far].std() if far.any() else 0.0
  return pairs / spread if spread > 1e-6 else pairs


def background(sequence: str) -> Features:
  """What the reference network reads: length, places, where glycine is.

  Glycine matters since distances are those of its CA.
  """
  length = len(sequence)
  glycine = np.array([letter == 'G' for letter in sequence], np.float32)
  whole = np.full((length, 1), length / 100 - 1, np.float32)
  residues = [
    glycine[:, None],
    np.ones((length, 1), np.float32),
    whole,
    _places(length),
  ]
  return Features(
    np.zeros((length, length, 0), np.float32),
    np.concatenate(residues, axis=-1, dtype=np.float32),
  )


def _places(length: int) -> np.ndarray:
  """[L, 6]: the index, around 0, and its last bits."""
  place = np.arange(length)
  bits = (place[:, None] >> np.arange(_INDEX_BITS)) & 1
  return np.concatenate([(place[:, None] - 100) / 100, bits], axis=1)


def labels(chain: Chain) -> Labels:
  """What is true of a chain.

  >>> from dl_lectures.data import proteins
  >>> truth = labels(proteins.load()['1crn_A'])
  >>> truth.distances.shape, int(truth.torsions[0]), int(truth.structure[10])
  ((46, 46), -1, 1)
  """
  length = len(chain.sequence)
  distance = np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)
  pad = (0, -length % 128)
  torsions, known = _torsions(
    jnp.asarray(np.pad(chain.backbone, [pad, (0, 0), (0, 0)])),
    jnp.asarray(np.pad(chain.breaks, pad)),
  )
  bins = np.floor((np.asarray(torsions)[:length, :2] + np.pi) / _DEGREES)
  bins = np.clip(bins, 0, TORSION_BINS - 1).astype(np.int32)
  # With padding, psi of the last residue seems to be known.
  known = np.asarray(known)[:length, :2].all(axis=1) & (
    np.arange(length) < length - 1
  )
  donors = np.array([letter != 'P' for letter in chain.sequence])
  return Labels(
    distances=np.searchsorted(
      distogram.EDGES, distance.astype(np.float32), side='right'
    ).astype(np.uint8),
    torsions=np.where(known, bins[:, 0] * TORSION_BINS + bins[:, 1], UNKNOWN),
    structure=residue_labels.secondary_structure(
      chain.backbone, donors, chain.breaks
    ),
    surface=residue_labels.surface(chain.cb),
  )


_torsions = jax.jit(geometry.torsions)


def crop(
  of: Features,
  rows: np.ndarray,
  columns: np.ndarray,
  around: int | None = None,
) -> Crop:
  """A crop of features; where it reaches beyond the chain they are 0.

  Args:
    of: a chain of L residues.
    rows: [S], places of i in the chain, one after the other; any numbers.
    columns: [S], of j.
    around: how many of the features are read of rows among themselves, and of
      columns; all by default.
  """
  row_mask, column_mask = (
    _inside(at, len(of.residues)) for at in (rows, columns)
  )
  i, j = np.where(row_mask, rows, 0), np.where(column_mask, columns, 0)

  some = of.pairs[..., :around]

  def pairs(these, a, b, there, here):
    found = these[np.ix_(a, b)]
    found[~(there[:, None] & here)] = 0
    return found

  return Crop(
    pairs=pairs(of.pairs, i, j, row_mask, column_mask),
    row_pairs=pairs(some, i, i, row_mask, row_mask),
    column_pairs=pairs(some, j, j, column_mask, column_mask),
    rows=of.residues[i] * row_mask[:, None],
    columns=of.residues[j] * column_mask[:, None],
    row_mask=row_mask,
    column_mask=column_mask,
    offset=np.asarray(columns[0] - rows[0], np.int32),
  )


def crop_labels(
  of: Labels, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Distances' bins [S, S], and of rows and columns the other labels [3, S].

  All are int32; -1 beyond the chain, and for the distance of a residue to
  itself.
  """
  length = len(of.torsions)
  row_mask, column_mask = _inside(rows, length), _inside(columns, length)
  i, j = np.where(row_mask, rows, 0), np.where(column_mask, columns, 0)
  there = row_mask[:, None] & column_mask[None]
  there &= rows[:, None] != columns[None]
  single = np.stack([of.torsions, of.structure, of.surface])
  return (
    np.where(there, of.distances[np.ix_(i, j)].astype(np.int32), UNKNOWN),
    np.where(row_mask[None], single[:, i], UNKNOWN),
    np.where(column_mask[None], single[:, j], UNKNOWN),
  )


def _inside(places: np.ndarray, length: int) -> np.ndarray:
  return (places >= 0) & (places < length)
