"""Eight devices do what one does; and the traps on the way, each shown."""

import logging
from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from dl_lectures.training import make_step, sharding
from dl_lectures.training.step import init_state
from dl_lectures.types import UsageError

SPLIT, WHOLE = PartitionSpec('data'), PartitionSpec()


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh()


@pytest.fixture
def compilations(caplog):
  """How often a function of that name was compiled in this test."""
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    yield lambda name: sum(
      record.getMessage().startswith(f'Compiling jit({name})')
      for record in caplog.records
    )


# The mesh.


def test_a_mesh_is_one_auto_axis_over_the_devices_asked_for(mesh):
  assert dict(mesh.shape) == {'data': 8}
  assert mesh.axis_types == (AxisType.Auto,)
  assert sharding.make_mesh(3).devices.tolist() == jax.devices()[:3]


@pytest.mark.parametrize('n', [0, 9])
def test_more_devices_than_there_are_is_one_line(n):
  with pytest.raises(UsageError, match=f'{n} devices asked for; 1 to 8 are'):
    sharding.make_mesh(n)


@pytest.mark.parametrize(
  ('n', 'sizes'), [(20, '16 or 24'), (3, '8'), (0, '8'), (-4, '8')]
)
def test_a_batch_that_does_not_divide_names_those_that_do(mesh, n, sizes):
  with pytest.raises(UsageError) as refusal:
    sharding.check_divides('batch_size', n, mesh)
  assert str(refusal.value) == (
    f'batch_size {n} cannot be split over 8 devices; '
    f'possible are the multiples of 8, such as {sizes}'
  )
  for size in sizes.split(' or '):
    sharding.check_divides('batch_size', int(size), mesh)


# Learning.


def _linear_loss(w, x):
  return jnp.sum((x @ w) ** 2)


def test_gradients_of_whole_numbers_are_equal_bit_for_bit(mesh):
  x = jax.random.randint(jax.random.key(0), (64, 5), -9, 10).astype(jnp.float32)
  w = jnp.arange(5.0)
  grad = jax.grad(_linear_loss)
  alone = jax.jit(grad)(w, x)
  many = jax.jit(
    grad,
    in_shardings=(sharding.replicated(mesh), sharding.split(mesh)),
    out_shardings=sharding.replicated(mesh),
  )(w, x)
  assert many.sharding.num_devices == 8
  assert np.array_equal(alone, many)
  # Sums below 2^24 are exact in float32, or the equality would be luck.
  x, w = np.asarray(x, np.int64), np.asarray(w, np.int64)
  assert np.array_equal(alone, 2 * x.T @ (x @ w))


@pytest.fixture(scope='module')
def network():
  def forward(x):
    # A bias here would have a gradient of rounding errors, and Adam, which has
    # no scale, would make steps of them.
    x = hk.Linear(16, with_bias=False)(x)
    x = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
    x = hk.dropout(hk.next_rng_key(), 0.2, jax.nn.relu(x))
    return hk.Linear(1)(x)[:, 0]

  transformed = hk.transform_with_state(forward)

  def loss_fn(params, net_state, key, batch):
    prediction, net_state = transformed.apply(
      params, net_state, key, batch['x']
    )
    loss = jnp.mean((prediction - batch['y']) ** 2)
    return loss, (net_state, {'loss': loss})

  x = jax.random.normal(jax.random.key(1), (64, 6))
  batch = {'x': x, 'y': jnp.sin(x.sum(axis=1))}
  return transformed, loss_fn, batch


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_50_steps_on_8_devices_are_those_on_one(
  mesh, network, compilations, name
):
  """With BatchNorm and dropout: of the whole batch, whatever the devices."""
  transformed, loss_fn, batch = network
  # Adam hides a gradient that is 8 times too large; SGD does not.
  optimizer = {'sgd': optax.sgd(0.1), 'adamw': optax.adamw(1e-2)}[name]
  learn = make_step(loss_fn, optimizer)
  key = jax.random.key(2)

  def train(state):
    return learn(state, batch, key)[0]

  def init():
    params, net_state = transformed.init(jax.random.key(0), batch['x'])
    return init_state(params, net_state, optimizer)

  def final(devices):
    mesh = sharding.make_mesh(devices)
    whole, split = sharding.replicated(mesh), sharding.split(mesh)
    step = jax.jit(
      learn,
      in_shardings=(whole, split, whole),
      out_shardings=whole,
      donate_argnums=0,
    )
    state = jax.jit(init, out_shardings=whole)()
    for _ in range(50):
      state, metrics = step(state, batch, key)
    return state, metrics

  one, metrics = final(1)
  assert compilations('step') == 1
  many, _ = final(8)
  assert compilations('step') == 2, 'one for each number of devices'
  first = init()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
    one,
    many,
  )
  assert int(many.step) == 50
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), first.params, many.params
  )
  assert min(jax.tree.leaves(moved)) > 1e-2
  assert np.isfinite(metrics['loss'])


def test_random_numbers_do_not_depend_on_the_devices(mesh):
  draw = partial(jax.random.normal, shape=(64, 3))
  many = jax.jit(draw, out_shardings=sharding.split(mesh))(jax.random.key(0))
  assert many.sharding.num_devices == 8
  assert np.array_equal(many, jax.jit(draw)(jax.random.key(0)))


# Devices that do not talk.


def _walk(x):
  """A loop that each row leaves when it likes: a search in miniature."""
  return jax.lax.while_loop(
    lambda x: jnp.any(x < 100), lambda x: jnp.where(x < 100, 2 * x, x), x
  )


def test_per_device_has_no_collectives_where_jit_puts_them_in_the_loop(mesh):
  x = jnp.arange(1.0, 65.0)
  many = sharding.per_device(_walk, mesh, SPLIT, SPLIT)
  split = sharding.split(mesh)

  def collectives(fn):
    text = (
      jax.jit(fn, in_shardings=split, out_shardings=split)
      .lower(x)
      .compile()
      .as_text()
    )
    assert text
    return text.count('all-reduce(')

  assert collectives(many) == 0
  assert collectives(_walk) > 0
  assert np.array_equal(jax.jit(many)(x), jax.jit(_walk)(x))


# The traps.


def test_trap_pmean_of_the_gradient_in_a_plain_shard_map(mesh):
  """The habit of pmap is n times too large there, and right in per_device."""
  x, w = jnp.arange(1.0, 17.0), jnp.float32(3)

  def loss(w, x):
    return jnp.mean(w * x)

  expected = jax.grad(loss)(w, x)

  def averaged(w, x):
    return jax.lax.pmean(jax.grad(loss)(w, x), 'data')

  specs = {'in_specs': (WHOLE, SPLIT), 'out_specs': WHOLE}
  plain = jax.jit(jax.shard_map(averaged, mesh=mesh, **specs))(w, x)
  ours = jax.jit(sharding.per_device(averaged, mesh, **specs))(w, x)
  assert float(expected) == float(ours) == 8.5
  assert float(plain) == 8 * 8.5


def _unroll(ids):
  core = hk.LSTM(4)
  words = jnp.broadcast_to(jax.nn.one_hot(ids, 4), (3, 8, 4))
  return hk.dynamic_unroll(core, words, core.initial_state(8))[0]


@pytest.mark.parametrize(
  'forward', [lambda ids: hk.Embed(8, 4)(ids), _unroll], ids=['embed', 'lstm']
)
def test_trap_explicit_axes_break_haiku_and_ours_are_auto(mesh, forward):
  network = hk.without_apply_rng(hk.transform(forward))
  ids = jnp.arange(8) % 4
  params = network.init(jax.random.key(0), ids)

  def loss(params, ids):
    return jnp.sum(network.apply(params, ids) ** 2)

  def grad_on(mesh):
    return jax.jit(jax.grad(loss))(
      jax.device_put(params, sharding.replicated(mesh)),
      jax.device_put(ids, sharding.split(mesh)),
    )

  expected = jax.jit(jax.grad(loss))(params, ids)
  jax.tree.map(
    partial(np.testing.assert_allclose, rtol=1e-5), grad_on(mesh), expected
  )
  explicit = jax.make_mesh((8,), ('data',))  # as JAX makes it by default
  assert explicit.axis_types == (AxisType.Explicit,)
  with jax.set_mesh(explicit), pytest.raises(Exception, match=r'.') as refusal:
    grad_on(explicit)
  assert type(refusal.value).__name__ == 'ShardingTypeError'


def test_trap_device_put_may_share_the_buffer_that_donation_deletes(mesh):
  whole = sharding.replicated(mesh)

  def init():
    return jnp.arange(4.0)

  step = jax.jit(
    lambda x: x + 1, in_shardings=whole, out_shardings=whole, donate_argnums=0
  )
  params = init()
  step(jax.device_put(params, whole))
  with pytest.raises(RuntimeError, match='deleted'):
    np.asarray(params)
  # So a state is made where it belongs.
  state = step(jax.jit(init, out_shardings=whole)())
  assert state.tolist() == [1, 2, 3, 4]
