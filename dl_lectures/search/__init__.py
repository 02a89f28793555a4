"""Batched Monte Carlo tree search."""

from dl_lectures.search.policies import (
  PolicyOutput,
  QTransform,
  alphazero_policy,
  gumbel_muzero_policy,
  min_max_q,
  muzero_policy,
  raw_q,
)
from dl_lectures.search.search import RecurrentFn, search
from dl_lectures.search.tree import (
  RecurrentFnOutput,
  RootFnOutput,
  SearchSummary,
  Tree,
  reuse,
)

__all__ = [
  'PolicyOutput',
  'QTransform',
  'RecurrentFn',
  'RecurrentFnOutput',
  'RootFnOutput',
  'SearchSummary',
  'Tree',
  'alphazero_policy',
  'gumbel_muzero_policy',
  'min_max_q',
  'muzero_policy',
  'raw_q',
  'reuse',
  'search',
]
