"""FTW: a population learns to capture the flag, and what to strive for.

Jaderberg et al., "Human-level performance in 3D multiplayer games with
population-based reinforcement learning", Science 364, 2019 [J]. Slides: deck
000, "Learning to Play Capture The Flag". What is told of [J]'s numbers is taken
from readers and re-implementations of it where its supplement was not at hand.

    P members ──matchmaking──> games of four members    2 against 2, who sits
        ^                          |                    where is drawn anew
        |                          v
        |            each member: its seats are rows ──> torso ──> fast LSTM ─┐
        |                                                  |    slow LSTM ─ z ─┤
        |            reward = w . 13 events                |                   v
        |            V-trace + KLs + pixel control + reward prediction
        |                          |
        └── exploit, explore <─────┘ who won      weights, w, costs, periods

No bot is met in training, and nobody is told what to strive for: winning
decides only who is copied. Each member learns from its own experience, with
hyperparameters and weights of the 13 events of its own; now and then each
compares its Elo, which comes of the games of training, with another's, and
takes over weights and hyperparameters, changed a little, of one that would win
70% of games ([J]). Bots only measure: they are the marks of the ratings that
are reported. `--config.schedule=DIR/lineage.jsonl --config.of_member=K` trains
with the hyperparameters that led to a member, and copies nothing.

  python -m experiments.ftw --preset=laptop --workdir=runs/ftw

After 24 million steps of all four members, a quarter of an hour of a core, the
best member wins .982 of its games against the random bot, .967 against the one
that follows paths, .798 against the one that also tags and .759 against the one
with roles (means of three seeds, 512 games each, draws as half): Elo 1,233
where the random bot has 0. A single agent (`systems/impala`) that meets three
of these bots wins .996, .995, .966 and .954 after as many steps: at equal steps
in all the population is weaker, but a member has made a quarter of them. The
paper has about 1,600 where random agents have 500, in another game. What each
part adds is measured by `experiments.ftw_ablations`.
"""

import dataclasses
import functools
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import nets, training, types
from dl_lectures.analysis import (
  capture_behaviours,
  capture_films,
  capture_matches,
  knowledge,
)
from dl_lectures.envs import capture_games
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.nets import hierarchy
from dl_lectures.ops import actor_critic, auxiliary, matchmaking
from dl_lectures.training import population, report, sharding
from dl_lectures.training.population import Range

Array = jax.Array
Observation = ctf.Observation
Hyper = Mapping[str, Array]

ACTIONS = len(ctf.ACTIONS)
AGENTS = 4  # of a game
# Steps; the slow LSTM goes on at beginnings of blocks only.
BLOCK = 4
# Of a run, in its workdir.
LINEAGE = 'lineage.jsonl'
MINDS = 'minds'

# What is good to happen, and what is not; how good is found out by evolution.
SIGNS = np.array([1, 1, 1, 1, 1, 1, -1, -1, -1, 1, 1, -1, -1], np.float32)
# Where the first values lie, and where values may be. [J]: learning rate 1e-5
# to 5e-3, entropy 5e-4 to 1e-2, the KLs 1e-3 to 1 and 1e-4 to .1, pixel control
# .01 to .1, reward prediction .1 to 1, gradient .1 to 1, period 5 to 20 steps.
FIRST = {
  'learning_rate': 2e-3,
  'entropy_cost': 7e-3,
  'posterior_cost': 3e-3,
  'prior_cost': 1e-3,
  'control_cost': 0.03,
  'prediction_cost': 0.03,
  'gradient': 0.4,
}
# What evolution may change: everything; all but the rewards; nothing, and then
# nobody is copied either.
EVOLVES = ('all', 'settings', 'nothing')
# How much each of ctf.EVENTS is worth at first. [J]: .1 to 1, from readers.
FIRST_REWARDS = np.array(
  [1, 0.5, 0.3, 1, 0.1, 0.1, 1, 0.1, 0.1, 0.3, 0.05, 0.3, 0.05], np.float32
)
RANGES = {
  'learning_rate': Range(1e-5, 5e-3),
  'entropy_cost': Range(5e-4, 3e-2),
  'posterior_cost': Range(1e-4, 1.0),
  'prior_cost': Range(1e-4, 0.1),
  'control_cost': Range(1e-3, 0.3),
  'prediction_cost': Range(1e-3, 1.0),
  'gradient': Range(0.1, 1.0),
  'period': Range(1, 5, population.whole),  # blocks, so 4 to 20 steps
  'rewards': Range(0.005, 4.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number
  size: int = 11  # of the map, in cells; [J]: mazes of another kind
  length: int = 128  # steps of a game; [J]: 4,500
  view: int = 9  # cells seen; [J]: 84 x 84 pixels
  compass: bool = True  # where flags and bases are is known; [J]: it is not
  line_of_sight: bool = False  # walls hide what is behind; [J]: they do
  members: int = 4  # of the population; [J]: 30
  games: int = 64  # side by side; [J]: 1,920 arenas
  unroll: int = 32  # steps between two updates; [J]: 100
  batches: int = 2  # parts of a member's rows, an update each; [J]: 32 rows
  random_start: float = 0.5  # of the games begin anywhere; [J]: none
  carried: float = 0.3  # of the flags are on their way there
  hidden: tuple[int, ...] = (128,)  # units; [J]: 4 convolutions, then 256
  slow: bool = True  # a slow memory and latent variables; or one LSTM alone
  units: int = 64  # of each LSTM; [J]: 256
  latents: int = 16  # variables between them; [J]: 256
  regions: int = 3  # to a side, of pixel control; [J]: 20
  agent_steps: int = 24_000_000  # of all members together; [J]: 450,000 games
  generation: int = 50  # rounds between two comparisons with another member
  threshold: float = 0.6  # the other's chance to win, to be followed; [J]: .7
  chance: float = 0.3  # of a value to be changed when it is copied; [J]: .05
  factor: float = 1.2  # by which; [J]: 1.2
  spread: float = (
    2.0  # first values are within this factor; 0: in all of RANGES
  )
  shaped: bool = True  # all events have a worth at first; or captures alone
  evolves: str = 'all'  # or settings, all but the rewards, or nothing
  schedule: str = ''  # a lineage: all follow one of its members, none evolves
  of_member: int = 0  # which, at its end
  elo_rate: float = 4.0  # a game's greatest effect on a rating
  value_cost: float = 0.5  # [J]: .5
  discount: float = 0.98  # a step; [J]: .99
  lambda_: float = 0.95  # of V-trace; [J]: 1
  clip: float = 0.2  # how far an update moves a probability; [J]: no bound
  max_grad_norm: float = 0.5  # [J]: none is told
  num_games: int = 512  # of each match of the evaluation

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    self.rules()
    types.check_fields(self, 'members games unroll batches units latents', 1)
    types.check_fields(self, 'agent_steps generation regions', 1)
    types.check_fields(self, 'elo_rate value_cost spread of_member', 0)
    types.check_fields(self, 'max_grad_norm clip', 1e-6)
    types.check_fields(self, 'factor', 1)
    types.check_fields(self, 'random_start carried chance', 0, 1)
    types.check_fields(self, 'threshold discount lambda_', 0, 1)
    if self.evolves not in EVOLVES:
      raise types.UsageError(
        f'config.evolves={self.evolves}; possible: {", ".join(EVOLVES)}'
      )
    if self.members % AGENTS:
      raise types.UsageError(
        f'config.members={self.members} for games of {AGENTS}; multiples of '
        f'{AGENTS} are possible'
      )
    if self.length % self.unroll or self.unroll % BLOCK:
      raise types.UsageError(
        f'config.unroll={self.unroll}; the divisors of '
        f'config.length={self.length} that are multiples of {BLOCK} are '
        'possible'
      )
    parts = self.groups * self.lineups
    if self.games % parts:
      raise types.UsageError(
        f'config.games={self.games}; multiples of config.length / '
        f'config.unroll * config.members / {AGENTS} = {parts} are possible'
      )
    if self.rows % self.batches:
      raise types.UsageError(
        f'config.batches={self.batches}; the divisors of the {self.rows} seats '
        'of a member are possible'
      )
    if self.view % self.regions:
      raise types.UsageError(
        f'config.regions={self.regions}; the divisors of '
        f'config.view={self.view} are possible'
      )
    if not self.hidden or min(self.hidden) < 1:
      raise types.UsageError(
        f'config.hidden={self.hidden}; one layer or more of at least 1 unit is '
        'possible'
      )
    if self.num_games % 128:
      raise types.UsageError(
        f'config.num_games={self.num_games}; multiples of 128 are possible'
      )
    population.check(self.first_ranges())

  def rules(self) -> ctf.Rules:
    """Of the games."""
    return ctf.Rules(
      size=self.size,
      length=self.length,
      view=self.view,
      compass=self.compass,
      line_of_sight=self.line_of_sight,
    )

  def first_ranges(self) -> dict[str, Range]:
    """Where the first hyperparameters are drawn; rewards: `first_hyper`."""
    alone = {name: one for name, one in RANGES.items() if name != 'rewards'}
    if not self.spread:
      return alone
    near = {
      name: Range(
        max(RANGES[name].low, value / self.spread),
        min(RANGES[name].high, value * self.spread),
      )
      for name, value in FIRST.items()
    }
    return {**alone, **near}

  @property
  def groups(self) -> int:
    """The games are in so many groups, which begin one after another."""
    return self.length // self.unroll

  @property
  def lineups(self) -> int:
    """So many games give each member one seat."""
    return self.members // AGENTS

  @property
  def each(self) -> int:
    """Games of a group with the same lineup."""
    return self.games // (self.groups * self.lineups)

  @property
  def rows(self) -> int:
    """Seats of a member."""
    return self.groups * self.each

  @property
  def num_steps(self) -> int:
    """Rounds of playing and learning."""
    return math.ceil(
      self.agent_steps / (self.members * self.rows * self.unroll)
    )


PRESETS = {
  'smoke': Config(
    games=16,
    hidden=(32,),
    units=16,
    latents=4,
    agent_steps=100_000,
    generation=10,
    threshold=0.5,  # so that something is copied at all
    num_games=128,
  ),
  'laptop': Config(),
  # Walls hide what is behind, and nobody is told where flags are.
  'in_sight': Config(
    size=13,
    length=256,
    view=7,
    regions=7,
    compass=False,
    line_of_sight=True,
    discount=0.99,
  ),
  'paper': Config(
    members=32,  # [J]: 30, which games of four do not divide
    games=1_920,
    unroll=64,
    batches=8,
    compass=False,
    line_of_sight=True,
    hidden=(256, 256),
    units=256,
    latents=256,
    agent_steps=4_000_000_000,
    random_start=0.0,
    threshold=0.7,
    chance=0.05,
    spread=0.0,
    discount=0.99,
    lambda_=1.0,
  ),
}


class Generation(NamedTuple):
  """The last time that members compared themselves.

  Attributes:
    parent: [P] int32, whom each followed.
    elo: [P], before.
    hyper: name -> [P], before.
  """

  parent: Array
  elo: Array
  hyper: Hyper


class State(NamedTuple):
  """Everything that a run continues from; P members.

  Attributes:
    members: networks and optimisers, [P, ...] each.
    hyper: name -> [P], hyperparameters; 'rewards' [P, 13], their sizes.
    elo: [P], ratings by the games of training.
    last: what was copied last.
    games: [games, ...] each, in order of group, lineup and number.
    lineup: [groups, lineups, 4] int32, who sits where.
    memory: of the networks, [P, rows, ...] each.
    step: [] int32.
  """

  members: types.TrainState
  hyper: Hyper
  elo: Array
  last: Generation
  games: ctf.State
  lineup: Array
  memory: hierarchy.Memory
  step: Array


class Row(NamedTuple):
  """What a member's seats lived through, R rows of U steps; time-major.

  Attributes:
    observation: [U + 1, R, ...].
    memory: before the first step, [R, ...] each.
    noise: [U, R, Z], of the latent variables.
    action: [U, R] int32.
    behaviour: [U, R], log mu(a).
    reward: [U, R].
    discount: [U, R], 0 where the game ended.
    value: [R], of what follows, as the member saw it that played.
  """

  observation: Observation
  memory: hierarchy.Memory
  noise: Array
  action: Array
  behaviour: Array
  reward: Array
  discount: Array
  value: Array


class Output(NamedTuple):
  """What a network says of B rows of T steps.

  Attributes:
    logits: [B, T, 8].
    value: [B, T].
    control: [B, T, N, 8], Q of the regions' changes.
    prediction: [B, T, 3], whether the next reward is none, above or below 0.
    thought: of the core; None without a slow memory.
  """

  logits: Array
  value: Array
  control: Array
  prediction: Array
  thought: hierarchy.Thought | None


# ------------------------------------------------------------------- a member


def network(config: Config) -> hk.Transformed:
  """(observation [B, T, ...], memory, noise, period, gradient, number) ->.

  Returns:
    A transformed function; it gives an Output and the memory after it.
  """

  def forward(seen, memory, noise, period, gradient, number=0):
    x = nets.MLP(config.hidden, activate_final=True)(
      ctf.flat(config.rules(), seen)
    )
    # What is seen now also goes past the memories.
    if config.slow:
      core = hierarchy.TemporalHierarchy(config.units, config.latents, BLOCK)
      thought, memory = core(x, memory, noise, period, gradient, number)
      y = jnp.concatenate([x, thought.fast, thought.z], axis=-1)
    else:
      thought = None
      h, fast = nets.LSTM(config.units, name='fast').unroll(x, memory.fast)
      memory = memory._replace(fast=fast)
      y = jnp.concatenate([x, h], axis=-1)
    even = hk.initializers.VarianceScaling(1e-4)
    logits = hk.Linear(ACTIONS, w_init=even, name='policy')(y)
    value = hk.Linear(1, name='value')(y)[..., 0]
    regions = config.regions**2
    q = hk.Linear(regions * (1 + ACTIONS), w_init=even, name='control')(y)
    q = q.reshape(*q.shape[:2], regions, 1 + ACTIONS)
    control = auxiliary.duelling(q[..., 0], q[..., 1:])
    before = [
      jnp.pad(x, ((0, 0), (k, 0), (0, 0)))[:, : x.shape[1]] for k in (1, 2)
    ]
    three = jnp.concatenate([x, *before], axis=-1)
    prediction = hk.Linear(3, name='prediction')(three)
    return Output(logits, value, control, prediction, thought), memory

  return hk.without_apply_rng(hk.transform(forward))


class Noise(NamedTuple):
  """What a step draws, beforehand.

  Attributes:
    action: [R, 8], of Gumbel's distribution.
    latent: [R, Z], normal.
  """

  action: Array
  latent: Array


def draw_noise(config: Config, key: types.Key, shape: tuple[int, ...]) -> Noise:
  """[*shape, 8] and [*shape, Z]; consumes the key."""
  action_key, latent_key = jax.random.split(key)
  return Noise(
    jax.random.gumbel(action_key, (*shape, ACTIONS), jnp.float32),
    jax.random.normal(latent_key, (*shape, config.latents), jnp.float32),
  )


def think(
  net: hk.Transformed,
  params: optax.Params,
  period: Array,
  memory: hierarchy.Memory,
  seen: Observation,
  latent: Array,
  number: Array | int,
) -> tuple[Array, Array, hierarchy.Memory]:
  """One step of R rows: logits [R, 8], values [R] and the memory after it."""
  seen = jax.tree.map(lambda x: x[:, None], seen)
  one = jnp.float32(1)
  output, memory = net.apply(
    params, seen, memory, latent[:, None], period, one, number
  )
  return output.logits[:, 0], output.value[:, 0], memory


def act(
  net: hk.Transformed,
  params: optax.Params,
  period: Array,
  memory: hierarchy.Memory,
  seen: Observation,
  noise: Noise,
  number: Array | int,
) -> tuple[Array, hierarchy.Memory, Array]:
  """Draws actions [R]; also returns the memory and log mu(a) [R]."""
  logits, _, memory = think(
    net, params, period, memory, seen, noise.latent, number
  )
  log_probs = jax.nn.log_softmax(logits)
  action = jnp.argmax(log_probs + noise.action, axis=-1).astype(jnp.int32)
  chosen = jnp.take_along_axis(log_probs, action[:, None], axis=-1)
  return action, memory, chosen[:, 0]


class Player(NamedTuple):
  """A member as it plays.

  Attributes:
    params: of its network.
    period: [] int32, of its slow memory, in blocks.
  """

  params: optax.Params
  period: Array


def side(
  config: Config, net: hk.Transformed, player: Player
) -> capture_games.Side:
  """A member in both seats of a team."""

  def begin(state: ctf.State) -> Any:
    rows = config.rules().players * len(state.time)
    return hierarchy.zero(rows, config.units), jnp.int32(0)

  def decide(team, memory, state, seen, key):
    del team, state
    shape = seen.scalars.shape[:2]
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    noise = draw_noise(config, key, (len(rows.scalars),))
    known, number = memory
    action, known, _ = act(net, *player, known, rows, noise, number)
    return action.reshape(shape), (known, (number + 1) % config.unroll)

  return capture_games.Side(begin, decide)


# -------------------------------------------------------------------- playing


def to_members(config: Config, lineup: Array, of_seats: Any) -> Any:
  """Each member's seats: [G, 4, ...] -> [P, R, ...], of every leaf."""
  groups, each = config.groups, config.each
  seat = jnp.argsort(lineup.reshape(groups, -1), axis=1)

  def of_leaf(x: Array) -> Array:
    rest = x.shape[2:]
    x = x.reshape(groups, config.lineups, each, AGENTS, *rest)
    x = jnp.swapaxes(x, 2, 3).reshape(groups, config.members, each, *rest)
    x = x[jnp.arange(groups)[:, None], seat]
    return jnp.swapaxes(x, 0, 1).reshape(config.members, -1, *rest)

  return jax.tree.map(of_leaf, of_seats)


def to_seats(config: Config, lineup: Array, of_members: Array) -> Array:
  """The inverse: [P, R] -> [G, 4]."""
  groups, each = config.groups, config.each
  x = of_members.reshape(config.members, groups, each)
  x = jnp.swapaxes(x, 0, 1)
  x = x[jnp.arange(groups)[:, None], lineup.reshape(groups, -1)]
  x = x.reshape(groups, config.lineups, AGENTS, each)
  return jnp.swapaxes(x, 2, 3).reshape(-1, AGENTS)


def restart(config: Config, state: State, key: types.Key) -> State:
  """Rates the games of one group, which have ended, and begins new ones."""
  match_key, game_key = jax.random.split(key)
  group, groups = state.step % config.groups, config.groups

  def of_group(x: Array) -> Array:
    return x.reshape(groups, -1, *x.shape[1:])[group]

  score = of_group(state.games.score)
  points = (1 + jnp.sign(score[:, 0] - score[:, 1])) / 2
  played = jnp.repeat(state.lineup[group], config.each, axis=0)
  rated = matchmaking.updated_ratings(
    state.elo, played, points, config.elo_rate
  )
  # The first games of all groups but one are not played to their end.
  ended = of_group(state.games.time)[0] == config.length
  elo = jnp.where(ended, rated, state.elo)

  reset = functools.partial(
    ctf.reset,
    config.rules(),
    random_start=config.random_start,
    carried=config.carried,
  )
  fresh = jax.vmap(reset)(jax.random.split(game_key, config.games // groups))

  def begin(old: Array, new: Array) -> Array:
    apart = old.reshape(groups, -1, *old.shape[1:])
    return apart.at[group].set(new).reshape(old.shape)

  drawn = matchmaking.draw_games(match_key, elo, AGENTS)
  begins = jnp.repeat(jnp.arange(groups) == group, config.each)
  return state._replace(
    elo=elo,
    games=jax.tree.map(begin, state.games, fresh),
    lineup=state.lineup.at[group].set(drawn),
    memory=jax.tree.map(
      lambda x: jnp.where(begins[None, :, None], 0, x), state.memory
    ),
  )


def play(
  config: Config,
  net: hk.Transformed,
  state: State,
  key: types.Key,
  each: population.Over = population.mapped,
) -> tuple[State, Row]:
  """Plays `unroll` steps of all games; also returns rows [P, ...]."""
  lineup, shape = state.lineup, (config.members, config.rows)
  params, period = state.members.params, state.hyper['period']
  step_key, last_key = jax.random.split(key)
  noise = draw_noise(config, step_key, (config.unroll, *shape))

  def decide(memory, now, seen, given):
    del now
    noise, number = given
    of_one = each(functools.partial(act, net))
    numbers = jnp.broadcast_to(number, (config.members,))
    action, memory, behaviour = of_one(
      params, period, memory, to_members(config, lineup, seen), noise, numbers
    )
    return to_seats(config, lineup, action), memory, (action, behaviour)

  games, memory, played = capture_games.unroll(
    config.rules(),
    decide,
    state.memory,
    state.games,
    (noise, jnp.arange(config.unroll)),
  )
  members = functools.partial(to_members, config, lineup)
  last = jax.tree.map(lambda x: x[-1], played.observation)
  latent = draw_noise(config, last_key, shape).latent

  def foresee(params, period, memory, seen, latent):
    # The next unroll begins with a step of the slow memory.
    return think(net, params, period, memory, seen, latent, 0)[1]

  value = each(foresee)(params, period, memory, members(last), latent)
  weights = SIGNS[None] * state.hyper['rewards']
  over = jnp.repeat(played.over[..., None], AGENTS, axis=-1)

  def by_member(of_seats: Any) -> Any:
    """[U, G, 4, ...] -> [P, U, R, ...]."""
    rows = jax.vmap(members)(of_seats)
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)

  events = by_member(played.events).astype(jnp.float32)
  action, behaviour = (jnp.swapaxes(x, 0, 1) for x in played.extras)
  return state._replace(games=games, memory=memory), Row(
    observation=by_member(played.observation),
    memory=state.memory,
    noise=jnp.swapaxes(noise.latent, 0, 1),
    action=action,
    behaviour=behaviour,
    reward=jnp.einsum('purk,pk->pur', events, weights),
    discount=jnp.where(by_member(over), 0.0, config.discount),
    value=value,
  )


# ------------------------------------------------------------------- learning


def loss(
  config: Config,
  net: hk.Transformed,
  hyper: Hyper,
  params: optax.Params,
  row: Row,
) -> tuple[Array, types.Metrics]:
  """A member's: V-trace, both divergences, and the auxiliary tasks."""
  rows = functools.partial(jnp.swapaxes, axis1=0, axis2=1)
  seen = jax.tree.map(lambda x: rows(x[:-1]), row.observation)
  output, _ = net.apply(
    params,
    seen,
    row.memory,
    rows(row.noise),
    hyper['period'],
    hyper['gradient'],
  )
  found = actor_critic.losses(
    rows(output.logits),
    jnp.concatenate([rows(output.value), row.value[None]]),
    row.action,
    row.behaviour,
    row.reward,
    row.discount,
    lambda_=config.lambda_,
    clip=config.clip,
    mask=ctf.is_alive(row.observation)[:-1],
  )
  posterior, prior = divergences(output.thought)
  control = auxiliary.control_loss(
    rows(output.control),
    row.action,
    auxiliary.cell_change(row.observation.view, config.regions),
    row.discount,
  )
  prediction = auxiliary.reward_loss(rows(output.prediction), row.reward)
  total = (
    found.policy
    + config.value_cost * found.value
    - hyper['entropy_cost'] * found.entropy
    + hyper['posterior_cost'] * posterior
    + hyper['prior_cost'] * prior
    + hyper['control_cost'] * control
    + hyper['prediction_cost'] * prediction
  )
  return total, {
    'value_loss': found.value,
    'entropy': found.entropy,
    'posterior': posterior,
    'prior': prior,
    'control': control,
    'prediction': prediction,
  }


def divergences(thought: hierarchy.Thought | None) -> tuple[Array, Array]:
  """Of the posterior from the prior, and of that from one that is fixed."""
  if thought is None:
    return jnp.float32(0), jnp.float32(0)
  posterior = jnp.mean(hierarchy.divergence(thought.posterior, thought.prior))
  fixed = hierarchy.Gaussian(jnp.float32(0), jnp.float32(0.1))
  prior = jnp.mean(hierarchy.divergence(thought.prior, fixed), axis=0)
  return posterior, prior @ thought.ticks / jnp.sum(thought.ticks)


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam, whose rate is a hyperparameter, and a bound on the gradient."""
  return optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm),
    optax.scale_by_adam(eps=1e-5),
  )


def take_rows(row: Row, which: Array) -> Row:
  """Some of the rows; memories and last values have no axis of time."""
  part = jax.tree.map(
    lambda x: x[which], {'memory': row.memory, 'value': row.value}
  )
  timed = row._asdict()
  timed = {name: timed[name] for name in timed if name not in part}
  return Row(**part, **jax.tree.map(lambda x: x[:, which], timed))


def learn(
  config: Config,
  net: hk.Transformed,
  member: types.TrainState,
  hyper: Hyper,
  row: Row,
  key: types.Key,
) -> tuple[types.TrainState, types.Metrics]:
  """One member's updates, each with a part of its rows."""
  update = optimizer(config)
  grad_fn = jax.value_and_grad(
    functools.partial(loss, config, net, hyper), has_aux=True
  )

  def once(member: types.TrainState, which: Array):
    part = take_rows(row, which)
    (_, metrics), grads = grad_fn(member.params, part)
    way, opt_state = update.update(grads, member.opt_state)
    params = jax.tree.map(
      lambda p, u: p - hyper['learning_rate'] * u, member.params, way
    )
    return types.TrainState(params, {}, opt_state, member.step + 1), metrics

  order = jax.random.permutation(key, config.rows)
  member, metrics = jax.lax.scan(
    once, member, order.reshape(config.batches, -1)
  )
  return member, jax.tree.map(jnp.mean, metrics)


def evolve(config: Config, state: State, key: types.Key) -> State:
  """Exploit and explore, [J]: the weaker take over from the stronger."""
  rule_key, explore_key = jax.random.split(key)
  parent = population.ftw(state.elo, rule_key, config.threshold)
  follows = parent != jnp.arange(config.members)
  hyper = population.explore(
    evolving(config),
    population.take(state.hyper, parent),
    explore_key,
    follows,
    config.chance,
    config.factor,
  )
  return state._replace(
    members=population.take(state.members, parent),
    hyper=hyper,
    elo=state.elo[parent],
    last=Generation(parent, state.elo, state.hyper),
  )


def evolving(config: Config) -> dict[str, Range]:
  """Where values may be that evolution changes, by name."""
  fixed = {'all': (), 'settings': ('rewards',), 'nothing': tuple(RANGES)}
  return {
    name: one
    for name, one in RANGES.items()
    if name not in fixed[config.evolves]
  }


def init(config: Config, net: hk.Transformed, key: types.Key) -> State:
  """New members and new games."""
  net_key, game_key, hyper_key, match_key = jax.random.split(key, 4)
  reset = functools.partial(ctf.reset, config.rules())
  games = jax.vmap(reset)(jax.random.split(game_key, config.games))

  def member(key: types.Key) -> types.TrainState:
    params = init_params(config, net, key)
    return training.init_state(params, {}, optimizer(config))

  members = jax.vmap(member)(jax.random.split(net_key, config.members))
  hyper = first_hyper(config, hyper_key)
  elo = jnp.zeros(config.members)
  itself = jnp.arange(config.members, dtype=jnp.int32)
  lineup = matchmaking.draw_games(match_key, elo, AGENTS)
  zero = hierarchy.zero(config.members * config.rows, config.units)
  return State(
    members,
    hyper,
    elo,
    # Copies: states are donated, and a buffer can be given away only once.
    Generation(itself, jnp.zeros_like(elo), jax.tree.map(jnp.copy, hyper)),
    games,
    jnp.broadcast_to(lineup, (config.groups, *lineup.shape)),
    jax.tree.map(
      lambda x: x.reshape(config.members, config.rows, config.units), zero
    ),
    jnp.int32(0),
  )


def first_hyper(config: Config, key: types.Key) -> dict[str, Array]:
  """Hyperparameters [P] and sizes of rewards [P, 13], evenly in logarithms."""
  draw_key, reward_key = jax.random.split(key)
  hyper = population.draw(config.first_ranges(), draw_key, config.members)
  if not evolving(config):
    hyper |= {name: jnp.full(config.members, x) for name, x in FIRST.items()}
  shape = config.members, len(SIGNS)
  rewards = jnp.broadcast_to(FIRST_REWARDS, shape)
  if 'rewards' in evolving(config):
    least, most, _ = RANGES['rewards']
    low, high = jnp.full(len(SIGNS), least), jnp.full(len(SIGNS), most)
    if config.spread:
      low = jnp.maximum(least, FIRST_REWARDS / config.spread)
      high = jnp.minimum(most, FIRST_REWARDS * config.spread)
    part = jax.random.uniform(reward_key, shape)
    rewards = low[None] * (high / low)[None] ** part
  if not config.shaped:
    rewards *= np.array(['captured' in event for event in ctf.EVENTS])[None]
  return {**hyper, 'rewards': rewards}


def init_params(
  config: Config, net: hk.Transformed, key: types.Key
) -> optax.Params:
  """New weights of one member."""
  rules = config.rules()
  seen = jax.eval_shape(lambda: ctf.observe(rules, ctf.reset(rules, key)))
  seen = jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape[1:]), x.dtype), seen)
  noise = jnp.zeros((1, 1, config.latents))
  memory = hierarchy.zero(1, config.units)
  return net.init(key, seen, memory, noise, jnp.int32(1), jnp.float32(1))


class Schedule(NamedTuple):
  """The hyperparameters that led to a member.

  Attributes:
    since: [N] int32, the steps from which each holds.
    hyper: name -> [N, ...].
  """

  since: Array
  hyper: Hyper


def read_schedule(config: Config) -> Schedule | None:
  """That of `config.schedule`, None without one.

  Raises:
    UsageError: no such file, no lineage, or no such member in it.
  """
  if not config.schedule:
    return None
  if not os.path.isfile(config.schedule):
    raise types.UsageError(
      f'config.schedule={config.schedule} is no file; the {LINEAGE} of a run '
      'is possible'
    )
  path = population.schedule(population.read(config.schedule), config.of_member)
  values = [hyper for _, hyper in path]
  if set(values[0]) != set(RANGES):
    raise types.UsageError(
      f'{config.schedule} tells of {", ".join(values[0])}; a lineage of FTW is '
      'possible'
    )
  return Schedule(
    jnp.array([step for step, _ in path], jnp.int32),
    {name: jnp.array([one[name] for one in values]) for name in RANGES},
  )


def follow(config: Config, schedule: Schedule, step: Array) -> Hyper:
  """What all members have after `step` rounds."""
  now = jnp.searchsorted(schedule.since, step, side='right') - 1

  def of_all(values: Array) -> Array:
    value = values[now]
    return jnp.broadcast_to(value[None], (config.members, *value.shape))

  return jax.tree.map(of_all, dict(schedule.hyper))


def make_step(
  config: Config,
  net: hk.Transformed,
  schedule: Schedule | None = None,
  mesh: jax.sharding.Mesh | None = None,
  each: population.Over = population.mapped,
) -> types.StepFn:
  """All play, each learns, and now and then the weaker follow the stronger.

  Args:
    config: of the run.
    net: of `network`.
    schedule: what hyperparameters are instead of evolving.
    mesh: the devices that the members are dealt out to where they learn. Their
      games, in which they meet, are played by every device.
    each: the way over the members of a device.
  """
  apart = each

  def whole(tree: Any) -> Any:
    return tree

  if mesh is not None and mesh.size > 1:
    apart = population.sharded(mesh, each)
    # Or games, too, would be divided, and their players sent to and fro.
    whole = functools.partial(
      jax.lax.with_sharding_constraint, shardings=sharding.replicated(mesh)
    )

  def step(
    state: State, batch: None, key: types.Key
  ) -> tuple[State, types.Metrics]:
    del batch
    key = jax.random.fold_in(key, state.step)
    begin_key, play_key, learn_key, evolve_key = jax.random.split(key, 4)
    if schedule is not None:
      hyper = follow(config, schedule, state.step)
      state = state._replace(hyper=hyper)
    state = restart(config, state, begin_key)
    state, rows = whole(play(config, net, state, play_key, each))
    keys = jax.random.split(learn_key, config.members)
    members, metrics = whole(
      apart(functools.partial(learn, config, net))(
        state.members, dict(state.hyper), rows, keys
      )
    )
    state = state._replace(members=members, step=state.step + 1)
    if schedule is not None or not evolving(config):
      return state, jax.tree.map(jnp.mean, metrics)
    state = jax.lax.cond(
      state.step % config.generation == 0,
      lambda state: evolve(config, state, evolve_key),
      lambda state: state,
      state,
    )
    return state, jax.tree.map(jnp.mean, metrics)

  return step


# -------------------------------------------------------------------- the run

# Matches along the way: against whom, and of how many games.
MARKS = ('path follower', 'tagger')
FEW = 128
_CLUSTERS = 12  # of behaviours; [J]: 32
_POINTS = 1000  # of a map of memories


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Trains the population, plays all bots, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  net = network(config)
  match = make_match(config, net)
  live = make_live(config, net)
  result = populate(
    config,
    net,
    match,
    workdir=workdir,
    hooks=[
      *([mind_hook(config, live, workdir)] if workdir else []),
      *hooks,
    ],
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, net, match, live, result, workdir)


def make_match(config: Config, net: hk.Transformed) -> capture_matches.Match:
  """Games of members, as a Player each, against bots."""
  return capture_matches.make_match(
    config.rules(), functools.partial(side, config, net)
  )


def populate(
  config: Config,
  net: hk.Transformed,
  match: capture_matches.Match,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> training.FitResult:
  """Trains the population, and plays some bots now and then.

  Args:
    config: the settings.
    net: of `network`.
    match: of `make_match`.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside its own.

  Returns:
    The run, done or not.
  """

  def compete(step: int, state: State) -> types.Metrics:
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    shares = [
      shares_won(match, player(state, i), key, FEW, MARKS)
      for i in range(config.members)
    ]
    return {
      'elo': state.elo,
      **{
        capture_matches.share_name(name): jnp.array(
          [share[name] for share in shares]
        )
        for name in MARKS
      },
    }

  devices = jax.devices()
  mesh = sharding.make_mesh(math.gcd(config.members, len(devices)))
  each = population.fitting(devices[0].platform)
  return training.fit(
    make_step(config, net, read_schedule(config), mesh, each),
    lambda key: init(config, net, key),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    mesh=mesh,
    count_params=lambda state: state.members.params,
    hooks=[
      *([lineage_hook(config, workdir)] if workdir else []),
      training.Hook(compete, looks(config), at_start=True),
      *hooks,
    ],
    log_every=10,
  )


def looks(config: Config) -> int:
  """Rounds between two looks at the population."""
  return math.ceil(config.num_steps / 8)


def lineage_hook(config: Config, workdir: str) -> training.Hook:
  """Writes who begins, and who takes over from whom, into LINEAGE.

  Raises:
    UsageError: the one that is there was cut short.
  """
  path = os.path.join(workdir, LINEAGE)
  # Now, and not when the first generation that follows is to be added.
  if os.path.exists(path):
    population.read(path)

  def record(step: int, state: State) -> None:
    last = state.last
    lines = (
      population.births(
        step, last.parent, last.elo, last.hyper, state.hyper, config.seed
      )
      if step
      else population.begun(state.hyper, config.seed)
    )
    population.write_from(path, step, lines)

  return training.Hook(record, config.generation, at_start=True, at_end=False)


Live = Callable[[Player, types.Key], knowledge.Lived]


def make_live(config: Config, net: hk.Transformed) -> Live:
  """Games with the bot with roles, in which is kept what a member knows."""

  def memory_of(memory: Any) -> Array:
    known, _ = memory
    return jnp.concatenate([known.fast.hidden, known.slow.hidden], axis=-1)

  return knowledge.make_live(
    config.rules(),
    functools.partial(side, config, net),
    memory_of,
    capture_games.bot(config.rules(), capture_matches.BOTS['roles']),
    FEW,
  )


class Mind(NamedTuple):
  """What the member with the highest rating knew and did at some time.

  Attributes:
    areas: [K], of `knowledge.FACTS`.
    segments: [N, K], of `capture_behaviours`.
  """

  areas: np.ndarray
  segments: np.ndarray


def mind_hook(config: Config, live: Live, workdir: str) -> training.Hook:
  """Looks into the best member now and then, and keeps it under MINDS."""
  folder = os.path.join(workdir, MINDS)

  def look(step: int, state: State) -> types.Metrics:
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    best = player(state, jnp.argmax(state.elo))
    lived = live(best, jax.random.fold_in(key, 1))
    mind = Mind(
      knowledge.probe(lived.memory, lived.truth),
      capture_behaviours.segments(lived.truth),
    )
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f'{step:08d}.npz')
    with open(f'{path}.tmp', 'wb') as file:
      np.savez_compressed(file, **mind._asdict())
    os.replace(f'{path}.tmp', path)
    return {'knows': jnp.float32(np.nanmean(mind.areas))}

  return training.Hook(look, looks(config), at_start=True)


def read_kept(workdir: str) -> dict[int, Mind]:
  """What `mind_hook` kept, by its step."""
  found = {}
  for path in sorted(pathlib.Path(workdir, MINDS).glob('*.npz')):
    with np.load(path) as arrays:
      found[int(path.stem)] = Mind(**arrays)
  return found


def player(state: State, member: Array | int) -> Player:
  """A member as it plays."""
  params, period = jax.tree.map(
    lambda x: x[member], (state.members.params, state.hyper['period'])
  )
  return Player(params, period)


def shares_won(
  match: capture_matches.Match,
  of: Player,
  key: types.Key,
  games: int,
  names: Sequence[str] = tuple(capture_matches.BOTS),
) -> dict[str, float]:
  """The share of games won against each bot, draws as half."""
  captures = capture_matches.evaluate(match, of, key, games, names)
  return {
    name: capture_matches.summarise(found).share
    for name, found in captures.items()
  }


def conclude(
  config: Config,
  net: hk.Transformed,
  match: capture_matches.Match,
  live: Live,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Plays the games that are reported, and writes the report."""
  start = time.monotonic()
  state: State = result.state
  # Of no step: on maps that nothing was trained or watched on.
  key = jax.random.fold_in(jax.random.key(config.seed), config.num_steps + 1)
  best_key, all_key, bot_key, new_key = jax.random.split(key, 4)
  mind_key = jax.random.fold_in(key, 4)
  # By the games of training alone: bots have no say in who is the best.
  best = int(jnp.argmax(state.elo))
  trained = capture_matches.evaluate(
    match, player(state, best), best_key, config.num_games
  )
  novice = Player(init_params(config, net, new_key), jnp.int32(2))
  untrained = capture_matches.evaluate(
    match, novice, best_key, config.num_games
  )
  everyone = [
    shares_won(match, player(state, i), all_key, FEW)
    for i in range(config.members)
  ]
  points = capture_matches.bot_points(config.rules(), bot_key, FEW)
  of_best = [
    {name: capture_matches.summarise(x).share for name, x in captures.items()}
    for captures in (trained, untrained)
  ]
  rated = capture_matches.rate(points, of_best, config.num_games)
  lived = live(player(state, best), mind_key)
  echoed = live(novice, mind_key)
  known = read_minds(lived, echoed)
  claims = make_claims(trained, untrained, everyone, rated)
  claims += mind_claims(known)
  metrics: dict[str, Any] = {
    'best': best,
    'elo': float(rated.elo[-2]),
    **capture_matches.metrics(trained),
  }
  metrics |= {f'knows/{x}': y for x, y in knowledge.means(known).items()}
  figures = {}
  if workdir:
    lineage = population.read(os.path.join(workdir, LINEAGE))
    records = training.logging.read(workdir)
    metrics['copies'] = sum(line.parent is not None for line in lineage)
    minds = read_kept(workdir)
    report.save_figure(
      draw_population(config, records, lineage, minds, points, best),
      workdir,
      'ftw',
    )
    figures['ftw'] = (
      'The population on one time axis: ratings on the scale of the bots, '
      'hyperparameters, what the ancestors of the best member strove for, what '
      'the member with the highest rating knew and did in games with the bot '
      'with roles, and who took over from whom.'
    )
    report.save_figure(knowledge.draw(known), workdir, 'knowledge')
    figures['knowledge'] = (
      'What is read off the memories of the best member, off one unit of it, '
      'off those of an untrained one, and off the observation of the moment, '
      'in games with the bot with roles; .5 is chance.'
    )
    maps = {
      'best member': knowledge.lay_out(lived.memory, lived.truth, _POINTS),
      'untrained': knowledge.lay_out(echoed.memory, echoed.truth, _POINTS),
      'observation': knowledge.lay_out(lived.seen, lived.truth, _POINTS),
    }
    metrics |= {f'alike/{name}': one.alike for name, one in maps.items()}
    report.save_figure(knowledge.draw_maps(maps), workdir, 'memories')
    figures['memories'] = (
      'Memories, and observations, by their two principal components. How '
      'often the nearest one of another game, in all dimensions, is of the '
      'same situation stands above, beside how often any one is.'
    )
    report.save_figure(draw_behaviours(config, minds), workdir, 'behaviours')
    figures['behaviours'] = (
      f'Segments of {capture_behaviours.STEPS} steps in which alike is true, '
      'over the whole run, named by what is true more often than usual; and '
      'how often the member with the highest rating was in each.'
    )
    rivals = (
      side(config, net, player(state, best)),
      capture_games.bot(config.rules(), capture_matches.BOTS['roles']),
    )
    game = capture_matches.film(config.rules(), *rivals, new_key)
    figures['game.gif'] = (
      'A game: the best member in both seats, blue, against the bot with '
      'roles; to the right, what one of its players sees.'
    )
    capture_films.gif(
      config.rules(), game, report.figure_path(workdir, 'game.gif'), agent=0
    )
  report.write(
    workdir,
    title='FTW: a population captures the flag',
    config=config,
    claims=claims,
    metrics=metrics,
    figures=figures,
    minutes=result.seconds / 60 + (time.monotonic() - start) / 60,
  )
  return metrics


def read_minds(
  lived: knowledge.Lived, echoed: knowledge.Lived
) -> dict[str, np.ndarray]:
  """What is known in games with the bot with roles: [K], `knowledge.FACTS`.

  Args:
    lived: by a member.
    echoed: on the same maps, by one that never learned.
  """
  return {
    'best member': knowledge.probe(lived.memory, lived.truth),
    'one unit of it': knowledge.units(lived.memory, lived.truth),
    'untrained': knowledge.probe(echoed.memory, echoed.truth),
    'observation': knowledge.probe(lived.seen, lived.truth),
  }


def make_claims(
  trained: Mapping[str, np.ndarray],
  untrained: Mapping[str, np.ndarray],
  everyone: Sequence[Mapping[str, float]],
  rated: Any,
) -> list[types.Claim]:
  """What the run stands for, beside a member before it learned.

  Args:
    trained: captures [games, 2] of the best member by bot.
    untrained: the same of new weights.
    everyone: of each member, the share won by bot.
    rated: ratings, of which the last two are of these two.
  """
  elo, error = float(rated.elo[-2]), float(rated.error[-2])
  claims = [
    types.Claim(
      'Elo of the best member; the random bot has 0',
      elo,
      interval=(elo - 1.96 * error, elo + 1.96 * error),
      baseline=float(rated.elo[-1]),
      baseline_name='untrained',
      paper='about 1,600, where random agents have 500',
    )
  ]
  for bot, captures in trained.items():
    score = capture_matches.summarise(captures)
    claims.append(
      types.Claim(
        f'games won against {bot}, which was never met',
        score.share,
        interval=score.interval,
        baseline=capture_matches.summarise(untrained[bot]).share,
        baseline_name='untrained',
      )
    )
  middle = float(np.median([shares['tagger'] for shares in everyone]))
  claims.append(
    types.Claim(
      'games won against tagger, median of the members',
      middle,
      baseline=capture_matches.summarise(untrained['tagger']).share,
      baseline_name='untrained',
    )
  )
  return claims


def mind_claims(known: Mapping[str, np.ndarray]) -> list[types.Claim]:
  """How well facts of the game are read off memories: .5 is chance.

  Args:
    known: of `read_minds`.
  """
  means = knowledge.means(known)
  what = f'AUC of {len(knowledge.FACTS)} facts of the game, mean, read off'
  return [
    types.Claim(
      f'{what} {name}',
      means[of],
      baseline=means[beside],
      baseline_name=beside,
    )
    for name, of, beside in (
      ('memories', 'best member', 'untrained'),
      ('memories, beside what is seen', 'best member', 'observation'),
      ('one unit of the memories', 'one unit of it', 'best member'),
    )
  ]


def draw_population(
  config: Config,
  records: Sequence[Mapping[str, Any]],
  lineage: Sequence[population.Birth],
  minds: Mapping[int, Mind],
  points: np.ndarray,
  best: int,
) -> Figure:
  """Ratings, hyperparameters, rewards, minds and lineage on one time axis.

  Args:
    config: of the run.
    records: what was logged.
    lineage: of the run.
    minds: of the best member at some steps.
    points: what the bots took from each other.
    best: the member whose ancestors' rewards are shown.
  """
  millions = millions_of_a_step(config)
  end = config.num_steps * millions
  figure = Figure(figsize=(9, 15))
  elo, rate, reward, knows, does, tree = figure.subplots(
    6, 1, sharex=True, height_ratios=(3, 2, 3, 2, 2, 2)
  )
  colours = [f'C{i % 10}' for i in range(config.members)]

  seen = [r for r in records if 'share_tagger' in r]
  times = [r['step'] * millions for r in seen]
  for member, colour in enumerate(colours):
    shares = [
      {name: r[capture_matches.share_name(name)][member] for name in MARKS}
      for r in seen
    ]
    rated = [capture_matches.rate(points, [share], FEW) for share in shares]
    middle = np.array([x.elo[-1] for x in rated])
    half = 1.96 * np.array([x.error[-1] for x in rated])
    elo.plot(
      times,
      middle,
      '.-',
      color=colour,
      label=f'member {member}' + (', the best' if member == best else ''),
    )
    elo.fill_between(
      times, middle - half, middle + half, color=colour, alpha=0.1, lw=0
    )
  marks = capture_matches.rate(points, [], FEW).elo
  for name, mark in zip(capture_matches.BOTS, marks, strict=True):
    elo.axhline(mark, color='0.7', linestyle=':', zorder=0)
    elo.text(1.01, mark, name, va='center', transform=elo.get_yaxis_transform())
  elo.set(ylabel='Elo by games with bots, 95%')
  elo.legend(fontsize='small', loc='lower right')

  for member, colour in enumerate(colours):
    own = [line for line in lineage if line.child == member]
    times = [line.step * millions for line in own] + [end]
    values = [line.after['learning_rate'] for line in own]
    rate.step(times, [*values, values[-1]], where='post', color=colour)
  rate.set(ylabel='learning rate')

  path = population.schedule(lineage, best)
  times = [step * millions for step, _ in path] + [end]
  for i, (event, sign) in enumerate(zip(ctf.EVENTS, SIGNS, strict=True)):
    values = [sign * hyper['rewards'][i] for _, hyper in path]
    reward.step(
      times,
      [*values, values[-1]],
      where='post',
      color=f'C{i % 10}',
      linestyle='-' if i < 10 else '--',
      label=event,
    )
  reward.axhline(0, color='0.8', zorder=0)
  reward.set(ylabel='reward of an event,\nancestors of the best')
  reward.set_yscale('symlog', linthresh=0.1)
  reward.legend(fontsize='x-small', loc='center left', bbox_to_anchor=(1, 0.5))

  times = [step * millions for step in minds]
  known = knowledge.means({str(k): mind.areas for k, mind in minds.items()})
  knows.plot(times, list(known.values()), '.-', color='k')
  knows.set(ylabel='facts read off the\nmemory, mean AUC')
  told = capture_behaviours.over_time(
    {step: mind.segments for step, mind in minds.items()}
  )
  for name, values in told.items():
    does.plot(times, values, '.-', label=name)
  does.set(ylabel='share of segments', ylim=(0, None))
  does.legend(fontsize='x-small', loc='center left', bbox_to_anchor=(1, 0.5))

  for member, colour in enumerate(colours):
    tree.plot([0, end], [member, member], color=colour)
  for line in lineage:
    if line.parent is not None:
      tree.annotate(
        '',
        (line.step * millions, line.child),
        (line.step * millions, line.parent),
        arrowprops={'arrowstyle': '->', 'color': colours[line.parent]},
      )
  tree.set(
    xlabel='million agent steps of all members',
    ylabel='member',
    yticks=range(config.members),
    ylim=(-0.5, config.members - 0.5),
  )
  return figure


def draw_behaviours(config: Config, minds: Mapping[int, Mind]) -> Figure:
  """Clusters of what the best member did, over time."""
  told = [mind.segments for mind in minds.values()]
  count = min(_CLUSTERS, len(np.unique(np.concatenate(told), axis=0)))
  clusters = capture_behaviours.cluster(np.concatenate(told), count)
  millions = millions_of_a_step(config)
  names = [f'{step * millions:.2g}' for step in minds]
  counts = [len(x) for x in told]
  return capture_behaviours.draw(
    clusters, counts, names, 'million agent steps of all members'
  )


def millions_of_a_step(config: Config) -> float:
  """Million agent steps of all members in a step of the run."""
  return config.members * config.rows * config.unroll / 1e6
