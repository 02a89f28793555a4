"""Population based training: a learning rate's schedule, found within one run.

Jaderberg et al., "Population Based Training of Neural Networks", 2017, [P].
Slides: deck 000, "Learning to Play Capture The Flag", which is trained so.

    P members, each with a learning rate of its own
      |  some updates on its own batches        the step of any system
      v
    scores: minus the loss on validation images
      |  the worst copy the best                exploit, training/population
      |  and change the rate they got           explore
      └──> the next generation

The task is supervised and has no best rate. Digits are to be told, but of the
labels that are learned from a part is drawn at random, anew in each batch: the
gradients' noise never ends. A high rate comes far soon and then stays where the
noise throws it; a low one does not come far. A rate should fall, and how fast
nobody tells the population.

Four ways are trained side by side with the same first weights, rates and
batches, and as many updates: both halves of PBT, either alone, and neither,
which is random search. Then constant rates are tried with other keys, and the
best of them gets as many members as the population; and as many new members are
trained by the schedule that led to the population's best one.

  python -m experiments.pbt --preset=laptop --workdir=runs/pbt

Half a CPU minute a seed. What the best of eight members lacks on test images,
in nats over five seeds: .0315 with PBT, .0366 exploiting alone, .0463 by random
search (exploring alone has the same best), .0330 with the best fixed rate. Of
random search it is two thirds; of the best fixed rate, whose 26 trials are not
counted, it cannot be told apart (1.06 times, .90 to 1.22; the median member
1.16 times, .99 to 1.32). Followed by new members its schedule gives .0340 in
the median, the best fixed rate .0362. The paper has larger networks and no such
task.
"""

import dataclasses
import os
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
from dl_lectures.data import images
from dl_lectures.training import population, report, sharding
from dl_lectures.training.population import Range

Array = jax.Array

CLASSES = 10
LINEAGE = 'lineage.jsonl'
# Name -> whether it exploits, and whether it explores.
WAYS = {
  'PBT': (True, True),
  'exploit only': (True, False),
  'explore only': (False, True),
  'random search': (False, False),
}
_KEPT = 400  # images for the scores, and as many for the result
_TRIES = 2  # of each constant rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number
  members: int = 8  # of the population; [P]: 10 to 80
  generations: int = 40  # between which members are compared
  updates: int = 100  # of a generation; [P]: thousands
  batch_size: int = 16  # images
  hidden: tuple[int, ...] = (32,)  # units; [P]: other networks
  noise: float = 0.8  # of the labels are drawn anew each time
  share: float = 0.25  # of the members are replaced; [P]: .2
  factor: float = 1.5  # by which a rate is changed; [P]: 1.2 and .8
  low: float = 1e-3  # the least learning rate
  high: float = 1.0  # the highest
  rates: int = 13  # constant ones that are tried

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'members rates', 2)
    types.check_fields(self, 'generations updates batch_size', 1)
    types.check_fields(self, 'noise', 0, 1)
    types.check_fields(self, 'share', 0, 0.5)
    types.check_fields(self, 'factor', 1)
    population.check(self.ranges)
    if not self.hidden or min(self.hidden) < 1:
      raise types.UsageError(
        f'config.hidden={self.hidden}; one layer or more of at least 1 unit is '
        'possible'
      )

  @property
  def ranges(self) -> dict[str, Range]:
    """Where learning rates are."""
    return {'learning_rate': Range(self.low, self.high)}


PRESETS = {
  'smoke': Config(generations=10, updates=20, rates=3),
  'laptop': Config(),
  'paper': Config(
    members=80, generations=1000, updates=1000, share=0.2, factor=1.2
  ),
}


class Digits(NamedTuple):
  """Images [N, 64], from 0 to 1, and what they show [N], by what they are for.

  Attributes:
    train: to learn from.
    valid: for the scores.
    test: for the result.
  """

  train: tuple[Array, Array]
  valid: tuple[Array, Array]
  test: tuple[Array, Array]


class Batch(NamedTuple):
  """Some images [B, 64] and labels [B], of which a part is at random."""

  image: Array
  label: Array


class State(NamedTuple):
  """Everything that a run continues from; W ways of P members.

  Attributes:
    members: networks and optimisers, [W, P, ...] each.
    hyper: name -> [W, P].
    parent: [W, P] int32, whom each followed last.
    score: [W, P], before that.
    before: name -> [W, P], hyperparameters before.
    step: [] int32, generations.
  """

  members: types.TrainState
  hyper: population.Hyper
  parent: Array
  score: Array
  before: population.Hyper
  step: Array


# ------------------------------------------------------------------- the task


def load(seed: int) -> Digits:
  """All digits of scikit-learn, dealt out at random."""
  found = images.load('digits')
  pixels = np.concatenate([found.train, found.test])
  pixels = pixels.reshape(len(pixels), -1) / np.float32(found.levels - 1)
  label = np.concatenate([found.train_label, found.test_label])
  order = np.random.default_rng(seed).permutation(len(label))
  parts = np.split(order, [_KEPT, 2 * _KEPT])
  valid, test, train = (
    (jnp.asarray(pixels[part]), jnp.asarray(label[part])) for part in parts
  )
  return Digits(train, valid, test)


def network(config: Config) -> hk.Transformed:
  """Images [B, 64] -> logits [B, 10]."""
  return hk.without_apply_rng(
    hk.transform(lambda image: nets.MLP([*config.hidden, CLASSES])(image))
  )


def optimizer() -> optax.GradientTransformationExtraArgs:
  """Gradient descent, whose rate is part of its state."""
  return optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)


def make_update(net: hk.Transformed) -> types.StepFn:
  """A system's step as any other: (state, batch, key) -> (state, metrics)."""

  def loss(params, net_state, key, batch):
    del key
    logits = net.apply(params, batch.image)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch.label
    )
    return jnp.mean(losses), (net_state, {})

  return training.make_step(loss, optimizer())


def draw(config: Config, train: tuple[Array, Array], key: types.Key) -> Batch:
  """The batches [updates, B, ...] of a generation; consumes the key."""
  which_key, random_key, label_key = jax.random.split(key, 3)
  shape = config.updates, config.batch_size
  image, label = train
  which = jax.random.randint(which_key, shape, 0, len(label))
  noisy = jax.random.bernoulli(random_key, config.noise, shape)
  other = jax.random.randint(label_key, shape, 0, CLASSES)
  return Batch(image[which], jnp.where(noisy, other, label[which]))


def excess_loss(
  config: Config,
  net: hk.Transformed,
  params: optax.Params,
  of: tuple[Array, Array],
) -> Array:
  """The expected loss on noisy labels, less what the noise makes certain, [].

  It is the divergence of what the network says from how labels are drawn: 0 for
  one that knows both the digit and the noise.
  """
  image, label = of
  log_probs = jax.nn.log_softmax(net.apply(params, image))
  right = jax.nn.one_hot(label, CLASSES)
  target = (1 - config.noise) * right + config.noise / CLASSES
  return jnp.mean(
    jnp.sum(jax.scipy.special.rel_entr(target, jnp.exp(log_probs)), axis=-1)
  )


# -------------------------------------------------- population based training


def live(
  config: Config,
  net: hk.Transformed,
  train: tuple[Array, Array],
  member: types.TrainState,
  hyper: population.Hyper,
  key: types.Key,
) -> types.TrainState:
  """`step`, [P] algorithm 1: one member's updates of a generation."""
  update = make_update(net)
  opt_state = population.with_hyper(member.opt_state, **hyper)

  def once(member: types.TrainState, batch: Batch):
    member, _ = update(member, batch, key)
    return member, None

  batches = draw(config, train, key)
  return jax.lax.scan(once, member._replace(opt_state=opt_state), batches)[0]


def evolve(
  config: Config,
  ways: Sequence[tuple[bool, bool]],
  state: State,
  key: types.Key,
) -> State:
  """`exploit` and `explore`, [P] section 3, as far as each way does them.

  Args:
    config: of the run.
    ways: of each, whether it exploits, and whether it explores.
    state: with the scores of this generation.
    key: the same chance for all ways; consumed.
  """
  rule_key, explore_key = jax.random.split(key)
  copies, changes = jnp.array(ways).T
  itself = jnp.arange(config.members, dtype=jnp.int32)

  def of_way(members, hyper, score, copies, changes):
    worse = population.truncation(score, rule_key, config.share)
    parent = jnp.where(copies, worse, itself)
    hyper = population.explore(
      config.ranges,
      population.take(hyper, parent),
      explore_key,
      (worse != itself) & changes,
      factor=config.factor,
    )
    return population.take(members, parent), hyper, parent

  members, hyper, parent = jax.vmap(of_way)(
    state.members, dict(state.hyper), state.score, copies, changes
  )
  return state._replace(
    members=members, hyper=hyper, parent=parent, before=state.hyper
  )


def make_step(
  config: Config, net: hk.Transformed, digits: Digits
) -> types.StepFn:
  """A generation of all ways."""

  def one(member, hyper, key):
    member = live(config, net, digits.train, member, hyper, key)
    return member, -excess_loss(config, net, member.params, digits.valid)

  def step(
    state: State, batch: None, key: types.Key
  ) -> tuple[State, types.Metrics]:
    del batch
    key = jax.random.fold_in(key, state.step)
    live_key, evolve_key = jax.random.split(key)
    # The same batches for all ways.
    keys = jax.random.split(live_key, config.members)
    keys = jnp.broadcast_to(keys, (len(WAYS), config.members))
    members, score = population.mapped(population.mapped(one))(
      state.members, dict(state.hyper), keys
    )
    state = state._replace(members=members, score=score, step=state.step + 1)
    metrics = {
      f'loss_{name.replace(" ", "_")}': -jnp.max(score[i])
      for i, name in enumerate(WAYS)
    }
    # After the last one nobody learns any more.
    return jax.lax.cond(
      state.step < config.generations,
      lambda state: evolve(config, list(WAYS.values()), state, evolve_key),
      lambda state: state._replace(
        parent=jnp.broadcast_to(jnp.arange(config.members), score.shape),
        before=state.hyper,
      ),
      state,
    ), metrics

  return step


def init(config: Config, net: hk.Transformed, key: types.Key) -> State:
  """New members, the same of all ways."""
  net_key, hyper_key = jax.random.split(key)
  members = new_members(net, jax.random.split(net_key, config.members))
  hyper = population.draw(config.ranges, hyper_key, config.members)
  itself = jnp.arange(config.members, dtype=jnp.int32)

  def of_all(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.stack([x] * len(WAYS)), tree)

  return State(
    of_all(members),
    of_all(hyper),
    of_all(itself),
    of_all(jnp.zeros(config.members)),
    of_all(hyper),
    jnp.int32(0),
  )


def new_members(net: hk.Transformed, keys: types.Key) -> types.TrainState:
  """Members [N, ...] that have learned nothing, one of each key."""

  def one(key: types.Key) -> types.TrainState:
    params = net.init(key, jnp.zeros((1, 64)))
    return training.init_state(params, {}, optimizer())

  return jax.vmap(one)(keys)


class Result(NamedTuple):
  """Of members [N]: the score, and what nobody has looked at.

  Attributes:
    valid: excess loss on the images of the scores.
    test: on those kept for the result.
    error: share of these that are told wrongly.
  """

  valid: np.ndarray
  test: np.ndarray
  error: np.ndarray


def measure(
  config: Config, net: hk.Transformed, digits: Digits, params: optax.Params
) -> Result:
  """How good members [N, ...] are."""

  def one(params):
    image, label = digits.test
    wrong = jnp.argmax(net.apply(params, image), axis=-1) != label
    losses = [
      excess_loss(config, net, params, of) for of in (digits.valid, digits.test)
    ]
    return *losses, jnp.mean(wrong)

  return Result(*jax.device_get(jax.jit(jax.vmap(one))(params)))


def follow(
  config: Config,
  net: hk.Transformed,
  digits: Digits,
  rates: np.ndarray,
  key: types.Key,
) -> Result:
  """New members, trained by schedules that are known beforehand.

  Args:
    config: of the run.
    net: of `network`.
    digits: of the task.
    rates: [N, generations].
    key: consumed.
  """

  def one(member, rates, key):
    def generation(member, given):
      rate, key = given
      hyper = {'learning_rate': rate}
      return live(config, net, digits.train, member, hyper, key), None

    keys = jax.random.split(key, config.generations)
    return jax.lax.scan(generation, member, (rates, keys))[0]

  net_key, key = jax.random.split(key)
  members = new_members(net, jax.random.split(net_key, len(rates)))
  members = jax.jit(population.mapped(one))(
    members, jnp.asarray(rates), jax.random.split(key, len(rates))
  )
  return measure(config, net, digits, members.params)


# -------------------------------------------------------------------- the run


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Trains all ways, then by constant rates and by the schedule, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  net, digits = network(config), load(config.seed)
  lineage: list[population.Birth] = []

  def record(step: int, state: State) -> None:
    of_pbt = jax.tree.map(lambda x: x[0], state._replace(step=jnp.zeros(1)))
    lines = (
      population.births(
        step,
        of_pbt.parent,
        of_pbt.score,
        of_pbt.before,
        of_pbt.hyper,
        config.seed,
      )
      if step
      else population.begun(of_pbt.hyper, config.seed)
    )
    if workdir is None:
      lineage.extend(lines)
    else:
      population.write_from(os.path.join(workdir, LINEAGE), step, lines)

  result = training.fit(
    make_step(config, net, digits),
    lambda key: init(config, net, key),
    config=config,
    workdir=workdir,
    num_steps=config.generations,
    mesh=sharding.make_mesh(1),
    count_params=lambda state: state.members.params,
    hooks=[training.Hook(record, 1, at_start=True), *hooks],
  )
  if result.status != 'done':
    return result.metrics
  if workdir is not None:
    lineage = population.read(os.path.join(workdir, LINEAGE))
  return conclude(config, net, digits, result, lineage, workdir)


def conclude(
  config: Config,
  net: hk.Transformed,
  digits: Digits,
  result: training.FitResult,
  lineage: Sequence[population.Birth],
  workdir: str | None,
) -> Mapping[str, Any]:
  """Trains what is compared with, and writes the report."""
  start = time.monotonic()
  key = jax.random.fold_in(jax.random.key(config.seed), config.generations + 1)
  tried_key, fixed_key, new_key = jax.random.split(key, 3)
  found = {
    name: measure(
      config,
      net,
      digits,
      jax.tree.map(lambda x, i=i: x[i], result.state.members.params),
    )
    for i, name in enumerate(WAYS)
  }
  winner = int(np.argmin(found['PBT'].valid))
  rates = np.geomspace(config.low, config.high, config.rates)
  constant = np.repeat(rates, _TRIES)[:, None] * np.ones(config.generations)
  tried = follow(config, net, digits, constant.astype(np.float32), tried_key)
  mean = tried.valid.reshape(-1, _TRIES).mean(axis=1)
  fixed = float(rates[np.argmin(mean)])
  path = schedule(config, lineage, winner)
  shape = config.members, config.generations
  for name, given, its_key in (
    ('best fixed', np.full(shape, fixed, np.float32), fixed_key),
    ("winner's schedule", np.broadcast_to(path, shape), new_key),
  ):
    found[name] = follow(config, net, digits, given, its_key)
  figures = {}
  if workdir is not None:
    tests = tried.test.reshape(-1, _TRIES).mean(axis=1)
    figure = draw_run(config, lineage, path, rates, tests, found)
    report.save_figure(figure, workdir, 'pbt')
    figures['pbt'] = (
      'Learning rates of the population, each copy a jump, and of the '
      'ancestors of its best member; constant rates; and what came of all.'
    )
  metrics = {
    'fixed_rate': fixed,
    'copies': sum(line.parent is not None for line in lineage),
    'last_rate': float(path[-1]),
    **{
      f'{what}_{name.replace(" ", "_")}': value
      for name, one in found.items()
      for what, value in (
        ('best', best(one)),
        ('median', float(np.median(one.test))),
        ('error', float(one.error[np.argmin(one.valid)])),
      )
    },
  }
  report.write(
    workdir,
    title='Population based training finds a schedule',
    config=config,
    claims=make_claims(found),
    metrics=metrics,
    figures=figures,
    minutes=result.seconds / 60 + (time.monotonic() - start) / 60,
  )
  return metrics


def schedule(
  config: Config, lineage: Sequence[population.Birth], member: int
) -> np.ndarray:
  """The rates [generations] that led to a member."""
  path = population.schedule(lineage, member)
  since = [step for step, _ in path]
  now = np.searchsorted(since, np.arange(config.generations), side='right') - 1
  rates = np.array([hyper['learning_rate'] for _, hyper in path], np.float32)
  return rates[now]


def best(of: Result) -> float:
  """The result of the member with the best score."""
  return float(of.test[np.argmin(of.valid)])


def make_claims(found: Mapping[str, Result]) -> list[types.Claim]:
  """What the run stands for; `found` by name."""
  pbt = found['PBT']
  claims = [
    types.Claim(
      'excess test loss, best of the population',
      best(pbt),
      baseline=best(found['random search']),
      baseline_name='random search, best of as many',
    ),
    types.Claim(
      'test error, best of the population',
      float(pbt.error[np.argmin(pbt.valid)]),
      baseline=float(
        found['random search'].error[np.argmin(found['random search'].valid)]
      ),
      baseline_name='random search, best of as many',
    ),
  ]
  for what, of in (
    ('best', best),
    ('median', lambda one: float(np.median(one.test))),
  ):
    for name in ('random search', 'exploit only', 'explore only', 'best fixed'):
      claims.append(
        types.at_least(
          f"excess test loss of {name} over PBT's, {what} member",
          of(found[name]) / of(pbt),
          1.0,
          baseline=1.0,
          baseline_name='PBT',
        )
      )
  again = found["winner's schedule"]
  claims.append(
    types.Claim(
      "excess test loss by the winner's schedule, median of new members",
      float(np.median(again.test)),
      baseline=float(np.median(found['best fixed'].test)),
      baseline_name='the best fixed rate, median of as many',
    )
  )
  return claims


def draw_run(
  config: Config,
  lineage: Sequence[population.Birth],
  path: np.ndarray,
  rates: np.ndarray,
  tests: np.ndarray,
  found: Mapping[str, Result],
) -> Figure:
  """The population's rates over time, and all results.

  Args:
    config: of the run.
    lineage: of the population.
    path: [generations], the rates that led to its best member.
    rates: constant ones that were tried.
    tests: what came of them.
    found: results by name.
  """
  figure = Figure(figsize=(12, 3.6))
  over_time, constant, results = figure.subplots(1, 3, width_ratios=(4, 3, 4))
  end = config.generations
  for member in range(config.members):
    own = [line for line in lineage if line.child == member]
    values = [line.after['learning_rate'] for line in own]
    times = [line.step for line in own]
    over_time.step(
      [*times, end], [*values, values[-1]], where='post', color='0.75'
    )
  over_time.step(
    range(end), path, where='post', color='C3', label="winner's schedule"
  )
  over_time.set(xlabel='generation', ylabel='learning rate', yscale='log')
  over_time.legend(fontsize='small')
  constant.plot(rates, tests, '.-', color='C0')
  constant.axhline(best(found['PBT']), color='C3', label='PBT, best member')
  constant.set(
    xlabel='constant learning rate',
    ylabel='excess test loss',
    xscale='log',
    yscale='log',
  )
  constant.legend(fontsize='small')
  for row, one in enumerate(found.values()):
    shown = np.full(len(one.test), row)
    results.plot(one.test, shown, 'o', color='0.75', markersize=4)
    results.plot(np.median(one.test), row, '|', color='k', markersize=14)
    results.plot(best(one), row, 'o', color='C3')
  results.set_yticks(range(len(found)), list(found))
  results.invert_yaxis()
  results.set(xlabel='excess test loss; red: best, |: median')
  figure.tight_layout()
  return figure
