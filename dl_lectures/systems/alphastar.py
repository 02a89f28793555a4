"""AlphaStar's policy on a small strategy game: copy a teacher, then beat it.

Vinyals et al., "Grandmaster level in StarCraft II using multi-agent
reinforcement learning", Nature 575 (2019) [V]; V-trace: Espeholt et al.,
"IMPALA", ICML 2018 [E]. Slides: deck 003, "AlphaStar"; deck 002, "AlphaStar".

    units ──> transformer ──> vectors ──> scattered on the board ──> convolution
                                 |  mean                                 |
    time ────────────────────────┴──────────────> LSTM <─────────────────┘
                                                   |
       value <─────────────────────────────────────┤
                                                   v
    kind of command ──> units, by a pointer, until stop ──> enemy or cell

A command is a sequence, and its probability the product of its parts'
([V], "Architecture"). First the network learns what a script would say, from
games that the script plays (maximum likelihood, as [V] from human replays);
then it plays the script itself and learns from winning and losing (V-trace).
The paper's league, its delays and its distillation are left out; the game is
`envs/skirmish`.

  python -m experiments.alphastar --preset=laptop --workdir=runs/alphastar

Thirteen minutes on a busy core. Of its games against the script, draws as half,
it wins .57, .56 and .73 (three seeds), the copy before it played .46. The
paper's agents beat 99.8% of human players.
"""

import dataclasses
import functools
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
from dl_lectures.envs import skirmish
from dl_lectures.nets import entities
from dl_lectures.ops import returns
from dl_lectures.training import report, rollout, sharding

Array = jax.Array

UNITS = skirmish.NUM_UNITS
NOISE = entities.noise_size(UNITS, skirmish.NUM_CELLS)
# (parameters, keys [n], obey) -> rewards [n]
Match = Callable[[optax.Params, types.Key, Array | bool], Array]
# Games of one call of a match.
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number
  width: int = 32  # of an entity's vector; [V]: 256
  blocks: int = 2  # of the transformer; [V]: 3
  heads: int = 2  # of each; [V]: 2
  channels: int = 8  # of the board; [V]: 32, and more further up
  memory: int = 64  # units of the LSTM; [V]: 384 in 3 layers
  lanes: int = 256  # games side by side; [V]: 16,000 a learner
  length: int = 16  # turns between two updates; [V]: 64
  imitation_steps: int = 150  # updates of the copy; [V]: 971,000 replays
  num_steps: int = 900  # updates in all; [V]: 44 days
  imitation_learning_rate: float = 3e-3  # at first; [V]: 1e-3
  learning_rate: float = 3e-3  # then, falling to 0; [V]: 3e-5
  discount: float = 0.99  # of a turn; [V]: 1
  lambda_: float = 0.9  # of V-trace; [V]: TD(.8)
  entropy_cost: float = 1e-3  # of all parts together; [V]: 1e-4
  value_cost: float = 0.5  # [E]: .5
  max_grad_norm: float = 1.0  # [E]: 40
  num_games: int = 2048  # of an evaluation

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'width blocks heads channels memory', 1)
    types.check_fields(self, 'lanes length num_steps num_games', 1)
    types.check_fields(self, 'imitation_steps entropy_cost value_cost', 0)
    types.check_fields(self, 'learning_rate imitation_learning_rate', 0)
    types.check_fields(self, 'max_grad_norm', 0)
    types.check_fields(self, 'discount lambda_', 0, 1)
    if self.width % self.heads:
      raise types.UsageError(
        f'config.heads={self.heads}; the divisors of config.width={self.width} '
        'are possible'
      )


PRESETS = {
  'smoke': Config(
    lanes=16,
    length=4,
    imitation_steps=4,
    num_steps=8,
    num_games=256,
    width=8,
    blocks=1,
    channels=2,
    memory=8,
  ),
  'laptop': Config(),
  'paper': Config(
    width=256,
    blocks=3,
    channels=32,
    memory=384,
    lanes=16_000,
    length=64,
    learning_rate=3e-5,
    imitation_learning_rate=1e-3,
    discount=1.0,
    lambda_=0.8,
    entropy_cost=1e-4,
  ),
}


class State(NamedTuple):
  """Everything that a run continues from.

  Attributes:
    train: the network and its optimiser.
    clone: the parameters when imitation ended.
    lanes: where the games stand, with the network's memory of them.
    step: [] int32.
  """

  train: types.TrainState
  clone: optax.Params
  lanes: rollout.RolloutState
  step: Array


class Advised(NamedTuple):
  """What is seen, and what the script would say to it.

  Attributes:
    seen: the board.
    advice: the script's command; only imitation looks at it.
  """

  seen: skirmish.Observation
  advice: skirmish.Command


class Thought(NamedTuple):
  """The network on a turn.

  Attributes:
    decision: what is done, and how likely it was; [N, ...].
    value: [N], of the turn.
  """

  decision: entities.Decision
  value: Array


def network(config: Config) -> hk.Transformed:
  """The policy: (seen [B, T], carry, reset [B, T], given, noise) -> [B T].

  Its `apply` returns a `Thought` of B T rows and the carry [B] after them.
  """

  def forward(seen, carry, reset, given=None, noise=None):
    shape = reset.shape
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    given = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), given)
    encode = entities.EntityEncoder(config.width, config.blocks, config.heads)
    vectors = encode(flat.entities, flat.alive)
    count = jnp.maximum(jnp.sum(flat.alive, axis=1, keepdims=True), 1)
    small = jax.nn.relu(hk.Linear(config.channels, name='to_board')(vectors))
    small = jnp.where(flat.alive[..., None], small, 0)
    board = entities.scatter(small, flat.cell, skirmish.NUM_CELLS)
    board = board.reshape(-1, skirmish.SIZE, skirmish.SIZE, config.channels)
    board = board + jax.nn.relu(nets.Conv2D(config.channels, 3)(board))
    whole = jnp.concatenate(
      [
        jnp.sum(vectors, axis=1) / count,
        hk.Linear(config.width, name='of_board')(board.reshape(len(board), -1)),
        flat.time,
      ],
      axis=-1,
    )
    x = jax.nn.relu(hk.Linear(config.memory, name='to_core')(whole))
    core = nets.LSTM(config.memory)
    y, carry = core.unroll(x.reshape(*shape, -1), carry, reset=reset)
    y = y.reshape(len(x), -1) + x
    head = entities.ActionHead(config.memory)
    decision = head(y, vectors, board, flat.alive, given=given, noise=noise)
    value = jnp.tanh(hk.Linear(1, name='value')(y)[:, 0])
    return Thought(decision, value), carry

  return hk.without_apply_rng(hk.transform(forward))


def carry(config: Config, size: int) -> hk.LSTMState:
  """The memory of nothing."""
  zeros = jnp.zeros((size, config.memory))
  return hk.LSTMState(zeros, zeros)


def command(action: entities.Action) -> skirmish.Command:
  """Actions [N] as the game takes them."""
  there = jax.nn.one_hot(action.picks, UNITS, dtype=jnp.int32)
  units = jnp.sum(there, axis=1) > 0
  return skirmish.Command(action.kind, units, action.cell, action.enemy)


def as_action(said: skirmish.Command) -> entities.Action:
  """Commands [N] as sequences: the units in their order, then stop."""
  number = jnp.broadcast_to(jnp.arange(UNITS), said.units.shape)
  picks = jnp.sort(jnp.where(said.units, number, UNITS), axis=-1)
  return entities.Action(said.kind, picks, said.enemy, said.cell)


def advised() -> types.Environment:
  """The game against the script, with its advice beside what is seen."""
  game = skirmish.against(skirmish.charge)

  def reset(key):
    start, advice = jax.random.split(key)
    state, time_step = game.reset(start)
    return state, _with_advice(state, time_step, advice)

  def step(state, said, key):
    play, advice = jax.random.split(key)
    state, time_step = game.step(state, said, play)
    return state, _with_advice(state, time_step, advice)

  return game._replace(reset=reset, step=step)


def _with_advice(state, time_step, key):
  advice = skirmish.charge(state, 0, key)
  return time_step._replace(observation=Advised(time_step.observation, advice))


def policy(
  net: hk.Transformed, params: optax.Params, obey: Array | bool
) -> rollout.Policy:
  """Plays: the script where `obey` is true, else the network.

  Args:
    net: of `network`.
    params: its parameters.
    obey: [] bool.
  """

  def act(memory, time_step, keys):
    seen = jax.tree.map(lambda x: x[:, None], time_step.observation.seen)
    reset = (time_step.discount == 0)[:, None]
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (NOISE,)))(keys)
    thought, memory = net.apply(params, seen, memory, reset, noise=noise)
    decision = thought.decision
    told = as_action(time_step.observation.advice)
    action = jax.tree.map(
      lambda a, b: jnp.where(obey, a, b), told, decision.action
    )
    return command(action), memory, (action, decision.log_prob)

  return act


def loss(
  config: Config,
  net: hk.Transformed,
  imitating: Array,
  params: optax.Params,
  before: hk.LSTMState,
  played: rollout.Trajectory,
  last: types.TimeStep,
) -> tuple[Array, types.Metrics]:
  """Maximum likelihood while imitating, V-trace actor-critic afterwards.

  [E] section 4.2: the policy gradient with V-trace's advantages, half the
  squared error of the values, the entropy; advantages have a mean square of 1.
  An action is all its parts.

  Args:
    config: the settings.
    net: of `network`.
    imitating: [] bool.
    params: what is trained.
    before: the memory before the first turn, [B].
    played: [T, B].
    last: the time step that follows, [B].
  """
  seen = jax.tree.map(
    lambda x, y: jnp.swapaxes(jnp.concatenate([x, y[None]]), 0, 1),
    played.observation.seen,
    last.observation.seen,
  )
  first = jnp.concatenate([played.first, (last.discount == 0)[None]]).T
  action, behaviour = played.extras
  # What follows the last turn is valued only; any action will do for it.
  given = jax.tree.map(
    lambda x: jnp.swapaxes(jnp.concatenate([x, x[-1:]]), 0, 1), action
  )
  thought, _ = net.apply(params, seen, before, first, given=given)
  log_prob, entropy, value = (
    x.reshape(first.shape).T
    for x in (
      thought.decision.log_prob,
      thought.decision.entropy,
      thought.value,
    )
  )
  log_prob, entropy = log_prob[:-1], entropy[:-1]
  rho = jnp.where(imitating, 1.0, jnp.exp(log_prob - behaviour))
  learned = jax.vmap(
    functools.partial(returns.vtrace, lambda_=config.lambda_),
    in_axes=1,
    out_axes=1,
  )(
    played.reward,
    config.discount * played.discount,
    jax.lax.stop_gradient(value[:-1]),
    jax.lax.stop_gradient(value[1:]),
    jax.lax.stop_gradient(rho),
  )
  likelihood = jnp.mean(log_prob)
  # Of size 1: how much is won by a turn shrinks as the values learn.
  size = jnp.sqrt(jnp.mean(jnp.square(learned.advantage_tm1)))
  gain = jnp.mean(log_prob * learned.advantage_tm1) / jnp.maximum(size, 1e-6)
  gain += config.entropy_cost * jnp.mean(entropy)
  error = 0.5 * jnp.mean(jnp.square(learned.v_tm1 - value[:-1]))
  total = config.value_cost * error - jnp.where(imitating, likelihood, gain)
  over = played.discount == 0
  return total, {
    'likelihood': likelihood,
    'entropy': jnp.mean(entropy),
    'value_loss': error,
    'won': jnp.sum(over * (played.reward + 1) / 2)
    / jnp.maximum(jnp.sum(over), 1),
  }


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam with two rates: of imitation, and of play, falling to 0."""
  left = max(1, config.num_steps - config.imitation_steps)
  rate = optax.join_schedules(
    [
      optax.constant_schedule(config.imitation_learning_rate),
      optax.linear_schedule(config.learning_rate, 0.0, left),
    ],
    [config.imitation_steps],
  )
  return optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate)
  )


def init(config: Config, net: hk.Transformed, key: types.Key) -> State:
  """New weights, and new games in all lanes."""
  net_key, game_key = jax.random.split(key)
  keys = jax.random.split(game_key, config.lanes)
  lanes = rollout.start(advised(), carry(config, config.lanes), keys)
  seen = jax.tree.map(lambda x: x[:1, None], lanes.time_step.observation.seen)
  params = net.init(net_key, seen, carry(config, 1), jnp.ones((1, 1), bool))
  train = training.init_state(params, {}, optimizer(config))
  # A copy: states are donated, and a buffer can be given away only once.
  return State(train, jax.tree.map(jnp.copy, params), lanes, jnp.int32(0))


def make_step(config: Config, net: hk.Transformed) -> types.StepFn:
  """Plays `length` turns in every lane and learns from them."""
  environment, update = advised(), optimizer(config)

  def step(
    state: State, batch: None, key: types.Key
  ) -> tuple[State, types.Metrics]:
    del batch
    key = jax.random.fold_in(key, state.step)
    keys = jax.random.split(key, config.lanes)
    imitating = state.step < config.imitation_steps
    train = state.train
    lanes, played = rollout.rollout(
      environment,
      policy(net, train.params, imitating),
      state.lanes,
      keys,
      config.length,
    )
    grad_fn = jax.value_and_grad(
      functools.partial(loss, config, net, imitating), has_aux=True
    )
    (_, metrics), grads = grad_fn(
      train.params, state.lanes.policy_state, played, lanes.time_step
    )
    updates, opt_state = update.update(grads, train.opt_state, train.params)
    params = optax.apply_updates(train.params, updates)
    clone = jax.tree.map(
      lambda new, old: jnp.where(imitating, new, old), params, state.clone
    )
    train = types.TrainState(params, {}, opt_state, train.step + 1)
    metrics['grad_norm'] = optax.tree.norm(grads)
    return State(train, clone, lanes, state.step + 1), metrics

  return step


class Score(NamedTuple):
  """The result of some games.

  Attributes:
    share: won, a draw as half.
    interval: 95% of it.
    wins: games.
    draws: games.
    num_games: in all.
  """

  share: float
  interval: tuple[float, float]
  wins: int
  draws: int
  num_games: int


def make_match(config: Config, net: hk.Transformed) -> Match:
  """Games against the script, compiled once.

  Args:
    config: of the network.
    net: of `network`.

  Returns:
    (parameters, keys [n], obey) -> the rewards [n] of n games; the script
    itself plays for it where `obey` is true.
  """

  @jax.jit
  def match(params: optax.Params, keys: types.Key, obey: Array | bool) -> Array:
    start_keys, play_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    environment, n = advised(), len(keys)
    lanes = rollout.start(environment, carry(config, n), start_keys)
    _, played = rollout.rollout(
      environment,
      policy(net, params, obey),
      lanes,
      play_keys,
      skirmish.TIME_LIMIT,
    )
    # The first game of every lane.
    number = jnp.argmax(played.discount == 0, axis=0)
    return jnp.take_along_axis(played.reward, number[None], axis=0)[0]

  return match


def evaluate(
  match: Match,
  params: optax.Params,
  key: types.Key,
  num_games: int,
  *,
  obey: bool = False,
) -> Score:
  """Plays against the script; consumes the key.

  Args:
    match: of `make_match`.
    params: of the player, which draws its actions.
    key: of the games.
    num_games: rounded up to a multiple of 256.
    obey: the script plays for it.
  """
  keys = jax.random.split(key, (-(-num_games // _AT_ONCE), _AT_ONCE))
  reward = np.concatenate([match(params, some, obey) for some in keys])
  points = (reward + 1) / 2
  spread = 1.96 * points.std() / np.sqrt(len(points))
  share = float(points.mean())
  interval = max(0.0, share - spread), min(1.0, share + spread)
  wins, draws = int((reward > 0).sum()), int((reward == 0).sum())
  return Score(share, interval, wins, draws, len(points))


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Copies the script, plays it, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  net = network(config)
  mesh = sharding.make_mesh()
  sharding.check_divides('config.lanes', config.lanes, mesh)
  whole: Any = sharding.replicated(mesh)
  split: Any = sharding.split(mesh)
  every = max(1, config.num_steps // 10)
  match = make_match(config, net)

  def compete(step: int, state: State) -> types.Metrics:
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    share = evaluate(match, state.train.params, key, _AT_ONCE).share
    return {'share': jnp.float32(share)}

  result = training.fit(
    make_step(config, net),
    lambda key: init(config, net, key),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    mesh=mesh,
    state_sharding=State(train=whole, clone=whole, lanes=split, step=whole),
    count_params=lambda state: state.train.params,
    hooks=[training.Hook(compete, every, True), *hooks],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, net, match, result, workdir)


def conclude(
  config: Config,
  net: hk.Transformed,
  match: Match,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Plays the games that are reported, and writes the report."""
  start = time.monotonic()
  state: State = result.state
  # Of no step: games that nothing was trained or watched on.
  key = jax.random.fold_in(jax.random.key(config.seed), config.num_steps + 1)
  params, clone, n = state.train.params, state.clone, config.num_games
  untrained = init(config, net, key).train.params
  scores = {
    'trained': evaluate(match, params, key, n),
    'clone': evaluate(match, clone, key, n),
    'teacher': evaluate(match, params, key, n, obey=True),
    'untrained': evaluate(match, untrained, key, n),
  }
  claims = make_claims(scores)
  metrics = {
    **{f'share_{name}': score.share for name, score in scores.items()},
    'likelihood': float(result.metrics['likelihood']),
  }
  records = training.logging.read(workdir) if workdir else []
  report.save_figure(draw_curve(config, records, scores), workdir, 'strength')
  film = record(config, net, params, key)
  report.save_figure(draw_game(film), workdir, 'game')
  report.write(
    workdir,
    title='AlphaStar',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={
      'strength': 'Games won against the script, draws as half.',
      'game': 'A game: side 0, the network, in blue; lines are orders.',
    },
    minutes=result.seconds / 60 + (time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(scores: Mapping[str, Score]) -> list[types.Claim]:
  """What the run stands for, beside the teacher and its copy."""
  trained, clone = scores['trained'], scores['clone']
  return [
    types.at_least(
      'games won against the script',
      trained.share,
      0.5,
      interval=trained.interval,
      baseline=clone.share,
      baseline_name='the copy of the script, before it played itself',
      paper='99.8% of human players are beaten',
    ),
    types.Claim(
      'games won by the copy of the script',
      clone.share,
      interval=clone.interval,
      baseline=scores['untrained'].share,
      baseline_name='untrained',
    ),
  ]


def record(
  config: Config, net: hk.Transformed, params: optax.Params, key: types.Key
) -> list[skirmish.State]:
  """One game, turn by turn; consumes the key."""
  environment = advised()
  act, turn = jax.jit(policy(net, params, False)), jax.jit(environment.step)
  state, time_step = environment.reset(key)
  # An episode begins: the memory is emptied.
  time_step = time_step._replace(discount=jnp.float32(0))
  memory, film = carry(config, 1), [state]
  while not skirmish.over(state):
    key, act_key, turn_key = jax.random.split(key, 3)
    row = jax.tree.map(lambda x: x[None], time_step)
    said, memory, _ = act(memory, row, act_key[None])
    said = jax.tree.map(lambda x: x[0], said)
    state, time_step = turn(state, said, turn_key)
    film.append(state)
  return film


def draw_curve(
  config: Config,
  records: Sequence[Mapping[str, Any]],
  scores: Mapping[str, Score],
) -> Figure:
  """Games won over training, in play and in matches."""
  figure = Figure(figsize=(7, 3.5))
  axes = figure.subplots()
  shares = [(r['step'], r['share']) for r in records if 'share' in r]
  if shares:
    axes.plot(*zip(*shares, strict=True), 'o-', label='matches along the way')
  for name, colour in (('teacher', 'C1'), ('clone', 'C2'), ('untrained', 'C3')):
    score = scores[name]
    axes.axhline(score.share, color=colour, linestyle=':', label=name)
  last = scores['trained']
  axes.errorbar(
    [config.num_steps],
    [last.share],
    [[last.share - last.interval[0]], [last.interval[1] - last.share]],
    fmt='s',
    color='black',
    label=f'the end, {last.num_games:,} games',
  )
  axes.axvspan(0, config.imitation_steps, color='0.9', label='imitation')
  axes.set(xlabel='updates', ylabel='share of games won', ylim=(0, 1))
  axes.legend(fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
  return figure


def draw_game(film: Sequence[skirmish.State]) -> Figure:
  """Six turns of a game: units, their health, and lines to their targets."""
  shown = np.linspace(0, len(film) - 1, 6).round().astype(int)
  figure = Figure(figsize=(10, 6.6))
  for axes, turn in zip(figure.subplots(2, 3).flat, shown, strict=True):
    _draw_board(axes, jax.device_get(film[turn]))
    axes.set_title(f'turn {turn}', fontsize='medium')
  return figure


def _draw_board(axes: Any, state: skirmish.State) -> None:
  size = skirmish.SIZE
  axes.set(xlim=(-0.6, size - 0.4), ylim=(size - 0.4, -0.6), aspect='equal')
  axes.set_xticks(np.arange(size + 1) - 0.5, [])
  axes.set_yticks(np.arange(size + 1) - 0.5, [])
  axes.grid(color='0.9')
  # Who shares a cell stands a little apart.
  apart = 0.16 * np.array([[-1, -1], [-1, 1], [0, 0], [1, -1], [1, 1]])
  place = state.place + apart[None]
  for side, unit in np.argwhere(state.health > 0):
    y, x = place[side, unit]
    target, order = state.target[side, unit], state.order[side, unit]
    colour = ('C0', 'C3')[side]
    goal = None
    if order == skirmish.ATTACK:
      goal = place[1 - side, target]
    elif order == skirmish.MOVE:
      goal = divmod(int(target), size)
    if goal is not None:
      axes.plot([x, goal[1]], [y, goal[0]], color=colour, alpha=0.4, lw=1)
    archer = skirmish.ARCHER[unit]
    share = state.health[side, unit] / skirmish.HEALTH[unit]
    marker = '^' if archer else 's'
    axes.scatter(
      x, y, 20 + 60 * share, colour, marker=marker, edgecolors='white', zorder=3
    )
