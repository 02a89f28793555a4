"""A fast and a slow memory, and a latent variable between them: FTW's core.

Jaderberg et al., "Human-level performance in 3D multiplayer games with
population-based reinforcement learning", Science 364, 2019: recurrent
processing with temporal hierarchy. Slides: deck 000, "Learning to Play Capture
The Flag".

    slow LSTM   ──o───────────────o───────────────o──>   every `period` blocks
                  |  prior of z   |               |
                  v               v               v
    fast LSTM   ──o─o─o─o─o─o─o─o─o─o─o─o─o─o─o─o─o──>   every step
                  |  posterior of z
                  v
                  z ──> what is decided

The posterior is held near the prior by its divergence from it: what the fast
memory knows beyond what the slow one foresees has its price. The slow memory
goes on at the first step of a call and then every `period` blocks of steps, and
a block in which it does not costs nothing of it: so the period is data, and may
be another one for each member of a population.

Shapes: B batch, T time, F features, H units, Z latent variables.
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.nets.recurrent import LSTM
from dl_lectures.types import Array, UsageError

# The least deviation of a latent variable.
_FLOOR = 1e-3


class Memory(NamedTuple):
  """What is known, [B, H] each.

  Attributes:
    slow: of the slow LSTM.
    fast: of the fast one.
  """

  slow: hk.LSTMState
  fast: hk.LSTMState


class Gaussian(NamedTuple):
  """Independent normal variables.

  Attributes:
    mean: [..., Z].
    deviation: [..., Z], above 0.
  """

  mean: Array
  deviation: Array


class Thought(NamedTuple):
  """What the core gives.

  Attributes:
    fast: [B, T, H], of the fast LSTM.
    z: [B, T, Z], the latent variables, drawn of the posterior.
    posterior: [B, T, Z] each.
    prior: [B, T, Z] each, the same until the slow LSTM goes on.
    ticks: [T] bool, whether it did before this step.
  """

  fast: Array
  z: Array
  posterior: Gaussian
  prior: Gaussian
  ticks: Array


class TemporalHierarchy(hk.Module):
  """The core: [B, T, F] -> Thought of T steps.

  >>> def forward(x, memory, noise, period):
  ...   core = TemporalHierarchy(16, 4, block=2)
  ...   return core(x, memory, noise, period, jnp.float32(1))
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> inputs = jnp.zeros([3, 8, 5]), zero(3, 16), jnp.zeros([3, 8, 4])
  >>> params = net.init(jax.random.key(0), *inputs, jnp.int32(2))
  >>> thought, memory = net.apply(params, *inputs, jnp.int32(2))
  >>> thought.z.shape
  (3, 8, 4)
  >>> thought.ticks.tolist()
  [True, False, False, False, True, False, False, False]
  """

  def __init__(
    self, units: int, latents: int, block: int = 4, name: str | None = None
  ):
    """Makes the module.

    Args:
      units: H, of each LSTM.
      latents: Z.
      block: steps; the slow LSTM goes on at beginnings of blocks only.
      name: the module's name.
    """
    super().__init__(name=name)
    if latents < 1 or block < 1:
      raise UsageError(
        f'{latents} latent variables and blocks of {block}; at least 1 is '
        'possible'
      )
    self.units, self.latents, self.block = units, latents, block

  def __call__(
    self,
    x: Array,
    memory: Memory,
    noise: Array,
    period: Array,
    gradient: Array,
    number: Array | int = 0,
  ) -> tuple[Thought, Memory]:
    """Goes through some steps.

    Args:
      x: [B, T, F]; T is a multiple of a block, or less than one.
      memory: before the first step.
      noise: [B, T, Z], standard normal.
      period: [] int32, blocks between two steps of the slow LSTM.
      gradient: [], the share of the gradient that goes from the fast memory to
        the slow one.
      number: [] int32, of the first step. A call of fewer steps than a block is
        one of those of number, number + 1 ... within it.

    Returns:
      What it thinks, and the memory after the last step.

    Raises:
      UsageError: T does not fit.
    """
    rows, length, _ = x.shape
    size = min(length, self.block)
    if length % size:
      raise UsageError(
        f'{length} steps in blocks of {self.block}; multiples are possible'
      )
    slow, fast = LSTM(self.units, name='slow'), LSTM(self.units, name='fast')
    start = jnp.asarray(number) + jnp.arange(0, length, size)
    ticks = start % (self.block * period) == 0  # [blocks]
    blocks = jnp.swapaxes(x.reshape(rows, -1, size, x.shape[-1]), 0, 1)
    if hk.running_init():
      # A branch must not make weights of its own.
      slow.step(memory.fast.hidden, memory.slow)

    def one(memory: Memory, given: tuple[Array, Array]):
      x, tick = given

      def go_on(memory: Memory) -> hk.LSTMState:
        return slow.step(memory.fast.hidden, memory.slow)[1]

      known = hk.cond(tick, go_on, lambda memory: memory.slow, memory)
      h = known.hidden
      h = gradient * h + (1 - gradient) * jax.lax.stop_gradient(h)
      told = jnp.broadcast_to(h[:, None], (rows, size, self.units))
      y, after = fast.unroll(jnp.concatenate([x, told], axis=-1), memory.fast)
      return Memory(known, after), (y, told)

    memory, (y, told) = hk.scan(one, memory, (blocks, ticks))
    y, told = (
      jnp.swapaxes(a, 0, 1).reshape(rows, length, self.units) for a in (y, told)
    )
    posterior = self._gaussian(y, 'posterior')
    prior = self._gaussian(told, 'prior')
    z = posterior.mean + posterior.deviation * noise
    within = jnp.arange(length) % size == 0
    ticks = jnp.repeat(ticks, size) & within
    return Thought(y, z, posterior, prior, ticks), memory

  @hk.transparent
  def _gaussian(self, x: Array, name: str) -> Gaussian:
    mean, spread = jnp.split(
      hk.Linear(2 * self.latents, name=name)(x), 2, axis=-1
    )
    return Gaussian(mean, jax.nn.softplus(spread) + _FLOOR)


def zero(rows: int, units: int) -> Memory:
  """The memory of nothing."""
  slow, fast = (hk.LSTMState(*x) for x in jnp.zeros((2, 2, rows, units)))
  return Memory(slow, fast)


def divergence(of: Gaussian, from_: Gaussian) -> Array:
  """Kullback and Leibler's, summed over the variables: [...], in nats.

  >>> one = Gaussian(jnp.ones(2), jnp.ones(2))
  >>> float(divergence(one, Gaussian(jnp.zeros(2), jnp.ones(2))))
  1.0
  """
  ratio = of.deviation / from_.deviation
  far = (of.mean - from_.mean) / from_.deviation
  nats = 0.5 * (ratio**2 + far**2 - 1) - jnp.log(ratio)
  return jnp.sum(nats, axis=-1)
