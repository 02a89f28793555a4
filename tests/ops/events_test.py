"""Successor representations by hand and by TD; clusters; merged repeats."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures import types
from dl_lectures.ops import events

merge_repeats = jax.jit(events.merge_repeats)
event_lists = st.lists(st.integers(-1, 3), min_size=8, max_size=8)


def a_batch(*ways):
  longest = max(map(len, ways))
  states = np.zeros((len(ways), longest), int)
  mask = np.zeros((len(ways), longest), bool)
  for i, way in enumerate(ways):
    states[i, : len(way)], mask[i, : len(way)] = way, True
  return states, mask


def test_transitions_are_shares_of_visits():
  # 0 is seen three times: twice 1 follows, once the episode ends.
  found = events.transition_matrix(*a_batch([0, 1, 0, 1, 2], [2, 0]), 4)
  expected = np.zeros((4, 4))
  expected[0, 1] = 2 / 3
  expected[1] = [1 / 2, 0, 1 / 2, 0]
  expected[2, 0] = 1 / 2
  np.testing.assert_allclose(found, expected)


def test_successors_are_the_discounted_visits():
  random = np.random.default_rng(0)
  transition = random.dirichlet(np.ones(5), size=5)
  found = events.successor_representation(transition, 0.8)
  visits, power = np.zeros((5, 5)), np.eye(5)
  for _ in range(200):
    visits, power = visits + power, 0.8 * power @ transition
  np.testing.assert_allclose(found, visits, atol=1e-9)
  np.testing.assert_allclose(found.sum(1), 1 / (1 - 0.8))


def test_td_comes_to_the_closed_form():
  # Episodes without a choice: there TD comes to the exact numbers.
  batch = a_batch([0, 1, 2, 3], [4, 1, 2, 3], [2, 3])
  exact = events.successor_representation(
    events.transition_matrix(*batch, 6), 0.9
  )
  found = events.successor_by_td(*batch, 6, 0.9, learning_rate=0.5, passes=60)
  np.testing.assert_allclose(found[:5, :5], exact[:5, :5], atol=1e-6)
  assert (found[5] == 0).all()  # never seen
  early = events.successor_by_td(*batch, 6, 0.9, learning_rate=0.5, passes=1)
  assert np.abs(early - found).max() > 0.1


def test_clusters_are_those_that_were_made():
  random = np.random.default_rng(1)
  centres = np.array([[0.0, 0], [9, 0], [0, 9], [9, 9]])
  which = np.repeat(np.arange(4), 6)
  points = centres[which] + random.normal(size=(24, 2))
  labels = events.cluster(points, 5)
  assert labels.max() == 3
  same = labels[:, None] == labels[None, :]
  np.testing.assert_array_equal(same, which[:, None] == which[None, :])
  for most in (1, 2, 3):
    assert events.cluster(points, most).max() < most


@pytest.mark.parametrize('seed', range(3))
def test_clusters_are_those_of_scikit_learn(seed):
  theirs = pytest.importorskip('sklearn.cluster')
  points = np.random.default_rng(seed).normal(size=(60, 3))
  similarity = -((points[:, None] - points[None]) ** 2).sum(-1)
  # The preference that is tried first.
  preference = np.median(similarity)
  found = theirs.AffinityPropagation(
    affinity='precomputed', preference=preference, random_state=0
  ).fit(similarity)
  labels = events.cluster(points, 60)
  same = labels[:, None] == labels[None, :]
  expected = found.labels_[:, None] == found.labels_[None, :]
  np.testing.assert_array_equal(same, expected)
  assert 3 < labels.max() < 20


@pytest.mark.parametrize(
  'points', [np.zeros((1, 2)), np.ones((5, 1)), np.eye(2), np.eye(4)]
)
def test_points_that_are_all_alike_are_clustered_too(points):
  for most in (1, 2, 9):
    labels = events.cluster(points, most)
    assert labels.shape == (len(points),)
    assert 0 <= labels.min() <= labels.max() < most


def test_states_on_the_same_way_are_one_event():
  # Two starts, one corridor, one hall, where the walk takes its time.
  hall = [6, 7, 6, 7] * 6
  batch = a_batch([0, 2, 3, *hall, 8], [1, 2, 3, *hall, 8])
  found = events.events_of_states(*batch, num_states=10, max_events=4)
  assert found[0] == found[1] == 0
  assert found[6] == found[7]
  assert found[3] < found[6] < found[8]
  assert (found == found[8]).sum() == 1  # where both end
  # Of 4, 5 and 9 nothing is known.
  assert (found[[4, 5, 9]] == found.max()).all()
  assert (found == found.max()).sum() == 3


def test_one_demonstration_of_one_state():
  found = events.events_of_states(*a_batch([2]), num_states=3, max_events=5)
  assert found.tolist() == [1, 1, 0]


@settings(deadline=None)
@given(event_lists)
def test_merged_repeats_are_those_of_itertools(row):
  merged = np.asarray(merge_repeats(jnp.array(row)))
  happened = [event for event in row if event >= 0]
  runs = [event for event, _ in itertools.groupby(happened)]
  assert merged[merged >= 0].tolist() == runs
  # Each stands where its run begins.
  assert all(m in (-1, event) for m, event in zip(merged, row, strict=True))
  mask = np.array([[True] * len(happened) + [False] * (8 - len(happened))])
  padded = np.array([[*happened, *[-1] * (8 - len(happened))]])
  assert events.sequences(padded, mask)[0].tolist() == runs


@settings(deadline=None)
@given(event_lists, event_lists, st.integers(1, 7))
def test_merging_is_causal(row, other, cut):
  one = merge_repeats(jnp.array(row))
  two = merge_repeats(jnp.array(row[:cut] + other[cut:]))
  np.testing.assert_array_equal(one[:cut], two[:cut])


def test_sequences_have_their_own_lengths():
  found = events.sequences(*a_batch([1, 1, 2, 1], [3], [0, 0]))
  assert [x.tolist() for x in found] == [[1, 2, 1], [3], [0]]


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: events.transition_matrix(*a_batch([0, 5]), 5), 'state 5'),
    (
      lambda: events.transition_matrix(
        np.zeros((0, 3), int), np.ones((0, 3), bool), 5
      ),
      'at least one state',
    ),
    (
      lambda: events.transition_matrix(
        np.zeros((1, 3), int), np.ones((1, 2), bool), 5
      ),
      r'states \[1, 3\] and mask \[1, 2\]',
    ),
    (
      lambda: events.events_of_states(
        np.zeros((1, 3), int), np.array([[True, False, True]]), 5, 2
      ),
      'holes',
    ),
    (lambda: events.events_of_states(*a_batch([0, 1]), 5, 1), 'events=1'),
    (lambda: events.cluster(np.zeros((3, 2)), 0), 'at most 0'),
    (lambda: events.successor_representation(np.eye(2), 1.0), 'gamma=1.0'),
    (lambda: events.cluster(np.zeros((0, 2)), 3), 'at most 3'),
  ],
)
def test_what_cannot_be_is_told(call, words):
  with pytest.raises(types.UsageError, match=words):
    call()
