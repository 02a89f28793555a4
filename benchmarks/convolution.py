"""A convolutional training step inside loops on the CPU, against XLA's own.

The step: Adam, 512 boards of 6x7, residual 2x32, a policy loss. `nets.Conv2D`
stands against `hk.Conv2D`, whose gradients are XLA's, in the same network. All
arms are interleaved in one process; values are medians, in milliseconds.

  python -m benchmarks.convolution
"""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from jax import lax

from benchmarks import timing
from dl_lectures import nets
from dl_lectures.training import host

BOARDS, MEMBERS, STEPS = 512, 8, 8
XLA_STEPS = 2  # Slow; of one step alone XLA would make no loop.


def make_step(conv: Any) -> tuple[Callable, Callable]:
  """Returns init(key) -> state and step(state, boards) -> state."""

  def network(x):
    x = jax.nn.relu(conv(32, 3)(x))
    for _ in range(2):
      y = jax.nn.relu(conv(32, 3)(x))
      x = jax.nn.relu(x + conv(32, 3)(y))
    return hk.Linear(7)(hk.Flatten()(x))

  net = hk.without_apply_rng(hk.transform(network))
  optimizer = optax.adam(1e-3)

  def init(key):
    params = net.init(key, jnp.zeros([1, 6, 7, 2]))
    return params, optimizer.init(params)

  def loss(params, boards):
    return -jnp.mean(jax.nn.log_softmax(net.apply(params, boards))[:, 3])

  def step(state, boards):
    params, opt_state = state
    gradients = jax.grad(loss)(params, boards)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state

  return init, step


def measure(rounds: int) -> list[dict[str, Any]]:
  """The measurements, each as one line of the output."""
  key = jax.random.key(0)
  init, step = make_step(nets.Conv2D)
  peer_init, peer_step = make_step(hk.Conv2D)
  state, peer_state = init(key), peer_init(key)
  boards = jax.random.normal(key, [BOARDS, 6, 7, 2])
  members, member_boards = jax.tree.map(
    lambda x: jnp.stack([x] * MEMBERS), (state, boards)
  )

  def scan(step, length):
    body = lambda state, _: (step(state, boards), None)  # noqa: E731
    return jax.jit(lambda state: lax.scan(body, state, length=length)[0])

  def repeat(step, state):
    # As many steps as the other arms take: all share the machine's noise alike.
    for _ in range(STEPS):
      state = step(state, boards)
    return state

  ours, xla = jax.jit(step), jax.jit(peer_step)
  scanned, xla_scanned = scan(step, STEPS), scan(peer_step, XLA_STEPS)
  mapped = jax.jit(lambda s, b: lax.map(lambda one: step(*one), (s, b)))
  vmapped = jax.jit(jax.vmap(step))
  arms = {
    'xla': lambda: repeat(xla, peer_state),
    'ours': lambda: repeat(ours, state),
    'scan': lambda: scanned(state),
    'map': lambda: mapped(members, member_boards),
    'vmap': lambda: vmapped(members, member_boards),
    'xla scan': lambda: xla_scanned(peer_state),
  }
  ms = timing.interleave(arms, rounds)
  for arm in ('xla', 'ours', 'scan'):
    ms[arm] /= STEPS
  ms['xla scan'] /= XLA_STEPS

  peer = f"hk.Conv2D's gradient, XLA of jax {jax.__version__}"
  lines = [
    ('one step in a scan', 'scan', f'{peer}, outside a loop', 'xla', 1.1),
    ('one step outside a loop', 'ours', f'{peer}, outside a loop', 'xla', 1.1),
    ('one step in a scan', 'scan', f'{peer}, in a scan', 'xla scan', 0.1),
    ('8 members by lax.map', 'map', 'ours, one member', 'ours', 8.3),
    ('8 members by lax.map', 'map', 'ours, 8 members by vmap', 'vmap', 1.0),
  ]
  return [
    {
      'name': name,
      'ours': round(ms[arm], 2),
      'peer': peer,
      'peer_value': round(ms[other], 2),
      'ratio': round(ms[arm] / ms[other], 3),
      'bar': bar,
      'met': ms[arm] <= bar * ms[other],
    }
    for name, arm, peer, other, bar in lines
  ]


def main() -> None:
  """Prints the lines."""
  timing.cases_to_run(__doc__)
  host.tune_allocator()
  host.enable_compile_cache()
  for line in measure(rounds=7):
    timing.show(line)


if __name__ == '__main__':
  main()
