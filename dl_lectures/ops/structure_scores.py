"""How well a model of a protein fits the truth, scored as at CASP.

All scores compare residue i with residue i: the model is of the same sequence,
and nothing is aligned (a score with free alignment, TM-align's, is higher by up
to .02). Models may be padded: `mask` says which residues count.

- TM-score (Zhang & Skolnick, Proteins 57, 2004): 0 to 1; above .5 the fold is
  right, unrelated proteins have .17.
- GDT_TS (Zemla, Nucleic Acids Research 31, 2003): 0 to 100, CASP's main score.
- lDDT (Mariani et al., Bioinformatics 29, 2013): 0 to 1, without superposition
  and blind to handedness.
- Precision of the L, L/2 or L/5 likeliest contacts; Q3.

Slides: deck 000, "CASP13 Results".

>>> key = jax.random.key(0)
>>> native = jnp.cumsum(jax.random.normal(key, (30, 3)), axis=0) * 2
>>> scores = superposed(native @ jnp.diag(jnp.array([-1.0, -1.0, 1.0])), native)
>>> bool(scores.tm > 0.999), bool(scores.gdt_ts > 99.9)
(True, True)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.ops import distogram, geometry
from dl_lectures.types import Array

_GDT_CUTOFFS = (1.0, 2.0, 4.0, 8.0)
_LDDT_CUTOFFS = (0.5, 1.0, 2.0, 4.0)

# A superposition is found again from the residues that it brings together;
# after so many rounds hardly any still changes.
_ROUNDS = 8
_SHORTEST_FRAGMENT = 4


class Scores(NamedTuple):
  """What the best superpositions give; each score has its own.

  Attributes:
    tm: [] float32, TM-score, 0 to 1.
    gdt_ts: [] float32, 0 to 100.
    rmsd: [] float32, of all residues, angstrom.
  """

  tm: Array
  gdt_ts: Array
  rmsd: Array


def tm_scale(length: Array) -> Array:
  """d0: the distance at which a residue counts half, angstrom.

  1.24 (L - 15)^(1/3) - 1.8, at least .5.

  >>> round(float(tm_scale(jnp.array(115))), 3)
  3.956
  """
  beyond = jnp.maximum(jnp.asarray(length, jnp.float32) - 15, 0.0)
  return jnp.maximum(1.24 * jnp.cbrt(beyond) - 1.8, 0.5)


def superposed(
  model: Array, native: Array, mask: Array | None = None, starts: int = 32
) -> Scores:
  """TM-score, GDT_TS and RMSD, by search over superpositions.

  As the original program does, fragments of the chain, of all of it, a half, a
  quarter and so on, are superposed; then, over and over, the residues that have
  come near. Every superposition on the way counts, for every score.

  Args:
    model: [L, 3], CA atoms in angstrom.
    native: [L, 3].
    mask: [L] bool, the residues that count; all by default. At least 4.
    starts: how many fragments of each length are tried.

  Returns:
    The scores.
  """
  size = model.shape[0]
  mask = jnp.ones(size, bool) if mask is None else mask
  length = jnp.sum(mask)
  rank = jnp.cumsum(mask)[None] - 1
  scale = tm_scale(length)

  def score(square: Array) -> Array:
    tm = jnp.sum(mask / (1 + square / scale**2)) / length
    within = [
      jnp.sum(mask & (square <= cutoff**2)) / length for cutoff in _GDT_CUTOFFS
    ]
    return jnp.stack([tm, *within])

  def squares(weights: Array) -> Array:
    moved = geometry.move(geometry.superpose(model, native, weights), model)
    return jnp.sum((moved - native) ** 2, axis=-1)

  def search(weights: Array, radius: Array) -> Array:
    def again(_, carry):
      best, square = carry
      # Of the residues at least three, or there is nothing to superpose.
      third = jnp.sort(jnp.where(mask, square, jnp.inf))[2]
      near = mask & (square <= jnp.maximum(radius**2, third))
      square = squares(near.astype(jnp.float32))
      return jnp.maximum(best, score(square)), square

    square = squares(weights)
    return jax.lax.fori_loop(0, _ROUNDS, again, (score(square), square))[0]

  fragments = []
  part = size
  divisor = 1
  while part >= _SHORTEST_FRAGMENT or divisor == 1:
    span = jnp.maximum(length // divisor, _SHORTEST_FRAGMENT)
    count = min(starts, size) if divisor > 1 else 1
    first = jnp.round(jnp.linspace(0.0, 1.0, count) * (length - span))
    first = first[:, None]
    inside = (rank >= first) & (rank < first + span)
    fragments.append(inside & mask[None])
    part //= 2
    divisor *= 2
  weights = jnp.concatenate(fragments).astype(jnp.float32)
  radii = jnp.stack([scale, *map(jnp.float32, _GDT_CUTOFFS)])
  found = jax.vmap(lambda w: jax.vmap(lambda r: search(w, r))(radii))(weights)
  best = jnp.max(found, axis=(0, 1))
  whole = mask.astype(jnp.float32)
  return Scores(
    tm=best[0],
    gdt_ts=100 * jnp.mean(best[1:]),
    rmsd=geometry.rmsd(model, native, whole),
  )


def lddt(
  model: Array,
  native: Array,
  mask: Array | None = None,
  radius: float = 15.0,
) -> Array:
  """The share of the native's short distances that the model has too.

  Args:
    model: [L, 3].
    native: [L, 3].
    mask: [L] bool; all by default.
    radius: native distances below it count, angstrom.

  Returns:
    [] float32, 0 to 1: of all such pairs the shares that are kept within .5,
    1, 2 and 4 angstrom, and of these shares the mean.

  >>> native = jnp.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0]])
  >>> model = native.at[2, 0].add(1.5)  # one pair of three is kept
  >>> round(float(lddt(model, native)), 3)
  0.667
  """
  size = native.shape[0]
  mask = jnp.ones(size, bool) if mask is None else mask
  truth = distogram.pair_distances(native)
  off = jnp.abs(distogram.pair_distances(model) - truth)
  pairs = jnp.triu(mask[:, None] & mask[None, :], 1) & (truth < radius)
  kept = [jnp.sum(pairs & (off < cutoff)) for cutoff in _LDDT_CUTOFFS]
  return jnp.mean(jnp.stack(kept)) / jnp.maximum(jnp.sum(pairs), 1)


def contact_precision(
  score: Array,
  contact: Array,
  mask: Array | None = None,
  *,
  divisor: int = 1,
  nearest: int = 6,
  farthest: int | None = None,
) -> Array:
  """Of the likeliest L / divisor contacts, the share that is true.

  Args:
    score: [L, L], higher is likelier; the upper triangle is read.
    contact: [L, L] bool, which pairs are.
    mask: [L] bool, the residues that count; all by default.
    divisor: 1, 2 or 5 for the best L, L/2 or L/5 pairs.
    nearest: pairs at least so far apart in the sequence: 6 short, 12 medium,
      24 long.
    farthest: and at most so far; without end by default.

  Returns:
    [] float32, 0 to 1; where there are fewer pairs, of all of them.

  >>> score = jnp.zeros((8, 8)).at[0, 7].set(2.0).at[1, 7].set(1.0)
  >>> contact = jnp.zeros((8, 8), bool).at[0, 7].set(True)
  >>> float(contact_precision(score, contact, divisor=4))
  0.5
  """
  size = score.shape[0]
  mask = jnp.ones(size, bool) if mask is None else mask
  apart = jnp.arange(size)[None, :] - jnp.arange(size)[:, None]
  farthest = size if farthest is None else farthest
  pairs = mask[:, None] & mask[None, :] & (apart >= nearest)
  pairs &= apart <= farthest
  ranked = jnp.argsort(-jnp.where(pairs, score, -jnp.inf).ravel(), stable=True)
  count = jnp.minimum(jnp.maximum(jnp.sum(mask) // divisor, 1), jnp.sum(pairs))
  taken = jnp.arange(size * size) < count
  hits = jnp.sum(taken & contact.ravel()[ranked])
  return hits / jnp.maximum(count, 1)


def q3(predicted: Array, truth: Array, mask: Array | None = None) -> Array:
  """The share of residues whose secondary structure is right.

  Args:
    predicted: [L] int, of three states, or of any number.
    truth: [L] int.
    mask: [L] bool; all by default.

  >>> float(q3(jnp.array([0, 1, 2, 2]), jnp.array([0, 1, 2, 0])))
  0.75
  """
  mask = jnp.ones(truth.shape, bool) if mask is None else mask
  return jnp.sum(mask & (predicted == truth)) / jnp.sum(mask)
