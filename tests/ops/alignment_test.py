"""Alignments against brute force, biotite and scipy; profiles by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from dl_lectures import types
from dl_lectures.ops import alignment

EVENTS = 4
# One size for all, so that the kernels are compiled once.
LONGEST = 6

prefix_scores = jax.jit(alignment.prefix_scores)
pair_score = jax.jit(alignment.pair_score)
table = jax.jit(alignment.needleman_wunsch)

sequences = st.lists(st.integers(0, EVENTS - 1), min_size=1, max_size=LONGEST)
frequencies = st.lists(st.integers(1, 200), min_size=2, max_size=8).map(
  lambda counts: np.array(counts) / sum(counts)
)


def paths(m, n):
  """Every alignment of m with n symbols, as columns (i, j); -1 is a gap."""
  if m == n == 0:
    yield ()
  if m and n:
    yield from ((*p, (m - 1, n - 1)) for p in paths(m - 1, n - 1))
  if m:
    yield from ((*p, (m - 1, -1)) for p in paths(m - 1, n))
  if n:
    yield from ((*p, (-1, n - 1)) for p in paths(m, n - 1))


def best_by_force(first, second, matrix, gap):
  """The best score over all alignments."""
  return max(
    sum(gap if min(i, j) < 0 else matrix[first[i], second[j]] for i, j in path)
    for path in paths(len(first), len(second))
  )


def a_matrix(seed):
  noise = np.random.default_rng(seed).normal(size=(EVENTS, EVENTS))
  return noise + noise.T + 4 * np.eye(EVENTS)


def padded(sequence, length=LONGEST):
  return np.array([*sequence, *[-1] * (length - len(sequence))], np.int32)


@pytest.mark.parametrize(
  ('m', 'n', 'seed'), [(1, 1, 0), (3, 6, 1), (6, 2, 2), (5, 5, 3), (6, 6, 4)]
)
@pytest.mark.parametrize('gap', [0.0, -0.7])
def test_the_best_of_all_alignments_is_found(m, n, seed, gap):
  random = np.random.default_rng(seed)
  first, second = random.integers(EVENTS, size=m), random.integers(4, size=n)
  matrix = a_matrix(seed)
  best = best_by_force(first, second, matrix, gap)

  found = pair_score(padded(first), padded(second), matrix, gap)
  np.testing.assert_allclose(found, best, atol=1e-5)

  similarity = np.full((LONGEST, LONGEST), -1e30)
  similarity[:m, :n] = matrix[first][:, second]
  inside = np.arange(LONGEST)
  found = table(
    jnp.asarray(similarity, jnp.float32),
    jnp.where(inside < m, gap, 0.0),
    jnp.where(inside < n, gap, 0.0),
  )
  np.testing.assert_allclose(found[-1, -1], best, atol=1e-5)
  np.testing.assert_allclose(found[m, n], best, atol=1e-5)

  # The alignment itself is worth as much, and holds both sequences.
  matrix = matrix + matrix.T + 12 * np.eye(EVENTS)
  rows = alignment.align([first, second], matrix, gap)
  assert [x[x >= 0].tolist() for x in rows] == [first.tolist(), second.tolist()]
  np.testing.assert_allclose(
    alignment.sum_of_pairs(rows, matrix, gap),
    best_by_force(first, second, matrix, gap),
    rtol=1e-5,
  )


@settings(max_examples=40, deadline=None)
@given(sequences, sequences, st.integers(0, 6), st.sampled_from([0.0, -1.5]))
def test_padding_anywhere_changes_nothing(first, second, where, gap):
  matrix = a_matrix(7)
  score = pair_score(padded(first, 7), padded(second, 7), matrix, gap)
  holed = np.insert(padded(first), where, -1)
  np.testing.assert_array_equal(
    pair_score(holed, padded(second, 7), matrix, gap), score
  )
  np.testing.assert_allclose(
    pair_score(padded(second, 7), holed, matrix, gap), score, atol=1e-5
  )


def test_groups_are_joined_in_the_best_way():
  # Against every way in which a pair that is aligned takes in a third one.
  first, second, third = [0, 1, 2, 3], [0, 1, 2, 3, 3], [2, 1, 3]
  matrix = alignment.scoring_matrix(np.array([0.4, 0.3, 0.2, 0.1]))
  for gap in (0.0, -0.3):
    pair = alignment.align([first, second], matrix, gap)
    best = -np.inf
    for path in paths(pair.shape[1], len(third)):
      rows = np.full((3, len(path)), -1)
      for column, (i, j) in enumerate(path):
        rows[:2, column] = pair[:, i] if i >= 0 else -1
        rows[2, column] = third[j] if j >= 0 else -1
      best = max(best, alignment.sum_of_pairs(rows, matrix, gap))
    rows = alignment.align([first, second, third], matrix, gap)
    score = alignment.sum_of_pairs(rows, matrix, gap)
    np.testing.assert_allclose(score, best, rtol=1e-5)


def test_sum_of_pairs_by_hand():
  rows = np.array([[0, 1, -1], [0, -1, -1], [1, 1, 0]])
  matrix = np.array([[2.0, -1.0], [-1.0, 3.0]])
  # Columns: 2 - 1 - 1, one pair of 1s and two gaps, two gaps.
  assert alignment.sum_of_pairs(rows, matrix, gap=-0.5) == 0 + 3 - 1 - 1


def family(seed, size=7, length=9, num_events=5):
  """Relatives: a sequence with events lost, changed and put in."""
  random = np.random.default_rng(seed)
  parent = random.integers(num_events, size=length)
  children = []
  for _ in range(size):
    child = parent[random.random(length) > 0.2]
    changed = random.random(len(child)) < 0.1
    child = np.where(
      changed, random.integers(num_events, size=len(child)), child
    )
    where = random.integers(len(child) + 1)
    children.append(np.insert(child, where, random.integers(num_events)))
  return children


def test_alignments_are_as_good_as_biotites():
  align = pytest.importorskip('biotite.sequence.align')
  sequence = pytest.importorskip('biotite.sequence')
  alphabet = sequence.LetterAlphabet('VWXYZ')
  matrix = 5 * np.eye(5, dtype=np.int32) - 2
  ours, theirs = [], []
  for seed in range(8):
    children = family(seed)
    others = []
    for child in children:
      other = sequence.GeneralSequence(alphabet)
      other.code = child.astype(np.uint8)
      others.append(other)
    substitution = align.SubstitutionMatrix(alphabet, alphabet, matrix)
    pair = align.align_optimal(others[0], others[1], substitution, -2)[0]
    rows = alignment.align(children[:2], matrix, gap=-2)
    assert alignment.sum_of_pairs(rows, matrix, -2) == pair.score
    found = align.align_multiple(others, substitution, gap_penalty=-2)[0]
    theirs.append(alignment.sum_of_pairs(_codes(found), matrix, -2))
    rows = alignment.align(children, matrix, gap=-2)
    ours.append(alignment.sum_of_pairs(rows, matrix, -2))
  # Both are heuristics, so one family may go either way.
  assert np.mean(ours) >= np.mean(theirs)
  assert min(np.array(ours) / np.array(theirs)) > 0.9


def _codes(found):
  """biotite's alignment as ours: [N, L]."""
  trace = found.trace
  return np.stack(
    [
      np.where(column >= 0, sequence.code[column].astype(int), -1)
      for sequence, column in zip(found.sequences, trace.T, strict=True)
    ]
  )


@settings(max_examples=25, deadline=None)
@given(st.lists(sequences, min_size=2, max_size=6), st.randoms())
def test_the_order_of_demonstrations_does_not_matter(rows, random):
  matrix = a_matrix(1) + 8 * np.eye(EVENTS)
  order = list(range(len(rows)))
  random.shuffle(order)
  once = alignment.align(rows, matrix)
  again = alignment.align([rows[i] for i in order], matrix)
  np.testing.assert_array_equal(again, once[order])
  assert [x[x >= 0].tolist() for x in once] == rows


@settings(max_examples=20, deadline=None)
@given(sequences, st.integers(1, 5), frequencies)
def test_identical_demonstrations_leave_no_gaps(sequence, copies, frequency):
  if len(frequency) < EVENTS:
    frequency = np.full(EVENTS, 1 / EVENTS)
  matrix = alignment.scoring_matrix(frequency)
  rows = alignment.align([sequence] * copies, matrix)
  assert rows.tolist() == [sequence] * copies


@pytest.mark.parametrize('seed', range(3))
def test_the_guide_tree_is_upgma(seed):
  points = np.random.default_rng(seed).normal(size=(9, 2))
  distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
  joins = alignment.guide_tree(distance)
  condensed = distance[np.triu_indices(9, 1)]
  theirs = hierarchy.linkage(condensed, 'average')
  np.testing.assert_allclose(joins, theirs[:, :3], atol=1e-9)


def test_a_weighted_member_stands_for_copies_of_itself():
  far = np.array([[0, 2, 8.0], [2, 0, 6], [8, 6, 0]])
  which = [0, 0, 0, 1, 2]
  copied = alignment.guide_tree(far[which][:, which])
  weighted = alignment.guide_tree(far, np.array([3, 1, 1]))
  np.testing.assert_allclose(weighted[:, 2], copied[2:, 2])
  # Three at distance 8 and one at 6.
  np.testing.assert_allclose(weighted[-1, 2], 30 / 4)


@settings(deadline=None)
@given(frequencies, st.floats(0.01, 0.99))
def test_the_root_solves_its_equation(frequency, share):
  for matrix in (
    alignment.scoring_matrix(frequency),
    alignment.scoring_matrix(frequency, share * frequency.min()),
  ):
    independent = np.outer(frequency, frequency)
    if (independent * matrix).sum() > -1e-6:
      continue  # nearly independent: q is p_i p_j, and nothing scores
    root = alignment.scoring_root(matrix, independent)
    np.testing.assert_allclose(root, 1, atol=1e-6)
    np.testing.assert_allclose((independent * np.exp(matrix)).sum(), 1)
    # In another unit it is another number, and solves the equation again.
    root = alignment.scoring_root(3 * matrix, independent)
    np.testing.assert_allclose(
      (independent * np.exp(root * 3 * matrix)).sum(), 1, atol=1e-9
    )
    np.testing.assert_allclose(root, 1 / 3, atol=1e-6)


def test_the_root_of_a_matrix_that_was_not_made_here():
  # q^2 x^2 + (1 - q^2) / x = 1 at a match of probability 1/4: x = root of
  # x^3 - 4 x + 3, which is (sqrt(13) - 1) / 2.
  root = alignment.scoring_root(np.array([2.0, -1]), np.array([0.25, 0.75]))
  np.testing.assert_allclose(np.exp(root), (np.sqrt(13) - 1) / 2)


@settings(deadline=None)
@given(frequencies)
def test_matches_are_worth_something_and_rare_ones_more(frequency):
  matrix = alignment.scoring_matrix(frequency)
  np.testing.assert_array_equal(matrix, matrix.T)
  assert np.diag(matrix).min() > 0
  assert matrix[~np.eye(len(matrix), dtype=bool)].max() <= np.log(0.5) + 1e-9
  order = np.argsort(frequency)
  even = alignment.scoring_matrix(frequency, 1e-3 * frequency.min() ** 2)
  assert (np.diff(np.diag(even)[order]) <= 1e-9).all()


def test_scores_by_hand():
  matrix = alignment.scoring_matrix(np.array([0.5, 0.25, 0.25]), eps=0.1)
  np.testing.assert_allclose(np.exp(matrix[0]), [0.4 / 0.25, 0.4, 0.4])
  np.testing.assert_allclose(np.exp(matrix[1, 1:]), [0.15 * 16, 0.05 * 16])


@settings(max_examples=40, deadline=None)
@given(st.lists(sequences, min_size=1, max_size=6))
def test_columns_of_a_profile_are_log_odds(rows):
  frequency = alignment.background(rows, EVENTS)
  aligned = alignment.align(rows, alignment.scoring_matrix(frequency))
  score = np.asarray(alignment.make_profile(aligned, frequency).score)
  odds = frequency * np.exp(score)
  np.testing.assert_allclose(odds.sum(1), 1, rtol=1e-5)
  # The most frequent event of a full column is above the background.
  full = (aligned >= 0).all(0) & (aligned == aligned[:1]).all(0)
  assert (score[full, aligned[0, full]] > 0).all()


def best_prefix_by_force(sequence, score, gap):
  """The best score of all of a sequence against some first columns."""
  return max(
    sum(gap if min(i, j) < 0 else score[j, sequence[i]] for i, j in path)
    for columns in range(len(score) + 1)
    for path in paths(len(sequence), columns)
  )


@pytest.mark.parametrize('gap', [0.0, -0.4])
def test_prefix_scores_are_the_best_of_all_alignments(gap):
  random = np.random.default_rng(5)
  score = random.normal(size=(4, EVENTS)).astype(np.float32)
  profile = alignment.Profile(jnp.asarray(score), jnp.float32(gap))
  for _ in range(4):
    events = random.integers(EVENTS, size=5)
    expected = [
      best_prefix_by_force(events[: t + 1], score, gap) for t in range(5)
    ]
    found = prefix_scores(profile, jnp.asarray(padded(events)))
    np.testing.assert_allclose(found[:5], expected, atol=1e-5)
    assert found[5] == found[4]


def a_profile():
  rows = family(3, num_events=EVENTS)
  frequency = alignment.background(rows, EVENTS)
  aligned = alignment.align(rows, alignment.scoring_matrix(frequency))
  return alignment.make_profile(aligned, frequency)


PROFILE = a_profile()


@settings(max_examples=30, deadline=None)
@given(sequences, sequences, st.integers(1, LONGEST))
def test_scores_do_not_know_the_future(past, future, cut):
  cut = min(cut, len(past))
  one = prefix_scores(PROFILE, jnp.asarray(padded(past, 12)))
  other = padded([*past[:cut], *future], 12)
  two = prefix_scores(PROFILE, jnp.asarray(other))
  np.testing.assert_array_equal(one[:cut], two[:cut])
  assert (np.diff(one) >= 0).all()  # gaps are free


def test_event_by_event_is_the_whole():
  events = padded(family(4, num_events=EVENTS)[0], 12)
  whole = prefix_scores(PROFILE, jnp.asarray(events))
  row, found = alignment.start(PROFILE), []
  advance = jax.jit(alignment.advance)
  for event in events:
    row = advance(PROFILE, row, event)
    found.append(alignment.value(row))
  np.testing.assert_array_equal(whole, np.stack(found))
  many = jax.vmap(alignment.prefix_scores, (None, 0))(
    PROFILE, jnp.stack([jnp.asarray(events)] * 2)
  )
  np.testing.assert_allclose(many[1], whole, rtol=1e-6)


@pytest.mark.parametrize('gap', [0.0, -0.3])
def test_a_wider_profile_scores_the_same(gap):
  profile = PROFILE._replace(gap=jnp.float32(gap))
  wider = alignment.widen(profile, 32, EVENTS + 3)
  for row in family(9, num_events=EVENTS)[:3]:
    events = jnp.asarray(padded(row, 12))
    np.testing.assert_array_equal(
      prefix_scores(wider, events), prefix_scores(profile, events)
    )
  with pytest.raises(types.UsageError, match='does not fit'):
    alignment.widen(profile, 2, EVENTS)


def test_every_demonstration_scores_above_its_reverse():
  rows = family(3, num_events=EVENTS)
  own = [prefix_scores(PROFILE, jnp.asarray(padded(r, 12)))[-1] for r in rows]
  reverse = [
    prefix_scores(PROFILE, jnp.asarray(padded(r[::-1], 12)))[-1] for r in rows
  ]
  assert (np.array(own) > np.array(reverse)).all()


def test_one_demonstration_and_one_event():
  assert alignment.align([[0, 1]], np.eye(2) * 2 - 1).tolist() == [[0, 1]]
  only = alignment.scoring_matrix(np.ones(1))
  assert only.tolist() == [[1.0]]
  rows = alignment.align([[0], [0]], only)
  profile = alignment.make_profile(rows, np.ones(1))
  # Nothing tells it from the background.
  assert prefix_scores(profile, jnp.zeros(3, jnp.int32)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: alignment.align([], np.eye(2)), 'no sequence'),
    (lambda: alignment.align([[0], []], np.eye(2)), 'sequence 1 has shape'),
    (lambda: alignment.align([[0, 2]], np.eye(2)), 'event 2; 0 to 1'),
    (lambda: alignment.align([[0, -1]], np.eye(2)), 'event -1'),
    (lambda: alignment.align([np.array([0.5])], np.eye(2)), 'integers'),
    (lambda: alignment.align([[0]], np.eye(2), gap=1.0), 'gap=1.0'),
    (lambda: alignment.align([[0]], -np.eye(2)), 'with itself'),
    (lambda: alignment.align([[0]], np.tri(2)), 'symmetric'),
    (lambda: alignment.background([[3]], 3), 'event 3; 0 to 2'),
    (lambda: alignment.scoring_matrix(np.array([0.5, 0.4])), 'sum 1'),
    (lambda: alignment.scoring_matrix(np.array([0.5, 0.5]), 0.5), 'eps=0.5'),
    (
      lambda: alignment.scoring_root(np.ones(2), np.full(2, 0.5)),
      'have no root',
    ),
    (
      lambda: alignment.scoring_root(-np.ones(2), np.full(2, 0.5)),
      'have no root',
    ),
    (lambda: alignment.scoring_root(np.ones(3), np.ones(2)), 'probabilities'),
    (
      lambda: alignment.make_profile(np.zeros(3, int), np.ones(1)),
      'shape',
    ),
    (
      lambda: alignment.make_profile(np.full((1, 1), 2), np.full(2, 0.5)),
      'to 1 are',
    ),
    (
      lambda: alignment.make_profile(np.zeros((1, 1), int), np.ones(1), 0.0),
      'pseudocount=0.0',
    ),
  ],
)
def test_what_cannot_be_is_told(call, words):
  with pytest.raises(types.UsageError, match=words):
    call()


def test_brute_force_meets_every_alignment_once():
  # The Delannoy numbers.
  assert [len(set(paths(n, n))) for n in range(5)] == [1, 3, 13, 63, 321]
  assert all(
    sorted(i for i, _ in p if i >= 0) == [0, 1] for p in paths(2, 2)
  ), list(itertools.islice(paths(2, 2), 3))
