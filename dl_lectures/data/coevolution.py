"""Alignments of proteins that never lived, for structures that exist.

Natural alignments come from databases of hundreds of gigabytes. Here a Potts
model is written down in which residues that touch prefer each other, and its
sequences are drawn: alignments without end, of any depth, whose contacts are
known. How many sequences there are decides what can be learned from them, as
in nature (slides, deck 000, "Folding Proteins with AlphaFold": it "depends on
finding homologous sequences").

What is as in nature: contacts show with unlike strength, some not at all; some
pairs depend on each other that are far apart (contacts of complexes); columns
are conserved unlike; buried ones like to be hydrophobic; rows end early, have
gaps and insertions. What is not: the history. All rows are drawn independently
of each other, so that nearly every one counts in full.

>>> from dl_lectures.data import proteins
>>> chain = proteins.load()['1crn_A']
>>> made = alignment(chain, 20, np.random.default_rng(0))
>>> made.query == chain.sequence, made.rows.shape
(True, (20, 46))
"""

import dataclasses

import numpy as np

from dl_lectures.data.proteins import GAP, LETTERS, Alignment, Chain, encode
from dl_lectures.ops.coevolution import Potts

RESIDUES = 20

# Hydrophobicity (Kyte & Doolittle, Journal of Molecular Biology 157, 1982),
# charge, and volume in cubic angstrom (Zamyatnin, 1972), in LETTERS' order.
_HYDROPHOBIC = np.array([
  1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5,
  3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2,
])  # fmt: skip
_CHARGE = np.array([LETTERS[i] in 'RK' for i in range(RESIDUES)], float)
_CHARGE -= np.array([LETTERS[i] in 'DE' for i in range(RESIDUES)])
_VOLUME = np.array([
  88.6, 173.4, 114.1, 111.1, 108.5, 143.8, 138.4, 60.1, 153.2, 166.7,
  166.7, 168.6, 162.9, 189.9, 112.7, 89.0, 116.1, 227.8, 193.6, 140.0,
])  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
  """How strongly a structure shows in its sequences.

  The strength is such that the best L/2 pairs of mean-field DCA are contacts
  about every second time at a depth of 256.
  """

  strength: float = 1.0  # of the couplings of residues that touch
  chemistry: float = 0.4  # share of it that is charge, size, hydrophobicity
  silent: float = 0.35  # share of contacts that do not show
  false: float = 0.12  # pairs per residue that are coupled and do not touch
  conservation: float = 1.2  # mean preference of the native letter
  burial: float = 0.8  # preference of buried columns for hydrophobic letters
  sweeps: int = 10  # of Gibbs sampling
  gaps: float = 0.05  # share of letters that are gaps, on average
  insertions: float = 0.02  # share of columns that letters are left out before


def potts(chain: Chain, random: np.random.Generator, law: Law) -> Potts:
  """A Potts model whose couplings are a structure's contacts.

  Couplings fade with the distance of CB atoms, from 5 angstrom on, and end at
  12. Their letters are in part the same chemistry everywhere, in part each
  pair's own.

  Args:
    chain: of L residues.
    random: consumed.
    law: how strong.

  Returns:
    The model, of 20 states.
  """
  length = len(chain.sequence)
  distance = np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)
  upper = np.triu(np.ones((length, length), bool), 1)
  near = np.exp(-np.maximum(distance - 5, 0) / 2.5) * (distance < 12)
  # Neighbours in the chain always touch; they would drown the others.
  apart = np.arange(length)[None] - np.arange(length)[:, None]
  near[apart < 3] *= 0.5
  near *= random.gamma(4, 1 / 4, near.shape)
  near *= random.random(near.shape) >= law.silent
  far = upper & (distance > 15)
  share = law.false * length / max(far.sum(), 1)
  coupled = far & (random.random(near.shape) < share)
  near = np.where(coupled, random.random(near.shape), near)
  first, second = np.nonzero(upper & (near > 0.1))

  own = random.normal(size=(len(first), RESIDUES, RESIDUES))
  chemistry = (1 - law.chemistry) * own + law.chemistry * _chemistry()
  block = near[first, second, None, None] * chemistry
  couplings = np.zeros((length, length, RESIDUES, RESIDUES), np.float32)
  couplings[first, second] = law.strength * block
  couplings[second, first] = couplings[first, second].transpose(0, 2, 1)

  native = encode(chain.sequence)
  buried = np.sum(distance < 10, axis=1)
  buried = (buried - buried.mean()) / (buried.std() + 1e-6)
  kept = law.conservation * random.gamma(2, 1 / 2, length)
  fields = kept[:, None] * _likeness()[np.minimum(native, RESIDUES - 1)]
  fields += law.burial * buried[:, None] * (_HYDROPHOBIC / 4)[None]
  return Potts(fields.astype(np.float32), couplings)


def _chemistry() -> np.ndarray:
  """What two letters in contact gain, [20, 20], of mean 0 and deviation 1."""
  hydrophobic = _HYDROPHOBIC / np.std(_HYDROPHOBIC)
  size = (_VOLUME - _VOLUME.mean()) / _VOLUME.std()
  gain = np.multiply.outer(hydrophobic, hydrophobic)
  gain -= 4 * np.multiply.outer(_CHARGE, _CHARGE)
  # A large one leaves room for a small one.
  gain -= np.multiply.outer(size, size)
  gain -= gain.mean(0, keepdims=True)
  gain -= gain.mean(1, keepdims=True)
  return gain / gain.std()


def _likeness() -> np.ndarray:
  """What a letter gains where another is native, [20, 20]: 1 for itself."""
  traits = np.stack([_HYDROPHOBIC / 3, 1.5 * _CHARGE, _VOLUME / 40])
  off = np.sum((traits[:, :, None] - traits[:, None]) ** 2, axis=0)
  return np.exp(-off / 4) + np.eye(RESIDUES)


def gibbs(model: Potts, start: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
  """Gibbs sampling, all rows side by side.

  Args:
    model: of L residues and q states; couplings that are all zero cost nothing.
    start: [N, L], states.
    uniforms: [sweeps, L, N], numbers between 0 and 1: one decides about one
      letter.

  Returns:
    [N, L] int8.
  """
  rows = np.array(start.T, np.intp)  # [L, N]: a column lies together
  linked = [np.flatnonzero(pair.any((1, 2))) for pair in model.couplings]
  last = model.fields.shape[1] - 1
  for sweep in uniforms:
    for i, others in enumerate(linked):
      logits = np.tile(model.fields[i], (rows.shape[1], 1))
      for j in others:
        logits += model.couplings[j, i].take(rows[j], axis=0)
      np.exp(logits, out=logits)
      total = np.cumsum(logits, axis=1)
      wanted = sweep[i] * total[:, last]
      np.sum(total[:, :last] < wanted[:, None], axis=1, out=rows[i])
  return rows.T.astype(np.int8)


def alignment(
  chain: Chain,
  depth: int,
  random: np.random.Generator,
  law: Law | None = None,
) -> Alignment:
  """An alignment of drawn sequences under the chain's own.

  Args:
    chain: of L residues.
    depth: N, how many rows; nearly all of them count in full.
    random: consumed.
    law: how strongly the structure shows.

  Returns:
    Rows, the first of which is the chain's sequence, and insertions.
  """
  law = Law() if law is None else law
  length = len(chain.sequence)
  model = potts(chain, random, law)
  start = random.integers(RESIDUES, size=(depth - 1, length))
  uniforms = random.random((law.sweeps, length, depth - 1), np.float32)
  rows = gibbs(model, start, uniforms)
  rows[_gaps(rows.shape, random, law)] = GAP
  deletions = random.random(rows.shape) < law.insertions * random.gamma(
    0.5, 2.0, (1, length)
  )
  native = encode(chain.sequence)[None]
  return Alignment(
    query=chain.sequence,
    rows=np.concatenate([native, rows]),
    deletions=np.concatenate([np.zeros_like(native), deletions]).astype(
      np.int32
    ),
  )


def _gaps(
  shape: tuple[int, int], random: np.random.Generator, law: Law
) -> np.ndarray:
  """[N, L] bool: of each row one run, more often at its ends."""
  depth, length = shape
  middle = random.beta(0.5, 0.5, (depth, 1)) * length
  half = random.exponential(law.gaps * length / 2, (depth, 1))
  place = np.arange(length)[None] + 0.5
  return np.abs(place - middle) < half


def thinned(
  made: Alignment, depth: int, random: np.random.Generator
) -> Alignment:
  """The query and some of the other rows, drawn without replacement."""
  some = 1 + random.permutation(len(made.rows) - 1)[: depth - 1]
  kept = np.concatenate([[0], some])
  return made._replace(rows=made.rows[kept], deletions=made.deletions[kept])
