"""Beliefs made of a structure that is known, more or less blurred.

They show what a potential and a descent can do whatever a network says: from
exact distances, from noise, from contacts alone (slides, deck 000, "Folding
Proteins with AlphaFold": distances are richer than contacts). Ours; nothing
like it is in Senior et al., Nature 577, 2020.

>>> from dl_lectures.data import proteins
>>> truth = make_truth(proteins.load()['1crn_A'], 64)
>>> believed = blurred_truth(Blur(noise=1.0), truth, jax.random.key(0))
>>> believed.distances.shape, believed.torsions.mean.shape
((64, 64, 64), (64, 2))
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.data import proteins
from dl_lectures.ops import distogram, geometry
from dl_lectures.ops.potentials import Beliefs, wrap
from dl_lectures.types import Array, Key, check_fields

# Far apart in the sequence.
_LONG_RANGE = 12
# Neighbours' distances are nearly the same in all proteins: less noise.
_NEIGHBOURS, _NEIGHBOUR_NOISE = 4, 0.25


class Truth(NamedTuple):
  """A known structure; padded with zeros.

  Attributes:
    cb: [L, 3], angstrom; CA of glycine.
    ca: [L, 3].
    torsions: [L, 2], phi and psi.
  """

  cb: Array
  ca: Array
  torsions: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blur:
  """What is done to the truth before it is believed."""

  noise: float = 0.0  # angstrom, of each distance's mean
  correlation: float = 0.0  # residues over which the noise is alike
  uninformative: float = 0.0  # share of long-range pairs of which is no belief
  distances: bool = True  # whether any distance is told
  contacts: bool = False  # told are only contacts, nearer than 8 angstrom
  torsions: bool = True  # whether any torsion is told
  torsion_error: float = 20.0  # degrees, of each torsion's mean

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    check_fields(self, 'noise correlation torsion_error', 0)
    check_fields(self, 'uninformative', 0, 1)


def make_truth(protein: proteins.Chain, size: int) -> Truth:
  """The structure of a protein, padded to `size` residues."""
  pad = [(0, size - len(protein.sequence)), (0, 0)]
  atoms = jnp.asarray(np.pad(protein.backbone, [*pad, (0, 0)]))
  torsions, known = geometry.torsions(
    atoms, jnp.asarray(np.pad(protein.breaks, pad[0]))
  )
  return Truth(
    cb=jnp.asarray(np.pad(protein.cb, pad)),
    ca=atoms[:, 1],
    torsions=jnp.where(known, torsions, 0.0)[:, :2],
  )


def blurred_truth(blur: Blur, truth: Truth, key: Key) -> Beliefs:
  """Beliefs made from a structure that is known.

  Args:
    blur: how far from the truth they are.
    truth: the structure.
    key: consumed.
  """
  length = len(truth.cb)
  far, hidden, turned = jax.random.split(key, 3)
  apart = _separation(length)
  distance = distogram.pair_distances(truth.cb) + distance_noise(
    blur, length, far
  )
  believed = distogram.blurred(distance, max(0.5, blur.noise))
  if blur.contacts:
    believed = distogram.contacts_only(believed)
  told = jax.random.uniform(hidden, (length, length)) >= blur.uninformative
  told = jnp.triu(told, 1) | jnp.triu(told, 1).T | (apart < _LONG_RANGE)
  told &= blur.distances
  even = jnp.full_like(believed, -np.log(distogram.BINS))
  error = jnp.deg2rad(blur.torsion_error)
  mean = truth.torsions
  mean += error * jax.random.normal(turned, mean.shape)
  # The concentration of just this error.
  kappa = distogram.concentration(jnp.exp(-(error**2) / 2)) * blur.torsions
  return Beliefs(
    jnp.where(told[..., None], believed, even),
    None,
    distogram.VonMises(wrap(mean), jnp.full(mean.shape, kappa)),
  )


def distance_noise(blur: Blur, length: int, key: Key) -> Array:
  """[L, L] symmetric, angstrom; correlated along both of its axes."""
  noise = jax.random.normal(key, (length, length))
  noise = jnp.triu(noise, 1) + jnp.triu(noise, 1).T
  if blur.correlation:
    place = np.arange(length)
    near = np.exp(-(((place[:, None] - place) / blur.correlation) ** 2))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    smooth = jnp.asarray(near, jnp.float32)
    noise = smooth @ noise @ smooth.T
  neighbours = _separation(length) < _NEIGHBOURS
  return noise * jnp.where(
    neighbours, _NEIGHBOUR_NOISE * blur.noise, blur.noise
  )


def _separation(length: int) -> np.ndarray:
  """|i - j|, [L, L]."""
  place = np.arange(length)
  return np.abs(place[:, None] - place[None])
