"""The search tree: what a search reads and writes, and what one reads off it.

Two ideas make it fast.

1. *Children in the order of opening.* All actions of a node that have not been
   tried share one value, so only the likeliest of them matters. A node keeps
   that one (`Frontier`) and, in slots `0 .. num_children - 1`, what is known of
   the actions tried already. A choice looks at the slots and at one candidate
   more, never at all `A` actions.
2. *Node-major arrays.* Node `i` of all `B` trees is one contiguous slab: a new
   node in every tree is one write.

Node 1 is the root. Node 0 is nobody: the root's parent, the child that is not
there yet, and where a tree that has nothing to write writes. Nodes are numbered
in the order of their making, so that a parent comes before its children.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.types import Array

NOBODY = 0
ROOT = 1


class RootFnOutput(NamedTuple):
  """What is known of the positions to be searched.

  Attributes:
    prior_logits: [B, A] float32, the policy's logits.
    value: [B] float32, the value for the player to move.
    embedding: [B, ...], what `recurrent_fn` needs to go on from here.
  """

  prior_logits: Array
  value: Array
  embedding: Any


class RecurrentFnOutput(NamedTuple):
  """What one action leads to.

  Attributes:
    reward: [B] float32, paid to the player who acted.
    discount: [B] float32, from the value of the position reached to that of the
      position left: -1 in alternating zero-sum play, gamma for one player, and
      0 where the position reached is terminal.
    prior_logits: [B, A] float32; -inf (or a very low number) where illegal.
    value: [B] float32, for the player to move in the position reached.
  """

  reward: Array
  discount: Array
  prior_logits: Array
  value: Array


class SearchSummary(NamedTuple):
  """What the search says of the root.

  Attributes:
    visit_counts: [B, A] float32.
    visit_probs: [B, A] float32, the visit counts normalised.
    value: [B] float32, the root's value after search.
    qvalues: [B, A] float32 for the player to move at the root, 0 if unvisited.
  """

  visit_counts: Array
  visit_probs: Array
  value: Array
  qvalues: Array


class Node(NamedTuple):
  """Nodes as a rule of selection sees them; `...` stands for their batch.

  Attributes:
    visits: [...] int32, the simulations that came through.
    value: [...] float32, mean of the values that they backed up.
    raw_value: [...] float32, the network's value.
    num_children: [...] int32, the number of actions tried so far.
    next_prior: [...] float32, the prior of the action that is tried next, the
      largest left; 0 where no legal action is left.
    rest_prior: [...] float32, the sum of the priors of the actions not tried.
    child_visits: [..., K] int32, 0 in a slot that is not used yet.
    child_value: [..., K] float32, for the player to move at the node.
    child_prior: [..., K] float32.
  """

  visits: Array
  value: Array
  raw_value: Array
  num_children: Array
  next_prior: Array
  rest_prior: Array
  child_visits: Array
  child_value: Array
  child_prior: Array


class Frontier(NamedTuple):
  """What is known of a node's actions that have not been tried, each [...].

  Attributes:
    num_children: the number of those that have been tried.
    action: the action that is tried next.
    prior: its prior; 0 where no legal action is left.
    rest: the sum of the priors of all of them.
  """

  num_children: Array
  action: Array
  prior: Array
  rest: Array


class Tree(NamedTuple):
  """A batch of `B` trees of up to `N` nodes, `A` actions, `K` child slots.

  Attributes:
    visits: [N, B] int32, 0 where there is no node yet.
    value: [N, B] float32, mean of the values backed up.
    raw_value: [N, B] float32, the network's value.
    choice: [N, B] int32, the slot that the next simulation to come here takes.
    chosen: [N, B] int32, the node in that slot, as in `child`.
    reward: [N, B] float32, of the edge into the node.
    discount: [N, B] float32, of the edge into the node.
    action: [N, B] int32, of the edge into the node.
    parent: [N, B] int32.
    slot: [N, B] int32, the node's slot at its parent.
    frontier: [N, B, 4] float32, `Frontier`.
    untried: [N, B, A] float32, the prior; 0 where tried already or illegal.
    child: [N, B, K] int32, the child's number, negative if it is terminal, 0 if
      there is none.
    child_visits: [N, B, K] int32.
    child_value: [N, B, K] float32, reward + discount * the child's value.
    child_prior: [N, B, K] float32.
    embedding: [N, B, ...].
  """

  visits: Array
  value: Array
  raw_value: Array
  choice: Array
  chosen: Array
  reward: Array
  discount: Array
  action: Array
  parent: Array
  slot: Array
  frontier: Array
  untried: Array
  child: Array
  child_visits: Array
  child_value: Array
  child_prior: Array
  embedding: Any

  def node(self, index: Array, width: int | None = None) -> Node:
    """Reads node `index[..., b]` of every tree b, with `width` of its slots."""
    frontier = unpack(rows(self.frontier, index))
    return Node(
      visits=rows(self.visits, index),
      value=rows(self.value, index),
      raw_value=rows(self.raw_value, index),
      num_children=frontier.num_children.astype(jnp.int32),
      next_prior=frontier.prior,
      rest_prior=frontier.rest,
      child_visits=rows(self.child_visits, index, width),
      child_value=rows(self.child_value, index, width),
      child_prior=rows(self.child_prior, index, width),
    )

  def root(self) -> Node:
    """Reads the root of every tree."""
    return self.node(jnp.full(self.visits.shape[1:], ROOT))

  def by_action(self, slots: Array, fill: Array) -> Array:
    """Spreads what the root's slots hold, [B, K], over the actions, [B, A].

    Actions that have not been tried get `fill` [B, A].
    """
    child = jnp.abs(self.child[ROOT])
    action = rows(self.action, child.T).T
    action = jnp.where(child == NOBODY, fill.shape[1], action)
    batch = jnp.arange(len(fill))[:, None]
    return fill.at[batch, action].set(slots.astype(fill.dtype), mode='drop')

  def summary(self) -> SearchSummary:
    """Returns what the search says of the root."""
    zeros = jnp.zeros_like(self.untried[ROOT])
    visits = self.by_action(self.child_visits[ROOT], zeros)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    uniform = 1 / visits.shape[1]
    return SearchSummary(
      visit_counts=visits,
      visit_probs=jnp.where(total > 0, visits / jnp.maximum(total, 1), uniform),
      value=self.value[ROOT],
      qvalues=self.by_action(self.child_value[ROOT], zeros),
    )


def init(root: RootFnOutput, capacity: int) -> Tree:
  """Returns trees of their root alone, with room for `capacity` nodes more."""
  batch, num_actions = root.prior_logits.shape
  size = ROOT + 1 + capacity
  slots = min(num_actions, capacity)
  prior = softmax(root.prior_logits)
  integers = jnp.zeros((size, batch), jnp.int32)
  floats = jnp.zeros((size, batch))

  def rooted(x):
    return write(jnp.zeros((size, *x.shape), x.dtype), ROOT, x)

  return Tree(
    visits=integers.at[ROOT].set(1),
    value=rooted(root.value),
    raw_value=rooted(root.value),
    choice=integers,
    chosen=integers,
    reward=floats,
    discount=floats,
    action=integers,
    parent=integers,
    slot=integers,
    frontier=rooted(pack(frontier_of(prior, jnp.zeros((batch,))))),
    untried=rooted(prior),
    child=jnp.zeros((size, batch, slots), jnp.int32),
    child_visits=jnp.zeros((size, batch, slots), jnp.int32),
    child_value=jnp.zeros((size, batch, slots)),
    child_prior=jnp.zeros((size, batch, slots)),
    embedding=jax.tree.map(rooted, root.embedding),
  )


def frontier_of(untried: Array, num_children: Array) -> Frontier:
  """Returns what is left of [B, A] priors when those tried are zero."""
  prior, action = best(untried)
  return Frontier(num_children, action, prior, jnp.sum(untried, axis=-1))


def pack(frontier: Frontier) -> Array:
  """Lays the fields side by side: whole numbers are exact to 2^24."""
  return jnp.stack([x.astype(jnp.float32) for x in frontier], axis=-1)


def unpack(packed: Array) -> Frontier:
  """Undoes `pack`, but for the dtypes."""
  return Frontier(*(packed[..., i] for i in range(len(Frontier._fields))))


def rows(x: Array, node: Array, width: int | None = None) -> Array:
  """Reads row `node[..., b]` of every tree b from [N, B, ...].

  Of rows that have one axis more, the first `width` entries.
  """
  batch = jnp.broadcast_to(jnp.arange(x.shape[1]), node.shape)
  place = (node, batch) if width is None else (node, batch, slice(width))
  return x.at[place].get(mode='promise_in_bounds')


def write(x: Array, node: int | Array, slab: Array) -> Array:
  """Writes node `node` [] of all trees at once."""
  return lax.dynamic_update_index_in_dim(x, slab.astype(x.dtype), node, 0)


def softmax(logits: Array) -> Array:
  """Softmax that gives zeros, not nan, where every logit is -inf."""
  finfo = jnp.finfo(logits.dtype)
  top = jnp.max(logits, axis=-1, keepdims=True)
  exp = jnp.exp(logits - jnp.maximum(top, finfo.min))
  return exp / jnp.maximum(jnp.sum(exp, axis=-1, keepdims=True), finfo.tiny)


def best(x: Array) -> tuple[Array, Array]:
  """Returns the largest entry of each row and the first place it stands at."""
  top = jnp.max(x, axis=-1)
  # XLA:CPU walks an argmax one number at a time; two plain reductions are 5 to
  # 10 times as fast where rows are long.
  if x.shape[-1] <= 16:
    return top, jnp.argmax(x, axis=-1).astype(jnp.int32)
  place = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
  place = jnp.where(x == top[..., None], place, x.shape[-1] - 1)
  return top, jnp.min(place, axis=-1)
