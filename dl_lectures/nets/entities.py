"""Sets of entities in, an action of several parts out: AlphaStar's layers.

Vinyals et al., "Grandmaster level in StarCraft II using multi-agent
reinforcement learning", Nature 575 (2019), Methods, "Architecture", and its
supplementary pseudocode. Slides: deck 003, "AlphaStar"; deck 002, "AlphaStar:
policy".

    entities [N, E, F] --> EntityEncoder --> vectors [N, E, D]
                                                | scatter
    board [N, H, W, C]   <----------------------┘
    memory, vectors, board --> ActionHead --> kind, then units, then target

The parts of an action are decided one after the other, each from a context that
knows the parts before it, so that the probability of the action is the product
of theirs. Units are picked one by one by a pointer at the entities until it
says stop; who is picked or dead cannot be picked.

Shapes: N batch, E entities, U units of one's own (the first entities), D width,
H, W, C of the board, S of the memory.
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.nets.attention import Pointer, Sight, TransformerBlock, norm
from dl_lectures.nets.convolution import Conv2D
from dl_lectures.nets.linear import Linear
from dl_lectures.types import Array, UsageError

_NEVER = -1e30


class EntityEncoder(hk.Module):
  """A vector of each entity that knows of the others: [N, E, F] -> [N, E, D].

  Attention without positions: if entities change places, so do their vectors,
  and nothing else happens.

  >>> net = hk.without_apply_rng(hk.transform(
  ...   lambda *x: EntityEncoder(16, 1, 2)(*x)))
  >>> inputs = jnp.ones([3, 10, 14]), jnp.ones([3, 10], bool)
  >>> net.apply(net.init(jax.random.key(0), *inputs), *inputs).shape
  (3, 10, 16)
  """

  def __init__(
    self, width: int, num_blocks: int, num_heads: int, name: str | None = None
  ):
    """Makes the module.

    Args:
      width: D.
      num_blocks: transformer blocks.
      num_heads: of each, a divisor of D.
      name: the module's name.
    """
    super().__init__(name=name)
    self.width, self.num_blocks, self.num_heads = width, num_blocks, num_heads

  def __call__(self, entities: Array, alive: Array) -> Array:
    """Encodes; the dead [N, E] are not seen and get zeros."""
    x = Linear(self.width, name='embedding')(entities)
    size = entities.shape[1]
    mask = jnp.broadcast_to(alive[:, None, :], (len(alive), size, size))
    sight = Sight(jnp.zeros((1, size), jnp.int32), mask)
    for _ in range(self.num_blocks):
      x, _ = TransformerBlock(self.num_heads, depth=self.num_blocks)(x, sight)
    return jnp.where(alive[..., None], norm('norm')(x), 0)


def scatter(vectors: Array, cell: Array, num_cells: int) -> Array:
  """Puts vectors where their entities stand, and adds up what meets there.

  The scatter connection of AlphaStar.

  Args:
    vectors: [N, E, D].
    cell: [N, E] int32.
    num_cells: H W.

  Returns:
    [N, H W, D].

  >>> vectors = jnp.array([[[1.0], [2.0], [4.0]]])
  >>> scatter(vectors, jnp.array([[3, 0, 3]]), 4)[0, :, 0].tolist()
  [2.0, 0.0, 0.0, 5.0]
  """
  there = jax.nn.one_hot(cell, num_cells, dtype=vectors.dtype)
  return jnp.einsum('nec,ned->ncd', there, vectors)


class Action(NamedTuple):
  """An action in its parts.

  Attributes:
    kind: [N] int32.
    picks: [N, U] int32, units in the order in which they were picked; U where
      no more were.
    enemy: [N] int32, the target of one kind.
    cell: [N] int32, the target of another.
  """

  kind: Array
  picks: Array
  enemy: Array
  cell: Array


class Decision(NamedTuple):
  """What was done, and how likely it was.

  Attributes:
    action: the action.
    log_prob: [N], of its parts that count.
    entropy: [N], the sum of the entropies of these, each given the ones before.
  """

  action: Action
  log_prob: Array
  entropy: Array


class ActionHead(hk.Module):
  """Decides the parts of an action one after the other.

  Kind 0 says nothing to nobody, kind 1 sends units to a cell, kind 2 to an
  enemy; parts that a kind does not have cost no log-probability.

  >>> def forward(memory, vectors, board, alive, noise):
  ...   return ActionHead(16)(memory, vectors, board, alive, noise=noise)
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> inputs = (jnp.ones([3, 8]), jnp.ones([3, 10, 16]),
  ...           jnp.ones([3, 4, 4, 2]), jnp.ones([3, 10], bool),
  ...           jnp.zeros([3, noise_size(5, 16)]))
  >>> params = net.init(jax.random.key(0), *inputs)
  >>> net.apply(params, *inputs).action.picks.shape
  (3, 5)
  """

  def __init__(self, width: int, name: str | None = None):
    """Makes the module; `width` is that of the context."""
    super().__init__(name=name)
    self.width = width

  def __call__(
    self,
    memory: Array,
    vectors: Array,
    board: Array,
    alive: Array,
    *,
    given: Action | None = None,
    noise: Array | None = None,
  ) -> Decision:
    """Decides, or says how likely a given action is.

    Args:
      memory: [N, S].
      vectors: [N, 2 U, D], one's own units first.
      board: [N, H, W, C].
      alive: [N, 2 U] bool.
      given: the action; None to decide.
      noise: [N, `noise_size`] of the standard Gumbel distribution, to draw;
        None takes the likeliest of each part.
    """
    if given is not None and noise is not None:
      raise UsageError('an action given and noise; one of them is possible')
    units = vectors.shape[1] // 2
    own, foes = vectors[:, :units], vectors[:, units:]
    widths = [3, *[units + 1] * units, units, board[0, ..., 0].size]
    parts = _Parts(given, _split(noise, widths), len(memory))

    context = Linear(self.width, name='context')(memory)
    anyone = jnp.any(alive[:, :units], axis=1, keepdims=True)
    allowed = jnp.concatenate(
      [jnp.ones_like(anyone), jnp.repeat(anyone, 2, axis=1)], axis=1
    )
    logits = Linear(3, name='kind')(jax.nn.relu(context))
    always = jnp.ones(len(memory), bool)
    kind = parts.decide('kind', logits, allowed, always)
    context += hk.Embed(3, self.width, name='of_kind')(kind)

    context, picks = self._pick(parts, context, own, alive[:, :units], kind > 0)

    query = jax.nn.relu(Linear(self.width, name='enemy_query')(context))
    logits = Pointer(self.width, name='enemy')(query, foes)
    enemy = parts.decide('enemy', logits, alive[:, units:], kind == 2)

    beside = Linear(board.shape[-1], name='cell_query')(context)
    x = jax.nn.relu(board + beside[:, None, None])
    logits = Conv2D(1, 1, name='cell')(x).reshape(len(x), -1)
    cell = parts.decide('cell', logits, jnp.ones_like(logits, bool), kind == 1)
    action = Action(kind, picks, enemy, cell)
    return Decision(action, parts.log_prob, parts.entropy)

  def _pick(self, parts, context, own, alive, going):
    """Units one by one, until stop."""
    size, units = alive.shape
    stop = hk.get_parameter('stop', (1, own.shape[-1]), init=jnp.zeros)
    keys = jnp.concatenate(
      [own, jnp.broadcast_to(stop[None], (size, *stop.shape))], axis=1
    )
    to_query = Linear(self.width, name='unit_query')
    of_unit = Linear(self.width, name='of_unit')
    pointer = Pointer(self.width, name='unit')
    free, picks = alive, []
    for i in range(units):
      logits = pointer(jax.nn.relu(to_query(context)), keys)
      may_stop = jnp.full((size, 1), i > 0)
      allowed = jnp.concatenate([free, may_stop], axis=1)
      number = parts.decide(f'pick {i}', logits, allowed, going)
      number = jnp.where(going, number, units)
      going &= number < units
      picked = jax.nn.one_hot(number, units)
      free &= picked == 0
      context += of_unit(jnp.einsum('nu,nud->nd', picked, own))
      picks.append(number)
    return context, jnp.stack(picks, axis=1)


def noise_size(units: int, num_cells: int) -> int:
  """The length of the noise by which `ActionHead` draws.

  Args:
    units: U.
    num_cells: H W.
  """
  return 3 + units * (units + 1) + units + num_cells


class _Parts:
  """Decides parts and adds up what they cost, within one call of the head."""

  def __init__(self, given, noise, size):
    self.given, self.noise, self.count = given, noise, 0
    self.log_prob = self.entropy = jnp.zeros(size)

  def decide(self, name, logits, allowed, counts):
    """[N] the part; where `counts` is false it costs nothing."""
    # With nothing allowed, what comes out does not count.
    logits = jnp.where(allowed, logits, _NEVER)
    log_p = jax.nn.log_softmax(logits)
    if self.given is not None:
      field, _, i = name.partition(' ')
      part = getattr(self.given, 'picks' if i else field)
      part = part[:, int(i)] if i else part
    else:
      drawn = log_p if self.noise is None else log_p + self.noise[self.count]
      part = jnp.argmax(jnp.where(allowed, drawn, -jnp.inf), axis=-1)
    self.count += 1
    of_it = jnp.take_along_axis(log_p, part[:, None], axis=1)[:, 0]
    spread = -jnp.sum(jnp.where(allowed, jnp.exp(log_p) * log_p, 0), axis=1)
    self.log_prob += jnp.where(counts, of_it, 0)
    self.entropy += jnp.where(counts, spread, 0)
    return part.astype(jnp.int32)


def _split(noise, widths):
  if noise is None:
    return None
  if noise.shape[-1] != sum(widths):
    raise UsageError(
      f'noise of length {noise.shape[-1]}; {sum(widths)} is possible'
    )
  ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
  return jnp.split(noise, ends, axis=-1)
