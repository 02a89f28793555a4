"""Behaviours by hand, clusters that were planted, and their figure."""

import numpy as np

from dl_lectures.analysis import capture_behaviours
from dl_lectures.analysis.capture_behaviours import STEPS
from dl_lectures.analysis.knowledge import FACTS


def facts(steps, *true):
  """[steps, K]: these are true in all steps."""
  told = np.zeros((steps, len(FACTS)), bool)
  told[:, [FACTS.index(name) for name in true]] = True
  return told


def test_a_segment_tells_how_often_a_fact_is_true():
  first = facts(2 * STEPS + 3)
  first[: STEPS // 4, 0] = True
  second = facts(2 * STEPS + 3, FACTS[1])
  told = capture_behaviours.segments(np.stack([first, second], axis=1))
  # Two segments of each game; the last three steps are of none.
  assert told.shape == (4, len(FACTS))
  assert told[:, 0].tolist() == [0.25, 0, 0, 0]
  assert told[:, 1].tolist() == [0, 1, 0, 1]
  # Of games shorter than a segment, all is one.
  short = capture_behaviours.segments(first[:8, None])
  assert short[:, 0].tolist() == [0.5]


def test_behaviours_are_told_by_hand():
  half = facts(STEPS)
  half[: STEPS // 2] = facts(STEPS // 2, 'i am at our base')
  games = [
    facts(STEPS, 'i am at our base'),
    # Bringing their flag home is no defence.
    facts(STEPS, 'i am at our base', 'i carry their flag'),
    facts(STEPS, 'i am at their base', 'a mate is near'),
    facts(STEPS, 'i am at their base'),
    facts(STEPS, 'a mate is near', 'i carry their flag'),
    half,  # no more than half of the time
    facts(STEPS),
    facts(STEPS),
  ]
  told = capture_behaviours.segments(np.stack(games, axis=1))
  found = capture_behaviours.shares(told)
  assert found == {
    'home-base defence': 1 / 8,
    'opponent-base camping': 2 / 8,
    'teammate following': 1 / 8,
  }
  over_time = capture_behaviours.over_time({2: told, 1: told[:1]})
  assert over_time['home-base defence'] == [1.0, 1 / 8]


def planted():
  """60 segments: 40 of defence, 20 of carrying, with some noise."""
  draw = np.random.default_rng(0)
  kinds = np.stack(
    [facts(1, 'i am at our base')[0], facts(1, 'i carry their flag')[0]]
  )
  which = draw.permutation([0] * 40 + [1] * 20)
  noise = draw.uniform(0, 0.1, (60, len(FACTS)))
  return which, np.abs(kinds[which] - noise)


def test_clusters_are_those_that_were_planted():
  which, told = planted()
  clusters = capture_behaviours.cluster(told, 2)
  np.testing.assert_array_equal(clusters.label, which)
  np.testing.assert_allclose(clusters.centre[0], told[which == 0].mean(0))
  assert capture_behaviours.describe(clusters, 1) == [
    'i am at our base',
    'i carry their flag',
  ]


def test_the_figure_has_a_row_for_each_cluster_and_a_column_for_each_agent():
  which, told = planted()
  clusters = capture_behaviours.cluster(told, 2)
  figure = capture_behaviours.draw(clusters, [30, 30], ['a', 'b'], 'agent')
  shares = np.asarray(figure.axes[1].get_images()[0].get_array())
  expected = [(which[:30] == 0).mean(), (which[30:] == 0).mean()]
  np.testing.assert_allclose(shares[0], expected)
  np.testing.assert_allclose(shares.sum(axis=0), 1)
