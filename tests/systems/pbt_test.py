"""PBT on digits: what each way does, schedules that are followed, reports."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.systems import pbt
from dl_lectures.training import population

TINY = pbt.Config(
  members=4, generations=4, updates=3, hidden=(8,), rates=3, batch_size=8
)
net = pbt.network(TINY)


@pytest.fixture(scope='module')
def digits():
  return pbt.load(0)


def test_images_are_dealt_out_once(digits):
  assert [len(label) for _, label in digits] == [997, 400, 400]
  rows = np.concatenate([image for image, _ in digits])
  assert rows.shape == (1797, 64)
  assert (rows.min(), rows.max()) == (0, 1)
  again = np.concatenate([image for image, _ in pbt.load(1)])
  assert (rows != again).any()
  assert sorted(map(bytes, rows)) == sorted(map(bytes, again))


def test_so_many_labels_are_at_random(digits):
  config = dataclasses.replace(TINY, updates=200, batch_size=64, noise=0.8)
  image, _ = digits.train
  # An image that tells its own label.
  number = jnp.arange(len(image)) % 10
  of = jnp.tile(number[:, None], (1, 64)) / 10, number
  batch = jax.jit(functools.partial(pbt.draw, config))(of, jax.random.key(0))
  assert batch.image.shape == (200, 64, 64)
  right = np.round(batch.image[..., 0] * 10) == batch.label
  assert abs(right.mean() - (0.2 + 0.8 / 10)) < 0.02


def test_the_loss_is_nothing_for_who_knows_digit_and_noise():
  label = jnp.array([3, 7])
  target = 0.2 * jax.nn.one_hot(label, 10) + 0.08
  known = {
    'mlp/linear': {'w': jnp.eye(64, 8), 'b': jnp.zeros(8)},
    'mlp/linear_1': {
      'w': jnp.zeros((8, 10)).at[:2].set(jnp.log(target)),
      'b': jnp.zeros(10),
    },
  }
  image = jnp.eye(2, 64)
  config = dataclasses.replace(TINY, noise=0.8)
  loss = functools.partial(pbt.excess_loss, config, net)
  np.testing.assert_allclose(loss(known, (image, label)), 0, atol=1e-6)
  even = jax.tree.map(jnp.zeros_like, known)
  by_hand = 0.28 * np.log(2.8) + 9 * 0.08 * np.log(0.8)
  np.testing.assert_allclose(loss(even, (image, label)), by_hand, rtol=1e-5)


def state_with(score):
  """Without networks: members are numbers."""
  of_all = functools.partial(jnp.tile, reps=(len(pbt.WAYS), 1))
  rate = of_all(jnp.array([0.01, 0.02, 0.04, 0.08]))
  return pbt.State(
    types.TrainState({'w': of_all(jnp.arange(4.0))}, {}, (), rate),
    {'learning_rate': rate},
    of_all(jnp.arange(4)),
    of_all(jnp.array(score)),
    {'learning_rate': rate},
    jnp.int32(1),
  )


def test_each_way_does_its_part():
  ways = list(pbt.WAYS.values())
  before = state_with([0.1, 0.4, 0.3, 0.2])  # 0 is the worst, 1 the best
  after = jax.jit(functools.partial(pbt.evolve, TINY, ways))(
    before, jax.random.key(0)
  )
  parents = [[1, 1, 2, 3], [1, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
  np.testing.assert_array_equal(after.parent, parents)
  np.testing.assert_array_equal(after.members.params['w'], parents)
  rate = np.asarray(after.hyper['learning_rate'])
  old = np.asarray(before.hyper['learning_rate'])
  np.testing.assert_array_equal(rate[:, 1:], old[:, 1:])
  changed = rate[:, 0] / np.array([0.02, 0.02, 0.01, 0.01])
  np.testing.assert_allclose(changed[[1, 3]], 1, rtol=1e-6)
  for one in changed[[0, 2]]:
    assert min(abs(one - 1.5), abs(one - 1 / 1.5)) < 1e-5


def test_a_generation_is_the_same_steps_as_by_a_schedule(digits):
  """So what is compared differs in its rates alone."""
  member = pbt.new_members(net, jax.random.split(jax.random.key(0), 1))
  one = jax.tree.map(lambda x: x[0], member)
  hyper = {'learning_rate': jnp.float32(0.5)}
  live = jax.jit(functools.partial(pbt.live, TINY, net))
  after = live(digits.train, one, hyper, jax.random.key(1))
  assert int(after.step) == TINY.updates
  assert float(after.opt_state.hyperparams['learning_rate']) == 0.5
  # By hand: gradient descent on the same batches.
  batches = jax.jit(functools.partial(pbt.draw, TINY))(
    digits.train, jax.random.key(1)
  )

  @jax.jit
  def grad(params, batch):
    def loss(params):
      log_probs = jax.nn.log_softmax(net.apply(params, batch.image))
      return -jnp.mean(log_probs[jnp.arange(8), batch.label])

    return jax.grad(loss)(params)

  params = one.params
  for i in range(TINY.updates):
    batch = jax.tree.map(lambda x, i=i: x[i], batches)
    params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grad(params, batch))
  for mine, by_hand in zip(
    jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_allclose(mine, by_hand, atol=1e-6)


def test_the_winner_s_rates_are_read_off_the_lineage():
  lineage = [
    population.Birth(0, 0, None, (), {}, {'learning_rate': 0.5}, 0),
    population.Birth(0, 1, None, (), {}, {'learning_rate': 0.25}, 0),
    population.Birth(3, 0, 1, (0.0, 1.0), {}, {'learning_rate': 0.125}, 0),
  ]
  rates = pbt.schedule(TINY, lineage, 0)
  assert rates.tolist() == [0.25, 0.25, 0.25, 0.125]


def test_claims_are_ratios_of_losses():
  def result(*test):
    return pbt.Result(np.array([2.0, 1, 3]), np.array(test), np.zeros(3))

  found = dict.fromkeys(
    (*pbt.WAYS, 'best fixed', "winner's schedule"), result(4.0, 3.0, 8.0)
  )
  found['PBT'] = result(4.0, 2.0, 8.0)
  claims = {claim.name: claim for claim in pbt.make_claims(found)}
  best = claims["excess test loss of best fixed over PBT's, best member"]
  assert (best.value, best.met) == (1.5, True)
  median = claims["excess test loss of random search over PBT's, median member"]
  assert (median.value, median.bar) == (1.0, 1.0)


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_reports(tmp_path):
  def stop(step, state):
    del state
    if step == 2:
      raise KeyboardInterrupt

  metrics = pbt.train(TINY, workdir=str(tmp_path / 'whole'))
  with pytest.raises(KeyboardInterrupt):
    pbt.train(
      TINY, workdir=str(tmp_path / 'half'), hooks=[training.Hook(stop, 1)]
    )
  assert pbt.train(TINY, workdir=str(tmp_path / 'half')) == metrics
  whole, half = (
    (tmp_path / at / pbt.LINEAGE).read_text() for at in ('whole', 'half')
  )
  assert whole == half
  summary = training.report.finished(tmp_path / 'whole', TINY)
  assert summary is not None
  assert (tmp_path / 'whole' / 'figures' / 'pbt.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'members': 1}, 'config.members=1; at least 2'),
    ({'noise': 1.5}, 'config.noise=1.5; 0 to 1'),
    ({'share': 0.6}, 'config.share=0.6; 0 to 0.5'),
    ({'low': 2.0}, 'learning_rate from 2.0 to 1.0; no such range'),
    ({'hidden': ()}, r'config.hidden=\(\); one layer or more'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(TINY, **changes)
