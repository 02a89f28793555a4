"""RNN, GRU, and the LSTM with its gates and connections as arguments.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9 (1997);
the forget gate is of Gers, Schmidhuber & Cummins, Neural Computation 12 (2000).
Slides: deck 003, "LSTM"; deck 002, "RUDDER: LSTM".

    i = sigmoid(W_i x + U_i h + b_i)     input gate
    g =    tanh(W_g x + U_g h + b_g)     cell input
    f = sigmoid(W_f x + U_f h + b_f)     forget gate
    o = sigmoid(W_o x + U_o h + b_o)     output gate
    c <- f c + i g
    h <- o tanh(c)

Any W, any U and any of the three gates may be left out. `RUDDER` is such a
wiring: it can only count.

Why it is fast: autodiff forms the gradient of the weights at every step and
adds it up; here the backward loop gives the gradients of the four sums alone,
and one product after it makes the weights'. On the CPU the loop forward keeps
its product with x, whose rows are then still in the cache; elsewhere that is
one product for all steps before the loop. H = F = 256, T = 128, B = 32, forward
and backward on one CPU core: 1.5 to 1.7 times as fast as hk.LSTM; `RUDDER`, of
which half needs no loop, 5 times. `RNN` and `GRU` form the weights'
gradients likewise.

Shapes: B batch, T time, F features, H hidden units.
"""

import functools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.nets.linear import product, weight_gradient
from dl_lectures.types import Array, UsageError


class Gate(NamedTuple):
  """One of the four sums W x + U h + b.

  Attributes:
    inputs: whether it sees x.
    recurrence: whether it sees the last h.
    bias: b at the start, the same for all units or an initialiser.
    w_init: of W and U; by default truncated normal with variance 1 / fan-in.
  """

  inputs: bool = True
  recurrence: bool = True
  bias: float | hk.initializers.Initializer = 0.0
  w_init: hk.initializers.Initializer | None = None


class Wiring(NamedTuple):
  """Which gates there are, and what they see.

  Attributes:
    input_gate: None for i = 1.
    cell_input: the sum that is stored.
    forget_gate: None for f = 1, a cell that never forgets. A bias of 1 keeps
      most of it at first (Jozefowicz et al., ICML 2015), one of 5 almost all.
    output_gate: None for o = 1.
    squash: h <- o tanh(c) if true, else o c.
  """

  input_gate: Gate | None = Gate()
  cell_input: Gate = Gate()
  forget_gate: Gate | None = Gate(bias=1.0)
  output_gate: Gate | None = Gate()
  squash: bool = True


STANDARD = Wiring()
# Arjona-Medina et al., "RUDDER", NeurIPS 2019: what is stored depends on the
# input alone and whether on what is stored already; nothing is forgotten.
RUDDER = Wiring(
  input_gate=Gate(inputs=False),
  cell_input=Gate(recurrence=False),
  forget_gate=None,
  output_gate=None,
  squash=False,
)


Lanes = dict[str, Array]  # of some of the four sums: i, g, f, o


class _Plan(NamedTuple):
  """A wiring's shape: hashable, so that it may be a static argument."""

  names: str  # of 'igfo', those that are there
  seen: str  # those that see x
  fed: str  # those that see h
  squash: bool


class LSTM(hk.Module):
  """A layer of memory cells: [B, T, F] -> [B, T, H].

  Differentiable in reverse mode.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: LSTM(16, RUDDER)(x)))
  >>> sequences = jnp.zeros([8, 50, 10])
  >>> params = net.init(jax.random.key(0), sequences)
  >>> net.apply(params, sequences).shape
  (8, 50, 16)
  >>> jax.tree.map(jnp.shape, params)['lstm']
  {'b': (32,), 'w_h': (16, 16), 'w_x': (10, 16)}
  """

  def __init__(
    self,
    hidden_size: int,
    wiring: Wiring = STANDARD,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      hidden_size: H.
      wiring: `STANDARD`, `RUDDER` or another one, such as
        `RUDDER._replace(output_gate=Gate())`.
      name: the module's name.
    """
    super().__init__(name=name)
    _check_units('LSTM', hidden_size)
    self.hidden_size, self.wiring = hidden_size, wiring
    gates = {
      name: gate
      for name, gate in zip('igfo', wiring[:4], strict=True)
      if gate is not None
    }
    for name, gate in gates.items():
      if not (gate.inputs or gate.recurrence):
        raise UsageError(
          f'gate {name!r} of an LSTM sees nothing; inputs or recurrence, or no '
          'gate, are possible'
        )
    self._gates = gates
    self._plan = _Plan(
      names=''.join(gates),
      seen=''.join(name for name, gate in gates.items() if gate.inputs),
      fed=''.join(name for name, gate in gates.items() if gate.recurrence),
      squash=wiring.squash,
    )

  def __call__(
    self, x: Array, *, mask: Array | None = None, reset: Array | None = None
  ) -> Array:
    """The outputs of whole sequences, [B, T, H]; see `unroll`."""
    return self.unroll(x, mask=mask, reset=reset)[0]

  def unroll(
    self,
    x: Array,
    state: hk.LSTMState | None = None,
    *,
    mask: Array | None = None,
    reset: Array | None = None,
  ) -> tuple[Array, hk.LSTMState]:
    """Goes through sequences, from a state to a state.

    Args:
      x: [B, T, F].
      state: before the first step, [B, H] each; by default `initial_state`.
      mask: [B, T] bool; where it is false, the state passes unchanged and the
        output is the last one again. So the state returned is that of each
        sequence's own last step.
      reset: [B, T] bool; where it is true, the state is zero before the step:
        a new episode begins. A step that is masked resets nothing.

    Returns:
      The outputs [B, T, H], and the state after the last step.

    Raises:
      UsageError: shapes that do not fit.
    """
    _check_sequences(x, mask, reset)
    state = self.initial_state(x.shape[0], x.dtype) if state is None else state
    x, mask, reset = _time_major(x, mask, reset)
    h, last = _unroll(
      self._plan, self._weights(x), x, tuple(state), mask, reset
    )
    return jnp.swapaxes(h, 0, 1), hk.LSTMState(*last)

  def step(self, x: Array, state: hk.LSTMState) -> tuple[Array, hk.LSTMState]:
    """One step: x [B, F] and the state to h [B, H] and the next state."""
    h, state = self.unroll(x[:, None], state)
    return h[:, 0], state

  def initial_state(
    self, batch_size: int, dtype: jnp.dtype = jnp.float32
  ) -> hk.LSTMState:
    """Zeros, [B, H] each."""
    zeros = jnp.zeros((batch_size, self.hidden_size), dtype)
    return hk.LSTMState(zeros, zeros)

  def _weights(self, x: Array) -> dict[str, Array]:
    """W [F, H * those that see x], U [H, H * those that see h], b."""
    units, features = self.hidden_size, x.shape[-1]

    def side_by_side(connected: str, rows: tuple[int, ...], make):
      def init(shape, dtype):
        parts = [make(self._gates[name]) for name in connected]
        parts = [part((*rows, units), dtype) for part in parts]
        return jnp.concatenate(parts, axis=-1).reshape(shape)

      return (*rows, units * len(connected)), init

    def weight(gate: Gate) -> hk.initializers.Initializer:
      fan_in = features * gate.inputs + units * gate.recurrence
      return gate.w_init or hk.initializers.TruncatedNormal(fan_in**-0.5)

    def bias(gate: Gate) -> hk.initializers.Initializer:
      if isinstance(gate.bias, int | float):
        return hk.initializers.Constant(gate.bias)
      return gate.bias

    plan = self._plan
    made = {
      'w_x': side_by_side(plan.seen, (features,), weight),
      'w_h': side_by_side(plan.fed, (units,), weight),
      'b': side_by_side(plan.names, (), bias),
    }
    return {
      name: hk.get_parameter(name, shape, x.dtype, init=init)
      for name, (shape, init) in made.items()
      if 0 not in shape
    }


# What follows is time-major: x [T, B, F], mask and reset [T, B, 1] or None.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unroll(plan, weights, x, state, mask, reset):
  """The outputs [T, B, H] and the state after them."""
  h, _, _, last = _forward(plan, weights, x, state, mask, reset)
  return h, last


def _forward(plan, *arguments):
  """Outputs, states before and gates of all steps, and the last state."""
  # The choice is made when the program is lowered.
  return lax.platform_dependent(
    *arguments,
    cpu=functools.partial(_scan, plan, True),
    default=functools.partial(_scan, plan, False),
  )


def _scan(plan, inside, weights, x, state, mask, reset):
  """The loop; `inside` it x is multiplied, if that may be done before."""
  w = _split(plan.seen, weights.get('w_x'))
  b = _split(plan.names, weights['b'])
  # A lane that is not fed is known before the loop.
  known = {
    name: _activate(name, x @ w[name] + b[name][None, None])
    for name in plan.seen
    if name not in plan.fed
  }
  both = ''.join(name for name in plan.seen if name in plan.fed)
  w_both = _join({name: w[name] for name in both}, both) if both else None
  b_fed = _join(b, plan.fed)[None] if plan.fed else None
  if both and not inside:
    x = x @ w_both

  def step(state, inputs):
    x, known, mask, reset = inputs
    h, c = _begin(reset, *state)
    sums = _split(plan.fed, h @ weights['w_h'] + b_fed if plan.fed else None)
    if both:
      seen = _split(both, x @ w_both if inside else x)
      sums |= {name: sums[name] + seen[name] for name in both}
    gates = known | {name: _activate(name, z) for name, z in sums.items()}
    new = _cell(plan, gates, c)
    if mask is not None:
      new = tuple(
        jnp.where(mask, a, b) for a, b in zip(new, (h, c), strict=True)
      )
    # What the step began with is what its gradient needs.
    return new, (new[0], (h, c), gates)

  last, (h, before, gates) = lax.scan(step, state, (x, known, mask, reset))
  return h, before, gates, last


def _unroll_forward(plan, weights, x, state, mask, reset):
  h, before, gates, last = _forward(plan, weights, x, state, mask, reset)
  return (h, last), (weights, x, mask, reset, before, gates)


def _unroll_backward(plan, saved, gradients):
  weights, x, mask, reset, (h, c), gates = saved
  # Outside the loop, where it is done once.
  transposed = {name: w.T for name, w in weights.items()}

  def step(carry, inputs):
    d_outputs, gates, c, mask, reset = inputs
    d_state = carry[0] + d_outputs, carry[1]
    d_new, d_kept = d_state, None
    if mask is not None:
      d_new = tuple(jnp.where(mask, d, 0) for d in d_state)
      d_kept = tuple(jnp.where(mask, 0, d) for d in d_state)
    _, pull = jax.vjp(functools.partial(_cell, plan), gates, c)
    d_gates, d_c = pull(d_new)
    d_sums = {
      name: d * _slope(name, gates[name]) for name, d in d_gates.items()
    }
    d_h = jnp.zeros_like(d_c)
    if plan.fed:
      d_h = _join(d_sums, plan.fed) @ transposed['w_h']
    if d_kept is not None:
      d_h, d_c = d_h + d_kept[0], d_c + d_kept[1]
    return _begin(reset, d_h, d_c), _join(d_sums, plan.names)

  d_outputs, d_last = gradients
  d_state, d_sums = lax.scan(
    step,
    (jnp.zeros_like(d_last[0]), d_last[1]),
    (d_outputs.at[-1].add(d_last[0]), gates, c, mask, reset),
    reverse=True,
  )
  d_x, d_weights = jnp.zeros_like(x), {'b': jnp.sum(d_sums, axis=(0, 1))}
  if plan.seen:
    d_seen = _pick(plan, plan.seen, d_sums)
    d_x = d_seen @ transposed['w_x']
    d_weights['w_x'] = weight_gradient(x, d_seen)
  if plan.fed:
    d_fed = _pick(plan, plan.fed, d_sums)
    d_weights['w_h'] = weight_gradient(h, d_fed)
  return d_weights, d_x, d_state, None, None


_unroll.defvjp(_unroll_forward, _unroll_backward)


def _begin(reset, h, c):
  """Zeros where something new begins."""
  if reset is None:
    return h, c
  return jnp.where(reset, 0, h), jnp.where(reset, 0, c)


def _activate(name: str, z: Array) -> Array:
  return jnp.tanh(z) if name == 'g' else jax.nn.sigmoid(z)


def _slope(name: str, y: Array) -> Array:
  """The derivative of `_activate`, from its value."""
  return 1 - y * y if name == 'g' else y * (1 - y)


def _cell(plan: _Plan, gates: Lanes, c: Array) -> tuple[Array, Array]:
  """(h, c) from the gates and the last c."""
  stored = gates['g'] * gates['i'] if 'i' in gates else gates['g']
  c = (gates['f'] * c if 'f' in gates else c) + stored
  y = jnp.tanh(c) if plan.squash else c
  return (gates['o'] * y if 'o' in gates else y), c


def _split(names: str, z: Array | None) -> Lanes:
  """[..., n * H] to n of [..., H]; None if there are none."""
  if z is None:
    return {}
  return dict(zip(names, jnp.split(z, len(names), axis=-1), strict=True))


def _join(lanes: Lanes, names: str) -> Array:
  return jnp.concatenate([lanes[name] for name in names], axis=-1)


def _pick(plan: _Plan, names: str, z: Array) -> Array:
  """Those of all lanes that are named."""
  return z if names == plan.names else _join(_split(plan.names, z), names)


class RNN(hk.Module):
  """A layer of h <- tanh(W x + U h + b): [B, T, F] -> [B, T, H].

  Elman, "Finding structure in time", Cognitive Science 14 (1990).
  Differentiable in reverse mode.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: RNN(16)(x)))
  >>> sequences = jnp.zeros([8, 50, 10])
  >>> params = net.init(jax.random.key(0), sequences)
  >>> net.apply(params, sequences).shape
  (8, 50, 16)
  """

  def __init__(
    self,
    hidden_size: int,
    w_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      hidden_size: H.
      w_init: of W [F, H] and U [H, H]; by default truncated normal with
        variance 1 / (F + H).
      name: the module's name.
    """
    super().__init__(name=name)
    _check_units('RNN', hidden_size)
    self.hidden_size, self.w_init = hidden_size, w_init

  def __call__(
    self, x: Array, *, mask: Array | None = None, reset: Array | None = None
  ) -> Array:
    """The outputs of whole sequences, [B, T, H]; see `unroll`."""
    return self.unroll(x, mask=mask, reset=reset)[0]

  def unroll(
    self,
    x: Array,
    state: Array | None = None,
    *,
    mask: Array | None = None,
    reset: Array | None = None,
  ) -> tuple[Array, Array]:
    """Goes through sequences; `LSTM.unroll` with a state of one h [B, H]."""
    weights = _cell_weights(x, self.hidden_size, {'w_h': 1}, self.w_init)
    return _unroll_cell(_rnn, weights, self.hidden_size, x, state, mask, reset)


class GRU(hk.Module):
  """A layer of gated recurrent units: [B, T, F] -> [B, T, H].

  Cho et al., "Learning phrase representations using RNN encoder-decoder",
  EMNLP 2014, equations 5 to 8, with biases:

      r = sigmoid(W_r x + U_r h + b_r)         reset gate
      z = sigmoid(W_z x + U_z h + b_z)         update gate
      a =    tanh(W_a x + U_a (r h) + b_a)     candidate
      h <- (1 - z) a + z h

  (`hk.GRU` has 1 - z for z.) Differentiable in reverse mode.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: GRU(16)(x)))
  >>> sequences = jnp.zeros([8, 50, 10])
  >>> params = net.init(jax.random.key(0), sequences)
  >>> net.apply(params, sequences).shape
  (8, 50, 16)
  >>> jax.tree.map(jnp.shape, params)['gru']
  {'b': (48,), 'w_a': (16, 16), 'w_h': (16, 32), 'w_x': (10, 48)}
  """

  def __init__(
    self,
    hidden_size: int,
    w_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      hidden_size: H.
      w_init: of W [F, 3 H] and U; by default truncated normal with variance
        1 / (F + H).
      name: the module's name.
    """
    super().__init__(name=name)
    _check_units('GRU', hidden_size)
    self.hidden_size, self.w_init = hidden_size, w_init

  def __call__(
    self, x: Array, *, mask: Array | None = None, reset: Array | None = None
  ) -> Array:
    """The outputs of whole sequences, [B, T, H]; see `unroll`."""
    return self.unroll(x, mask=mask, reset=reset)[0]

  def unroll(
    self,
    x: Array,
    state: Array | None = None,
    *,
    mask: Array | None = None,
    reset: Array | None = None,
  ) -> tuple[Array, Array]:
    """Goes through sequences; `LSTM.unroll` with a state of one h [B, H]."""
    lanes = {'w_h': 2, 'w_a': 1}
    weights = _cell_weights(x, self.hidden_size, lanes, self.w_init)
    return _unroll_cell(_gru, weights, self.hidden_size, x, state, mask, reset)


def _check_units(kind: str, hidden_size: int) -> None:
  if hidden_size < 1:
    raise UsageError(
      f'an {kind} of {hidden_size} units; at least 1 is possible'
    )


def _check_sequences(x: Array, *flags: Array | None) -> None:
  if x.ndim != 3:
    raise UsageError(
      f'a recurrent layer was given {list(x.shape)}; [B, T, F] is possible'
    )
  for given in flags:
    if given is not None and given.shape != x.shape[:2]:
      raise UsageError(
        f'a mask or reset of {list(given.shape)}; {list(x.shape[:2])} is '
        'possible'
      )


def _cell_weights(
  x: Array, units: int, lanes: dict[str, int], w_init
) -> dict[str, Array]:
  """w_x [F, n H], b [n H], and of each name [H, lanes H]."""
  features, n = x.shape[-1], sum(lanes.values())
  w_init = w_init or hk.initializers.TruncatedNormal((features + units) ** -0.5)
  made = {
    'w_x': hk.get_parameter('w_x', (features, n * units), x.dtype, init=w_init),
    'b': hk.get_parameter('b', (n * units,), x.dtype, init=jnp.zeros),
  }
  for name, count in lanes.items():
    shape = units, count * units
    made[name] = hk.get_parameter(name, shape, x.dtype, init=w_init)
  return made


def _unroll_cell(cell, weights, units, x, state, mask, reset):
  """Batch-major [B, T, ...] around the time-major loop."""
  _check_sequences(x, mask, reset)
  if state is None:
    state = jnp.zeros((x.shape[0], units), x.dtype)
  x, mask, reset = _time_major(x, mask, reset)
  seen = product(x, weights['w_x']) + weights['b'][None, None]
  fed = tuple(w for name, w in weights.items() if name not in ('w_x', 'b'))
  h, last = _loop(cell, fed, seen, state, mask, reset)
  return jnp.swapaxes(h, 0, 1), last


def _time_major(x, mask, reset):
  """x [T, B, F], mask and reset [T, B, 1] or None."""
  if mask is not None:
    # Padding may be anything, and 0 times NaN is NaN.
    x = jnp.where(mask[:, :, None], x, 0)
    reset = None if reset is None else reset & mask
  mask, reset = (
    None if flags is None else jnp.asarray(flags, bool).T[:, :, None]
    for flags in (mask, reset)
  )
  return jnp.swapaxes(x, 0, 1), mask, reset


def _rnn(fed, seen, h):
  """The next h, and what each weight was multiplied by."""
  return jnp.tanh(seen + h @ fed[0]), (h,)


def _gru(fed, seen, h):
  units = h.shape[-1]
  gates = jax.nn.sigmoid(seen[:, : 2 * units] + h @ fed[0])
  r, z = jnp.split(gates, 2, axis=-1)
  kept = r * h
  candidate = jnp.tanh(seen[:, 2 * units :] + kept @ fed[1])
  return (1 - z) * candidate + z * h, (h, kept)


def _cell_loop(cell, fed, seen, state, mask, reset):
  """Outputs [T, B, H], the last state, and the operands [T, B, H]."""

  def step(h, inputs):
    seen, mask, reset = inputs
    h = h if reset is None else jnp.where(reset, 0, h)
    new, operands = cell(fed, seen, h)
    new = new if mask is None else jnp.where(mask, new, h)
    return new, (new, operands)

  last, (h, operands) = lax.scan(step, state, (seen, mask, reset))
  return h, last, operands


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loop(cell, fed, seen, state, mask, reset):
  """The outputs [T, B, H] and the state after them."""
  h, last, _ = _cell_loop(cell, fed, seen, state, mask, reset)
  return h, last


def _loop_forward(cell, fed, seen, state, mask, reset):
  def run(seen, state):
    h, last, operands = _cell_loop(cell, fed, seen, state, mask, reset)
    return (h, last), operands

  # Of the sums and not of the weights, which the loop backward would add up.
  outputs, pull, operands = jax.vjp(run, seen, state, has_aux=True)
  return outputs, (pull, operands, fed)


def _loop_backward(cell, saved, gradients):
  del cell
  pull, operands, fed = saved
  d_sums, d_state = pull(gradients)
  ends = np.cumsum([w.shape[1] for w in fed])[:-1]
  d_fed = tuple(
    weight_gradient(operand, d)
    for operand, d in zip(
      operands, jnp.split(d_sums, ends, axis=-1), strict=True
    )
  )
  return d_fed, d_sums, d_state, None, None


_loop.defvjp(_loop_forward, _loop_backward)
