"""RUDDER: a return predictor pays each step what it changed.

Arjona-Medina et al., "RUDDER: Return Decomposition for Delayed Rewards",
NeurIPS 2019 [R]; its demonstration, github.com/ml-jku/rudder-demonstration-code
[D]. Slides: deck 002, "RUDDER" to "RUDDER: LSTM".

      task ──> episodes ──> lessons: the sequences and their returns G
        ^          |                         |
        |          |              LSTM: G from the steps so far, g_t
     table         v                         |
     Q(s, a) <── R_t = g_t - g_{t-1} <───────┘
     the mean of the immediate redistributed reward: nothing is left to expect

Step t of a sequence is action t with the change of the state that it leads to;
the first one holds the first state besides.

Temporal differences (TD, Q-learning) and Monte Carlo (MC) learn the same tables
beside it, from the rewards as they are paid, with the same exploration, the
same stop, and in the published setting the same learning rate.

  python -m experiments.rudder --preset=laptop --workdir=runs/rudder

Watch repair, until 95% of the last 750 decisions are right, nine runs with
three seeds that no setting was chosen on: all of them get there, the slowest of
each three after 3,133 episodes (mean; 2,575, 4,150 and 2,675), in 23 CPU
seconds for all three on a busy machine; beside them TD takes 66,600 and MC
gives up after 250,000 in two of three. Published [D]: 1,900-3,800 episodes and
140-250 s a seed; TD about 71,800, MC 27,700 to more than 240,000. A tenth of
the actions being random, 95% is what faultless play has on average: the end is
a wait for luck. `results/rudder.json` has the claims.

MC owes that to its published learning rate. With rates tuned for each method,
`experiments.rudder_sweep`, five seeds, medians at delays of 25 and 100: RUDDER
2,075 and 2,675, MC at .03 2,500 and 2,450, TD 31,125 and 78,200. Where returns
hardly vary, as in `trace_back`, MC needs fewer episodes than RUDDER: it has
nothing to average out.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.envs import delayed
from dl_lectures.nets import recurrent
from dl_lectures.ops import redistribution
from dl_lectures.training import replay, report

Array = jax.Array

BASELINES = ('td', 'mc')
LEARNERS = ('q', 'policy_gradient')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [D]."""

  seed: int = 0  # of every random number
  runs: int = 3  # independent learners side by side; [D]: 1
  task: str = 'watch_repair'  # or trace_back, charge, line
  horizon: int = 50  # actions of an episode; [D]: 50
  deltas: bool = True  # the network sees changes of the state; [D]: True
  episodes_per_step: int = 25  # played between two lessons; [D]: 25
  first_lesson: int = 1000  # episodes of random play before it; [D]: 257
  lessons: int = 4096  # episodes held; [D]: 2,048
  first_updates: int = 4000  # of the first lesson; [D]: as of all of them
  updates_per_step: int = 200  # of the others; [D]: until the loss is below .15
  batch_size: int = 16  # [D]: 8
  units: int = 16  # memory cells; [D]: 16
  gate_inputs: bool = True  # the input gate sees the input too; [D]: False
  input_gate_bias: float = 0.0  # mean of it at first, sd 1; [D]: -3
  lstm_learning_rate: float = 1e-2  # Adam's; [D]: 1e-2
  weight_decay: float = 1e-6  # [D]: 1e-6
  aux_weight: float = 0.5  # of predictions at all positions; [D]: .5
  return_scale: float = 10.0  # returns are divided by it; [D]: 10
  learner: str = 'q'  # or policy_gradient; [D]: Q-estimation
  learning_rate: float = 0.1  # of the table; [D]: .1
  epsilon: float = 0.1  # share of exploratory actions; [D]: .1
  optimism: float = 10.0  # the table's values at first; [D]: 10
  window: int = 750  # last episodes that are judged; [D]: 750
  bar: float = 0.95  # their mean score at which a run has learned; [D]: .95
  greedy_score: bool = False  # judge without exploring instead; [D]: False
  max_episodes: int = 10_000  # then RUDDER gives up
  baseline_episodes: int = 250_000  # then TD and MC do
  td_learning_rate: float = 0.1  # [D]: .1
  mc_learning_rate: float = 0.1  # [D]: .1

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    for low, names in (
      (1, 'runs horizon episodes_per_step lessons batch_size units window'),
      (1, 'max_episodes'),
      (0, 'first_lesson first_updates updates_per_step weight_decay'),
      (0, 'lstm_learning_rate aux_weight learning_rate bar baseline_episodes'),
      (0, 'td_learning_rate mc_learning_rate'),
    ):
      types.check_fields(self, names, low)
    types.check_fields(self, 'epsilon', 0, 1)
    if self.return_scale <= 0:
      raise types.UsageError(
        f'config.return_scale={self.return_scale}; more than 0 is possible'
      )
    if self.learner not in LEARNERS:
      raise types.UsageError(
        f'config.learner={self.learner!r}; possible: {", ".join(LEARNERS)}'
      )
    if self.lessons < self.episodes_per_step:
      raise types.UsageError(
        f'config.lessons={self.lessons}; at least {self.episodes_per_step} is '
        'possible, which is episodes_per_step'
      )
    if self.window % self.episodes_per_step:
      raise types.UsageError(
        f'config.window={self.window}; the multiples of '
        f'config.episodes_per_step={self.episodes_per_step} are possible'
      )
    delayed.make(self.task, self.horizon)


class Lesson(NamedTuple):
  """An episode as the network learns from it.

  Attributes:
    sequence: [T, F + A + F] float32, see `encode`.
    total: [] float32, its return.
  """

  sequence: Array
  total: Array


class Progress(NamedTuple):
  """How far a learner is.

  Attributes:
    recent: [W] float32, mean scores of its last blocks of episodes.
    blocks: [] int32, played so far.
    solved: [] int32, episodes played when the bar was reached; 0 before.
  """

  recent: Array
  blocks: Array
  solved: Array


class Learner(NamedTuple):
  """One of the runs side by side.

  Attributes:
    train: of the return predictor.
    lessons: a ring of Lessons.
    table: [rows, A] float32: action values, or the logits of a policy.
    progress: how far it is.
  """

  train: types.TrainState
  lessons: replay.Replay
  table: Array
  progress: Progress


class State(NamedTuple):
  """Everything that is needed to continue exactly.

  Attributes:
    learners: a Learner of [R, ...] arrays.
    scores: [R, N] float32, the mean scores of all blocks; -1 of those to come.
    step: [] int32.
  """

  learners: Learner
  scores: Array
  step: Array


def network(config: Config) -> hk.Transformed:
  """The return predictor: [B, T, F] -> [B, T], in units of `return_scale`.

  [R], appendix S4.2: an LSTM that can only count, without forget and output
  gate, its cell input fed by the input alone. There its input gate is fed by
  the memory alone; with `gate_inputs` it sees the input too, so that one unit
  multiplies what was done with what it was done to. Without, such a product
  has to come of the curvature of tanh, and is learned late. Initialised as in
  [D].
  """
  normal = hk.initializers.RandomNormal
  wiring = recurrent.RUDDER._replace(
    input_gate=recurrent.Gate(
      inputs=config.gate_inputs,
      bias=normal(1.0, config.input_gate_bias),
      w_init=normal(0.1),
    ),
    cell_input=recurrent.Gate(
      recurrence=False, bias=normal(1.0), w_init=normal(0.1)
    ),
  )

  def forward(sequence: Array) -> Array:
    memory = recurrent.LSTM(config.units, wiring)(sequence)
    return hk.Linear(1)(memory)[..., 0]

  return hk.without_apply_rng(hk.transform(forward))


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam with the L2 penalty of [D]."""
  return optax.chain(
    optax.add_decayed_weights(config.weight_decay),
    optax.adam(config.lstm_learning_rate),
  )


def encode(
  task: delayed.Task, observation: Array, action: Array, deltas: bool
) -> Array:
  """An episode as the network sees it.

  Args:
    task: for the number of actions.
    observation: [T + 1, F].
    action: [T] int32.
    deltas: changes of the state instead of states: the last one alone then
      says little of the return, and nothing can be explained away by it ([R],
      section 3).

  Returns:
    [T, F + A + F]: the state, the action, and the state it leads to; with
    deltas the first state, nothing in place of the others, and the change.
  """
  before, after = observation[:-1], observation[1:]
  if deltas:
    after = after - before
    before = before.at[1:].set(0.0)
  acted = jax.nn.one_hot(action, task.num_actions)
  return jnp.concatenate([before, acted, after], axis=-1)


def loss(
  config: Config,
  net: hk.Transformed,
  params: hk.Params,
  net_state: hk.MutableState,
  key: types.Key,
  lessons: Lesson,
) -> tuple[Array, tuple[hk.MutableState, types.Metrics]]:
  """Mean squared errors of the last prediction, and of all ([R], section 3).

  Of each error the square, then the mean: the square of the mean error, on
  which the published tutorial trains, is blind to errors that cancel out.
  """
  del key
  error = redistribution.prediction_error(
    net.apply(params, lessons.sequence),
    lessons.total / config.return_scale,
    jnp.ones(lessons.sequence.shape[:2], bool),
  )
  total = error.final + config.aux_weight * error.running
  return total, (net_state, {'final_loss': error.final})


def redistribute(
  config: Config,
  net: hk.Transformed,
  params: hk.Params,
  batch: delayed.Episode,
  sequence: Array,
) -> redistribution.Redistribution:
  """What each action is paid, [B, T]; the residual goes to the last one.

  [R], equation 6. The first action is paid the value of the beginning too.
  """
  trajectory = redistribution.Trajectory(
    sequence, batch.action, batch.reward, jnp.ones(batch.action.shape, bool)
  )
  return redistribution.redistribute(
    trajectory,
    lambda seen: config.return_scale * net.apply(params, seen.observation),
  )


def estimate_q(
  table: Array, episode: delayed.Episode, reward: Array, rate: Array | float
) -> Array:
  """Q-estimation ([R], section 2): the running mean of the immediate reward.

  Args:
    table: [rows, A].
    episode: whose states are all different.
    reward: [T], redistributed.
    rate: of the running mean.
  """
  at = (episode.row[:-1], episode.action)
  return table.at[at].add(rate * (reward - table[at]))


def estimate_td(
  table: Array, episode: delayed.Episode, legal: Array, rate: Array | float
) -> Array:
  """Q-learning from the rewards as paid, all steps from the same table.

  Args:
    table: [rows, A].
    episode: whose states are all different.
    legal: [T + 1, A] bool, the actions possible in each state.
    rate: the learning rate.
  """
  values = jnp.where(legal, table[episode.row], -jnp.inf)
  after = jnp.max(values, axis=-1)[1:].at[-1].set(0.0)
  return estimate_q(table, episode, episode.reward + after, rate)


def estimate_mc(
  table: Array, episode: delayed.Episode, rate: Array | float
) -> Array:
  """Monte Carlo control: towards the return that followed, every visit."""
  following = jnp.cumsum(episode.reward[::-1])[::-1]
  return estimate_q(table, episode, following, rate)


def ascend_policy(
  table: Array,
  episode: delayed.Episode,
  legal: Array,
  reward: Array,
  rate: Array | float,
) -> Array:
  """Policy gradient: the immediate redistributed reward in the place of q.

  [R], section 2, "policy gradients": theta += rate * R_t * grad log pi(a | s).

  Args:
    table: [rows, A], the logits.
    episode: whose states are all different.
    legal: [T + 1, A] bool.
    reward: [T], redistributed.
    rate: the learning rate.
  """
  logits = jnp.where(legal, table[episode.row], -jnp.inf)[:-1]
  taken = jax.nn.one_hot(episode.action, table.shape[-1])
  ascent = reward[:, None] * (taken - jax.nn.softmax(logits))
  return table.at[episode.row[:-1]].add(rate * ascent)


def softmax_policy(table: Array) -> delayed.Policy:
  """Actions drawn from logits [rows, A]; of those that are legal."""

  def policy(row: Array, legal: Array, uniform: Array) -> Array:
    shares = jax.nn.softmax(jnp.where(legal, table[row], -jnp.inf))
    beyond = jnp.cumsum(shares) <= uniform[1]
    last = jnp.max(jnp.where(legal, jnp.arange(legal.size), 0))
    return jnp.minimum(jnp.sum(beyond, dtype=jnp.int32), last)

  return policy


def record(config: Config, progress: Progress, score: Array) -> Progress:
  """Adds the mean score of a block of episodes; has the bar been reached?"""
  size = progress.recent.shape[0]
  recent = progress.recent.at[progress.blocks % size].set(score)
  blocks = progress.blocks + 1
  # Half an episode of slack: a mean of 32-bit numbers is not exact.
  reached = jnp.mean(recent) >= config.bar - 0.5 / config.window
  reached &= (blocks >= size) & (progress.solved == 0)
  episodes = blocks * config.episodes_per_step
  return Progress(recent, blocks, jnp.where(reached, episodes, progress.solved))


def new_progress(config: Config) -> Progress:
  """Before the first episode."""
  return Progress(
    jnp.zeros(config.window // config.episodes_per_step),
    jnp.int32(0),
    jnp.int32(0),
  )


def score_greedily(
  task: delayed.Task, table: Array, chance: delayed.Chance, uniform: Array
) -> Array:
  """The mean score of a table's best actions, [] float32."""
  play = functools.partial(task.rollout, delayed.greedy_policy(table, 0.0))
  return jnp.mean(jax.vmap(play)(chance, uniform).score)


def play_block(config: Config, task: delayed.Task, key: types.Key):
  """All that is random in a block: Chance [E, ...], uniform [E, T, 2]."""
  world, own = jax.random.split(key)
  size = config.episodes_per_step
  uniform = jax.random.uniform(own, (size, task.horizon, 2))
  return delayed.draw(task, world, (size,)), uniform


def learn_baseline(
  config: Config,
  task: delayed.Task,
  method: str,
  rate: Array | float,
  keys: types.Key,
) -> tuple[Array, Array]:
  """TD or MC, until every run has reached the bar or the episodes are over.

  Args:
    config: the settings.
    task: what is learned.
    method: 'td' or 'mc'.
    rate: the learning rate, [] or one for each run, [R].
    keys: [R], consumed.

  Returns:
    The episodes that each run needed, [R] int32, 0 for those that did not get
    there; and the mean scores of its blocks, [R, N], -1 where none was played.
  """
  runs = keys.shape[0]
  rates = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (runs,))
  most = num_blocks(config.baseline_episodes, config)
  epsilon = config.epsilon

  def episode(rate: Array, table: Array, noise):
    played = task.rollout(delayed.greedy_policy(table, epsilon), *noise)
    if method == 'td':
      legal = jax.vmap(task.legal)(played.row)
      table = estimate_td(table, played, legal, rate)
    else:
      table = estimate_mc(table, played, rate)
    return table, played.score

  def block(table: Array, progress: Progress, rate: Array, key: types.Key):
    key = jax.random.fold_in(key, progress.blocks)
    noise = play_block(config, task, key)
    table, scores = jax.lax.scan(functools.partial(episode, rate), table, noise)
    score = jnp.mean(scores)
    if config.greedy_score:
      score = score_greedily(task, table, *noise)
    return table, record(config, progress, score), score

  def body(carry):
    tables, progress, scores = carry
    at = progress.blocks[0]
    # Those that are done go on: to hold them would be to copy their tables.
    tables, progress, score = jax.vmap(block)(tables, progress, rates, keys)
    return tables, progress, scores.at[:, at].set(score)

  def going(carry):
    _, progress, _ = carry
    return jnp.any(progress.solved == 0) & (progress.blocks[0] < most)

  first = (
    jnp.full((runs, task.num_rows, task.num_actions), config.optimism),
    jax.vmap(lambda _: new_progress(config))(keys),
    jnp.full((runs, most), -1.0),
  )
  _, progress, scores = jax.lax.while_loop(going, body, first)
  return progress.solved, scores


def num_blocks(episodes: int, config: Config) -> int:
  """How many blocks hold so many episodes."""
  return -(-episodes // config.episodes_per_step)


def run_keys(config: Config, key: types.Key) -> types.Key:
  """A key for each of the runs side by side, [R]."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(
    jnp.arange(config.runs)
  )


def init_learner(
  config: Config, task: delayed.Task, net: hk.Transformed, key: types.Key
) -> Learner:
  """A fresh learner; consumes the key."""
  width = 2 * task.num_features + task.num_actions
  sequence = jnp.zeros((task.horizon, width))
  params = net.init(key, sequence[None])
  optimism = config.optimism if config.learner == 'q' else 0.0
  return Learner(
    training.init_state(params, {}, optimizer(config)),
    replay.init(Lesson(sequence, jnp.float32(0)), config.lessons),
    jnp.full((task.num_rows, task.num_actions), optimism),
    new_progress(config),
  )


def init(
  config: Config, task: delayed.Task, net: hk.Transformed, key: types.Key
) -> State:
  """Fresh learners."""
  return State(
    jax.vmap(functools.partial(init_learner, config, task, net))(
      run_keys(config, key)
    ),
    jnp.full((config.runs, num_blocks(config.max_episodes, config)), -1.0),
    jnp.int32(0),
  )


def make_learn(config: Config, task: delayed.Task, net: hk.Transformed):
  """(learner, step, key) -> (learner, metrics): one block of episodes."""
  update = training.make_step(
    functools.partial(loss, config, net), optimizer(config)
  )

  def policy(table: Array) -> delayed.Policy:
    if config.learner == 'q':
      return delayed.greedy_policy(table, config.epsilon)
    return softmax_policy(table)

  first = num_blocks(config.first_lesson, config) - 1

  def study(train, lessons, step, key):
    updates = jnp.where(
      step == first, config.first_updates, config.updates_per_step
    )

    def once(i, carry):
      train, total = carry
      uniform = jax.random.uniform(
        jax.random.fold_in(key, i), (config.batch_size,)
      )
      train, metrics = update(train, replay.sample(lessons, uniform), key)
      return train, total + metrics['final_loss']

    train, total = jax.lax.fori_loop(0, updates, once, (train, jnp.float32(0)))
    return train, total / jnp.maximum(updates, 1)

  def learn(learner: Learner, step: Array, rate: Array, key: types.Key):
    play_key, study_key = jax.random.split(jax.random.fold_in(key, step))
    noise = play_block(config, task, play_key)
    play = functools.partial(task.rollout, policy(learner.table))
    batch = jax.vmap(play)(*noise)
    sequence = jax.vmap(
      lambda seen, action: encode(task, seen, action, config.deltas)
    )(batch.observation, batch.action)
    total = jnp.sum(batch.reward, axis=1)
    lessons = replay.append(
      learner.lessons, Lesson(sequence, total), jnp.ones(total.shape, bool)
    )

    def improve(train, table):
      train, final_loss = study(train, lessons, step, study_key)
      new = redistribute(config, net, train.params, batch, sequence)

      def episode(table, item):
        played, reward = item
        if config.learner == 'q':
          return estimate_q(table, played, reward, rate), None
        legal = jax.vmap(task.legal)(played.row)
        return ascend_policy(table, played, legal, reward, rate), None

      table, _ = jax.lax.scan(episode, table, (batch, new.reward))
      residual = jnp.sqrt(jnp.mean(jnp.square(new.residual)))
      return train, table, final_loss, residual

    zero = jnp.float32(0)
    train, table, final_loss, residual = jax.lax.cond(
      step >= first,
      improve,
      lambda train, table: (train, table, zero, zero),
      learner.train,
      learner.table,
    )
    score = jnp.mean(batch.score)
    if config.greedy_score:
      score = score_greedily(task, table, *noise)
    progress = record(config, learner.progress, score)
    metrics = {
      'score': jnp.mean(progress.recent),
      'block_score': score,
      'final_loss': final_loss,
      'residual': residual,
    }
    return Learner(train, lessons, table, progress), metrics

  return learn


def learn_rudder(
  config: Config,
  task: delayed.Task,
  net: hk.Transformed,
  rate: Array | float,
  keys: types.Key,
) -> tuple[Array, Array]:
  """RUDDER alone, in one loop: what `learn_baseline` is to TD and MC.

  Args:
    config: the settings.
    task: what is learned.
    net: the return predictor.
    rate: the learning rate of the table.
    keys: [R], consumed.

  Returns:
    The episodes that each run needed, [R] int32, 0 for those that did not get
    there; and the mean scores of its blocks, [R, N], -1 where none was played.
  """
  learn = jax.vmap(make_learn(config, task, net), (0, None, None, 0))
  most = num_blocks(config.max_episodes, config)
  first, later = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)

  def body(carry):
    learners, scores, step = carry
    learners, metrics = learn(
      learners, step, jnp.asarray(rate, jnp.float32), later
    )
    return learners, scores.at[:, step].set(metrics['block_score']), step + 1

  def going(carry):
    learners, _, step = carry
    return jnp.any(learners.progress.solved == 0) & (step < most)

  learners = jax.vmap(functools.partial(init_learner, config, task, net))(first)
  scores = jnp.full((keys.shape[0], most), -1.0)
  learners, scores, _ = jax.lax.while_loop(
    going, body, (learners, scores, jnp.int32(0))
  )
  return learners.progress.solved, scores


def make_step(
  config: Config, task: delayed.Task, net: hk.Transformed
) -> types.StepFn:
  """(state, batch, key) -> (state, metrics), of all runs; the batch is None.

  A step when all runs have reached the bar, or when the episodes are over,
  does nothing.
  """
  learn = make_learn(config, task, net)
  most = num_blocks(config.max_episodes, config)

  def step(state: State, batch: None, key: types.Key):
    del batch
    keys = run_keys(config, key)
    solved = state.learners.progress.solved

    def go(learners, scores):
      learners, metrics = jax.vmap(learn, (0, None, None, 0))(
        learners, state.step, jnp.float32(config.learning_rate), keys
      )
      scores = scores.at[:, state.step].set(metrics.pop('block_score'))
      return learners, scores, jax.tree.map(jnp.mean, metrics)

    def rest(learners, scores):
      score = jnp.mean(learners.progress.recent)
      zero = jnp.float32(0)
      metrics = {'score': score, 'final_loss': zero, 'residual': zero}
      return learners, scores, metrics

    going = jnp.any(solved == 0) & (state.step < most)
    learners, scores, metrics = jax.lax.cond(
      going, go, rest, state.learners, state.scores
    )
    progress = learners.progress
    metrics |= {
      'solved': jnp.mean(progress.solved > 0),
      'episodes': jnp.max(progress.blocks) * config.episodes_per_step,
    }
    return State(learners, scores, state.step + 1), metrics

  return step


class Examined(NamedTuple):
  """What a return predictor is worth, on fresh episodes of random play.

  Attributes:
    r2: share of the variance of returns that it predicts at the end.
    moved: share of the redistributed |reward| that is paid before the end.
    sum_error: the largest |redistributed sum - return|.
    first: [4, A], what the first action is paid on average, by brand and
      by action; of watches only.
  """

  r2: Array
  moved: Array
  sum_error: Array
  first: Array


def examine(
  config: Config,
  task: delayed.Task,
  net: hk.Transformed,
  params: hk.Params,
  key: types.Key,
  episodes: int = 1000,
) -> tuple[Examined, delayed.Episode, redistribution.Redistribution]:
  """Redistributes fresh episodes of random play.

  Args:
    config: the settings.
    task: what is played.
    net: the return predictor.
    params: of one run.
    key: consumed.
    episodes: how many.

  Returns:
    What was found, the episodes and their redistribution.
  """
  batch = delayed.episodes(task, key, delayed.uniform_policy, episodes)
  sequence = jax.vmap(
    lambda seen, action: encode(task, seen, action, config.deltas)
  )(batch.observation, batch.action)
  new = redistribute(config, net, params, batch, sequence)
  total = jnp.sum(batch.reward, axis=1)
  error = jnp.mean(jnp.square(total - new.predicted_return))
  paid = jnp.abs(new.reward)
  starts = batch.observation[:, 0, 3 : 3 + delayed.BRANDS]
  chosen = jax.nn.one_hot(batch.action[:, 0], task.num_actions)
  pairs = starts[:, :, None] * chosen[:, None]
  first = jnp.sum(pairs * new.reward[:, :1, None], axis=0)
  found = Examined(
    r2=1 - error / jnp.var(total),
    moved=jnp.sum(paid[:, :-1]) / jnp.sum(paid),
    sum_error=jnp.max(jnp.abs(jnp.sum(new.reward, axis=1) - total)),
    first=first / jnp.maximum(jnp.sum(pairs, axis=0), 1),
  )
  return found, batch, new


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns, lets TD and MC learn beside it, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  task = delayed.make(config.task, config.horizon)
  net = network(config)
  begun = time.process_time()
  compiled: list[float] = []

  def note(step: int, state: State) -> None:
    del step, state
    compiled.append(time.process_time())

  result = training.fit(
    make_step(config, task, net),
    lambda key: init(config, task, net, key),
    config=config,
    workdir=workdir,
    num_steps=num_blocks(config.max_episodes, config),
    mesh=training.sharding.make_mesh(1),
    count_params=lambda state: state.learners.train.params,
    hooks=[training.Hook(note, 0, at_start=True, at_end=False), *hooks],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  spent = None
  if compiled:  # in one piece
    spent = (time.process_time() - compiled[0], time.process_time() - begun)
  return conclude(config, task, net, result, spent, workdir)


def conclude(
  config: Config,
  task: delayed.Task,
  net: hk.Transformed,
  result: training.FitResult,
  spent: tuple[float, float] | None,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Measures the predictor, runs TD and MC, and reports.

  Args:
    config: the settings.
    task: what was learned.
    net: the return predictor.
    result: of the training.
    spent: CPU seconds of RUDDER without and with compilation; None unless the
      training was made in one piece.
    workdir: the run's.
  """
  start = time.monotonic()
  state: State = result.state
  keys = run_keys(config, jax.random.key(config.seed))
  curves = {'rudder': np.asarray(state.scores)}
  needed = {'rudder': np.asarray(state.learners.progress.solved)}
  rates = {'td': config.td_learning_rate, 'mc': config.mc_learning_rate}
  for method in BASELINES if config.baseline_episodes else ():
    learn = jax.jit(
      functools.partial(learn_baseline, config, task, method, rates[method])
    )
    solved, scores = learn(keys)
    needed[method], curves[method] = np.asarray(solved), np.asarray(scores)

  first = jax.tree.map(lambda x: x[0], state.learners)
  examined, batch, new = jax.tree.map(
    np.asarray,
    jax.jit(functools.partial(examine, config, task, net))(
      first.train.params, keys[0]
    ),
  )
  claims = make_claims(config, task, needed, examined, spent)
  page = draw(config, task, curves, examined, batch, new)
  report.save_figure(page, workdir, 'rudder')
  metrics = {
    **{
      f'episodes_{method}': float(np.median(counted(config, method, solved)))
      for method, solved in needed.items()
    },
    'solved': float(np.mean(needed['rudder'] > 0)),
    'r2': float(examined.r2),
    'moved': float(examined.moved),
    'sum_error': float(examined.sum_error),
  }
  report.write(
    workdir,
    title=f'RUDDER on {task.name}, {task.horizon} steps',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={'rudder': 'Who learns when, and what each step is paid.'},
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def counted(config: Config, method: str, solved: np.ndarray) -> np.ndarray:
  """Episodes needed; those who did not get there count at their cap."""
  rudder = method == 'rudder'
  cap = config.max_episodes if rudder else config.baseline_episodes
  return np.where(solved > 0, solved, cap)


def is_published(config: Config) -> bool:
  """Whether the task and its stop are those of [D]."""
  published = Config()
  return all(
    getattr(config, name) == getattr(published, name)
    for name in ('task', 'horizon', 'epsilon', 'window', 'bar', 'greedy_score')
  )


def make_claims(
  config: Config,
  task: delayed.Task,
  needed: Mapping[str, np.ndarray],
  examined: Examined,
  spent: tuple[float, float] | None,
) -> list[types.Claim]:
  """The rows of the report; bars only where the task is the published one."""
  published = is_published(config)
  episodes = {
    method: counted(config, method, solved) for method, solved in needed.items()
  }
  slowest = float(episodes['rudder'].max())
  rest: dict[str, Any] = {}
  if 'td' in episodes:
    rest = {
      'baseline': float(np.median(episodes['td'])),
      'baseline_name': 'TD, median',
    }
  if published:
    rest['paper'] = '1,900-3,800'
  name = f'episodes to the bar, the slowest of {config.runs} runs'
  claims = [
    types.at_most(name, slowest, 3800.0, **rest)
    if published
    else types.Claim(name, slowest, **rest)
  ]
  claims.append(
    types.Claim(
      'runs that reached the bar',
      int(np.sum(needed['rudder'] > 0)),
      bar=config.runs,
      met=bool(np.all(needed['rudder'] > 0)),
      exact=True,
    )
  )
  papers = {'td': '71,800-71,900', 'mc': '27,700 to more than 240,000'}
  for method, solved in needed.items():
    if method == 'rudder':
      continue
    left = int(np.sum(solved == 0))
    claims.append(
      types.Claim(
        f'{method.upper()}: median episodes to the same bar'
        + (f', {left} of {len(solved)} gave up' if left else ''),
        float(np.median(episodes[method])),
        baseline=float(np.median(episodes['rudder'])),
        baseline_name='RUDDER',
        paper=papers[method] if published else None,
      )
    )
  authors = {
    'baseline': '420 to 750',
    'baseline_name': 'seconds of the program of [D], three seeds',
  }
  if spent is not None:
    for seconds, words in zip(spent, ('without', 'with'), strict=True):
      name = f'CPU seconds of all runs, {words} compilation'
      claims.append(
        types.at_most(name, seconds, 30.0, **authors)
        if published and config.runs == 3
        else types.Claim(name, seconds, **authors)
      )
  claims += [
    types.Claim(
      'returns predicted: R2 on 1,000 fresh episodes',
      float(examined.r2),
      baseline=0.0,
      baseline_name='their mean',
    ),
    types.Claim(
      'share of |reward| that is paid before the end',
      float(examined.moved),
      baseline=0.0,
      baseline_name='all of it at the end',
    ),
    types.at_most(
      'largest |redistributed sum - return|, as a share of the best return',
      float(examined.sum_error) / max(abs(task.best_return), 1.0),
      1e-5,
      exact=True,
    ),
  ]
  return claims


_COLORS = {'rudder': '#08519c', 'td': '#d95f0e', 'mc': '#7a7a7a'}
_NAMES = {'rudder': 'RUDDER', 'td': 'TD', 'mc': 'MC'}


def draw(
  config: Config,
  task: delayed.Task,
  curves: Mapping[str, np.ndarray],
  examined: Examined,
  batch: delayed.Episode,
  new: redistribution.Redistribution,
) -> Figure:
  """Learning curves, one episode redistributed, and the first action's pay."""
  brands = config.task == 'watch_repair'
  page = Figure(figsize=(5.2 * (2 + brands), 3.8), layout='constrained')
  panels = page.subplots(1, 2 + brands)
  for axes in panels:
    axes.spines[['top', 'right']].set_visible(False)
  draw_curves(panels[0], config, curves)
  paid, given = np.asarray(new.reward), np.asarray(batch.reward)
  liveliest = np.argmax(np.sum(np.abs(paid[:, 1:-1]), axis=1))
  draw_episode(panels[1], given[liveliest], paid[liveliest])
  if brands:
    draw_margins(panels[2], examined)
  return page


def draw_curves(
  axes: Any, config: Config, curves: Mapping[str, np.ndarray]
) -> None:
  """Mean scores over the window, each run a line, against episodes."""
  size = config.window // config.episodes_per_step
  for method, scores in curves.items():
    for run, row in enumerate(scores):
      row = row[row >= 0]
      if len(row) < size:
        continue
      sums = np.cumsum(np.concatenate([[0.0], row]))
      mean = (sums[size:] - sums[:-size]) / size
      episodes = np.arange(size, len(row) + 1) * config.episodes_per_step
      axes.semilogx(
        episodes,
        mean,
        color=_COLORS[method],
        lw=1.2,
        label=_NAMES[method] if run == 0 else None,
      )
  axes.axhline(config.bar, color='black', lw=0.8, ls=':')
  axes.set(
    title=f'score, mean of the last {config.window} episodes',
    xlabel='episodes',
    ylim=(None, 1.02),
  )
  axes.legend(frameon=False)


def draw_episode(axes: Any, reward: np.ndarray, paid: np.ndarray) -> None:
  """The rewards of one episode as they were paid and where they belong."""
  steps = np.arange(len(reward))
  axes.bar(steps, reward, color='#bdbdbd', label='as paid')
  axes.bar(steps, paid, width=0.5, color='#08519c', label='redistributed')
  axes.axhline(0, color='black', lw=0.6)
  axes.set(title='the reward of one episode', xlabel='step')
  axes.legend(frameon=False)


def draw_margins(axes: Any, examined: Examined) -> None:
  """What repairing is said to be worth, beside what it is worth."""
  paid = examined.first[:, 0] - examined.first[:, 1]
  at = np.arange(delayed.BRANDS)
  axes.bar(at - 0.2, delayed.margins(), 0.4, color='#bdbdbd', label='exact')
  axes.bar(at + 0.2, paid, 0.4, color='#08519c', label='redistributed')
  axes.axhline(0, color='black', lw=0.6)
  axes.set(
    title='worth of a repair, as paid at once', xlabel='brand', xticks=at
  )
  axes.legend(frameon=False)


# [D], but for its stop within a lesson: its lessons are of a fixed length.
_PAPER = Config(
  runs=1,
  first_lesson=257,
  first_updates=500,
  updates_per_step=100,
  batch_size=8,
  gate_inputs=False,
  lessons=2048,
  input_gate_bias=-3.0,
)

PRESETS = {
  # Seconds: shows that everything runs.
  'smoke': Config(
    runs=2,
    task='charge',
    horizon=6,
    deltas=False,
    first_lesson=50,
    lessons=500,
    first_updates=500,
    updates_per_step=50,
    window=50,
    greedy_score=True,
    max_episodes=1500,
    baseline_episodes=1000,
  ),
  'laptop': Config(),
  # Four moves that decide, and a delay; half a minute.
  'trace_back': Config(
    task='trace_back',
    horizon=12,
    return_scale=25.0,
    gate_inputs=False,
    first_lesson=100,
    first_updates=1000,
    updates_per_step=100,
    window=100,
    greedy_score=True,
    baseline_episodes=100_000,
  ),
  'paper': _PAPER,
}
