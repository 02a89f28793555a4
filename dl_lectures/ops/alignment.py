"""Alignment of event sequences, and profiles that score unfinished ones.

What bioinformatics does with proteins, Align-RUDDER does with demonstrations:
whatever many successful episodes have in common, in the same order, was
probably worth something.

    sequences ──> scoring_matrix ──> align ──> make_profile ──> prefix_scores
    of events      rare events        guide      log-odds of     S of every
    [N lists]      score more         tree       each column     prefix [T]
                     [n, n]           [N, L]       [L, n]

Events are whole numbers from 0 to n - 1, any number of them; -1 is no event: a
gap in an alignment, padding in a sequence. Scores are in nats. What runs once
per set of demonstrations is NumPy around one jitted kernel; what runs at every
step of an episode (`start`, `advance`, `value`) is JAX, without loops.

Sources: Patil et al., "Align-RUDDER: learning from few demonstrations by
reward redistribution", ICML 2022 [AR]; slides of deck 002, "Align-RUDDER";
Needleman & Wunsch, J. Mol. Biol. 48 (1970); Karlin & Altschul, PNAS 87 (1990);
Feng & Doolittle, J. Mol. Evol. 25 (1987), for progressive alignment.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, UsageError

# Worse than any alignment, and still finite: its differences are not NaN.
_NEVER = -1e30
# Tables are padded to a multiple of this: few programs are compiled.
_BUCKET = 32


class Profile(NamedTuple):
  """What the columns of an alignment expect: a PSSM.

  Attributes:
    score: [L, n] float32, log-odds of an event in a column against anywhere.
    gap: [] float32, what it costs to skip a column or an event; at most 0.
  """

  score: Array
  gap: Array


def background(
  sequences: Sequence[Sequence[int] | np.ndarray],
  num_events: int,
  pseudocount: float = 1.0,
) -> np.ndarray:
  """How often each event happens, whatever its place.

  Args:
    sequences: N lists of events, of any lengths.
    num_events: n.
    pseudocount: is added to each event's count, so that one that never
      happened in the sequences is rare, not impossible.

  Returns:
    [n] float64, positive, of sum 1.

  Raises:
    UsageError: no sequence, an empty one, an event that is not in [0, n).

  >>> background([[0, 1], [0, 1, 0]], num_events=3).tolist()
  [0.5, 0.375, 0.125]
  """
  checked = _check(sequences, num_events)
  counts = np.bincount(np.concatenate(checked), minlength=num_events)
  return (counts + pseudocount) / (counts.sum() + pseudocount * num_events)


def scoring_root(score: np.ndarray, probability: np.ndarray) -> float:
  """The root lambda* > 0 of sum_k p_k exp(lambda s_k) = 1.

  It is the unit that scores are given in: those divided by it are in nats
  (Karlin & Altschul, equation 4). Of a scoring matrix p_k is p_i p_j, of a
  column of a PSSM it is p_i.

  Args:
    score: s, of any shape.
    probability: p, of the same shape and of sum 1.

  Returns:
    The one positive root.

  Raises:
    UsageError: there is none, because no score is positive or because their
      mean is not negative.

  Two for a match of a coin's sides, minus four otherwise: x^2 + x^-4 = 2.

  >>> matrix = np.array([[2.0, -4.0], [-4.0, 2.0]])
  >>> root = scoring_root(matrix, np.full((2, 2), 0.25))
  >>> x = np.exp(root)
  >>> round(float(x**2 + x**-4), 9)
  2.0
  """
  s, p = np.asarray(score, float).ravel(), np.asarray(probability, float)
  p = p.ravel()
  if s.shape != p.shape or abs(p.sum() - 1) > 1e-6 or (p < 0).any():
    raise UsageError(
      f'{s.size} scores need as many probabilities of sum 1, not {p.size} of '
      f'sum {p.sum():.6g}'
    )
  happens = p > 0
  s, p = s[happens], p[happens]
  if s.max() <= 0 or p @ s >= 0:
    raise UsageError(
      f'scores of mean {p @ s:.4g} and at most {s.max():.4g} have no root; the '
      'mean must be negative and some score positive'
    )
  # Above this one term alone exceeds 1. From the right of the root of a convex
  # function Newton's method comes down monotonically.
  best = s.argmax()
  root = -np.log(p[best]) / s[best]
  for _ in range(200):
    terms = p * np.exp(root * s)
    step = (terms.sum() - 1) / (terms @ s)
    root -= step
    if abs(step) <= 1e-15 * root:
      break
  return float(root)


def scoring_matrix(
  frequency: np.ndarray, eps: float | None = None
) -> np.ndarray:
  """Scores of aligning event i with event j: rare matches score more.

  s_ij = ln(q_ij / (p_i p_j)) / lambda*, with q_ii = p_i - eps and q_ij = eps /
  (n - 1) else ([AR], "Scoring matrix"). Given q, the scale lambda* is free; it
  is 1 here, so scores are in nats, and `scoring_root` finds that 1 again.

  Args:
    frequency: [n], p, positive and of sum 1, as `background` gives it.
    eps: how often an event is replaced by another one. By default it is half
      of (n - 1) times the smallest p_i p_j of two events: then every match is
      above 0 and everything else is ln(1/2) or below.

  Returns:
    [n, n] float64, symmetric. A single event has nothing to be told from, and
    scores 1.

  Raises:
    UsageError: frequencies that are none, an eps outside (0, min p).

  >>> scoring_matrix(np.array([0.5, 0.5])).round(3).tolist()
  [[0.405, -0.693], [-0.693, 0.405]]
  """
  p = np.asarray(frequency, float)
  n = p.size
  if p.ndim != 1 or not n or (p <= 0).any() or abs(p.sum() - 1) > 1e-6:
    raise UsageError(f'frequencies must be positive and of sum 1: {p.tolist()}')
  if n == 1:
    return np.ones((1, 1))
  independent = np.outer(p, p)
  if eps is None:
    eps = (n - 1) * independent[~np.eye(n, dtype=bool)].min() / 2
  if not 0 < eps < p.min():
    raise UsageError(
      f'eps={eps} is not possible; between 0 and the rarest event, '
      f'{p.min():.4g}, it is'
    )
  q = np.where(np.eye(n, dtype=bool), np.diag(p) - eps, eps / (n - 1))
  return np.log(q / independent)


def needleman_wunsch(
  similarity: Array, gap_rows: Array, gap_columns: Array
) -> Array:
  """The best scores of aligning every prefix with every prefix.

  H[i, j] is the largest of H[i-1, j-1] + similarity[i, j], H[i-1, j] +
  gap_rows[i] and H[i, j-1] + gap_columns[j]. A row costs one cumulative
  maximum, so the table costs O(M N) in M steps.

  Args:
    similarity: [M, N] float32. Padding is `-1e30`, with gaps of 0: then the
      last entry of the table is that of the unpadded one.
    gap_rows: [M] float32, the cost of a row without a partner, at most 0.
    gap_columns: [N] float32, of a column without one.

  Returns:
    [M + 1, N + 1] float32; the last entry is the score of the alignment.

  >>> same = jnp.array([[2.0, -1.0], [-1.0, 2.0], [-1.0, 2.0]])
  >>> gap = -0.5
  >>> float(needleman_wunsch(same, jnp.full(3, gap), jnp.full(2, gap))[-1, -1])
  3.5
  """
  skipped = _skipped(gap_columns)

  def one_row(above: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
    row = _next_row(above, x[0], x[1], skipped)
    return row, row

  _, rows = jax.lax.scan(one_row, skipped, (similarity, gap_rows))
  return jnp.concatenate([skipped[None], rows])


def pair_score(
  first: Array, second: Array, matrix: Array, gap: Array | float = 0.0
) -> Array:
  """The score of the best alignment of two sequences of events.

  Args:
    first: [M] int32; -1 is no event, anywhere.
    second: [N] int32, likewise.
    matrix: [n, n] float32, scores.
    gap: of an event without a partner, at most 0.

  Returns:
    [] float32.

  >>> ids = jnp.array([0, 1, 1, -1]), jnp.array([0, 2, 1])
  >>> float(pair_score(*ids, 2 * jnp.eye(3) - 1))
  2.0
  """
  skipped = _skipped(jnp.where(second >= 0, gap, 0.0))

  def one_row(above: Array, event: Array) -> tuple[Array, None]:
    both = (event >= 0) & (second >= 0)
    similar = jnp.where(both, matrix[event, second], _NEVER)
    lonely = jnp.where(event >= 0, gap, 0.0)
    return _next_row(above, similar, lonely, skipped), None

  return jax.lax.scan(one_row, skipped, first)[0][-1]


def guide_tree(
  distance: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
  """UPGMA: the two nearest clusters are joined until one is left.

  The distance of two clusters is the mean over their pairs. Ties go to the
  lowest numbers.

  Args:
    distance: [m, m], symmetric.
    weight: [m], how often each member counts in the means; once by default.

  Returns:
    [m - 1, 3] float64: the k-th row joins two clusters to the cluster m + k at
    a distance; a cluster below m is a member.

  >>> far = np.array([[0, 2, 8], [2, 0, 6], [8, 6, 0]])
  >>> guide_tree(far).tolist()
  [[0.0, 1.0, 2.0], [2.0, 3.0, 7.0]]
  """
  m = len(distance)
  far = np.full((2 * m - 1, 2 * m - 1), np.inf)
  far[:m, :m] = np.where(np.eye(m, dtype=bool), np.inf, distance)
  size = np.zeros(2 * m - 1)
  size[:m] = 1 if weight is None else weight
  joins = np.zeros((m - 1, 3))
  for k in range(m - 1):
    a, b = sorted(divmod(int(far.argmin()), 2 * m - 1))
    joins[k] = a, b, far[a, b]
    mean = (size[a] * far[a] + size[b] * far[b]) / (size[a] + size[b])
    new, size[m + k] = m + k, size[a] + size[b]
    far[new], far[:, new] = mean, mean
    far[[a, b, new], new] = np.inf
    far[[a, b]], far[:, [a, b]] = np.inf, np.inf
  return joins


def align(
  sequences: Sequence[Sequence[int] | np.ndarray],
  matrix: np.ndarray,
  gap: float = 0.0,
) -> np.ndarray:
  """Progressive multiple alignment along a guide tree.

  The nearest sequences are aligned first; groups are then aligned with groups
  so that the sum of scores over all pairs of rows is the largest that leaves
  both groups as they are. The distance of two sequences is 1 - 2 S_ab / (S_aa +
  S_bb). Sequences are sorted first and equal ones are aligned once, so the
  result does not depend on their order, and equal sequences have equal rows.

  Args:
    sequences: N lists of events, of any lengths.
    matrix: [n, n], symmetric scores; a match scores above 0.
    gap: of an event beside a gap, for each pair of rows; at most 0.

  Returns:
    [N, L] int32, the sequences in their order, -1 where there is a gap.

  Raises:
    UsageError: no sequence, an empty one, an event that the matrix does not
      know, a match that scores nothing, a gap above 0.

  >>> align([[0, 1, 2], [0, 2], [1, 2]], 3 * np.eye(3) - 1).tolist()
  [[0, 1, 2], [0, -1, 2], [-1, 1, 2]]
  """
  matrix = _check_matrix(matrix, gap)
  checked = _check(sequences, len(matrix))
  distinct = sorted({tuple(x.tolist()) for x in checked})
  place = {sequence: i for i, sequence in enumerate(distinct)}
  which = np.array([place[tuple(x.tolist())] for x in checked])
  weight = np.bincount(which).astype(float)

  groups = [
    (np.array([row], np.int32), np.array([i])) for i, row in enumerate(distinct)
  ]
  distance = _distances(distinct, matrix, gap)
  for a, b, _ in guide_tree(distance, weight):
    (rows_a, of_a), (rows_b, of_b) = groups[int(a)], groups[int(b)]
    path = _align_groups(
      rows_a, weight[of_a], rows_b, weight[of_b], matrix, gap
    )
    # A column of -1 behind the last one stands for the gap: path is -1 there.
    joined = [
      np.pad(rows, ((0, 0), (0, 1)), constant_values=-1)[:, side]
      for rows, side in ((rows_a, path[:, 0]), (rows_b, path[:, 1]))
    ]
    groups.append((np.concatenate(joined), np.concatenate([of_a, of_b])))
  rows, of = groups[-1]
  return rows[np.argsort(of)][which]


def sum_of_pairs(
  alignment: np.ndarray, matrix: np.ndarray, gap: float = 0.0
) -> float:
  """S_MSA: the score of every pair of rows in every column ([AR]).

  Args:
    alignment: [N, L] int, -1 for gaps.
    matrix: [n, n], scores.
    gap: of an event beside a gap.

  Returns:
    The sum; a gap beside a gap scores nothing.

  >>> sum_of_pairs(np.array([[0, 1], [0, -1], [0, 1]]), np.eye(2), gap=-0.25)
  3.5
  """
  total = 0.0
  for i, row in enumerate(alignment):
    for other in alignment[:i]:
      both, neither = (row >= 0) & (other >= 0), (row < 0) & (other < 0)
      total += matrix[row[both], other[both]].sum()
      total += gap * (~both & ~neither).sum()
  return float(total)


def make_profile(
  alignment: np.ndarray,
  frequency: np.ndarray,
  pseudocount: float = 1.0,
  gap: float = 0.0,
) -> Profile:
  """The position-specific scoring matrix of an alignment.

  s_{t,i} = ln(q_{t,i} / p_i) / lambda*_t ([AR], "Profile model and PSSM"), in
  nats, so lambda*_t = 1. A gap in a column is no evidence: it votes like the
  background, and so do `pseudocount` rows beyond those of the alignment. A
  column that few demonstrations share therefore scores little.

  Args:
    alignment: [N, L] int, -1 for gaps.
    frequency: [n], p, the background.
    pseudocount: above 0, so that all scores are finite.
    gap: of a column or an event without a partner, when sequences are scored.

  Returns:
    The profile.

  Raises:
    UsageError: an alignment that is none, or whose events p does not know.

  >>> rows = np.array([[0, 1], [0, 1], [0, -1]])
  >>> profile = make_profile(rows, np.array([0.5, 0.5]))
  >>> np.exp(profile.score).tolist()
  [[1.75, 0.25], [0.5, 1.5]]
  """
  alignment, p = np.asarray(alignment), np.asarray(frequency, float)
  if alignment.ndim != 2 or not alignment.size:
    raise UsageError(
      f'an alignment has shape [N, L], not {list(alignment.shape)}'
    )
  if alignment.max() >= len(p) or alignment.min() < -1:
    raise UsageError(
      f'events run from {alignment.min()} to {alignment.max()}; -1 (a gap) to '
      f'{len(p) - 1} are possible'
    )
  if pseudocount <= 0 or gap > 0:
    raise UsageError(
      f'pseudocount={pseudocount}, gap={gap}; above 0 and at most 0 is possible'
    )
  counts = _counts(alignment, np.ones(len(alignment)), len(p))
  total = len(alignment) + pseudocount
  q = (counts + (total - counts.sum(1, keepdims=True)) * p) / total
  return Profile(
    jnp.asarray(np.log(q / p), jnp.float32), jnp.asarray(gap, jnp.float32)
  )


def widen(profile: Profile, num_columns: int, num_events: int) -> Profile:
  """The same profile in a larger table, so that several have one shape.

  Args:
    profile: [L, n].
    num_columns: at least L; the new ones match nothing, so no score changes.
    num_events: at least n; the new ones match nothing either.

  Returns:
    [num_columns, num_events].

  Raises:
    UsageError: the profile does not fit.

  >>> profile = Profile(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), jnp.zeros(()))
  >>> wider = widen(profile, 32, 5)
  >>> prefix_scores(wider, jnp.array([0, 4, 1])).tolist()
  [1.0, 1.0, 3.0]
  """
  length, n = profile.score.shape
  if num_columns < length or num_events < n:
    raise UsageError(
      f'a profile of {length} columns and {n} events does not fit into '
      f'[{num_columns}, {num_events}]'
    )
  more = (0, num_columns - length), (0, num_events - n)
  return profile._replace(
    score=jnp.pad(profile.score, more, constant_values=_NEVER)
  )


def start(profile: Profile) -> Array:
  """The row [L + 1] float32 of a sequence without events, before `advance`."""
  length = profile.score.shape[0]
  return profile.gap * jnp.arange(length + 1, dtype=jnp.float32)


def advance(profile: Profile, row: Array, event: Array) -> Array:
  """Adds one event to a sequence: one row of Needleman and Wunsch's table.

  The row is all that has to be kept of a sequence, so this goes into the loop
  of an environment.

  Args:
    profile: of the demonstrations.
    row: [L + 1] float32, from `start` or `advance`.
    event: [] int32; -1 leaves the row as it is.

  Returns:
    [L + 1] float32: its k-th number is the best score of the sequence against
    the first k columns.

  >>> profile = Profile(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), jnp.zeros(()))
  >>> row = advance(profile, start(profile), jnp.array(1))
  >>> float(value(row)), float(value(advance(profile, row, jnp.array(0))))
  (2.0, 2.0)
  """
  skipped = start(profile)
  similar = profile.score[:, jnp.maximum(event, 0)]
  row_after = _next_row(row, similar, profile.gap, skipped)
  return jnp.where(event >= 0, row_after, row)


def value(row: Array) -> Array:
  """S [] of the sequence so far; columns that are still to come cost nothing.

  >>> float(value(jnp.array([0.0, 1.0, 0.5])))
  1.0
  """
  return row.max()


def prefix_scores(profile: Profile, events: Array) -> Array:
  """S(tau_t) of every prefix of a sequence, in O(T L).

  Causal: the t-th number knows the first t + 1 events and no later one. Under
  a gap of 0 the numbers never fall.

  Args:
    profile: of the demonstrations.
    events: [T] int32; -1 is no event and leaves the score as it is.

  Returns:
    [T] float32.

  >>> profile = Profile(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), jnp.zeros(()))
  >>> prefix_scores(profile, jnp.array([0, 0, -1, 1])).tolist()
  [1.0, 1.0, 1.0, 3.0]
  """

  length = profile.score.shape[0]
  similar = jnp.where(events[:, None] >= 0, profile.score.T[events], _NEVER)
  skip_event = jnp.where(events >= 0, profile.gap, 0.0)

  # A row is a list of numbers, its recursion is unrolled: under `vmap` they
  # are vectors over episodes, and a row is one kernel.
  def one_row(
    row: list[Array], x: tuple[Array, Array]
  ) -> tuple[list[Array], Array]:
    similar, skip_event = x
    now = [row[0] + skip_event]
    best = now[0]
    for j in range(length):
      alone = jnp.maximum(row[j + 1] + skip_event, now[j] + profile.gap)
      now.append(jnp.maximum(row[j] + similar[j], alone))
      best = jnp.maximum(best, now[-1])
    return now, best

  return jax.lax.scan(one_row, list(start(profile)), (similar, skip_event))[1]


def _skipped(gap: Array) -> Array:
  """[N + 1], the score of nothing against the first columns."""
  return jnp.concatenate([jnp.zeros(1), jnp.cumsum(gap)])


def _next_row(
  above: Array, similar: Array, gap: Array, skipped: Array
) -> Array:
  """One row of the table; `skipped` [N + 1] are its columns' summed gaps."""
  matched = jnp.concatenate([jnp.full(1, _NEVER), above[:-1] + similar])
  # The best place from which to skip columns: no loop along the row.
  return jax.lax.cummax(jnp.maximum(matched, above + gap) - skipped) + skipped


_table = jax.jit(needleman_wunsch)


@jax.jit
def _all_pairs(rows: Array, pairs: Array, matrix: Array, gap: Array) -> Array:
  def score(pair: Array) -> Array:
    return pair_score(rows[pair[0]], rows[pair[1]], matrix, gap)

  return jax.vmap(score)(pairs)


def _distances(
  rows: Sequence[tuple[int, ...]], matrix: np.ndarray, gap: float
) -> np.ndarray:
  """[m, m]: 1 - 2 S_ab / (S_aa + S_bb), 0 for equal sequences."""
  m = len(rows)
  if m == 1:
    return np.zeros((1, 1))
  longest = max(map(len, rows))
  padded = np.full((_up(m), _up(longest)), -1, np.int32)
  for i, row in enumerate(rows):
    padded[i, : len(row)] = row
  first, second = np.triu_indices(m)
  pairs = np.zeros((_up(len(first), 8 * _BUCKET), 2), np.int32)
  pairs[: len(first)] = np.stack([first, second], axis=1)
  scores = np.zeros((m, m))
  found = _all_pairs(padded, pairs, matrix.astype(np.float32), np.float32(gap))
  scores[first, second] = np.asarray(found)[: len(first)]
  own = np.diag(scores)
  scores = np.triu(scores, 1) + np.triu(scores, 1).T + np.diag(own)
  return 1 - 2 * scores / np.maximum(own[:, None] + own[None, :], 1e-9)


def _align_groups(
  rows_a: np.ndarray,
  weight_a: np.ndarray,
  rows_b: np.ndarray,
  weight_b: np.ndarray,
  matrix: np.ndarray,
  gap: float,
) -> np.ndarray:
  """Which columns of two groups stand together: [L, 2], -1 for a gap."""
  n = len(matrix)
  a, b = _counts(rows_a, weight_a, n), _counts(rows_b, weight_b, n)
  events_a, events_b = a.sum(1), b.sum(1)
  gaps_a, gaps_b = weight_a.sum() - events_a, weight_b.sum() - events_b
  similarity = a @ matrix @ b.T + gap * (
    np.outer(events_a, gaps_b) + np.outer(gaps_a, events_b)
  )
  lonely_a = gap * events_a * weight_b.sum()
  lonely_b = gap * events_b * weight_a.sum()
  m, k = similarity.shape
  behind = (0, _up(m) - m), (0, _up(k) - k)
  table = _table(
    np.pad(similarity, behind, constant_values=_NEVER).astype(np.float32),
    np.pad(lonely_a, behind[0]).astype(np.float32),
    np.pad(lonely_b, behind[1]).astype(np.float32),
  )
  table = np.asarray(table, float)[: m + 1, : k + 1]

  # Backwards from the end; near ties go to the match, for determinism.
  near = 1e-5 * (1 + abs(table[-1, -1]))
  path = []
  while m or k:
    best = table[m, k] - near
    if m and k and table[m - 1, k - 1] + similarity[m - 1, k - 1] >= best:
      m, k = m - 1, k - 1
      path.append((m, k))
    elif m and (not k or table[m - 1, k] + lonely_a[m - 1] >= best):
      m -= 1
      path.append((m, -1))
    else:
      k -= 1
      path.append((-1, k))
  return np.array(path[::-1])


def _counts(rows: np.ndarray, weight: np.ndarray, num_events: int):
  """[L, n], how often each event stands in each column."""
  return np.einsum(
    'r,rli->li', weight, rows[..., None] == np.arange(num_events)
  )


def _up(size: int, bucket: int = _BUCKET) -> int:
  return -(-size // bucket) * bucket


def _check(
  sequences: Sequence[Sequence[int] | np.ndarray], num_events: int
) -> list[np.ndarray]:
  if not len(sequences):
    raise UsageError('no sequence was given; at least one is needed')
  checked = []
  for i, sequence in enumerate(sequences):
    events = np.asarray(sequence)
    if events.ndim != 1 or not events.size:
      raise UsageError(
        f'sequence {i} has shape {list(events.shape)}; a list of at least one '
        'event is possible'
      )
    if not np.issubdtype(events.dtype, np.integer):
      raise UsageError(
        f'sequence {i} holds {events.dtype}; events are integers'
      )
    wrong = events[(events < 0) | (events >= num_events)]
    if wrong.size:
      raise UsageError(
        f'sequence {i} holds event {wrong[0]}; 0 to {num_events - 1} are '
        'possible'
      )
    checked.append(events.astype(np.int32))
  return checked


def _check_matrix(matrix: np.ndarray, gap: float) -> np.ndarray:
  matrix = np.asarray(matrix, float)
  if matrix.ndim != 2 or not np.array_equal(matrix, matrix.T):
    raise UsageError(
      f'a scoring matrix is symmetric, [n, n]; given was {list(matrix.shape)}'
    )
  if np.diag(matrix).min() <= 0:
    raise UsageError(
      f'event {np.diag(matrix).argmin()} scores {np.diag(matrix).min():.4g} '
      'with itself; more than 0 is possible'
    )
  if gap > 0:
    raise UsageError(f'gap={gap}; at most 0 is possible')
  return matrix
