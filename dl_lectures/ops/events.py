"""Events: states that lead to the same future are one.

Align-RUDDER aligns events, not states: clusters of states under the successor
representation, the expected discounted visits to every state from each one.
States of one room on the way to one door have nearly the same future, whatever
their coordinates.

    states of          successor         affinity          event sequences
    demonstrations --> representation --> propagation ----> 0 0 0 1 1 2
    [N, T]             [C, C]             event [C]         0 1 2, merged

Affinity propagation is here in NumPy: on the some hundred states that
demonstrations visit it takes hundredths of a second, as scikit-learn's does,
which gives the same clusters but takes seconds to import and draws numbers.

Sources: Patil et al., "Align-RUDDER: learning from few demonstrations by
reward redistribution", ICML 2022 [AR], step I; Dayan, "Improving
generalization for temporal difference learning: the successor representation",
Neural Computation 5 (1993) [D]; Frey & Dueck, "Clustering by passing messages
between data points", Science 315 (2007). Slides: deck 002, "Align-RUDDER".
"""

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, UsageError

# How much the wish to be an exemplar falls, until there are few enough.
_FEWER = 1.3
_ROUNDS = 60
# Squared distances below are rounding.
_SAME = 1e-12
# Messages that swing are damped more.
_DAMPING = (0.5, 0.7, 0.9)
_MOST_MESSAGES, _SETTLED = 500, 15
# Equals are told apart by numbers spread evenly over [0, 1).
_NUDGE, _GOLDEN = 1e-9, 0.6180339887498949


def transition_matrix(
  states: np.ndarray, mask: np.ndarray, num_states: int
) -> np.ndarray:
  """How often each state was followed by each other, as shares.

  Args:
    states: [N, T] int, one episode a row.
    mask: [N, T] bool, true for the states that count, from the left.
    num_states: C.

  Returns:
    [C, C] float64. A row sums to 1, less the share of visits that were the last
    of an episode; that of a state that was never seen is 0.

  Raises:
    UsageError: no state counts, or one is not in [0, C).

  >>> states, mask = np.array([[0, 1, 0, 2]]), np.full((1, 4), True)
  >>> transition_matrix(states, mask, 3).tolist()
  [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
  """
  states, mask = _check(states, mask, num_states)
  counts = np.zeros((num_states, num_states))
  follows = mask[:, :-1] & mask[:, 1:]
  np.add.at(counts, (states[:, :-1][follows], states[:, 1:][follows]), 1)
  visits = np.bincount(states[mask], minlength=num_states)
  return counts / np.maximum(visits, 1)[:, None]


def successor_representation(
  transition: np.ndarray, gamma: float = 0.99
) -> np.ndarray:
  """M = (I - gamma P)^-1: the discounted visits that are to be expected [D].

  Args:
    transition: [C, C], P, rows that sum to 1 or less.
    gamma: the discount, below 1.

  Returns:
    [C, C] float64; M[i, j] counts the visits to j from i on, i's own included.

  Raises:
    UsageError: a discount outside [0, 1).

  >>> way = np.array([[0, 1.0], [0, 0]])
  >>> successor_representation(way, 0.5).tolist()
  [[1.0, 0.5], [0.0, 1.0]]
  """
  if not 0 <= gamma < 1:
    raise UsageError(f'gamma={gamma}; from 0 to below 1 is possible')
  return np.linalg.inv(np.eye(len(transition)) - gamma * transition)


def successor_by_td(
  states: np.ndarray,
  mask: np.ndarray,
  num_states: int,
  gamma: float = 0.99,
  learning_rate: float = 0.1,
  passes: int = 10,
) -> np.ndarray:
  """The same by temporal differences, as in the code of [AR].

  M[s] <- M[s] + learning_rate (1_s + gamma M[s'] - M[s]), episode after
  episode; behind the last state there is nothing. It knows no model and needs
  many passes for what the closed form has at once.

  Args:
    states: [N, T] int, one episode a row.
    mask: [N, T] bool, true for the states that count, from the left.
    num_states: C.
    gamma: the discount.
    learning_rate: of each update.
    passes: through all episodes.

  Returns:
    [C, C] float64; rows of states that were never seen are 0.

  >>> states, mask = np.array([[0, 1]]), np.full((1, 2), True)
  >>> successor_by_td(states, mask, 2, gamma=0.5, learning_rate=1.0).tolist()
  [[1.0, 0.5], [0.0, 1.0]]
  """
  states, mask = _check(states, mask, num_states)
  visits = np.zeros((num_states, num_states))
  for _ in range(passes):
    for row, here in zip(states, mask, strict=True):
      way = row[here]
      for i, state in enumerate(way):
        target = np.zeros(num_states)
        target[state] = 1
        if i + 1 < len(way):
          target += gamma * visits[way[i + 1]]
        visits[state] += learning_rate * (target - visits[state])
  return visits


def cluster(features: np.ndarray, max_clusters: int) -> np.ndarray:
  """Affinity propagation, with at most so many clusters.

  The similarity is the negative squared distance, and the preference its
  median; as long as there are too many clusters, it is lowered by 30%. Points
  that cannot be told apart, or that no preference brings together, are one
  cluster.

  Args:
    features: [m, F].
    max_clusters: at least 1.

  Returns:
    [m] int, from 0 on.

  Raises:
    UsageError: there is nothing to be clustered, or no cluster is allowed.

  >>> cluster(np.array([[0.0], [0.1], [5.0], [5.1], [5.2]]), 3).tolist()
  [0, 0, 1, 1, 1]
  """
  features = np.asarray(features, float)
  if features.ndim != 2 or not len(features) or max_clusters < 1:
    raise UsageError(
      f'features of shape {list(features.shape)} cannot make at most '
      f'{max_clusters} clusters; [m, F] and 1 are the least'
    )
  squares = (features**2).sum(1)
  similarity = 2 * features @ features.T - squares[:, None] - squares[None, :]
  np.fill_diagonal(similarity, 0)
  farthest = similarity.min()
  preference = min(float(np.median(similarity)), 1e-3 * farthest)
  rounds = _ROUNDS if max_clusters > 1 and farthest < -_SAME else 0
  for _ in range(rounds):
    labels = _affinity_propagation(similarity, preference)
    if labels is not None and labels.max() < max_clusters:
      return labels
    preference *= _FEWER
  return np.zeros(len(features), int)


def events_of_states(
  states: np.ndarray,
  mask: np.ndarray,
  num_states: int,
  max_events: int,
  gamma: float = 0.99,
) -> np.ndarray:
  """Step I of [AR]: which event each state is.

  States that the demonstrations visit are clustered by the rows of their
  successor representation. Those in which they end have no future and are one
  event: without it nothing tells the last step from those before it. All other
  states are 'elsewhere', the last event: no demonstration holds it, so it never
  earns anything.

  Args:
    states: [N, T] int, demonstrations, one a row.
    mask: [N, T] bool, true for the states that count, from the left.
    num_states: C.
    max_events: with the end, beside elsewhere.
    gamma: the discount of the successor representation.

  Returns:
    [C] int32: 0 to K - 1 in the order in which they happen on average, K <=
    max_events; K is elsewhere.

  Raises:
    UsageError: no demonstration, an unknown state, fewer than two events.

  >>> states, mask = np.array([[4, 3, 0]]), np.full((1, 3), True)
  >>> events_of_states(states, mask, 5, max_events=2).tolist()
  [1, 2, 2, 0, 0]
  """
  states, mask = _check(states, mask, num_states)
  if max_events < 2:
    raise UsageError(
      f'max_events={max_events}; at least 2 is possible, the way and its end'
    )
  transition = transition_matrix(states, mask, num_states)
  last = np.pad(mask[:, 1:], ((0, 0), (0, 1))) < mask
  ends = np.unique(states[last])
  before = np.setdiff1d(states[mask], ends)
  labels = np.zeros(0, int)
  if before.size:
    future = successor_representation(transition, gamma)
    labels = cluster(future[np.ix_(before, [*before, *ends])], max_events - 1)
  end = labels.max(initial=-1) + 1
  event = np.full(num_states, end + 1, np.int32)
  event[before], event[ends] = labels, end
  time = np.broadcast_to(np.arange(states.shape[1]), states.shape)[mask]
  of = event[states[mask]]
  mean_time = np.bincount(of, time) / np.bincount(of)
  order = np.append(np.argsort(np.argsort(mean_time, kind='stable')), end + 1)
  return order[event].astype(np.int32)


def merge_repeats(events: Array) -> Array:
  """Marks the steps at which nothing new happened with -1; causal.

  Args:
    events: [T] int32; -1 is no event: what stands before and behind it are
      neighbours.

  Returns:
    [T] int32, the event at the first step of each of its runs, else -1.

  >>> merge_repeats(jnp.array([2, 2, -1, 2, 0, 0, 2])).tolist()
  [2, -1, -1, -1, 0, -1, 2]
  """
  place = jnp.where(events >= 0, jnp.arange(events.shape[0]), -1)
  latest = jax.lax.cummax(place)
  before = jnp.concatenate([jnp.array([-1]), latest[:-1]])
  previous = jnp.where(before >= 0, events[before], -1)
  return jnp.where(events == previous, -1, events)


def sequences(events: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
  """What is to be aligned: the events of each episode, repeats merged.

  Args:
    events: [N, T] int.
    mask: [N, T] bool, true for the steps that count.

  Returns:
    N arrays of their own lengths.

  >>> found = sequences(np.array([[0, 0, 1], [2, 0, 9]]), np.array(
  ...   [[True, True, True], [True, True, False]]))
  >>> [x.tolist() for x in found]
  [[0, 1], [2, 0]]
  """
  found = []
  for row, here in zip(np.asarray(events), np.asarray(mask), strict=True):
    way = row[here]
    found.append(way[np.append(True, way[1:] != way[:-1])[: len(way)]])
  return found


def _affinity_propagation(
  similarity: np.ndarray, preference: float
) -> np.ndarray | None:
  """Labels [m]; None where the messages do not settle."""
  for damping in _DAMPING:
    exemplars = _exemplars(similarity, preference, damping)
    if exemplars is not None:
      break
  else:
    return None
  # An exemplar chosen by messages need not be the best of its cluster.
  labels = _nearest(similarity, exemplars)
  for k in range(len(exemplars)):
    members = np.flatnonzero(labels == k)
    within = similarity[np.ix_(members, members)].sum(0)
    exemplars[k] = members[within.argmax()]
  return _nearest(similarity, np.sort(exemplars))


def _nearest(similarity: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
  labels = similarity[:, exemplars].argmax(1)
  labels[exemplars] = np.arange(len(exemplars))
  return labels


def _exemplars(
  similarity: np.ndarray, preference: float, damping: float
) -> np.ndarray | None:
  """Frey and Dueck's equations 1 to 3, until the choice stays the same.

  r(i, k) <- s(i, k) - max_{k' != k} (a(i, k') + s(i, k'))
  a(i, k) <- min(0, r(k, k) + sum_{i' not in {i, k}} max(0, r(i', k)))
  a(k, k) <- sum_{i' != k} max(0, r(i', k))
  """
  m = len(similarity)
  every = np.arange(m)
  s = similarity.copy()
  # Equals, of which either could be the exemplar, would swing for ever.
  s += _NUDGE * abs(similarity.min()) * (every * _GOLDEN % 1)
  s[every, every] = preference * (1 + _NUDGE * (every * _GOLDEN % 1))
  responsibility, availability = np.zeros((2, m, m))
  chosen, stayed = np.zeros(m, bool), 0
  for _ in range(_MOST_MESSAGES):
    both = availability + s
    best = both.argmax(1)
    first = both[every, best]
    both[every, best] = -np.inf
    news = s - first[:, None]
    news[every, best] = s[every, best] - both.max(1)
    responsibility = damping * responsibility + (1 - damping) * news

    votes = np.maximum(responsibility, 0)
    votes[every, every] = responsibility[every, every]
    total = votes.sum(0)
    news = np.minimum(total[None, :] - votes, 0)
    news[every, every] = total - votes[every, every]
    availability = damping * availability + (1 - damping) * news

    now = responsibility[every, every] + availability[every, every] > 0
    stayed = stayed + 1 if (now == chosen).all() else 0
    chosen = now
    if stayed >= _SETTLED and chosen.any():
      return np.flatnonzero(chosen)
  return None


def _check(
  states: np.ndarray, mask: np.ndarray, num_states: int
) -> tuple[np.ndarray, np.ndarray]:
  states, mask = np.asarray(states), np.asarray(mask, bool)
  if states.ndim != 2 or states.shape != mask.shape or not mask.any():
    raise UsageError(
      f'states {list(states.shape)} and mask {list(mask.shape)} with '
      f'{mask.sum()} states that count; two of shape [N, T] and at least one '
      'state are needed'
    )
  if (mask[:, 1:] & ~mask[:, :-1]).any():
    raise UsageError('a mask has holes; it is true from the left to the end')
  wrong = states[mask & ((states < 0) | (states >= num_states))]
  if wrong.size:
    raise UsageError(f'state {wrong[0]}; 0 to {num_states - 1} are possible')
  return states, mask
