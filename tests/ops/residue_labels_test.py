"""Secondary structure against ideal chains, ubiquitin and biotite."""

import biotite.structure as biotite
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.data import proteins
from dl_lectures.ops import geometry, residue_labels

build = jax.jit(geometry.backbone)
LENGTH = 20


def ideal(phi, psi):
  torsions = np.tile(np.deg2rad([phi, psi, 180.0]), (LENGTH, 1))
  return np.asarray(build(jnp.asarray(torsions, jnp.float32)))


@pytest.fixture(scope='module')
def chains():
  return proteins.load()


def donors(chain):
  return np.array([letter != 'P' for letter in chain.sequence])


def test_an_ideal_helix_is_bound_four_residues_on():
  bonds = residue_labels.hydrogen_bonds(ideal(-60, -45))
  assert {(j - i) for i, j in np.argwhere(bonds)} <= {3, 4, 5}
  assert all(bonds[i, i + 4] for i in range(LENGTH - 4))
  label = residue_labels.secondary_structure(ideal(-60, -45))
  # The first residue begins no second turn.
  assert label.tolist() == [0] + [1] * (LENGTH - 2) + [0]


def test_a_strand_alone_is_none():
  assert not residue_labels.secondary_structure(ideal(-120, 130)).any()


def test_bonds_need_a_donor_and_an_unbroken_chain():
  helix = ideal(-60, -45)
  donor = np.ones(LENGTH, bool)
  donor[10] = False
  assert not residue_labels.hydrogen_bonds(helix, donor)[:, 10].any()
  breaks = np.zeros(LENGTH, bool)
  breaks[10] = True
  bonds = residue_labels.hydrogen_bonds(helix, breaks=breaks)
  # Neither O of 9 nor H of 10 has a place.
  assert not bonds[9].any()
  assert not bonds[:, 10].any()


def test_ubiquitin_as_published(chains):
  # DSSP of the crystal structure; B counts as strand, G as helix.
  dssp = (
    '-EEEEEETTS-EEEEE--TTSBHHHHHHHHHHHH---GGGEEEEETTEE--TTSBTGGGT--TT-'
    'EEEEEE-S---'
  )
  chain = chains['1ubi_A']
  truth = [{'H': 1, 'G': 1, 'E': 2, 'B': 2}.get(s, 0) for s in dssp]
  found = residue_labels.secondary_structure(chain.backbone, donors(chain))
  same = found[: len(truth)] == truth
  assert same.mean() > 0.9


def test_most_residues_agree_with_another_method(chains):
  # P-SEA looks at CA atoms alone (Labesse et al. 1997).
  same = []
  for name in proteins.split('test'):
    chain = chains[name]
    atoms = biotite.AtomArray(len(chain.sequence))
    atoms.coord = chain.backbone[:, 1]
    for label, value in (('atom_name', 'CA'), ('res_name', 'ALA')):
      atoms.set_annotation(label, np.full(len(chain.sequence), value))
    atoms.set_annotation('chain_id', np.full(len(chain.sequence), 'A'))
    atoms.res_id = np.arange(len(chain.sequence))
    other = biotite.annotate_sse(atoms)
    mine = residue_labels.secondary_structure(chain.backbone, donors(chain))
    same.append(np.array(['c', 'a', 'b'])[mine] == other)
  assert np.concatenate(same).mean() > 0.75


def test_neighbours_by_hand():
  cb = np.array([[0.0, 0, 0], [9, 0, 0], [18, 0, 0], [100, 0, 0]])
  assert residue_labels.neighbours(cb).tolist() == [1, 2, 1, 0]
  crowd = np.zeros((40, 3))
  assert residue_labels.surface(crowd).tolist() == [9] * 40
  assert residue_labels.surface(cb).tolist() == [0] * 4
