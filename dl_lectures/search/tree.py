"""The search tree: what a search reads and writes, and what one reads off it.

Three ideas make it fast.

1. *Children in the order of opening.* All actions of a node that have not been
   tried share one value, so only the likeliest of them matters. A node keeps
   that one (`next_action`, `next_prior`) and, in slots `0 .. num_children - 1`,
   what is known of the actions tried already. A choice looks at the slots and
   at one candidate more, never at all `A` actions.
2. *Node-major arrays.* Node `i` of all `B` trees is one contiguous slab: a new
   node in every tree is one write.
3. *Records.* What is known of a node lies side by side, so that it is read by
   one kernel. Whole numbers are kept as float32 for this, exact to 2^24.

Node 1 is the root. Node 0 is nobody: the root's parent, the child that is not
there yet, and where a tree that has nothing to write writes. Nodes are numbered
in the order of their making, so that a parent comes before its children.
"""

from collections.abc import Iterable
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


class Record(NamedTuple):
  """What is known of one node of every tree, each [B] float32.

  The order matters: fields that are written together lie together.

  Attributes:
    visits: the simulations that came through; 0 where there is no node yet.
    value: mean of the values that they backed up.
    choice: the slot that the next simulation to come here takes.
    chosen: the node in that slot, as in `Children.node`.
    num_children: the number of actions tried so far.
    next_action: the action that is tried next.
    next_prior: its prior; 0 where no legal action is left.
    rest_prior: the sum of the priors of the actions not tried.
    raw_value: the network's value.
    reward: of the edge into the node.
    discount: of the edge into the node.
    action: of the edge into the node.
    parent: the parent's number.
    slot: the node's slot at its parent.
  """

  visits: Array
  value: Array
  choice: Array
  chosen: Array
  num_children: Array
  next_action: Array
  next_prior: Array
  rest_prior: Array
  raw_value: Array
  reward: Array
  discount: Array
  action: Array
  parent: Array
  slot: Array


class Children(NamedTuple):
  """What is known of the actions tried at one node of every tree, [B, K].

  Attributes:
    visits: 0 in a slot that is not used yet.
    value: reward + discount * the child's value.
    prior: the action's prior.
    node: the child's number, negative if it is terminal; 0 if it has no node.
  """

  visits: Array
  value: Array
  prior: Array
  node: Array


class Tree(NamedTuple):
  """A batch of `B` trees of up to `N` nodes, `A` actions, `K` child slots.

  Attributes:
    records: [N, B, len(Record)] float32.
    children: [N, B, K, len(Children)] float32.
    untried: [N, B, A] float32, the prior; 0 where tried already or illegal.
    embedding: [N, B, ...].
  """

  records: Array
  children: Array
  untried: Array
  embedding: Any

  def record(self, node: int | Array) -> Record:
    """Reads node `node` ([] or [..., B]) of every tree."""
    return unpack(Record, rows(self.records, node))

  def children_of(self, node: int | Array) -> Children:
    """Reads the children of node `node` ([] or [..., B]) of every tree."""
    return unpack(Children, rows(self.children, node))

  def by_action(self, child_values: Array, fill: Array) -> Array:
    """Spreads what the root's slots hold, [B, K], over the actions, [B, A].

    Actions that have not been tried get `fill` [B, A].
    """
    batch = jnp.arange(fill.shape[0])[:, None]
    child = jnp.abs(self.children_of(ROOT).node).astype(jnp.int32)
    action = self.records[child, batch, Record._fields.index('action')]
    action = jnp.where(child == NOBODY, fill.shape[1], action)
    return fill.at[batch, action.astype(jnp.int32)].set(
      child_values, mode='drop'
    )

  def summary(self) -> SearchSummary:
    """Returns what the search says of the root."""
    children = self.children_of(ROOT)
    zeros = jnp.zeros_like(self.untried[ROOT])
    visits = self.by_action(children.visits, zeros)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    uniform = 1 / visits.shape[1]
    return SearchSummary(
      visit_counts=visits,
      visit_probs=jnp.where(total > 0, visits / jnp.maximum(total, 1), uniform),
      value=self.record(ROOT).value,
      qvalues=self.by_action(children.value, zeros),
    )


def init(root: RootFnOutput, capacity: int) -> Tree:
  """Returns trees of their root alone, with room for `capacity` nodes more."""
  batch, num_actions = root.prior_logits.shape
  size = ROOT + 1 + capacity
  prior = softmax(root.prior_logits)
  next_prior, next_action = best(prior)
  record = dict.fromkeys(Record._fields, jnp.zeros((batch,)))
  record |= {
    'visits': jnp.ones((batch,)),
    'value': root.value,
    'raw_value': root.value,
    'next_action': next_action,
    'next_prior': next_prior,
    'rest_prior': jnp.sum(prior, axis=-1),
  }

  def rooted(x):
    return write(jnp.zeros((size, *x.shape), x.dtype), ROOT, x)

  slots = min(num_actions, capacity)
  return Tree(
    records=rooted(pack(Record(**record))),
    children=jnp.zeros((size, batch, slots, len(Children._fields))),
    untried=rooted(prior),
    embedding=jax.tree.map(rooted, root.embedding),
  )


def rows(x: Array, node: int | Array) -> Array:
  """Reads row `node` [] or `node[..., b]` of every tree b from [N, B, ...]."""
  if jnp.ndim(node) == 0:
    return lax.dynamic_index_in_dim(x, node, keepdims=False)
  batch = jnp.broadcast_to(jnp.arange(x.shape[1]), jnp.shape(node))
  return x.at[node, batch].get(mode='promise_in_bounds')


def write(x: Array, node: int | Array, slab: Array) -> Array:
  """Writes node `node` [] of all trees at once."""
  return lax.dynamic_update_index_in_dim(x, slab.astype(x.dtype), node, 0)


def pack(fields: Iterable[Array]) -> Array:
  """Lays fields side by side: n of [...] to [..., n] float32."""
  return jnp.stack([x.astype(jnp.float32) for x in fields], axis=-1)


def unpack(kind: Any, packed: Array) -> Any:
  """Undoes `pack`."""
  return kind(*jnp.moveaxis(packed, -1, 0))


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
