"""What an agent knows of its game: facts read off what goes on inside it.

Whether a mate carries the flag, whether an opponent stands at our base: facts
of the true position, each yes or no. A logistic regression from the agent's
memory to a fact is learned in some games and judged in others, by the area
under its ROC curve: .5 knows nothing, 1 everything. Two others are probed
alike: the observation of the moment, which knows what is in sight, and an
agent that never learned, whose random memory also echoes what it saw.

    positions ──> observation ──> agent ──> memory ──┐
        └───> facts of all that is true ──> logistic regression, other games

>>> import jax
>>> from dl_lectures.envs import capture_bots, capture_games
>>> rules = capture_the_flag.Rules(size=11, length=32)
>>> side = capture_games.bot(rules, capture_bots.tagger)
>>> def memory_of(steps):  # a bot's: from each cell to each, [games, C, C]
...   return jnp.repeat(steps.reshape(len(steps), -1), 2, axis=0)
>>> live = make_live(rules, lambda params: side, memory_of, side, games=2)
>>> lived = live((), jax.random.key(0))
>>> lived.truth.shape == (32, 2, len(FACTS))
True

A map of the memories by their principal components, coloured by what goes on,
shows it to the eye; how often the nearest memory of another game is of the same
situation says how much the map is worth.

Source: Jaderberg et al., Science 364 (2019), "knowledge", single neurons and
t-SNE, whose part components have here; slides, deck 000, "Learning to Play
Capture The Flag".
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dl_lectures.analysis import ranking
from dl_lectures.envs import capture_games, capture_the_flag
from dl_lectures.envs.capture_the_flag import Observation, Rules, State
from dl_lectures.types import Array, Key

# Of agent 0 and its team; 'at' and 'near' are three steps at most.
FACTS = (
  'i carry their flag',
  'a mate carries their flag',
  'their flag is home',
  'their flag lies about',
  'our flag is home',
  'our flag is carried',
  'our flag lies about',
  'i could score at our base',
  'i am out',
  'a mate is out',
  'an opponent is out',
  'all opponents are out',
  'i may tag',
  'i would tag somebody',
  'an opponent would tag me',
  'i am at our base',
  'i am at their base',
  'a mate is at our base',
  'a mate is at their base',
  'an opponent is at our base',
  'an opponent is at their base',
  'a mate is near',
  'an opponent is near',
  'we lead',
  'we are behind',
  'the last quarter',
)
# What goes on: of these the first that is true.
SITUATIONS = (
  'i am out',
  'i carry their flag',
  'a mate carries their flag',
  'our flag is carried',
  'our flag lies about',
  'their flag lies about',
  'our flag is home',  # and theirs too
)
_NEAR = 3
# Steps between two positions of a game that are looked at.
_EVERY = 4


class Lived(NamedTuple):
  """What agent 0 went through in G games of T steps.

  Attributes:
    memory: [T, G, D] float32, after it saw the position.
    seen: [T, G, E] float32, its observation.
    truth: [T, G, K] bool, FACTS.
  """

  memory: np.ndarray
  seen: np.ndarray
  truth: np.ndarray


def facts(rules: Rules, state: State) -> Array:
  """FACTS of one position, [K] bool."""
  n = rules.players
  out, carries = state.out > 0, state.carries
  row, column = jnp.divmod(state.place, rules.size)

  def near(cell: Array) -> Array:
    there = jnp.divmod(cell, rules.size)
    steps = jnp.abs(row - there[0]) + jnp.abs(column - there[1])
    return (steps <= _NEAR) & ~out

  me, mates, others = slice(0, 1), slice(1, n), slice(n, None)
  home, away = near(state.world.base[0]), near(state.world.base[1])
  beside = near(state.place[0]) & ~out[0]
  tags = capture_the_flag.targets(
    rules, state.ground, state.place, state.heading, ~out
  )
  lies = state.lies > 0
  ours_carried, theirs_carried = jnp.any(carries[n:]), jnp.any(carries[:n])
  ours_home = ~lies[0] & ~ours_carried
  told = {
    'i carry their flag': carries[me],
    'a mate carries their flag': carries[mates],
    'their flag is home': ~lies[1:] & ~theirs_carried,
    'their flag lies about': lies[1:],
    'our flag is home': ours_home[None],
    'our flag is carried': ours_carried[None],
    'our flag lies about': lies[:1],
    'i could score at our base': carries[me] & ours_home,
    'i am out': out[me],
    'a mate is out': out[mates],
    'an opponent is out': out[others],
    'all opponents are out': jnp.all(out[others])[None],
    'i may tag': (state.cooldown[me] == 0) & ~out[me],
    'i would tag somebody': tags[0] & ~out[0],
    'an opponent would tag me': tags[n:, 0] & ~out[n:],
    'i am at our base': home[me],
    'i am at their base': away[me],
    'a mate is at our base': home[mates],
    'a mate is at their base': away[mates],
    'an opponent is at our base': home[others],
    'an opponent is at their base': away[others],
    'a mate is near': beside[mates],
    'an opponent is near': beside[others],
    'we lead': (state.score[0] > state.score[1])[None],
    'we are behind': (state.score[0] < state.score[1])[None],
    'the last quarter': (4 * state.time >= 3 * rules.length)[None],
  }
  return jnp.stack([jnp.any(told[name]) for name in FACTS])


def make_live(
  rules: Rules,
  side: Callable[[Any], capture_games.Side],
  memory_of: Callable[[Any], Array],
  opponent: capture_games.Side,
  games: int,
) -> Callable[[Any, Key], Lived]:
  """Prepares games in which is kept what is known and what is true.

  Args:
    rules: of the games; every other map is indoors.
    side: parameters -> who plays team 0.
    memory_of: its memory -> [games * seats, D].
    opponent: plays team 1.
    games: G.

  Returns:
    (parameters, key) -> what agent 0 went through; it consumes the key.
  """

  @jax.jit
  def play(params: Any, key: Key) -> Any:
    sides = side(params), opponent
    decide = capture_games.both(rules, *sides)

    def act(memories: Any, state: State, seen: Observation, keys: Key):
      action, memories = decide(memories, state, seen, keys)
      memory = memory_of(memories[0]).reshape(games, rules.players, -1)
      flat = capture_the_flag.flat(rules, seen)
      truth = jax.vmap(functools.partial(facts, rules))(state)
      return action, memories, (memory[:, 0], flat[:, 0], truth)

    start_key, key = jax.random.split(key)
    start = capture_games.starts(rules, start_key, jnp.arange(games) % 2.0)
    memories = [one.begin(start) for one in sides]
    keys = jax.random.split(key, (rules.length, 2))
    return capture_games.unroll(rules, act, memories, start, keys)[2].extras

  def live(params: Any, key: Key) -> Lived:
    memory, seen, truth = jax.device_get(play(params, key))
    return Lived(memory, seen, truth)

  return live


def probe(known: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """How well facts are read off by a logistic regression.

  It is learned in games 0, 2, ... and judged in games 1, 3, ...; of each, every
  fourth position.

  Args:
    known: [T, G, D].
    truth: [T, G, K] bool.

  Returns:
    [K], areas under the ROC curve; NaN of a fact that is always or never true.
  """
  from sklearn import linear_model

  (x, y), (x_new, y_new) = _halves(known, truth)
  mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
  x, x_new = (x - mean) / spread, (x_new - mean) / spread
  areas = []
  for fact, new in zip(y.T, y_new.T, strict=True):
    if fact.all() or not fact.any():
      areas.append(math.nan)
      continue
    # Few positions have some of the facts: a strong penalty.
    model = linear_model.LogisticRegression(C=0.01, max_iter=500)
    score = model.fit(x, fact).decision_function(x_new)
    areas.append(ranking.roc_auc(score, new.astype(int)))
  return np.array(areas)


def units(known: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """How well a fact is read off the one unit that tells it best.

  Unit and sign are chosen in the games in which `probe` learns.

  Args:
    known: [T, G, D].
    truth: [T, G, K] bool.

  Returns:
    [K], as of `probe`.
  """
  (x, y), (x_new, y_new) = _halves(known, truth)
  areas = []
  for fact, new in zip(y.T.astype(int), y_new.T.astype(int), strict=True):
    told = np.array([ranking.roc_auc(unit, fact) for unit in x.T]) - 0.5
    if np.isnan(told).all():
      areas.append(math.nan)
      continue
    best = np.nanargmax(np.abs(told))
    areas.append(ranking.roc_auc(np.sign(told[best]) * x_new[:, best], new))
  return np.array(areas)


def _halves(known, truth):
  return [
    (
      known[::_EVERY, half::2].reshape(-1, known.shape[-1]),
      truth[::_EVERY, half::2].reshape(-1, truth.shape[-1]),
    )
    for half in (0, 1)
  ]


class Map(NamedTuple):
  """Memories as points of a plane; N of them.

  Attributes:
    point: [N, 2].
    situation: [N] int, of SITUATIONS.
    alike: the share of memories whose nearest one of another game is of the
      same situation, in all dimensions.
    chance: the same of any one of another game.
  """

  point: np.ndarray
  situation: np.ndarray
  alike: float
  chance: float


def situations(truth: np.ndarray) -> np.ndarray:
  """What goes on where facts [..., K] are true: [...] int, of SITUATIONS."""
  told = truth[..., [FACTS.index(name) for name in SITUATIONS]]
  return np.argmax(told, axis=-1)


def lay_out(
  known: np.ndarray, truth: np.ndarray, count: int, seed: int = 0
) -> Map:
  """Draws memories by their two principal components.

  Args:
    known: [T, G, D].
    truth: [T, G, K] bool.
    count: N, of positions drawn at random.
    seed: of which.
  """
  steps, games, size = known.shape
  draw = np.random.default_rng(seed)
  chosen = draw.permutation(steps * games)[:count]
  x = known.reshape(-1, size)[chosen]
  x = x - x.mean(axis=0)
  situation = situations(truth).reshape(-1)[chosen]
  game = chosen % games
  squares = np.sum(x**2, axis=1)
  distance = squares[:, None] + squares[None] - 2 * x @ x.T
  other = game[:, None] != game[None]
  nearest = np.argmin(np.where(other, distance, np.inf), axis=1)
  same = situation[:, None] == situation[None]
  ways = np.linalg.svd(x, full_matrices=False)[2]
  return Map(
    x @ ways[:2].T,
    situation,
    float(np.mean(same[np.arange(len(x)), nearest])),
    float(np.mean(same[other])),
  )


def draw_maps(maps: Mapping[str, Map]) -> Figure:
  """Maps side by side, by whose they are."""
  figure = Figure(figsize=(5 * len(maps), 5.6))
  axes = figure.subplots(1, len(maps), squeeze=False)[0]
  for one, (name, found) in zip(axes, maps.items(), strict=True):
    for i, situation in enumerate(SITUATIONS):
      here = found.situation == i
      what = 'both flags are home' if i == len(SITUATIONS) - 1 else situation
      one.plot(*found.point[here].T, '.', color=f'C{i}', ms=4, label=what)
    one.set(
      title=f'{name}: nearest alike {found.alike:.2f}, any {found.chance:.2f}',
      xticks=(),
      yticks=(),
    )
  figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc='lower center',
    ncols=4,
    markerscale=3,
    fontsize='small',
  )
  figure.tight_layout(rect=(0, 0.1, 1, 1))
  return figure


def means(areas: Mapping[str, np.ndarray]) -> dict[str, float]:
  """The mean of each [K] over those facts that all of them have.

  >>> means({'a': np.array([0.5, 0.7]), 'b': np.array([0.9, np.nan])})
  {'a': 0.5, 'b': 0.9}
  """
  shared = ~np.isnan(np.stack(list(areas.values()))).any(axis=0)
  return {name: float(area[shared].mean()) for name, area in areas.items()}


def draw(areas: Mapping[str, np.ndarray]) -> Figure:
  """Each fact in a row, a mark for each of `areas` [K] by its name."""
  figure = Figure(figsize=(8, 7))
  axes = figure.subplots()
  order = np.argsort(np.nan_to_num(next(iter(areas.values())), nan=0.5))
  row = np.arange(len(FACTS))
  mean = means(areas)
  for (name, area), mark in zip(areas.items(), 'os^x', strict=False):
    label = f'{name}: {mean[name]:.2f}'
    axes.plot(area[order], row, mark, label=label, alpha=0.8)
  axes.axvline(0.5, color='0.7', linestyle=':', zorder=0)
  axes.set_yticks(row, [FACTS[i] for i in order], fontsize='small')
  axes.grid(axis='x', color='0.9')
  axes.set(xlabel='area under the ROC curve, new games', xlim=(0.4, 1.02))
  axes.legend(title='mean of what all have', fontsize='small', loc='upper left')
  figure.tight_layout()
  return figure
