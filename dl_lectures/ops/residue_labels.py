"""What can be said of single residues of a known structure, to be learned.

Secondary structure by hydrogen bonds, as DSSP finds it (Kabsch & Sander,
"Dictionary of protein secondary structure", Biopolymers 22, 1983), from the
backbone alone: O and H are put where the bonds around them ask for. And how
buried a residue is, by its neighbours: for the solvent-accessible surface one
would need side chains.

>>> zigzag = np.arange(12.0).reshape(4, 3)[:, :, None] * [3.0, 0.1, 0.0]
>>> secondary_structure(zigzag).tolist()  # nothing is near anything
[0, 0, 0, 0]
"""

import numpy as np

STATES = ('coil', 'helix', 'strand')
COIL, HELIX, STRAND = range(3)
SURFACE_CLASSES = 10

# Charges of .42 e and .20 e, and 332 kcal A / (mol e^2) (page 2581).
_COULOMB = 0.42 * 0.20 * 332
_BOND = -0.5  # kcal / mol; below it is a bond

# Neighbours per class of exposure: 0 to 2 are the most exposed.
_STEP = 3


def hydrogen_bonds(
  backbone: np.ndarray,
  donors: np.ndarray | None = None,
  breaks: np.ndarray | None = None,
) -> np.ndarray:
  """Which C=O is bound to which N-H, [L, L] bool: [i, j] is C=O of i, N-H of j.

  Args:
    backbone: [L, 3, 3], N, CA and C in angstrom.
    donors: [L] bool, who has an H at its N: all but proline; all by default.
    breaks: [L] bool, no bond leads here from the residue before.
  """
  length = len(backbone)
  n, ca, c = np.moveaxis(np.asarray(backbone, np.float64), 1, 0)
  donors = np.ones(length, bool) if donors is None else donors.copy()
  whole = np.ones(length, bool)
  whole[0] = False
  if breaks is not None:
    whole &= ~breaks
  # O lies opposite to CA and the next N, H opposite to that O.
  away = _unit(c[:-1] - ca[:-1]) + _unit(c[:-1] - n[1:])
  o = c[:-1] + 1.23 * _unit(away)
  h = n[1:] + _unit(c[:-1] - o)
  found = np.zeros((length, length), bool)
  acceptor, donor = np.arange(length - 1), np.arange(1, length)

  def inverse(a, b):
    return 1 / np.maximum(np.linalg.norm(a[:, None] - b[None], axis=-1), 0.5)

  energy = inverse(o, n[1:]) + inverse(c[:-1], h)
  energy -= inverse(o, h) + inverse(c[:-1], n[1:])
  bound = _COULOMB * energy < _BOND
  bound &= whole[1:, None] & (donors & whole)[None, 1:]
  # Residues that share the peptide bond are no partners.
  bound &= np.abs(acceptor[:, None] - donor[None]) >= 2
  found[:-1, 1:] = bound
  return found


def secondary_structure(
  backbone: np.ndarray,
  donors: np.ndarray | None = None,
  breaks: np.ndarray | None = None,
) -> np.ndarray:
  """Coil, helix or strand: DSSP's H, G, I are helix, its E and B strand.

  Args:
    backbone: [L, 3, 3], angstrom.
    donors: as for `hydrogen_bonds`.
    breaks: likewise.

  Returns:
    [L] int32: 0 coil, 1 helix, 2 strand.
  """
  bonds = hydrogen_bonds(backbone, donors, breaks)
  length = len(bonds)
  strand = np.zeros(length, bool)
  for i, j in np.argwhere(_bridges(bonds)):
    strand[[i, j]] = True
  alpha = _helix(bonds, 4)
  other = _helix(bonds, 3) | _helix(bonds, 5)
  label = np.where(other, HELIX, COIL)
  label = np.where(strand, STRAND, label)
  return np.where(alpha, HELIX, label).astype(np.int32)


def _helix(bonds: np.ndarray, turn: int) -> np.ndarray:
  """Two turns in a row, at i - 1 and i, make i to i + turn - 1 a helix."""
  length = len(bonds)
  turns = np.zeros(length, bool)
  if length > turn:
    turns[:-turn] = np.diagonal(bonds, turn)
  found = np.zeros(length, bool)
  for i in np.flatnonzero(turns[1:] & turns[:-1]) + 1:
    found[i : i + turn] = True
  return found


def _bridges(bonds: np.ndarray) -> np.ndarray:
  """[L, L] bool: i and j lie side by side in two strands (page 2583)."""
  length = len(bonds)
  b = np.pad(bonds, 1)
  before, here, after = (
    slice(0, length),
    slice(1, length + 1),
    slice(2, length + 2),
  )
  # bond(i - 1, j) and bond(j, i + 1), or the same with i and j exchanged.
  one = b[before, here] & b[here, after].T
  parallel = one | one.T
  # bond(i, j) and bond(j, i), or bond(i - 1, j + 1) and bond(j - 1, i + 1).
  facing = b[here, here] & b[here, here].T
  between = b[before, after] & b[before, after].T
  place = np.arange(length)
  apart = np.abs(place[:, None] - place[None]) >= 3
  return (parallel | facing | between) & apart


def neighbours(cb: np.ndarray, radius: float = 10.0) -> np.ndarray:
  """How many other CB are near each, [L] int32.

  Args:
    cb: [L, 3], angstrom.
    radius: angstrom.
  """
  distance = np.linalg.norm(cb[:, None] - cb[None], axis=-1)
  return (np.sum(distance < radius, axis=1) - 1).astype(np.int32)


def surface(cb: np.ndarray) -> np.ndarray:
  """Classes from the most exposed, 0, to the most buried, 9: [L] int32.

  Args:
    cb: [L, 3], angstrom.
  """
  return np.minimum(neighbours(cb) // _STEP, SURFACE_CLASSES - 1)


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
