"""What an agent does in capture the flag, and how that changes as it learns.

A game is cut into segments of some steps, each told by how often each of
`knowledge.FACTS` was true in it. Three behaviours that the paper saw are looked
for by name; others are found as clusters of segments, in which the facts are
alike, and described by what is true more often there than elsewhere.

    games ──> facts of each step ──> segments ──┬──> named behaviours: shares
                                                └──> k-means: clusters, shares

>>> truth = np.zeros((32, 2, len(FACTS)), bool)
>>> truth[:, 0, FACTS.index('i am at our base')] = True
>>> shares(segments(truth))
{'home-base defence': 0.5, 'opponent-base camping': 0.0, \
'teammate following': 0.0}

Source: Jaderberg et al., Science 364 (2019), behaviours; slides, deck 000,
"Learning to Play Capture The Flag".
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dl_lectures.analysis.knowledge import FACTS

STEPS = 16  # of a segment
BEHAVIOURS = (
  'home-base defence',
  'opponent-base camping',
  'teammate following',
)
# A behaviour is what one does for most of a segment.
_MOST = 0.5


class Clusters(NamedTuple):
  """Segments that are alike, in order of how many there are.

  Attributes:
    centre: [C, K], how often each fact is true.
    usual: [K], the same of all segments.
    label: [N] int, of each segment.
  """

  centre: np.ndarray
  usual: np.ndarray
  label: np.ndarray


def segments(truth: np.ndarray) -> np.ndarray:
  """How often each fact is true in each segment, [N, K] float32.

  Args:
    truth: [T, G, K] bool. Steps after the last whole segment do not count.

  >>> segments(np.ones((32, 3, len(FACTS)), bool)).shape == (6, len(FACTS))
  True
  """
  steps, games, facts = truth.shape
  size = min(STEPS, steps)
  whole = truth[: steps // size * size]
  apart = whole.reshape(-1, size, games, facts)
  return apart.mean(axis=1, dtype=np.float32).reshape(-1, facts)


def shares(told: np.ndarray) -> dict[str, float]:
  """The share of segments [N, K] in which an agent does each of BEHAVIOURS.

  It defends who stays at its own base without their flag, camps who stays at
  the other's without it, and follows who stays near a mate at neither.
  """

  def often(fact: str) -> np.ndarray:
    return told[:, FACTS.index(fact)] > _MOST

  home, away = often('i am at our base'), often('i am at their base')
  free = ~often('i carry their flag')
  found = home & free, away & free, often('a mate is near') & ~home & ~away
  return {
    name: float(one.mean()) for name, one in zip(BEHAVIOURS, found, strict=True)
  }


def cluster(told: np.ndarray, count: int, seed: int = 0) -> Clusters:
  """Groups segments [N, K] by k-means; facts that vary more weigh more.

  Args:
    told: of `segments`, of all agents that are to be compared.
    count: C.
    seed: of where k-means begins.
  """
  from sklearn import cluster as sklearn_cluster

  means = sklearn_cluster.KMeans(count, n_init=4, random_state=seed).fit(told)
  order = np.argsort(-np.bincount(means.labels_, minlength=count))
  rank = np.argsort(order)
  return Clusters(
    means.cluster_centers_[order], told.mean(axis=0), rank[means.labels_]
  )


def describe(clusters: Clusters, facts: int = 2) -> list[str]:
  """What is true more often in each cluster than usually, in words."""
  return [
    ', '.join(
      FACTS[i]
      for i in np.argsort(clusters.usual - centre)[:facts]
      if centre[i] > clusters.usual[i]
    )
    or 'nothing of note'
    for centre in clusters.centre
  ]


def draw(
  clusters: Clusters, counts: Sequence[int], names: Sequence[str], of: str
) -> Figure:
  """What clusters are, and how often an agent was in each.

  Args:
    clusters: of the segments of some agents, one after another.
    counts: of segments of each agent; their sum is N.
    names: of the agents.
    of: what the names tell.
  """
  figure = Figure(figsize=(11, 6))
  what, often = figure.subplots(1, 2, width_ratios=(len(FACTS), len(names)))
  rows = range(len(clusters.centre))
  told = what.imshow(
    clusters.centre, vmin=0, vmax=1, aspect='auto', cmap='Blues'
  )
  what.set_xticks(range(len(FACTS)), FACTS, rotation=90, fontsize='small')
  what.set_yticks(rows, describe(clusters), fontsize='small')
  figure.colorbar(told, ax=what, label='share of steps', location='top')
  parts = np.split(clusters.label, np.cumsum(counts)[:-1])
  share = np.stack(
    [
      np.bincount(part, minlength=len(clusters.centre)) / max(1, len(part))
      for part in parts
    ],
    axis=1,
  )
  seen = often.imshow(share, vmin=0, aspect='auto', cmap='Oranges')
  often.set_xticks(range(len(names)), names, rotation=90, fontsize='small')
  often.set_xlabel(of)
  often.set_yticks(rows, [])
  figure.colorbar(seen, ax=often, label='share of segments', location='top')
  figure.tight_layout()
  return figure


def over_time(told: Mapping[float, np.ndarray]) -> dict[str, list[float]]:
  """`shares` of segments at some times, in order: by behaviour."""
  at = [shares(told[time]) for time in sorted(told)]
  return {name: [one[name] for one in at] for name in BEHAVIOURS}
