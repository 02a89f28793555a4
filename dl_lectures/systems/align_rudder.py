"""Align-RUDDER: two demonstrations say where a reward was earned.

Patil et al., "Align-RUDDER: learning from few demonstrations by reward
redistribution", ICML 2022, arXiv 2009.14108 [AR]. Slides: deck 002,
"Align-RUDDER", the five steps and the bar charts of four and eight rooms.

RUDDER needs many episodes to fit a network that predicts returns. Align-RUDDER
has only a few, all of them good: it aligns them like proteins, and pays
whatever they have in common, in that order.

      demonstrations [N, T]            I    define_events     step I .. V of
        0 0 0 1 1 2 2 2 3                   states -> events   the slides
        0 0 4 4 2 3 3 3 3              II   score_events
              |                             rare matches are worth more
        0 1 2 3      0 1 - 2 3         III  align
        0 4 2 3      0 - 4 2 3              by a guide tree
              |                        IV   make_profile
        S(prefix) of a new episode          log-odds of each column
              |                        V    redistribute
        R_{t+1} = C (S_t - S_{t-1})         paid when it happens
              |
        Q(s, a) <- sum of the next 20 R     then no reward is delayed

All that is learned from the demonstrations is `Knowledge`, a few small arrays;
step V is causal, runs inside a jitted loop and is a method for
`ops.redistribution`. Its rewards and the correction G - sum R make up the
return exactly, for failed episodes and those without an event too.

  python -m experiments.align_rudder --preset=laptop --workdir=runs/align_rudder

About two minutes on two CPU cores. Eight rooms, two demonstrations, 20 agents
and three seeds of demonstrations that no setting was chosen on: 80% of the
attainable return after a median of 138 episodes, cloning and Q-learning after
293. More settings were tried for the learner that redistributes than for the
other; `experiments.align_rudder_sweep` tunes all methods with one budget.
The paper's figure shows about 4,400 episodes for its learner and 10,700 for
cloning and Q-learning.

What made the difference in trials: the end is an event of its own; values begin
in the unit of what is learned, just above a failure's; and they sum rewards,
they do not bootstrap. Both learners, left on after they have reached the bar,
unlearn and learn again for a while: the figure shows it.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures import training, types
from dl_lectures.analysis import statistics
from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.ops import alignment, events, redistribution
from dl_lectures.training import report, sharding, tabular

Array = jax.Array

# Profiles are as wide as a multiple of this, so that runs share a program.
COLUMNS = 16
CORRECTIONS = ('last', 'uniform', 'none')
# Mean episodes of 100 trials by (rooms, demonstrations), read off [AR]'s bars.
PUBLISHED = {
  (4, 2): 'about 1,500',
  (4, 5): 'about 1,150',
  (4, 10): 'about 800',
  (8, 2): 'about 4,400',
  (8, 5): 'about 1,750',
  (8, 10): 'about 2,150',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number of the run
  num_rooms: int = 8  # 4 or 8
  variant: str = 'paper'  # of the rooms; 'official' has four unsolvable starts
  slip: float = 0.01  # of a step; [AR]: .01 to .40
  num_demonstrations: int = 2  # [AR]: 2, 5, 10, 50, 100
  demonstration_noise: float = 0.2  # of the policy that demonstrates
  max_events: int = 10  # clusters of states; [AR]: 15
  gamma: float = 0.99  # of the successor representation; [AR]: .99
  gap: float = 0.0  # cost of one in an alignment; [AR]: 0
  correction: redistribution.Correction = (
    'uniform'  # where G - sum R is paid; [AR]: after the end
  )
  optimism: float = 0.15  # of first values over a failure's; [AR]: N(1, .5)
  baseline_optimism: float = 0.1  # the same of cloning and Q-learning
  window: int = 20  # steps whose rewards a value sums; [AR]: 20
  learning_rate: float = 0.07  # [AR]: .1
  baseline_learning_rate: float = 0.1  # of cloning and Q-learning; [AR]: .01
  epsilon: float = 0.2  # of exploration while learning; [AR]: .2
  evaluation_epsilon: float = 0.1  # [AR]: .1
  block: int = 10  # episodes between evaluations; [AR]: 10
  num_evaluations: int = 40  # episodes of an evaluation; [AR]: 20
  num_confirmations: int = 100  # fresh ones once the bar is reached; [AR]: 0
  bar: float = 0.8  # share of the attainable return; [AR]: .8 of demonstrated
  runs: int = 20  # agents with demonstrations of their own; [AR]: 100
  num_steps: int = 100  # blocks of episodes

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    for low, names in (
      (1, 'num_demonstrations window block runs num_steps num_evaluations'),
      (2, 'max_events'),
      (0, 'num_confirmations'),
    ):
      types.check_fields(self, names, low)
    for names in (
      'slip demonstration_noise epsilon evaluation_epsilon bar',
      'learning_rate baseline_learning_rate optimism baseline_optimism',
    ):
      types.check_fields(self, names, 0, 1)
    if self.gap > 0:
      raise types.UsageError(f'config.gap={self.gap}; at most 0 is possible')
    if self.correction not in CORRECTIONS:
      raise types.UsageError(
        f'config.correction={self.correction}; possible: '
        f'{", ".join(CORRECTIONS)}'
      )


PRESETS = {
  'smoke': Config(
    num_rooms=4, num_demonstrations=5, runs=2, num_steps=4, num_confirmations=10
  ),
  'laptop': Config(),
  'paper': Config(
    variant='official',
    max_events=15,
    correction='none',
    learning_rate=0.1,
    baseline_learning_rate=0.01,
    num_evaluations=20,
    num_confirmations=0,
    runs=100,
    num_steps=10_000,
  ),
}


class Knowledge(NamedTuple):
  """What demonstrations have taught: a pytree, for `jit` and `vmap`.

  Attributes:
    event: [C] int32, the event of each state.
    profile: what a good episode looks like, [L, K].
    scale: [] float32, C: the return of a nat of score.
  """

  event: Array
  profile: alignment.Profile
  scale: Array


class Visit(NamedTuple):
  """What a method of redistribution observes of each step: [B, T] int32 each.

  Attributes:
    state: before the action.
    next_state: after it, also that at which the episode ends.
  """

  state: Array
  next_state: Array


class State(NamedTuple):
  """Everything that is needed to continue a run exactly.

  Attributes:
    table: [runs, C, 1, 4] float32, action values.
    baseline: the same of cloning and Q-learning.
    solved_at: [runs, 2] int32, episodes until the bar was reached and
      confirmed, of both; 0: not yet.
    step: [] int32, blocks of episodes.
  """

  table: Array
  baseline: Array
  solved_at: Array
  step: Array


def define_events(
  demos: rooms_lib.Episodes, num_states: int, max_events: int, gamma: float
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Step I: states with the same future are one event; repeats are merged.

  Args:
    demos: N demonstrations.
    num_states: C.
    max_events: at most so many, with the end; states that no demonstration
      visits are one more.
    gamma: how far the future reaches.

  Returns:
    The event of each state [C] int32, and N sequences of events.

  Raises:
    UsageError: there is no demonstration.

  >>> rooms = rooms_lib.make(4)
  >>> demos = rooms_lib.demonstrations(rooms, jax.random.key(0), 3)
  >>> event, sequences = define_events(demos, rooms.num_states, 5, 0.99)
  >>> event.shape, len(sequences), bool(event.max() <= 5)
  ((393,), 3, True)
  """
  states, mask = np.asarray(demos.state), np.asarray(demos.mask)
  here = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)
  event = events.events_of_states(states, here, num_states, max_events, gamma)
  return event, events.sequences(event[states], here)


def score_events(
  sequences: Sequence[np.ndarray], num_events: int
) -> tuple[np.ndarray, np.ndarray]:
  """Step II: how often events are, p [K], and what their matches score [K, K].

  Args:
    sequences: of events.
    num_events: K.

  >>> frequency, matrix = score_events([np.array([0, 1]), np.array([0])], 2)
  >>> frequency.tolist(), bool(matrix[1, 1] > matrix[0, 0] > 0 > matrix[0, 1])
  ([0.6, 0.4], True)
  """
  frequency = alignment.background(sequences, num_events)
  return frequency, alignment.scoring_matrix(frequency)


def align(
  sequences: Sequence[np.ndarray], matrix: np.ndarray, gap: float = 0.0
) -> np.ndarray:
  """Step III: the demonstrations below each other, [N, L] int32; -1 is a gap.

  Args:
    sequences: of events.
    matrix: [K, K], what a match scores.
    gap: what one costs.

  >>> align([np.array([0, 1, 2]), np.array([0, 2])], 3 * np.eye(3) - 1).tolist()
  [[0, 1, 2], [0, -1, 2]]
  """
  return alignment.align(sequences, matrix, gap)


def make_profile(
  rows: np.ndarray,
  frequency: np.ndarray,
  event: np.ndarray,
  demos: rooms_lib.Episodes,
  max_events: int,
  gap: float = 0.0,
) -> Knowledge:
  """Step IV: the profile, in the unit of the return.

  C = E[G] / E[S(tau) - S(s_0)] over the demonstrations: theirs is the return
  that the profile gives out. It is 0 where they earn no score.

  Args:
    rows: [N, L], the alignment.
    frequency: [K], of the events.
    event: [C], of each state.
    demos: the demonstrations.
    max_events: the profile is widened to so many events and one more, and to a
      multiple of 16 columns: few shapes for many sets of demonstrations.
    gap: what skipping a column or an event costs.
  """
  columns = -(-rows.shape[1] // COLUMNS) * COLUMNS
  profile = alignment.widen(
    alignment.make_profile(rows, frequency, gap=gap), columns, max_events + 1
  )
  knowledge = Knowledge(jnp.asarray(event), profile, jnp.float32(1))
  gain = float(_values(knowledge, jnp.asarray(demos.state))[:, -1].mean())
  returns = float(np.sum(demos.reward, axis=1).mean())
  scale = returns / gain if gain > 1e-6 else 0.0
  return knowledge._replace(scale=jnp.float32(scale))


def understand(
  demos: rooms_lib.Episodes,
  num_states: int,
  max_events: int = 10,
  gamma: float = 0.99,
  gap: float = 0.0,
) -> tuple[Knowledge, np.ndarray]:
  """Steps I to IV in turn.

  Args:
    demos: N demonstrations.
    num_states: C.
    max_events: at most so many.
    gamma: how far the future reaches that makes states alike.
    gap: what one costs in the alignment and against the profile.

  Returns:
    The knowledge, whose shapes hardly depend on the demonstrations, and the
    alignment [N, L].

  Raises:
    UsageError: there is no demonstration.

  >>> rooms = rooms_lib.make(4)
  >>> demos = rooms_lib.demonstrations(rooms, jax.random.key(0), 3)
  >>> knowledge, rows = understand(demos, rooms.num_states, max_events=5)
  >>> knowledge.profile.score.shape, len(rows)
  ((16, 6), 3)
  """
  event, sequences = define_events(demos, num_states, max_events, gamma)
  frequency, matrix = score_events(sequences, int(event.max()) + 1)
  rows = align(sequences, matrix, gap)
  return make_profile(rows, frequency, event, demos, max_events, gap), rows


def redistribute(knowledge: Knowledge) -> redistribution.Method:
  """Step V: g_t = C (S(tau_t) - S(s_0)), the predicted return of a prefix.

  So R_{t+1} = C (S(tau_t) - S(tau_{t-1})). Where an episode begins is not the
  agent's doing: its first event is not paid. [AR] has S(tau_{-1}) = 0.

  Args:
    knowledge: from the demonstrations.

  Returns:
    A method for `ops.redistribution.redistribute`, of batches whose
    observation is a `Visit`. It is causal.

  >>> rooms = rooms_lib.make(4)
  >>> demos = rooms_lib.demonstrations(rooms, jax.random.key(0), 3)
  >>> knowledge, _ = understand(demos, rooms.num_states)
  >>> batch = trajectory(demos)
  >>> new = redistribution.redistribute(batch, redistribute(knowledge))
  >>> bool(jnp.allclose(new.reward.sum(1), batch.reward.sum(1), atol=1e-5))
  True
  """

  def method(batch: redistribution.Trajectory) -> Array:
    visit = batch.observation
    way = jnp.concatenate([visit.state[:, :1], visit.next_state], axis=1)
    happened = jnp.pad(batch.mask, ((0, 0), (1, 0)), constant_values=True)
    return _values(knowledge, jnp.where(happened, way, -1))

  return method


@jax.jit
def _values(knowledge: Knowledge, states: Array) -> Array:
  """g [B, T] of the states [B, T + 1]; below 0: none."""

  def score(states: Array) -> Array:
    happened = jnp.where(states >= 0, knowledge.event[states], -1)
    return alignment.prefix_scores(
      knowledge.profile, events.merge_repeats(happened)
    )

  scores = jax.vmap(score)(states)
  return knowledge.scale * (scores[:, 1:] - scores[:, :1])


def trajectory(episodes: rooms_lib.Episodes) -> redistribution.Trajectory:
  """Episodes of the rooms as `redistribute` takes them: [N, T]."""
  state = jnp.asarray(episodes.state)
  return redistribution.Trajectory(
    observation=Visit(state[:, :-1], state[:, 1:]),
    action=jnp.asarray(episodes.action),
    reward=jnp.asarray(episodes.reward),
    mask=jnp.asarray(episodes.mask),
  )


def credit(
  knowledge: Knowledge, correction: redistribution.Correction = 'uniform'
) -> tabular.Credit:
  """Step V for the tabular learner: (states, actions, rewards, mask) -> R [T].

  Args:
    knowledge: from the demonstrations; may be traced.
    correction: where the residual G - sum R is paid. 'last' pays the constant
      of a failed episode to whatever the agent did when its time was over,
      which misleads a learner that does not see the time; 'uniform' is as exact
      and harmless; 'none' leaves it out, as [AR]'s code does.
  """
  if correction not in CORRECTIONS:
    raise types.UsageError(
      f'correction={correction!r}; possible: {", ".join(CORRECTIONS)}'
    )

  def give(states: Array, actions: Array, rewards: Array, mask: Array) -> Array:
    one = rooms_lib.Episodes(states, actions, rewards, mask)
    batch = trajectory(jax.tree.map(lambda x: x[None], one))
    method = redistribute(knowledge)
    return redistribution.redistribute(
      batch, method, correction=correction
    ).reward[0]

  return give


class Task(NamedTuple):
  """The rooms, and what each of the R runs knows of them.

  Attributes:
    rooms: the world.
    bar: the mean return to be reached.
    demos: [R, N, ...], demonstrations.
    knowledge: [R, ...], from them.
    rows: [N, L], the alignment of the first run.
  """

  rooms: rooms_lib.Rooms
  bar: float
  demos: rooms_lib.Episodes
  knowledge: Knowledge
  rows: np.ndarray


def make_task(config: Config) -> Task:
  """Demonstrates, and understands the demonstrations; a function of the config.

  Raises:
    UsageError: there are no such rooms.
  """
  rooms = rooms_lib.make(config.num_rooms, config.variant, config.slip)
  count = config.runs * config.num_demonstrations
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  noise = config.demonstration_noise
  demos = rooms_lib.demonstrations(rooms, key, count, noise)
  demos = jax.tree.map(
    lambda x: np.reshape(x, (config.runs, -1, *x.shape[1:])), demos
  )
  learned = [
    understand(
      jax.tree.map(lambda x, run=run: x[run], demos),
      rooms.num_states,
      config.max_events,
      config.gamma,
      config.gap,
    )
    for run in range(config.runs)
  ]
  columns = max(knowledge.profile.score.shape[0] for knowledge, _ in learned)
  wide = [
    knowledge._replace(
      profile=alignment.widen(knowledge.profile, columns, config.max_events + 1)
    )
    for knowledge, _ in learned
  ]
  return Task(
    rooms,
    config.bar * rooms_lib.attainable(rooms),
    demos,
    jax.tree.map(lambda *leaves: jnp.stack(leaves), *wide),
    learned[0][1],
  )


def init(config: Config, task: Task, key: types.Key) -> State:
  """First values: what was shown, and all else a little above a failure.

  A failed episode is paid 1, redistributed next to nothing. Values just above
  it are tried, found wanting and left, which is how the doors are found. [AR]
  begins with N(1, .5), on which both learners are several times slower.
  """
  states = task.rooms.num_states
  keys = jax.random.split(key, config.runs)

  def one_run(x: Any) -> tuple[Array, Array]:
    key, demos, knowledge = x
    noise = (tabular.random_table(key, states) - 1) / 15  # N(0, 1/30)
    give = credit(knowledge, config.correction)
    failed = rooms_lib.TIMEOUT_RETURN
    return (
      tabular.clone_credit(
        config.optimism * (1 + noise), demos, give, config.window
      ),
      tabular.clone(failed + config.baseline_optimism * (1 + noise), demos),
    )

  demos = jax.tree.map(jnp.asarray, task.demos)
  table, baseline = jax.lax.map(one_run, (keys, demos, task.knowledge))
  return State(
    table=table,
    baseline=baseline,
    solved_at=jnp.zeros((config.runs, 2), jnp.int32),
    step=jnp.int32(0),
  )


def make_step(config: Config, task: Task) -> types.StepFn:
  """One block of episodes and their evaluation, of both learners in all runs.

  Align-RUDDER's values are q(s, a) = E[sum of the next `window` R], learned by
  running means ([AR], section "Q-estimation"); the baseline's are those of
  Q-learning on the rewards as they are.
  """
  protocol = tabular.Protocol(
    block=config.block,
    num_evaluations=config.num_evaluations,
    num_confirmations=config.num_confirmations,
    max_episodes=config.block,
    epsilon=config.epsilon,
    evaluation_epsilon=config.evaluation_epsilon,
  )

  def one_run(x: Any) -> tuple[tabular.Outcome, tabular.Outcome]:
    table, baseline, knowledge, key = x
    after = tabular.redistributed(
      credit(knowledge, config.correction), config.window, bootstrap=False
    )
    learn = functools.partial(
      tabular.learn, task.rooms, key=key, bar=task.bar, protocol=protocol
    )
    return (
      learn(
        tabular.Method(table, online=False, after=after),
        learning_rate=config.learning_rate,
      ),
      learn(
        tabular.Method(baseline), learning_rate=config.baseline_learning_rate
      ),
    )

  def step(
    state: State, batch: Any, key: types.Key
  ) -> tuple[State, types.Metrics]:
    del batch
    key = jax.random.fold_in(key, state.step)
    ours, baseline = jax.lax.map(
      one_run,
      (
        state.table,
        state.baseline,
        task.knowledge,
        jax.random.split(key, config.runs),
      ),
    )
    episodes = (state.step + 1) * config.block
    solved = jnp.stack([ours.solved, baseline.solved], axis=1)
    first = solved & (state.solved_at == 0)
    solved_at = jnp.where(first, episodes, state.solved_at)
    share = jnp.mean(solved_at > 0, axis=0)
    metrics = {
      'return': jnp.mean(ours.returns),
      'baseline': jnp.mean(baseline.returns),
      'solved': share[0],
      'baseline_solved': share[1],
      'returns': ours.returns[:, 0],
      'baseline_returns': baseline.returns[:, 0],
    }
    return State(ours.table, baseline.table, solved_at, state.step + 1), metrics

  return step


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns, compares and reports; returns the final metrics.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Raises:
    UsageError: there are no such rooms.
  """
  task = make_task(config)
  result = training.fit(
    make_step(config, task),
    functools.partial(init, config, task),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    mesh=sharding.make_mesh(1),
    count_params=lambda state: state.table,
    hooks=hooks,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, task, result, workdir)


class Evidence(NamedTuple):
  """What is measured of a redistribution on fresh episodes.

  Attributes:
    error: the largest difference of redistributed rewards and return, over
      good and failed episodes.
    early: the share of the reward's size that good ones are paid before their
      last step.
    good: a batch of one, an episode that reached the goal.
    failed: a batch of one, an episode that did not.
  """

  error: float
  early: float
  good: redistribution.Trajectory
  failed: redistribution.Trajectory


def examine(config: Config, task: Task, count: int = 20) -> Evidence:
  """Redistributes episodes that no run has seen, by each run's knowledge."""
  keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))
  rooms = task.rooms
  good = trajectory(rooms_lib.demonstrations(rooms, keys[0], count))
  at_random = np.full((rooms.num_states, 4), 0.25)
  wild = rooms_lib.play(rooms, at_random, keys[1], count)
  wild = jax.tree.map(
    lambda x: x[jnp.argsort(wild.state[:, -1] == rooms.goal)], wild
  )
  failed = trajectory(wild)
  found = [
    _measure(
      jax.tree.map(lambda x, run=run: x[run], task.knowledge), good, failed
    )
    for run in range(config.runs)
  ]
  error, early = np.array(found).T
  return Evidence(
    float(error.max()),
    float(early.mean()),
    jax.tree.map(lambda x: x[:1], good),
    jax.tree.map(lambda x: x[:1], failed),
  )


@jax.jit
def _measure(
  knowledge: Knowledge,
  good: redistribution.Trajectory,
  failed: redistribution.Trajectory,
) -> tuple[Array, Array]:
  """Evidence's error and early share, of one run's knowledge."""
  method = redistribute(knowledge)
  errors = [
    redistribution.redistribute(batch, method, correction=kind).reward.sum(1)
    - batch.reward.sum(1)
    for batch in (good, failed)
    for kind in ('last', 'uniform')
  ]
  size = jnp.abs(redistribution.redistribute(good, method).reward)
  later = jnp.pad(good.mask[:, 1:], ((0, 0), (0, 1)))
  early = (size * later).sum(1) / size.sum(1)
  return jnp.abs(jnp.stack(errors)).max(), early.mean()


def conclude(
  config: Config,
  task: Task,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Compares the two learners, draws, and reports."""
  start = time.monotonic()
  solved_at = np.asarray(result.state.solved_at)
  cap = config.block * config.num_steps
  episodes = np.where(solved_at > 0, solved_at, cap)
  median, baseline = np.median(episodes, axis=0)
  evidence = examine(config, task)
  name = f'episodes to {config.bar:.0%} of the attainable return, median'
  claims = [
    types.at_most(
      f'{name}, {config.num_demonstrations} demonstrations',
      float(median),
      baseline / 2,
      interval=statistics.median_interval(episodes[:, 0]),
      baseline=float(baseline),
      baseline_name='cloning and Q-learning'
      + (f', capped at {cap}' if baseline == cap else ''),
      paper=PUBLISHED.get((config.num_rooms, config.num_demonstrations)),
    ),
    types.at_most(
      'redistributed rewards less return, the largest of fresh episodes',
      evidence.error,
      1e-5,
      exact=True,
    ),
    types.at_least(
      'share of the reward that is paid before the last step',
      evidence.early,
      0.5,
      baseline=0.0,
      baseline_name='as the rooms pay it',
    ),
  ]
  metrics = {
    **result.metrics,
    'episodes': float(median),
    'baseline_episodes': float(baseline),
    'sum_error': evidence.error,
    'early_share': evidence.early,
  }
  records = [] if workdir is None else training.logging.read(workdir)
  report.save_figure(
    draw(config, task, evidence, records), workdir, 'align_rudder'
  )
  report.write(
    workdir,
    title=f'Align-RUDDER in {config.num_rooms} rooms',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={'align_rudder': 'From demonstrations to rewards that come early.'},
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def draw(
  config: Config,
  task: Task,
  evidence: Evidence,
  records: Sequence[Mapping[str, Any]],
) -> Any:
  """Four panels: alignment, profile, a redistributed episode, learning.

  Args:
    config: of the run.
    task: what it was about.
    evidence: for the episodes.
    records: the lines of `metrics.jsonl`.

  Returns:
    A matplotlib figure.
  """
  from matplotlib import figure

  drawn = figure.Figure(figsize=(11, 7.5), layout='constrained')
  (above, beside), (below, last) = drawn.subplots(2, 2)
  knowledge = jax.tree.map(lambda x: x[0], task.knowledge)
  draw_alignment(above, task.rows)
  draw_profile(beside, knowledge, task.rows.shape[1])
  draw_rewards(below, knowledge, evidence)
  draw_learning(last, config, task.bar, records)
  return drawn


def draw_alignment(axis: Any, rows: np.ndarray) -> None:
  """The demonstrations below each other, a colour for each event."""
  shown = rows[:30]
  colours = np.where(shown >= 0, shown % 20, np.nan)
  axis.imshow(colours, cmap='tab20', vmin=0, vmax=19, aspect='auto')
  for (i, j), event in np.ndenumerate(shown):
    if event >= 0 and shown.size <= 300:
      axis.text(j, i, event, ha='center', va='center', color='white')
  axis.set(
    title='Demonstrations, aligned',
    xlabel='column',
    ylabel='demonstration',
    xticks=range(0, rows.shape[1], max(1, rows.shape[1] // 8)),
    yticks=range(0, len(shown), max(1, len(shown) // 8)),
  )


def draw_profile(axis: Any, knowledge: Knowledge, columns: int) -> None:
  """What each column expects, in nats."""
  count = int(knowledge.event.max()) + 1
  score = np.asarray(knowledge.profile.score)[:columns, :count].T
  most = np.abs(score).max() or 1.0
  image = axis.imshow(
    score, cmap='RdBu_r', vmin=-most, vmax=most, aspect='auto', origin='lower'
  )
  axis.figure.colorbar(image, ax=axis, label='nats')
  axis.set(
    title='Profile: log-odds of events',
    xlabel='column',
    ylabel='event',
    xticks=range(0, columns, max(1, columns // 8)),
    yticks=range(count),
  )


def draw_rewards(axis: Any, knowledge: Knowledge, evidence: Evidence) -> None:
  """What a good and a failed episode are paid, summed up."""
  for name, batch, colour in (
    ('reaches the goal', evidence.good, 'tab:blue'),
    ('runs out of time', evidence.failed, 'tab:red'),
  ):
    length = int(batch.mask.sum())
    new = redistribution.redistribute(batch, redistribute(knowledge))
    time = np.arange(1, length + 1)
    for reward, style, what in (
      (new.reward, '-', 'redistributed'),
      (batch.reward, ':', 'as paid'),
    ):
      total = np.cumsum(np.asarray(reward)[0, :length])
      axis.step(
        time, total, style, color=colour, where='post', label=f'{name}, {what}'
      )
  axis.set(title='Reward so far', xlabel='step')
  axis.legend(fontsize=8)


def draw_learning(
  axis: Any, config: Config, bar: float, records: Sequence[Mapping[str, Any]]
) -> None:
  """The return of both learners: median of the runs, 40% and 60% quantiles."""
  seen = [record for record in records if 'returns' in record]
  episodes = config.block * np.array([record['step'] for record in seen])
  for key, name, colour in (
    ('returns', 'Align-RUDDER', 'tab:blue'),
    ('baseline_returns', 'cloning, Q-learning', 'tab:gray'),
  ):
    if not seen:
      break
    low, middle, high = np.quantile(
      [record[key] for record in seen], (0.4, 0.5, 0.6), axis=1
    )
    axis.plot(episodes, middle, color=colour, label=name)
    axis.fill_between(episodes, low, high, color=colour, alpha=0.3)
  axis.axhline(bar, color='black', linestyle=':', label='bar')
  axis.set(title='Return of an evaluation', xlabel='episodes')
  axis.legend(fontsize=8, loc='lower right')
