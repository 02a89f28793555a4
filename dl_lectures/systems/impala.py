"""IMPALA: one agent learns to capture the flag, from itself and from bots.

Espeholt et al., "IMPALA: Scalable distributed deep-RL with importance weighted
actor-learner architectures", ICML 2018 [E]; the game is of Jaderberg et al.,
"Human-level performance in 3D multiplayer games with population-based
reinforcement learning", Science 364, 2019 [J]. Slides: deck 000, "Learning to
Play Capture The Flag".

    game 1   A A : A A     against itself          all A are one network,
    game 2   A A : A A                             each seat a row of a batch
     ...
    game G   A A : b b     against bots

    play U steps ──> rows of U steps ──> V-trace, normalised, clipped
         ^               [seats, U]          |  some updates, each with a part
         └──────────── new weights <─────────┘  of the rows

Acting and learning alternate here instead of being separate machines; still the
later parts are learned by weights that did not play them, which is what V-trace
weighs ([E] section 4.1). Three things make it learn in minutes. Half of the
games begin anywhere, flags on their way: captures are then met long before they
are found (no game is evaluated so). Games of a batch are at different times, so
that no update sees beginnings alone. And the reward is of all 13 events, with
fixed weights; `systems/ftw` lets a population find them.

  python -m experiments.impala --preset=laptop --workdir=runs/impala

24 million agent steps, some ten minutes of one core. Draws as half, the agent
then wins .996 of its games against the random bot, .995 against the one that
follows paths, .967 against the one that also tags and .954 against one with
roles, which it never met (three seeds, 512 games each on new maps); before it
learned it won .501, .001, .001 and .001. No published number is about this
game.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import nets, training, types
from dl_lectures.analysis import capture_films, capture_matches
from dl_lectures.envs import capture_bots, capture_games, capture_maps
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.ops import actor_critic
from dl_lectures.training import report, sharding

Array = jax.Array
Observation = ctf.Observation

ACTIONS = len(ctf.ACTIONS)
# Whom the agent meets while it learns; 'roles' it meets when all is over.
SPARRING = (
  capture_bots.at_random,
  capture_bots.walker,
  capture_bots.tagger,
)
UNSEEN = 'roles'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number
  size: int = 11  # of the map, in cells; [J]: mazes of about 3,500 units
  length: int = 128  # steps of a game; [J]: 4,500
  view: int = 9  # cells seen; [J]: 84 x 84 pixels
  compass: bool = True  # where flags and bases are is known; [J]: it is not
  line_of_sight: bool = False  # walls hide what is behind; [J]: they do
  games: int = 128  # side by side; [E]: 150 to 500 actors, [J]: 1,920 arenas
  self_play: float = 0.5  # of the games; the others are against bots
  unroll: int = 32  # steps between two updates; [E]: 20 to 100
  batches: int = 4  # parts of the rows, an update each; [E]: 32 rows each
  random_start: float = 0.5  # of the games begin anywhere; [E] [J]: none
  carried: float = 0.3  # of the flags are on their way there
  hidden: tuple[int, ...] = (128, 128)  # units; [E]: a convolutional ResNet
  memory: int = 0  # units of an LSTM; 0 for none; [E]: 256
  agent_steps: int = 24_000_000  # in all; [E]: 200 to 1,000 million frames
  learning_rate: float = 3e-3  # at first; [E]: 6e-4 (Atari)
  last_learning_rate: float = 3e-4  # at the end, by a line; [E]: 0
  entropy_cost: float = 0.01  # at first; [E]: .01 (Atari)
  last_entropy_cost: float = 0.003  # at the end; [E]: the same
  value_cost: float = 0.5  # [E]: .5
  discount: float = 0.98  # a step; [E]: .99
  lambda_: float = 0.95  # of V-trace; [E]: 1
  clip: float = 0.2  # how far an update moves a probability; [E]: no bound
  max_grad_norm: float = 0.5  # [E]: 40, with losses summed
  # Of ctf.EVENTS; [J]: evolved, see systems/ftw
  rewards: tuple[float, ...] = (
    *(1.0, 0.5, 0.3),  # i captured, picked up, returned
    *(1.0, 0.1, 0.1),  # a mate did
    *(-1.0, -0.1, -0.1),  # an opponent did
    *(0.3, 0.05),  # i tagged a carrier, another
    *(-0.3, -0.05),  # was tagged with the flag, without
  )
  num_games: int = 512  # of each match of the evaluation

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    self.rules()
    types.check_fields(self, 'games unroll batches agent_steps', 1)
    types.check_fields(self, 'memory learning_rate last_learning_rate', 0)
    types.check_fields(self, 'entropy_cost last_entropy_cost value_cost', 0)
    types.check_fields(self, 'max_grad_norm clip', 1e-6)
    types.check_fields(self, 'self_play random_start carried', 0, 1)
    types.check_fields(self, 'discount lambda_', 0, 1)
    if self.length % self.unroll:
      raise types.UsageError(
        f'config.unroll={self.unroll}; the divisors of '
        f'config.length={self.length} are possible'
      )
    for name, games in (
      ('games', self.games),
      ('self_play * games', self.against_itself),
    ):
      if games % self.groups:
        raise types.UsageError(
          f'config.{name}={games}; multiples of config.length / config.unroll '
          f'= {self.groups} are possible'
        )
    if self.rows % self.batches:
      raise types.UsageError(
        f'config.batches={self.batches}; the divisors of the {self.rows} seats '
        'of the agent are possible'
      )
    if not self.hidden or min(self.hidden) < 1:
      raise types.UsageError(
        f'config.hidden={self.hidden}; one layer or more of at least 1 unit is '
        'possible'
      )
    if len(self.rewards) != len(ctf.EVENTS):
      raise types.UsageError(
        f'config.rewards has {len(self.rewards)} numbers; one for each of the '
        f'{len(ctf.EVENTS)} events is possible'
      )
    if self.num_games % 128:
      raise types.UsageError(
        f'config.num_games={self.num_games}; multiples of 128 are possible'
      )

  def rules(self, indoor: float = 0.5) -> ctf.Rules:
    """Of the games; half of the maps are indoor ones."""
    return ctf.Rules(
      size=self.size,
      length=self.length,
      view=self.view,
      compass=self.compass,
      line_of_sight=self.line_of_sight,
      indoor=indoor,
    )

  @property
  def groups(self) -> int:
    """The games are in so many groups, which begin one after another."""
    return self.length // self.unroll

  @property
  def against_itself(self) -> int:
    """The first games, in which the agent has all seats."""
    return round(self.self_play * self.games)

  @property
  def rows(self) -> int:
    """The agent's seats in all games."""
    players = self.rules().players
    return players * (self.games + self.against_itself)

  @property
  def num_steps(self) -> int:
    """Rounds of playing and learning."""
    return math.ceil(self.agent_steps / (self.rows * self.unroll))


PRESETS = {
  'smoke': Config(agent_steps=3_600_000, num_games=256),
  'laptop': Config(),
  # What is out of sight is to be remembered.
  'in_sight': Config(
    size=13,
    length=256,
    view=7,
    compass=False,
    line_of_sight=True,
    memory=64,
    agent_steps=40_000_000,
    discount=0.99,
  ),
  'paper': Config(
    games=512,
    unroll=64,
    batches=32,
    hidden=(256, 256),
    memory=256,
    compass=False,
    line_of_sight=True,
    agent_steps=1_000_000_000,
    learning_rate=6e-4,
    last_learning_rate=0.0,
    last_entropy_cost=0.01,
    discount=0.99,
    lambda_=1.0,
    random_start=0.0,
  ),
}


class State(NamedTuple):
  """Everything that a run continues from.

  Attributes:
    train: the network and its optimiser.
    games: where the games stand, [games, ...] each; game i belongs to group
      i % groups.
    paths: [games against bots, C, C] int16, steps from cell to cell of their
      maps; bots alone see them.
    memory: the network's, [rows, ...] each; () without one.
    step: [] int32.
  """

  train: types.TrainState
  games: ctf.State
  paths: Array
  memory: Any
  step: Array


class Row(NamedTuple):
  """What the agent's seats lived through, R rows of U steps; time-major.

  Attributes:
    observation: [U + 1, R, ...].
    memory: before the first step, [R, ...] each.
    action: [U, R] int32.
    behaviour: [U, R], how likely it was, log mu(a).
    reward: [U, R].
    discount: [U, R], 0 where the game ended.
  """

  observation: Observation
  memory: Any
  action: Array
  behaviour: Array
  reward: Array
  discount: Array


# ------------------------------------------------------------------ the agent


def network(config: Config) -> hk.Transformed:
  """The agent: (observation [B, T, ...], memory [B, ...]) -> what it thinks.

  Returns:
    A transformed function; it gives logits [B, T, 8], values [B, T], memory.
  """

  def forward(seen: Observation, memory: Any) -> tuple[Array, Array, Any]:
    x = nets.MLP(config.hidden, activate_final=True)(
      ctf.flat(config.rules(), seen)
    )
    if config.memory:
      core = nets.LSTM(config.memory)
      y, memory = core.unroll(x, memory)
      # What is seen now also goes past the memory.
      x = jnp.concatenate([x, y], axis=-1)
    # Nearly even at first: the agent tries everything.
    even = hk.initializers.VarianceScaling(1e-4)
    logits = hk.Linear(ACTIONS, w_init=even, name='policy')(x)
    value = hk.Linear(1, name='value')(x)[..., 0]
    return logits, value, memory

  return hk.without_apply_rng(hk.transform(forward))


def no_memory(config: Config, rows: int) -> Any:
  """The memory before a game."""
  if not config.memory:
    return ()
  return hk.LSTMState(*jnp.zeros((2, rows, config.memory)))


def act(
  net: hk.Transformed,
  params: optax.Params,
  memory: Any,
  seen: Observation,
  noise: Array,
) -> tuple[Array, Any, Array]:
  """Draws actions [R] of the policy; also returns log mu(a) [R].

  Args:
    net: of `network`.
    params: its parameters.
    memory: [R, ...] each.
    seen: [R, ...].
    noise: [R, 8], of Gumbel's distribution.
  """
  seen = jax.tree.map(lambda x: x[:, None], seen)
  logits, _, memory = net.apply(params, seen, memory)
  log_probs = jax.nn.log_softmax(logits[:, 0])
  action = jnp.argmax(log_probs + noise, axis=-1).astype(jnp.int32)
  chosen = jnp.take_along_axis(log_probs, action[:, None], axis=-1)
  return action, memory, chosen[:, 0]


def side(
  config: Config, net: hk.Transformed, params: optax.Params
) -> capture_games.Side:
  """The agent in both seats of a team."""

  def begin(state: ctf.State) -> Any:
    return no_memory(config, config.rules().players * len(state.time))

  def decide(team, memory, state, seen, key):
    del team, state
    shape = seen.scalars.shape[:2]
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    noise = jax.random.gumbel(key, (len(rows.scalars), ACTIONS))
    action, memory, _ = act(net, params, memory, rows, noise)
    return action.reshape(shape), memory

  return capture_games.Side(begin, decide)


# ------------------------------------------------------------------- playing


def to_rows(config: Config, of_seats: Any) -> Any:
  """The agent's seats: [G, A, ...] -> [R, ...], of every leaf."""
  rules, own = config.rules(), config.against_itself

  def of_leaf(x: Array) -> Array:
    rest = x.shape[2:]
    whole = x[:own].reshape(-1, *rest)
    return jnp.concatenate([whole, x[own:, : rules.players].reshape(-1, *rest)])

  return jax.tree.map(of_leaf, of_seats)


def to_seats(config: Config, rows: Array, others: Array) -> Array:
  """Actions of all seats [G, A].

  Args:
    config: of the run.
    rows: [R], the agent's.
    others: [G - G against itself, n], the bots'.
  """
  rules = config.rules()
  whole = config.against_itself * rules.agents
  first = rows[:whole].reshape(-1, rules.agents)
  half = rows[whole:].reshape(-1, rules.players)
  return jnp.concatenate([first, jnp.concatenate([half, others], axis=1)])


def restart(config: Config, state: State, key: types.Key) -> State:
  """The state, with the games of one group begun anew."""
  group, groups = state.step % config.groups, config.groups
  reset = functools.partial(
    ctf.reset,
    config.rules(),
    random_start=config.random_start,
    carried=config.carried,
  )
  fresh = jax.vmap(reset)(jax.random.split(key, config.games // groups))

  def begin(old: Array, new: Array) -> Array:
    apart = old.reshape(-1, groups, *old.shape[1:])
    return apart.at[:, group].set(new).reshape(old.shape)

  games = jax.tree.map(begin, state.games, fresh)
  own = config.against_itself // groups
  worlds = jax.tree.map(lambda x: x[own:], fresh.world)
  paths = begin(state.paths, jax.vmap(capture_maps.distances)(worlds))
  begins = jnp.arange(config.games) % groups == group
  seats = jnp.repeat(begins[:, None], config.rules().agents, axis=1)
  rows = to_rows(config, seats)[:, None]
  memory = jax.tree.map(lambda x: jnp.where(rows, 0, x), state.memory)
  return state._replace(games=games, paths=paths, memory=memory)


def play(
  config: Config, net: hk.Transformed, state: State, key: types.Key
) -> tuple[State, Row]:
  """Plays `unroll` steps of all games; also returns what is learned from."""
  rules, own = config.rules(), config.against_itself
  params = state.train.params
  noise_key, bot_key = jax.random.split(key)
  noise = jax.random.gumbel(
    noise_key, (config.unroll, config.rows, ACTIONS), jnp.float32
  )
  # Each bot has its share of the games that are not against itself.
  parts = np.array_split(np.arange(own, config.games), len(SPARRING))
  bots = [
    (slice(part[0], part[-1] + 1), bot)
    for part, bot in zip(parts, SPARRING, strict=True)
    if len(part)
  ]

  def decide(memory, now, seen, given):
    noise, key = given
    rows = to_rows(config, seen)
    chosen, memory, behaviour = act(net, params, memory, rows, noise)
    others = jnp.zeros((0, rules.players), jnp.int32)
    keys = jax.random.split(key, config.games)
    for part, bot in bots:
      paths = state.paths[part.start - own : part.stop - own]
      games = jax.tree.map(lambda x, part=part: x[part], now)
      moves = jax.vmap(functools.partial(bot, rules))(games, paths, keys[part])
      others = jnp.concatenate([others, moves[:, rules.players :]])
    return to_seats(config, chosen, others), memory, behaviour

  given = noise, jax.random.split(bot_key, config.unroll)
  games, memory, played = capture_games.unroll(
    rules, decide, state.memory, state.games, given
  )
  rows = jax.vmap(functools.partial(to_rows, config))
  over = jnp.repeat(played.over[..., None], rules.agents, axis=-1)
  weights = jnp.array(config.rewards)
  return (
    state._replace(games=games, memory=memory),
    Row(
      observation=rows(played.observation),
      memory=state.memory,
      action=rows(played.action),
      behaviour=played.extras,
      reward=rows(played.events).astype(jnp.float32) @ weights,
      discount=jnp.where(rows(over), 0.0, config.discount),
    ),
  )


# ------------------------------------------------------------------ learning


def loss(
  config: Config,
  net: hk.Transformed,
  entropy_cost: Array,
  params: optax.Params,
  row: Row,
) -> tuple[Array, types.Metrics]:
  """Policy, values and entropy, [E] section 4.2; see `ops/actor_critic`."""
  seen = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), row.observation)
  logits, value, _ = net.apply(params, seen, row.memory)
  found = actor_critic.losses(
    jnp.swapaxes(logits, 0, 1)[:-1],
    value.T,
    row.action,
    row.behaviour,
    row.reward,
    row.discount,
    lambda_=config.lambda_,
    clip=config.clip,
    # What one does while out is nothing.
    mask=ctf.is_alive(row.observation)[:-1],
  )
  total = found.policy + config.value_cost * found.value
  return total - entropy_cost * found.entropy, {
    'policy_loss': found.policy,
    'value_loss': found.value,
    'entropy': found.entropy,
  }


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam with a rate that falls along a line, and a bound on the gradient."""
  rate = optax.linear_schedule(
    config.learning_rate,
    config.last_learning_rate,
    config.num_steps * config.batches,
  )
  return optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=1e-5)
  )


def init(config: Config, net: hk.Transformed, key: types.Key) -> State:
  """New weights and new games."""
  net_key, game_key = jax.random.split(key)
  reset = functools.partial(ctf.reset, config.rules())
  games = jax.vmap(reset)(jax.random.split(game_key, config.games))
  params = init_params(config, net, net_key)
  cells = config.size**2
  paths = (config.games - config.against_itself, cells, cells)
  return State(
    training.init_state(params, {}, optimizer(config)),
    games,
    # Not known yet: until its group begins, a bot goes anywhere.
    jnp.zeros(paths, jnp.int16),
    no_memory(config, config.rows),
    jnp.int32(0),
  )


def init_params(
  config: Config, net: hk.Transformed, key: types.Key
) -> optax.Params:
  """New weights."""
  rules = config.rules()
  seen = jax.eval_shape(lambda: ctf.observe(rules, ctf.reset(rules, key)))
  seen = jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape[1:]), x.dtype), seen)
  return net.init(key, seen, no_memory(config, 1))


def learn(
  config: Config,
  net: hk.Transformed,
  train: types.TrainState,
  row: Row,
  passed: Array,
  key: types.Key,
) -> tuple[types.TrainState, types.Metrics]:
  """Some updates, each with a part of the rows.

  Args:
    config: of the run.
    net: of `network`.
    train: weights and optimiser.
    row: what was played.
    passed: [], the share of the run that has passed.
    key: consumed.
  """
  update = optimizer(config)
  more = config.last_entropy_cost - config.entropy_cost
  entropy_cost = config.entropy_cost + more * passed
  grad_fn = jax.value_and_grad(
    functools.partial(loss, config, net, entropy_cost), has_aux=True
  )

  def once(train: types.TrainState, which: Array):
    part = jax.tree.map(lambda x: x[:, which], row._replace(memory=()))
    part = part._replace(memory=jax.tree.map(lambda x: x[which], row.memory))
    (_, metrics), grads = grad_fn(train.params, part)
    updates, opt_state = update.update(grads, train.opt_state, train.params)
    params = optax.apply_updates(train.params, updates)
    metrics['grad_norm'] = optax.tree.norm(grads)
    return types.TrainState(params, {}, opt_state, train.step + 1), metrics

  order = jax.random.permutation(key, config.rows)
  train, metrics = jax.lax.scan(once, train, order.reshape(config.batches, -1))
  metrics = jax.tree.map(jnp.mean, metrics)
  metrics['reward'] = jnp.mean(row.reward)
  return train, metrics


def make_step(config: Config, net: hk.Transformed) -> types.StepFn:
  """Plays `unroll` steps of all games and learns from them."""

  def step(
    state: State, batch: None, key: types.Key
  ) -> tuple[State, types.Metrics]:
    del batch
    key = jax.random.fold_in(key, state.step)
    begin_key, play_key, part_key = jax.random.split(key, 3)
    state = restart(config, state, begin_key)
    state, row = play(config, net, state, play_key)
    passed = state.step / config.num_steps
    train, metrics = learn(config, net, state.train, row, passed, part_key)
    return state._replace(train=train, step=state.step + 1), metrics

  return step


# ------------------------------------------------------------------- the run


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Trains, plays all bots, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  net = network(config)
  match = make_match(config, net)

  def compete(step: int, state: State) -> types.Metrics:
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    met = [name for name in capture_matches.BOTS if name != UNSEEN]
    captures = capture_matches.evaluate(
      match, state.train.params, key, 128, met
    )
    return {
      capture_matches.share_name(name): jnp.float32(
        capture_matches.summarise(found).share
      )
      for name, found in captures.items()
    }

  # A step's work is too little to be divided.
  result = training.fit(
    make_step(config, net),
    lambda key: init(config, net, key),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    mesh=sharding.make_mesh(1),
    count_params=lambda state: state.train.params,
    hooks=[
      training.Hook(compete, max(1, config.num_steps // 10), at_end=False),
      *hooks,
    ],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, net, match, result, workdir)


def make_match(config: Config, net: hk.Transformed) -> capture_matches.Match:
  """The agent in both seats of a team, against any bot."""
  return capture_matches.make_match(
    config.rules(), functools.partial(side, config, net)
  )


def conclude(
  config: Config,
  net: hk.Transformed,
  match: capture_matches.Match,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Plays the games that are reported, and writes the report."""
  start = time.monotonic()
  params = result.state.train.params
  # Of no step: on maps that nothing was trained or watched on.
  key = jax.random.fold_in(jax.random.key(config.seed), config.num_steps + 1)
  trained = capture_matches.evaluate(match, params, key, config.num_games)
  untrained = capture_matches.evaluate(
    match, init_params(config, net, key), key, config.num_games
  )
  claims = make_claims(config, trained, untrained)
  metrics = capture_matches.metrics(trained)
  figures = {'impala': 'Games won against bots, draws as half.'}
  records = training.logging.read(workdir) if workdir else []
  report.save_figure(draw_curve(config, records, trained), workdir, 'impala')
  if workdir:
    rivals = (
      side(config, net, params),
      capture_games.bot(config.rules(), capture_matches.BOTS[UNSEEN]),
    )
    game = capture_matches.film(config.rules(), *rivals, key)
    figures['game.gif'] = (
      'A game: the agent, blue, against a bot with roles that it never met; '
      'to the right, what one of its players sees.'
    )
    capture_films.gif(
      config.rules(), game, report.figure_path(workdir, 'game.gif'), agent=0
    )
  report.write(
    workdir,
    title='IMPALA captures the flag',
    config=config,
    claims=claims,
    metrics=metrics,
    figures=figures,
    minutes=result.seconds / 60 + (time.monotonic() - start) / 60,
  )
  return metrics


# What is to be reached, of the share of games: by short runs, by long ones, and
# by long ones without a compass.
_BARS = {
  'random': (0.9, 0.98, 0.9),
  'path follower': (0.85, 0.98, 0.85),
  'tagger': (0.25, 0.92, 0.6),
  'roles': (None, 0.93, None),
}
_LONG = 20_000_000  # agent steps
_CAPTURES = 1.5  # a game


def make_claims(
  config: Config,
  trained: Mapping[str, np.ndarray],
  untrained: Mapping[str, np.ndarray],
) -> list[types.Claim]:
  """What the run stands for, beside the agent before it learned.

  Args:
    config: of the run; short ones have other bars.
    trained: captures [games, 2] by bot.
    untrained: the same, before.
  """
  long = config.agent_steps >= _LONG
  kind = 0 if not long else 1 if config.compass else 2
  claims = []

  def claim(name: str, bot: str, which: slice, bar: float | None) -> None:
    score = capture_matches.summarise(trained[bot][which])
    before = capture_matches.summarise(untrained[bot][which])
    claims.append(
      types.Claim(
        name,
        score.share,
        interval=score.interval,
        baseline=before.share,
        baseline_name='untrained',
        bar=bar,
        met=None if bar is None else score.share >= bar,
      )
    )

  for bot, bars in _BARS.items():
    never = ', never met' if bot == UNSEEN else ''
    claim(f'games won against {bot}{never}', bot, slice(None), bars[kind])
  for style, which in (
    ('outdoor', slice(0, None, 2)),
    ('indoor', slice(1, None, 2)),
  ):
    for bot in ('tagger', UNSEEN):
      bar = _BARS[bot][kind]
      claim(f'games won against {bot}, {style} maps', bot, which, bar)
  fewest = min(trained, key=lambda bot: trained[bot][:, 0].mean())
  captures = float(trained[fewest][:, 0].mean())
  claims.append(
    types.Claim(
      'captures a game, against the bot that allows fewest',
      captures,
      baseline=float(untrained[fewest][:, 0].mean()),
      baseline_name='untrained',
      bar=_CAPTURES if kind == 1 else None,
      met=captures >= _CAPTURES if kind == 1 else None,
    )
  )
  return claims


def draw_curve(
  config: Config,
  records: Sequence[Mapping[str, Any]],
  trained: Mapping[str, np.ndarray],
) -> Figure:
  """Games won over training, against each bot."""
  figure = Figure(figsize=(7, 3.5))
  axes = figure.subplots()
  millions = config.rows * config.unroll / 1e6
  for i, (bot, captures) in enumerate(trained.items()):
    name = capture_matches.share_name(bot)
    along = [(r['step'] * millions, r[name]) for r in records if name in r]
    if along:
      axes.plot(*zip(*along, strict=True), '.-', color=f'C{i}')
    score = capture_matches.summarise(captures)
    low, high = score.interval
    axes.errorbar(
      [config.num_steps * millions],
      [score.share],
      [[score.share - low], [high - score.share]],
      fmt='s',
      color=f'C{i}',
      label=bot + (', never met' if bot == UNSEEN else ''),
    )
  axes.set(
    xlabel='million agent steps', ylabel='share of games won', ylim=(0, 1.02)
  )
  axes.legend(fontsize='small', loc='lower right')
  return figure
