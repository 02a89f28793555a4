"""What an alignment says of a structure: residues in contact change together.

An alignment is [N, L] int8: N sequences over the L residues of the first one,
letters as places in `ARNDCQEGHILKMFPSTWYVX-` (`data.proteins.LETTERS`). Its
columns depend on each other directly, where two residues touch, and indirectly,
through others; a Potts model,

    P(s) ~ exp(sum_i h_i(s_i) + sum_(i<j) J_ij(s_i, s_j)),

takes the two apart, and the size of J_ij is a score of contact. It is estimated
in two ways:

- mean field: J is minus the inverse of the covariances, regularised (Morcos et
  al., "Direct-coupling analysis of residue coevolution captures native contacts
  across many protein families", PNAS 108, 2011). One inverse.
- pseudo-likelihood: each letter is predicted from all others (Ekeberg et al.,
  Physical Review E 87, 012707, 2013). Better, and some hundred times slower.

These, and the profiles, are the inputs of AlphaFold's network of 2018 (Senior
et al., Nature 577, 2020, Methods; the README of its published code). Slides:
deck 000, "AlphaFold System".

>>> rows = np.array([[0, 3, 5], [0, 3, 5], [2, 7, 5], [2, 7, 4]] * 5, np.int8)
>>> score = corrected(frobenius(mean_field(rows).couplings))
>>> bool(score[0, 1] > max(score[0, 2], score[1, 2]))
True
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from scipy.linalg import cholesky, get_lapack_funcs, solve_triangular

# Letters, with X and the gap; of a Potts model X is a gap.
LETTERS, STATES = 22, 21
GAP = LETTERS - 1

# Rows that are compared at once: bounds the memory.
_AT_ONCE = 1024


class Potts(NamedTuple):
  """A Potts model of L residues with q states.

  Attributes:
    fields: [L, q] float32, h.
    couplings: [L, L, q, q] float32, J; J_ij(a, b) = J_ji(b, a), J_ii = 0.
  """

  fields: Any
  couplings: Any


def states(rows: np.ndarray) -> np.ndarray:
  """Letters as states of a Potts model: 20 residues, and 20 for X and gaps.

  >>> states(np.array([[0, 19, 20, 21]], np.int8)).tolist()
  [[0, 19, 20, 20]]
  """
  return np.minimum(rows, STATES - 1)


def one_hot(rows: np.ndarray, size: int = LETTERS) -> np.ndarray:
  """[..., size] float32; of a sequence with its X, `size` is 21."""
  return (rows[..., None] == np.arange(size)).astype(np.float32)


def sequence_weights(rows: np.ndarray, identity: float = 0.62) -> np.ndarray:
  """How much each row counts: 1 / how many rows are like it, itself included.

  Args:
    rows: [N, L].
    identity: rows are alike that agree in more than this share of columns: .62
      for the profiles of the published code; .8 is usual for couplings.

  Returns:
    [N] float32; their sum is the effective depth.

  >>> rows = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [9, 9, 9, 9]], np.int8)
  >>> sequence_weights(rows).tolist()
  [0.5, 0.5, 1.0]
  """
  return weights_at(rows, (identity,))[0]


def weights_at(
  rows: np.ndarray, identities: Sequence[float]
) -> list[np.ndarray]:
  """`sequence_weights` at several identities, for the work of one."""
  length = rows.shape[1]
  flat = one_hot(rows).reshape(len(rows), -1)
  counts = np.zeros((len(identities), len(rows)))
  for start in range(0, len(rows), _AT_ONCE):
    some = slice(start, start + _AT_ONCE)
    same = flat[some] @ flat.T
    for count, identity in zip(counts, identities, strict=True):
      count[some] = np.sum(same > identity * length, axis=1)
  # A row is like itself even where all columns are to agree.
  return [(1 / np.maximum(count, 1)).astype(np.float32) for count in counts]


def profile(
  rows: np.ndarray, weights: np.ndarray | None = None, gaps: bool = True
) -> np.ndarray:
  """The share of each letter in each column.

  Args:
    rows: [N, L].
    weights: [N], of `sequence_weights`; all alike by default.
    gaps: whether gaps are a letter; else they are not counted, and a column of
      gaps is all zeros.

  Returns:
    [L, 22], or [L, 21] without gaps; float32.

  >>> rows = np.array([[0], [0], [0], [1], [21]], np.int8)
  >>> profile(rows, gaps=False)[0, :2].tolist()
  [0.75, 0.25]
  """
  weights = np.ones(len(rows), np.float32) if weights is None else weights
  counts = np.einsum('n,nla->la', weights, one_hot(rows))
  counts = counts if gaps else counts[:, :GAP]
  total = counts.sum(axis=-1, keepdims=True)
  return (counts / np.maximum(total, 1e-6)).astype(np.float32)


def deletion_probability(deletions: np.ndarray) -> np.ndarray:
  """The share of rows with letters left out before a column, [L] float32.

  Args:
    deletions: [N, L], how many are left out: of A3M, the small letters.
  """
  return np.asarray(np.mean(deletions > 0, axis=0), np.float32)


def gap_matrix(rows: np.ndarray) -> np.ndarray:
  """The share of rows with gaps in both of two columns, [L, L] float32.

  Gaps come in runs, and their covariance looks like that of contacts.

  >>> gap_matrix(np.array([[0, 21, 21], [0, 0, 21]], np.int8))[1].tolist()
  [0.0, 0.5, 0.5]
  """
  gaps = (rows == GAP).astype(np.float32)
  return gaps.T @ gaps / len(rows)


def mean_field(
  rows: np.ndarray,
  weights: np.ndarray | None = None,
  pseudocount: float = 0.5,
) -> Potts:
  """The Potts model in mean field: couplings are minus the inverse covariances.

  Frequencies are mixed with those of independent columns in which all states
  are alike, which makes the covariances invertible however few rows there are
  (Morcos et al., supporting information, equations S7 to S9 and S25).

  Args:
    rows: [N, L].
    weights: [N]; by default `sequence_weights` at an identity of .8.
    pseudocount: share of the independent columns, above 0 and up to 1.

  Returns:
    The model; the last state is the reference, with h = 0 and J = 0.
  """
  weights = sequence_weights(rows, 0.8) if weights is None else weights
  length, kept = rows.shape[1], STATES - 1
  weights = weights / weights.sum()
  x = one_hot(states(rows), STATES)
  frequency = np.einsum('n,nla->la', weights, x).astype(np.float32)
  share = np.float32(1 - pseudocount)
  # Mixed covariances are A'A, one row of A for each sequence and one for the
  # mixture, and the pseudocount times those of independent columns.
  a = (x - frequency[None]) * np.sqrt(share * weights)[:, None, None]
  off = (frequency - 1 / STATES) * np.sqrt(share * pseudocount)
  a = np.concatenate([a, off[None]])[..., :kept].astype(np.float32)
  inverse = _inverse_by_rows if len(a) < length * kept else _inverse
  blocks = inverse(a, np.float32(pseudocount))
  blocks = blocks.reshape(length, kept, length, kept).transpose(0, 2, 1, 3)
  couplings = np.zeros((length, length, STATES, STATES), np.float32)
  couplings[..., :kept, :kept] = -blocks
  couplings[np.arange(length), np.arange(length)] = 0
  mixed = share * frequency + pseudocount / STATES
  fields = np.log(mixed / mixed[:, -1:])
  fields -= np.einsum('ijab,jb->ia', couplings, mixed)
  return Potts(fields.astype(np.float32), couplings)


def _inverse(a: np.ndarray, pseudocount: np.float32) -> np.ndarray:
  """(A'A + pseudocount B)^-1 of size n = L (q - 1), by Cholesky.

  B is the covariance of L columns in which q states are alike.

  Args:
    a: [M, L, q - 1].
    pseudocount: positive.
  """
  _, length, kept = a.shape
  flat = a.reshape(len(a), -1)
  column = np.eye(kept) / STATES - 1 / STATES**2
  matrix = flat.T @ flat + pseudocount * np.kron(np.eye(length), column)
  matrix = matrix.astype(np.float32)
  factor, invert = get_lapack_funcs(('potrf', 'potri'), (matrix,))
  lower, _ = factor(matrix, lower=1)
  inverse, _ = invert(lower, lower=1)
  return np.tril(inverse) + np.tril(inverse, -1).T


def _inverse_by_rows(a: np.ndarray, pseudocount: np.float32) -> np.ndarray:
  """The same by Woodbury's identity, from an [M, M] matrix: for few rows.

  Only its blocks off the diagonal: those of columns with themselves lack B^-1.
  """
  # B^-1 of a column is q (I + 1 1').
  divided = a + a.sum(axis=2, keepdims=True)
  divided = (STATES / pseudocount) * divided.reshape(len(a), -1)
  inner = divided @ a.reshape(len(a), -1).T + np.eye(len(a), dtype=np.float32)
  lower = cholesky(inner, lower=True)
  half = np.asarray(solve_triangular(lower, divided, lower=True))
  return -(half.T @ half)


def pseudo_likelihood(
  rows: np.ndarray,
  weights: np.ndarray | None = None,
  steps: int = 200,
  penalty: float = 0.01,
) -> Potts:
  """The Potts model with the highest penalised pseudo-likelihood.

  Minimises, with effective depth M = sum of weights,

    -1/M sum_n w_n sum_i log P(s_ni | s_n, but i)
      + penalty (|h|^2 + |J|^2 over pairs i < j),

  all residues at once, so that J_ij is J_ji (as CCMpred does).

  Args:
    rows: [N, L].
    weights: [N]; by default `sequence_weights` at an identity of .8.
    steps: of Adam, whose rate falls to 0 along a cosine.
    penalty: lambda, .01 in the paper.

  Returns:
    The model, in the gauge that the penalty chooses.
  """
  weights = sequence_weights(rows, 0.8) if weights is None else weights
  fields, couplings = _fit(
    jnp.asarray(states(rows)),
    jnp.asarray(weights / weights.sum(), jnp.float32),
    jnp.float32(penalty),
    steps,
  )
  return Potts(np.asarray(fields), np.asarray(couplings))


def pseudo_likelihood_loss(
  model: Potts,
  rows: ArrayLike,
  weights: ArrayLike,
  penalty: ArrayLike,
) -> jax.Array:
  """What `pseudo_likelihood` minimises, [].

  Args:
    model: any; only its couplings of i < j are read.
    rows: [N, L], states.
    weights: [N], their sum is 1.
    penalty: lambda.
  """
  length, size = model.fields.shape
  x = jax.nn.one_hot(jnp.asarray(rows), size)
  couplings = _symmetric(model.couplings)
  wide = couplings.transpose(0, 2, 1, 3).reshape(length * size, length * size)
  logits = (x.reshape(x.shape[0], -1) @ wide).reshape(x.shape)
  log_p = jax.nn.log_softmax(logits + model.fields[None])
  fit = -jnp.sum(jnp.asarray(weights) * jnp.sum(log_p * x, axis=(1, 2)))
  strength = jnp.sum(couplings**2) / 2
  return fit + penalty * (jnp.sum(model.fields**2) + strength)


def _symmetric(couplings: jax.Array) -> jax.Array:
  """J whose lower half is the transpose of its upper one."""
  length = couplings.shape[0]
  upper = jnp.triu(jnp.ones((length, length)), 1)[..., None, None] * couplings
  return upper + upper.transpose(1, 0, 3, 2)


@functools.partial(jax.jit, static_argnums=3)
def _fit(rows, weights, penalty, steps):
  length = rows.shape[1]
  start = Potts(
    jnp.zeros((length, STATES)), jnp.zeros((length, length, STATES, STATES))
  )
  optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

  def step(carry, _):
    model, state = carry
    gradient = jax.grad(pseudo_likelihood_loss)(model, rows, weights, penalty)
    change, state = optimizer.update(gradient, state)
    return (optax.apply_updates(model, change), state), None

  carry = start, optimizer.init(start)
  (model, _), _ = jax.lax.scan(step, carry, None, steps)
  return Potts(model.fields, _symmetric(model.couplings))


def frobenius(couplings: np.ndarray) -> np.ndarray:
  """The size of each coupling, whatever the gauge: [L, L] float32.

  Each block is moved to the gauge in which its rows and columns have the mean
  0; then its root of the sum of squares, without the gap.

  Args:
    couplings: [L, L, q, q]; the last state is the gap.
  """
  centred = zero_sum(couplings)
  return np.sqrt(np.sum(centred[..., :-1, :-1] ** 2, axis=(2, 3)))


def zero_sum(couplings: np.ndarray) -> np.ndarray:
  """Couplings whose rows and columns have the mean 0, of the same P(s).

  Args:
    couplings: [L, L, q, q].
  """
  centred = couplings - couplings.mean(2, keepdims=True)
  return centred - centred.mean(3, keepdims=True)


def covariance_size(
  rows: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
  """The size of the covariances of each pair of columns, [L, L] float32.

  They tell of contacts through others too, and less of noise than couplings do.

  Args:
    rows: [N, L].
    weights: [N]; by default `sequence_weights` at an identity of .8.

  >>> rows = np.array([[0, 3, 5], [0, 3, 5], [2, 7, 5], [2, 7, 4]], np.int8)
  >>> covariance_size(rows, np.ones(4)).round(2)[0].tolist()
  [0.5, 0.5, 0.25]
  """
  weights = sequence_weights(rows, 0.8) if weights is None else weights
  weights = weights / weights.sum()
  length, kept = rows.shape[1], STATES - 1
  x = one_hot(states(rows), STATES)[..., :kept]
  x = (x - np.einsum('n,nla->la', weights, x)) * np.sqrt(weights)[:, None, None]
  flat = x.reshape(len(x), -1).astype(np.float32)
  blocks = (flat.T @ flat).reshape(length, kept, length, kept)
  return np.sqrt(np.einsum('iajb,iajb->ij', blocks, blocks))


def corrected(score: np.ndarray) -> np.ndarray:
  """Average product correction: what columns contribute as such is taken off.

  score_ij - score_i score_j / score, with means over the other columns (Dunn,
  Wahl & Gloor, Bioinformatics 24, 2008).

  Args:
    score: [L, L], symmetric; its diagonal is not read.

  Returns:
    [L, L]; 0 on the diagonal.

  >>> score = np.array([[0.0, 3, 1], [3, 0, 1], [1, 1, 0]])
  >>> corrected(score).round(2)[0, 1:].tolist()
  [0.6, -0.2]
  """
  length = len(score)
  score = score * (1 - np.eye(length, dtype=score.dtype))
  mean = score.sum(axis=1) / max(length - 1, 1)
  whole = max(mean.mean(), 1e-12)
  found = score - np.outer(mean, mean) / whole
  return found * (1 - np.eye(length, dtype=score.dtype))
