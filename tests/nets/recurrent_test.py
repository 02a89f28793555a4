"""The layers against the equations, differentiated by JAX, and Haiku's."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import recurrent
from dl_lectures.nets.recurrent import GRU, LSTM, RNN, RUDDER, STANDARD, Gate
from dl_lectures.types import UsageError

B, T, F, H = 3, 7, 4, 5

WIRINGS = {
  'standard': STANDARD,
  'RUDDER': RUDDER,
  'mixed': recurrent.Wiring(
    input_gate=None,
    cell_input=Gate(recurrence=False),
    forget_gate=Gate(inputs=False, bias=5.0),
    output_gate=Gate(),
    squash=False,
  ),
  'no recurrence': recurrent.Wiring(
    Gate(recurrence=False), Gate(recurrence=False), None, None
  ),
}


def transform(wiring, units=H):
  """init, and apply(params, x, state, mask, reset) -> (h, state)."""
  return hk.without_apply_rng(
    hk.transform(
      lambda x, state=None, mask=None, reset=None: LSTM(units, wiring).unroll(
        x, state, mask=mask, reset=reset
      )
    )
  )


def plainly(wiring, params, x, state, mask, reset):
  """The equations of the module's docstring, one step after another."""
  gates = dict(zip('igfo', wiring[:4], strict=True))
  gates = {name: gate for name, gate in gates.items() if gate is not None}
  params = params['lstm']
  parts = {
    key: iter(jnp.split(params[key], params[key].shape[-1] // H, axis=-1))
    for key in params
  }
  w, u, b = {}, {}, {}
  for name, gate in gates.items():
    b[name] = next(parts['b'])
    w[name] = next(parts['w_x']) if gate.inputs else jnp.zeros((F, H))
    u[name] = next(parts['w_h']) if gate.recurrence else jnp.zeros((H, H))

  def step(state, inputs):
    x, mask, reset = inputs
    h, c = (jnp.where(reset[:, None], 0, s) for s in state)
    z = {n: x @ w[n] + h @ u[n] + b[n][None] for n in gates}
    one = jnp.ones_like(c)
    i = jax.nn.sigmoid(z['i']) if 'i' in z else one
    f = jax.nn.sigmoid(z['f']) if 'f' in z else one
    o = jax.nn.sigmoid(z['o']) if 'o' in z else one
    c = f * c + i * jnp.tanh(z['g'])
    h = o * (jnp.tanh(c) if wiring.squash else c)
    h, c = (
      jnp.where(mask[:, None], new, old)
      for new, old in zip((h, c), state, strict=True)
    )
    return (h, c), h

  x, mask, reset = (jnp.swapaxes(a, 0, 1) for a in (x, mask, reset))
  state, h = jax.lax.scan(step, tuple(state), (x, mask, reset))
  return jnp.swapaxes(h, 0, 1), hk.LSTMState(*state)


def inputs(seed=0):
  draw = np.random.default_rng(seed)
  x = jnp.float32(draw.normal(size=(B, T, F)))
  state = hk.LSTMState(*jnp.float32(draw.normal(size=(2, B, H))))
  mask = jnp.asarray(np.arange(T)[None, :] < np.array([[T], [4], [1]]))
  reset = jnp.asarray(draw.random((B, T)) < 0.2)
  return x, state, mask, reset


def draw_like(shapes, seed=1):
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.float32(draw.normal(scale=0.5, size=x.shape)), shapes
  )


def compare(a, b, tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    scale = max(1, float(np.max(np.abs(y))))
    np.testing.assert_allclose(x, y, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize(
  ('wiring', 'flags'),
  [(wiring, True) for wiring in WIRINGS.values()] + [(RUDDER, False)],
  ids=[*WIRINGS, 'RUDDER, without mask and reset'],
)
def test_outputs_and_gradients_are_those_of_the_equations(wiring, flags):
  net = transform(wiring)
  x, state, mask, reset = inputs()
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))
  weights = jnp.float32(np.random.default_rng(2).normal(size=(B, T, H)))

  def ours(params, x, state):
    return net.apply(params, x, state, *((mask, reset) if flags else ()))

  def theirs(params, x, state):
    m, r = (mask, reset) if flags else (mask | True, reset & False)
    return plainly(wiring, params, x, state, m, r)

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.grad, argnums=(1, 2, 3), has_aux=True)
  def both(unroll, params, x, state):
    h, last = unroll(params, x, state)
    loss = jnp.sum(weights * h) + jnp.sum(last.hidden**2 - 3 * last.cell)
    return loss, (h, last)

  gradients, outputs = both(ours, params, x, state)
  expected_gradients, expected = both(theirs, params, x, state)
  compare(outputs, expected, 1e-6)
  compare(gradients, expected_gradients, 1e-6)
  assert float(jnp.max(jnp.abs(gradients[1]))) > 0.1


def test_an_accelerator_s_loop_gives_the_same():
  """There, x is multiplied before the loop."""
  x, state, mask, reset = inputs()
  net = transform(STANDARD)
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)
  weights = draw_like(shapes)['lstm']
  plan = recurrent._Plan('igfo', 'igfo', 'igfo', squash=True)
  time_major = [jnp.swapaxes(a, 0, 1) for a in (x, mask, reset)]
  arguments = (
    weights,
    time_major[0],
    tuple(state),
    time_major[1][:, :, None],
    time_major[2][:, :, None],
  )
  scan = jax.jit(recurrent._scan, static_argnums=(0, 1))
  compare(scan(plan, False, *arguments), scan(plan, True, *arguments), 1e-6)


def test_the_standard_one_is_haiku_s():
  x, _, _, _ = inputs()
  net = transform(STANDARD)
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))

  def haiku(x):
    core = hk.LSTM(H)
    return hk.dynamic_unroll(core, x, core.initial_state(B), time_major=False)

  theirs = hk.without_apply_rng(hk.transform(haiku))

  def translated(params):
    p = params['lstm']
    # Haiku adds 1 to the forget gate, the third of four.
    b = p['b'] - jnp.repeat(jnp.array([0.0, 0.0, 1.0, 0.0]), H)
    w = jnp.concatenate([p['w_x'], p['w_h']])
    return {'lstm/linear': {'w': w, 'b': b}}

  def loss(params, x, apply):
    return jnp.sum(apply(params, x)[0] ** 2)

  apply = jax.jit(net.apply)
  expected = jax.jit(lambda p, x: theirs.apply(translated(p), x))
  compare(apply(params, x), expected(params, x), 1e-6)
  grad = jax.jit(jax.grad(loss), static_argnums=2)
  compare(grad(params, x, apply), grad(params, x, expected), 1e-6)


def test_rudder_s_counts_by_hand():
  # One unit: c <- c + sigmoid(u h + b_i) tanh(w x + b_g), h <- c.
  params = {
    'lstm': {
      'w_x': jnp.array([[2.0]]),
      'w_h': jnp.array([[0.5]]),
      'b': jnp.array([-1.0, 0.25]),
    }
  }
  h, state = transform(RUDDER, 1).apply(params, jnp.array([[[1.0], [-1.0]]]))
  first = np.tanh(2.25) / (1 + np.exp(1))
  second = first + np.tanh(-1.75) / (1 + np.exp(1 - 0.5 * first))
  np.testing.assert_allclose(h[0, :, 0], [first, second], rtol=1e-6)
  np.testing.assert_allclose(state.cell, [[second]], rtol=1e-6)


@pytest.mark.parametrize(
  'wiring', [STANDARD, RUDDER], ids=['standard', 'RUDDER']
)
def test_steps_and_pieces_equal_the_whole(wiring):
  x, state, _, _ = inputs()
  net = transform(wiring)
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))
  step = hk.without_apply_rng(
    hk.transform(lambda x, state: LSTM(H, wiring).step(x, state))
  )

  @jax.jit
  def three_ways(params, x, state):
    whole = net.apply(params, x, state)
    last, h = jax.lax.scan(
      lambda state, x: step.apply(params, x, state)[::-1],
      state,
      jnp.swapaxes(x, 0, 1),
    )
    head, middle = net.apply(params, x[:, :3], state)
    tail, end = net.apply(params, x[:, 3:], middle)
    return (
      whole,
      (jnp.swapaxes(h, 0, 1), last),
      (jnp.concatenate([head, tail], 1), end),
    )

  whole, steps, pieces = three_ways(params, x, state)
  compare(steps, whole, 1e-6)
  compare(pieces, whole, 1e-6)


def test_masks_end_sequences_and_resets_begin_them():
  x, _, mask, _ = inputs()
  net = transform(STANDARD)
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))
  apply = jax.jit(net.apply)
  whole = np.asarray(apply(params, x)[0])
  # Whatever stands after the end, and its gradient.
  padded = jnp.where(mask[:, :, None], x, jnp.nan)
  h, last = apply(params, padded, None, mask)
  compare(last.hidden, np.stack([whole[0, 6], whole[1, 3], whole[2, 0]]), 1e-6)
  compare(h[1, :4], whole[1, :4], 1e-6)
  compare(h[1, 4:], np.broadcast_to(whole[1, 3], (3, H)), 1e-6)
  loss = jax.jit(
    jax.grad(lambda p, x: jnp.sum(net.apply(p, x, None, mask)[0]), (0, 1))
  )
  gradients = loss(params, padded)
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))
  assert not np.any(np.asarray(gradients[1])[~np.asarray(mask)])
  # Two sequences in one row are what they are alone.
  twice = jnp.concatenate([x, x], axis=1)
  reset = jnp.broadcast_to(jnp.arange(2 * T) == T, (B, 2 * T))
  h, last = apply(params, twice, None, None, reset)
  compare(h[:, T:], whole, 1e-6)
  compare(last.hidden, whole[:, -1], 1e-6)


def test_weights_start_as_they_are_told():
  wiring = recurrent.Wiring(
    input_gate=Gate(inputs=False, bias=-3.0),
    cell_input=Gate(bias=hk.initializers.Constant(0.5)),
    forget_gate=Gate(bias=5),
    output_gate=Gate(recurrence=False, w_init=hk.initializers.Constant(0.25)),
  )
  net = transform(wiring, 64)
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 1, 36)))['lstm']
  params = jax.tree.map(np.asarray, params)
  assert params['w_x'].shape == (36, 3 * 64)  # g, f, o
  assert params['w_h'].shape == (64, 3 * 64)  # i, g, f
  assert np.unique(params['b']).tolist() == [-3, 0, 0.5, 5]
  assert params['b'][::64].tolist() == [-3, 0.5, 5, 0]
  assert np.all(params['w_x'][:, 128:] == 0.25)
  # Of 36 + 64 terms, and of 64 alone; cut off at two deviations, which takes
  # an eighth off.
  np.testing.assert_allclose(np.std(params['w_x'][:, :64]), 0.088, rtol=0.05)
  np.testing.assert_allclose(np.std(params['w_h'][:, :64]), 0.11, rtol=0.05)


def test_a_cell_that_never_forgets_keeps_its_gradient():
  """What RUDDER is wired for: credit for the first of 200 steps."""
  x = jnp.zeros((1, 200, 2)).at[0, 0].set(1.0)

  def reach(wiring):
    net = transform(wiring)

    @jax.jit
    @jax.grad
    def grad(x):
      params = net.init(jax.random.key(0), jax.lax.stop_gradient(x))
      return jnp.sum(net.apply(params, x)[1].cell)

    return float(np.max(np.abs(np.asarray(grad(x))[0, 0])))

  assert reach(RUDDER) > 0.05
  assert reach(STANDARD) < 1e-6


def test_bad_input_is_named():
  with pytest.raises(UsageError, match=r'was given \[3, 4\]; \[B, T, F\]'):
    transform(STANDARD).init(jax.random.key(0), jnp.zeros((3, 4)))
  x, _, mask, _ = inputs()
  with pytest.raises(UsageError, match=r'reset of \[7, 3\]; \[3, 7\]'):
    transform(STANDARD).init(jax.random.key(0), x, None, mask.T)
  with pytest.raises(UsageError, match="gate 'o' of an LSTM sees nothing"):
    transform(STANDARD._replace(output_gate=Gate(False, False))).init(
      jax.random.key(0), x
    )
  with pytest.raises(UsageError, match='0 units; at least 1'):
    transform(STANDARD, 0).init(jax.random.key(0), x)


def rnn_plainly(p, x, h):
  return jnp.tanh(x @ p['w_x'] + h @ p['w_h'] + p['b'][None])


def gru_plainly(p, x, h):
  w_r, w_z, w_a = jnp.split(p['w_x'], 3, axis=1)
  u_r, u_z = jnp.split(p['w_h'], 2, axis=1)
  b_r, b_z, b_a = jnp.split(p['b'][None], 3, axis=1)
  r = jax.nn.sigmoid(x @ w_r + h @ u_r + b_r)
  z = jax.nn.sigmoid(x @ w_z + h @ u_z + b_z)
  a = jnp.tanh(x @ w_a + (r * h) @ p['w_a'] + b_a)
  return (1 - z) * a + z * h


@pytest.mark.parametrize('flags', [True, False])
@pytest.mark.parametrize(
  ('layer', 'cell'), [(RNN, rnn_plainly), (GRU, gru_plainly)]
)
def test_simpler_layers_are_those_of_the_equations(layer, cell, flags):
  net = hk.without_apply_rng(
    hk.transform(
      lambda x, state=None, **flags: layer(H).unroll(x, state, **flags)
    )
  )
  x, (state, _), mask, reset = inputs()
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))
  weights = jnp.float32(np.random.default_rng(2).normal(size=(B, T, H)))

  def ours(params, x, state):
    given = {'mask': mask, 'reset': reset} if flags else {}
    return net.apply(params, x, state, **given)

  def theirs(params, x, state):
    (p,) = params.values()

    def step(old, inputs):
      x, mask, reset = inputs
      new = cell(p, x, jnp.where(reset[:, None], 0, old))
      new = jnp.where(mask[:, None], new, old)
      return new, new

    given = (mask, reset) if flags else (mask | True, reset & False)
    xs = [jnp.swapaxes(a, 0, 1) for a in (x, *given)]
    state, h = jax.lax.scan(step, state, xs)
    return jnp.swapaxes(h, 0, 1), state

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.grad, argnums=(1, 2, 3), has_aux=True)
  def both(unroll, params, x, state):
    h, last = unroll(params, x, state)
    return jnp.sum(weights * h) + jnp.sum(last**2), (h, last)

  gradients, outputs = both(ours, params, x, state)
  expected_gradients, expected = both(theirs, params, x, state)
  compare(outputs, expected, 1e-6)
  compare(gradients, expected_gradients, 1e-6)
  assert float(jnp.max(jnp.abs(gradients[1]))) > 0.1


def test_the_gru_is_haiku_s_with_the_update_gate_turned_round():
  x, (state, _), _, _ = inputs()
  net = hk.without_apply_rng(hk.transform(lambda x, s: GRU(H).unroll(x, s)))
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x, state))

  def haiku(x, state):
    return hk.dynamic_unroll(hk.GRU(H), x, state, time_major=False)

  theirs = hk.without_apply_rng(hk.transform(haiku))
  p = params['gru']

  def lanes(w):  # theirs are z, r, a, and their z is 1 - z
    r, z, *rest = jnp.split(w, w.shape[-1] // H, axis=-1)
    return jnp.concatenate([-z, r, *rest], axis=-1)

  translated = {
    'gru': {
      'w_i': lanes(p['w_x']),
      'w_h': jnp.concatenate([lanes(p['w_h']), p['w_a']], axis=-1),
      'b': lanes(p['b']),
    }
  }
  compare(
    jax.jit(net.apply)(params, x, state),
    jax.jit(theirs.apply)(translated, x, state),
    1e-6,
  )


def test_the_rnn_by_hand():
  params = {
    'rnn': {
      'w_x': jnp.array([[2.0]]),
      'w_h': jnp.array([[0.5]]),
      'b': jnp.array([-1.0]),
    }
  }
  net = hk.without_apply_rng(hk.transform(lambda x: RNN(1)(x)))
  h = net.apply(params, jnp.array([[[1.0], [-1.0]]]))
  first = np.tanh(1.0)
  np.testing.assert_allclose(
    h[0, :, 0], [first, np.tanh(-3 + 0.5 * first)], rtol=1e-6
  )
