"""Population based training: many runs, of which the good ones go on.

A population is a leading axis of P members on everything that a run has: its
parameters, the optimiser's state, its hyperparameters. So a system's own step
runs once per member, and between generations a member that does badly takes
over what a better one has (exploit) and changes the hyperparameters it got
(explore):

  step      over(step)(state, batch, key)           P steps, see `mapped`
  evaluate  scores [P]                              the system's own
  exploit   parent = truncation(scores, key)        a rule: who follows whom
            state = take(state, parent)             one gather
  explore   hyper = explore(ranges, hyper, ...)     where it was copied

Two traps, of which either stops the published toy example for ever. Members
that are equal must be told apart by chance: two that stand symmetrically never
exceed each other. And a value of zero must be able to leave it: no factor moves
it, so that ranges are passed through in logarithms, and only if they have one.

Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017
(sections 3 and 4.1, figure 2), and "Human-level performance in 3D multiplayer
games with population-based reinforcement learning", Science 364, 2019; slides,
deck 000, "Learning to Play Capture The Flag".

>>> ranges = {'rate': Range(1e-4, 1e-1), 'period': Range(5, 20, whole)}
>>> before = draw(ranges, jax.random.key(0), 4)
>>> scores = jnp.array([0.1, 0.4, 0.2, 0.3])
>>> parent = truncation(scores, jax.random.key(1), 0.25)
>>> parent.tolist()
[1, 1, 2, 3]
>>> changes = parent != jnp.arange(4)
>>> got = take(before, parent)
>>> after = explore(ranges, got, jax.random.key(2), changes)
>>> (after['rate'] != got['rate']).tolist()
[True, False, False, False]
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from dl_lectures.types import Array, Key, UsageError

# name -> [P], or [P, ...] for several values of one sort.
Hyper = Mapping[str, Array]
# (scores, key) -> [P] int32, whom each member follows: itself if it goes on.
Rule = Callable[[Array, Key], Array]
# A function of one member -> the same of all: jax.vmap, mapped, sharded(mesh).
Over = Callable[[Callable[..., Any]], Callable[..., Any]]


# ------------------------------------------------------------- one axis more


def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
  """Runs a function for one member after another, in one program.

  On a CPU a mapped member costs what a lone one does, and one of `jax.vmap` up
  to twice that; on accelerators `jax.vmap` is what fills them.

  Args:
    function: of one member; every argument gets the leading axis.

  >>> mapped(lambda x, y: x + y)(jnp.arange(3), jnp.ones(3)).tolist()
  [1.0, 2.0, 3.0]
  """
  return lambda *members: jax.lax.map(lambda one: function(*one), members)


def fitting(platform: str) -> Over:
  """The way over the members of one device that suits its kind.

  >>> fitting('cpu') is mapped, fitting('gpu') is jax.vmap
  (True, True)
  """
  return mapped if platform == 'cpu' else jax.vmap


def sharded(mesh: Mesh, over: Over = mapped) -> Over:
  """Deals the members out to the devices of a mesh.

  Args:
    mesh: of one axis (`training.make_mesh`); it divides the population.
    over: how a device runs its own share.
  """
  spec = PartitionSpec(mesh.axis_names[0])

  def over_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.shard_map(
      over(function), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )

  return over_devices


def take(members: Any, parent: Array) -> Any:
  """Each member gets what its parent has: one gather of every leaf.

  Args:
    members: a tree with a leading axis P on every leaf.
    parent: [P] int32.
  """
  return jax.tree.map(lambda x: x[parent], members)


def with_hyper(opt_state: Any, **values: Array) -> Any:
  """The state of `optax.inject_hyperparams` with other values in it.

  Args:
    opt_state: of the injected optimiser.
    **values: by name, what to put in; of any shape that was there.

  Raises:
    UsageError: the optimiser has no such hyperparameter.
  """
  for name in values:
    if name not in opt_state.hyperparams:
      raise UsageError(
        f'the optimiser has no {name}; possible: '
        f'{", ".join(sorted(opt_state.hyperparams))}'
      )
  return opt_state._replace(hyperparams={**opt_state.hyperparams, **values})


# -------------------------------------------------------- rules: who follows


def truncation(scores: Array, key: Key, share: float = 0.2) -> Array:
  """The worst follow the best: PBT, section 4.1, "truncation selection".

  Args:
    scores: [P] float32, the higher the better; equal ones are ordered by
      chance.
    key: consumed.
    share: of the population at either end, at most half; one member at least.

  Returns:
    [P] int32, whom each follows; the worst each follow any of the best.
  """
  members = scores.shape[0]
  count = max(1, min(int(share * members + 1e-6), members // 2))
  tie_key, pick_key = jax.random.split(key)
  order = jnp.lexsort((jax.random.uniform(tie_key, (members,)), scores))
  best = order[members - count :]
  chosen = best[jax.random.randint(pick_key, (count,), 0, count)]
  itself = jnp.arange(members, dtype=jnp.int32)
  return itself.at[order[:count]].set(chosen.astype(jnp.int32))


def binary_tournament(scores: Array, key: Key) -> Array:
  """Each meets any other, and follows it if that is better.

  Args:
    scores: [P] float32. A coin tells which of two equals is better.
    key: consumed.
  """
  rival_key, coin_key = jax.random.split(key)
  rival = _rivals(rival_key, scores.shape[0])
  # One draw for all, so that of two equals who meet only one follows.
  noise = jax.random.uniform(coin_key, scores.shape)
  better = (scores[rival] > scores) | (
    (scores[rival] == scores) & (noise[rival] > noise)
  )
  return jnp.where(better, rival, jnp.arange(scores.shape[0], dtype=jnp.int32))


def t_test(scores: Array, key: Key, level: float = 0.05) -> Array:
  """Each meets any other, and follows it if that is better beyond chance.

  Welch's test of the last N scores of both (PBT, section 4.1).

  Args:
    scores: [P, N] float32, N at least 2.
    key: consumed.
    level: the probability of a difference of this size by chance, one-sided.
  """
  members, count = scores.shape
  rival = _rivals(key, members)
  mean = jnp.mean(scores, axis=1)
  error = jnp.var(scores, axis=1, ddof=1) / count
  both = error + error[rival]
  t = (mean[rival] - mean) / jnp.sqrt(jnp.maximum(both, 1e-30))
  squares = jnp.maximum(error**2 + error[rival] ** 2, 1e-30)
  freedom = both**2 * (count - 1) / squares
  freedom = jnp.clip(freedom, 1.0, 2.0 * count)
  # P(T > t) by the incomplete beta function.
  tail = jax.scipy.special.betainc(freedom / 2, 0.5, freedom / (freedom + t**2))
  better = (t > 0) & (tail / 2 < level)
  return jnp.where(better, rival, jnp.arange(members, dtype=jnp.int32))


def ftw(elo: Array, key: Key, threshold: float = 0.7) -> Array:
  """Each meets any other, and follows it if that would win most games.

  Args:
    elo: [P] float32, ratings.
    key: consumed.
    threshold: the rival's estimated probability to win from which on it is
      followed.
  """
  rival = _rivals(key, elo.shape[0])
  wins = jax.nn.sigmoid((elo[rival] - elo) * (np.log(10) / 400))
  itself = jnp.arange(elo.shape[0], dtype=jnp.int32)
  return jnp.where(wins >= threshold, rival, itself)


def _rivals(key: Key, members: int) -> Array:
  """[P] int32, for each any other member."""
  if members < 2:
    raise UsageError(f'a population of {members}; at least 2 are needed')
  ahead = jax.random.randint(key, (members,), 1, members)
  return ((jnp.arange(members) + ahead) % members).astype(jnp.int32)


# ------------------------------------------------------------ hyperparameters


def logarithmic(low: Array, high: Array) -> tuple[Callable, Callable]:
  """Between two values above zero by factors."""
  del low, high
  return jnp.log, jnp.exp


def linear(low: Array, high: Array) -> tuple[Callable, Callable]:
  """Between two values by differences, which leave zero too."""
  width = high - low
  return lambda x: (x - low) / width, lambda x: low + x * width


def whole(low: Array, high: Array) -> tuple[Callable, Callable]:
  """Whole numbers, drawn anew when they change."""
  return linear(low, high)


class Range(NamedTuple):
  """What a hyperparameter may be, and how one gets from a value to another.

  Attributes:
    low: the least; above zero for `logarithmic`.
    high: the most.
    scale: `logarithmic`, `linear` or `whole`.
  """

  low: float
  high: float
  scale: Callable = logarithmic


def check(
  ranges: Mapping[str, Range], hyper: Mapping[str, Any] | None = None
) -> None:
  """Refuses ranges that cannot be, and values out of them.

  Raises:
    UsageError: tells which.

  >>> check({'entropy': Range(0.0, 1.0)})
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: entropy from 0.0 to 1.0 by factors; a range \
above 0, or linear, is possible
  """
  for name, (low, high, scale) in ranges.items():
    if not low < high:
      raise UsageError(f'{name} from {low} to {high}; no such range')
    if scale is logarithmic and low <= 0:
      raise UsageError(
        f'{name} from {low} to {high} by factors; a range above 0, or linear, '
        'is possible'
      )
  for name, values in (hyper or {}).items():
    if name not in ranges:
      raise UsageError(f'no range of {name}; there are {", ".join(ranges)}')
    low, high, _ = ranges[name]
    # A float32 may lie a last digit beyond.
    slack = 1e-6 * (high - low)
    outside = [
      float(x)
      for x in np.ravel(values)
      if not low - slack <= float(x) <= high + slack
    ]
    if outside:
      raise UsageError(
        f'{name}={outside[0]:g}; {low:g} to {high:g} is possible'
      )


def draw(
  ranges: Mapping[str, Range], key: Key, members: int
) -> dict[str, Array]:
  """First values, evenly on each range's scale: name -> [P].

  Args:
    ranges: by name.
    key: consumed.
    members: P.

  Raises:
    UsageError: no such range.
  """
  check(ranges)
  keys = jax.random.split(key, len(ranges))
  return {
    name: _drawn(one, keys[i], (members,))
    for i, (name, one) in enumerate(sorted(ranges.items()))
  }


def explore(
  ranges: Mapping[str, Range],
  hyper: Hyper,
  key: Key,
  where: Array,
  chance: float = 1.0,
  factor: float = 1.2,
) -> dict[str, Array]:
  """Changes hyperparameters at random, within their ranges.

  `logarithmic` ones are multiplied or divided by the factor; `linear` ones get
  a normal difference of (factor - 1) / 2 of the range; `whole` ones are drawn
  anew. All that is known of a value is that it is in its range.

  Args:
    ranges: by name.
    hyper: name -> [P] or [P, ...].
    key: consumed.
    where: [P] bool, the members to change.
    chance: of each value to change.
    factor: above 1. The published ones are x 0.8 and x 1.2, of which the
      product is not 1; these go up as often as down.
  """
  keys = jax.random.split(key, (len(ranges), 2))
  changed = dict(hyper)
  for i, (name, one) in enumerate(sorted(ranges.items())):
    value = hyper[name]
    change_key, chance_key = keys[i]
    if one.scale is whole:
      new = _drawn(one, change_key, value.shape)
    else:
      to, back = one.scale(one.low, one.high)
      if one.scale is logarithmic:
        way = jax.random.bernoulli(change_key, 0.5, value.shape)
        by = jnp.where(way, 1.0, -1.0) * np.log(factor)
      else:
        by = jax.random.normal(change_key, value.shape) * (factor - 1) / 2
      # What is out of range, as a zero is, first comes back into it.
      new = back(to(jnp.clip(value, one.low, one.high)) + by)
    changes = jax.random.uniform(chance_key, value.shape) < chance
    changes &= where.reshape(-1, *[1] * (value.ndim - 1))
    new = jnp.clip(new, one.low, one.high).astype(value.dtype)
    changed[name] = jnp.where(changes, new, value)
  return changed


def _drawn(one: Range, key: Key, shape: tuple[int, ...]) -> Array:
  if one.scale is whole:
    return jax.random.randint(key, shape, int(one.low), int(one.high) + 1)
  to, back = one.scale(one.low, one.high)
  low, high = to(jnp.float32(one.low)), to(jnp.float32(one.high))
  drawn = back(jax.random.uniform(key, shape, minval=low, maxval=high))
  return jnp.clip(drawn, one.low, one.high)


# -------------------------------------------------------------------- lineage


class Birth(NamedTuple):
  """A line of a lineage: a member begins, or takes over from another.

  Attributes:
    step: when.
    child: the member.
    parent: whom it followed; None when the run begins.
    scores: of child and parent, before; empty when the run begins.
    before: name -> value, the hyperparameters the child had.
    after: those it has now.
    seed: of the run.
  """

  step: int
  child: int
  parent: int | None
  scores: tuple[float, ...]
  before: dict[str, Any]
  after: dict[str, Any]
  seed: int


def births(
  step: int,
  parent: Array,
  scores: Array,
  before: Hyper,
  after: Hyper,
  seed: int = 0,
) -> list[Birth]:
  """What happened in a generation, from the arrays of a program.

  Args:
    step: when.
    parent: [P] int32, whom each followed.
    scores: [P], before.
    before: name -> [P, ...], hyperparameters before.
    after: the same, after.
    seed: of the run.
  """
  follows, rated = np.asarray(parent), np.asarray(scores)
  return [
    Birth(
      step,
      int(child),
      int(follows[child]),
      (float(rated[child]), float(rated[follows[child]])),
      _member(before, int(child)),
      _member(after, int(child)),
      seed,
    )
    for child in np.flatnonzero(follows != np.arange(len(follows)))
  ]


def begun(hyper: Hyper, seed: int = 0) -> list[Birth]:
  """The first lines of a lineage: all members with their first values."""
  members = len(next(iter(hyper.values())))
  return [
    Birth(0, i, None, (), {}, _member(hyper, i), seed) for i in range(members)
  ]


def append(path: str | os.PathLike[str], lines: Sequence[Birth]) -> None:
  """Appends to a lineage, one JSON object a line."""
  with open(path, 'a', encoding='utf-8') as file:
    file.writelines(json.dumps(line._asdict()) + '\n' for line in lines)


def write_from(
  path: str | os.PathLike[str], step: int, lines: Sequence[Birth]
) -> None:
  """Makes these lines what a lineage tells of a step and all after it.

  So a run that goes on from a checkpoint may make generations again. The file
  is replaced as a whole: a kill at any moment leaves it as it was or as it is
  to be.

  Args:
    path: of the lineage, which need not exist.
    step: of the first line that is forgotten.
    lines: what takes their place.

  Raises:
    UsageError: what is there is no lineage.
  """
  kept = read(path) if os.path.exists(path) else []
  kept = [line for line in kept if line.step < step]
  temporary = f'{os.fspath(path)}.tmp'
  if os.path.exists(temporary):
    os.remove(temporary)
  append(temporary, [*kept, *lines])
  os.replace(temporary, path)


def read(path: str | os.PathLike[str]) -> list[Birth]:
  """Reads a lineage.

  Raises:
    UsageError: a line is cut short or tells something else.
  """
  found = []
  with open(path, encoding='utf-8') as file:
    for number, line in enumerate(file, 1):
      try:
        told = Birth(**json.loads(line))
      except (json.JSONDecodeError, TypeError) as error:
        raise UsageError(
          f'{os.fspath(path)}, line {number}: no birth of a lineage '
          f'({len(line.rstrip())} characters); cut there to go on'
        ) from error
      found.append(told._replace(scores=tuple(told.scores)))
  return found


def schedule(
  lineage: Sequence[Birth], member: int
) -> list[tuple[int, dict[str, Any]]]:
  """The hyperparameters that led to a member: what its ancestors had, and when.

  Args:
    lineage: in the order in which it was written.
    member: at the end.

  Returns:
    (step, name -> value), from step 0 on; each holds until the next.

  Raises:
    UsageError: the lineage knows no such member.
  """
  path: list[tuple[int, dict[str, Any]]] = []
  # All children of a generation follow what was before it.
  before = None
  for line in reversed(lineage):
    if line.child != member or (before is not None and line.step >= before):
      continue
    path.append((line.step, line.after))
    before = line.step
    if line.parent is None:
      return path[::-1]
    member = line.parent
  raise UsageError(f'member {member} has no beginning in this lineage')


def _member(hyper: Hyper, member: int) -> dict[str, Any]:
  return {k: np.asarray(v)[member].tolist() for k, v in sorted(hyper.items())}
