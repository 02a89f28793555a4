"""The search tree: what a search reads and writes, and what one reads off it.

Two ideas make it fast.

1. *Children in the order of opening.* All actions of a node that have not been
   tried share one value, so only the likeliest of them matters. A node keeps
   that one (`next_action`, `next_prior`) and, in slots `0 .. num_children - 1`,
   what is known of the actions already tried. A choice looks at the slots and
   at one candidate more, never at all `A` actions.
2. *Node-major arrays.* Node `i` of all `B` trees is one contiguous slab: a new
   node in every tree is one write.

Node 0 is the root. Nodes are numbered in the order of their making, so that a
parent comes before its children.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.types import Array

ROOT = 0
UNVISITED = -1


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
  """One node of every tree, as a selection rule sees it.

  Attributes:
    visits: [B] int32.
    value: [B] float32, mean of the values backed up through the node.
    raw_value: [B] float32, the network's value.
    num_children: [B] int32, the actions tried so far.
    child_visits: [B, K] int32, 0 in the slots not used yet.
    child_value: [B, K] float32, as the player to move at the node sees it.
    child_prior: [B, K] float32.
    next_prior: [B] float32, the largest prior among the actions not tried; 0
      where no legal one is left.
    rest_prior: [B] float32, the sum of the priors of the actions not tried.
  """

  visits: Array
  value: Array
  raw_value: Array
  num_children: Array
  child_visits: Array
  child_value: Array
  child_prior: Array
  next_prior: Array
  rest_prior: Array


class Tree(NamedTuple):
  """A batch of `B` trees of up to `N` nodes, `A` actions, `K` child slots.

  Attributes:
    visits: [N, B] int32, 0 where there is no node yet.
    value: [N, B] float32, mean of the values backed up through the node.
    raw_value: [N, B] float32, the network's value.
    reward: [N, B] float32, of the edge into the node.
    discount: [N, B] float32, of the edge into the node.
    action: [N, B] int32, of the edge into the node.
    parent: [N, B] int32; `N` at the root, out of bounds on purpose.
    slot: [N, B] int32, the node's slot at its parent.
    num_children: [N, B] int32.
    next_action: [N, B] int32, the next action to be tried.
    next_prior: [N, B] float32.
    rest_prior: [N, B] float32.
    untried: [N, B, A] float32, the prior; 0 where tried already or illegal.
    child: [N, B, K] int32, the child's node or `UNVISITED`.
    child_visits: [N, B, K] int32.
    child_value: [N, B, K] float32, reward + discount * the child's value.
    child_prior: [N, B, K] float32.
    embedding: [N, B, ...].
  """

  visits: Array
  value: Array
  raw_value: Array
  reward: Array
  discount: Array
  action: Array
  parent: Array
  slot: Array
  num_children: Array
  next_action: Array
  next_prior: Array
  rest_prior: Array
  untried: Array
  child: Array
  child_visits: Array
  child_value: Array
  child_prior: Array
  embedding: Any

  def node(self, index: Array) -> Node:
    """Returns node `index` [B] of every tree."""
    return Node(*(rows(getattr(self, name), index) for name in Node._fields))

  def by_action(self, child_values: Array, fill: Array) -> Array:
    """Spreads what the root's slots hold, [B, K], over the actions, [B, A].

    Actions that have not been tried get `fill` [B, A].
    """
    batch = jnp.arange(fill.shape[0])[:, None]
    child = self.child[ROOT]
    action = self.action[child, batch]
    action = jnp.where(child == UNVISITED, fill.shape[1], action)
    return fill.at[batch, action].set(
      child_values.astype(fill.dtype), mode='drop'
    )

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


def init(root: RootFnOutput, num_nodes: int) -> Tree:
  """Returns trees that hold their root alone, with room for `num_nodes`."""
  batch, num_actions = root.prior_logits.shape
  slots = min(num_actions, num_nodes - 1)
  prior = softmax(root.prior_logits)
  next_prior, next_action = best(prior)

  def filled(value, dtype=jnp.int32):
    return jnp.full((num_nodes, batch), value, dtype)

  def slotted(value, dtype=jnp.int32):
    return jnp.full((num_nodes, batch, slots), value, dtype)

  def rooted(x):
    return write(jnp.zeros((num_nodes, *x.shape), x.dtype), ROOT, x)

  dtype = root.value.dtype
  return Tree(
    visits=rooted(jnp.ones((batch,), jnp.int32)),
    value=rooted(root.value),
    raw_value=rooted(root.value),
    reward=filled(0, dtype),
    discount=filled(0, dtype),
    action=filled(0),
    parent=filled(num_nodes),
    slot=filled(0),
    num_children=filled(0),
    next_action=rooted(next_action),
    next_prior=rooted(next_prior),
    rest_prior=rooted(jnp.sum(prior, axis=-1)),
    untried=rooted(prior),
    child=slotted(UNVISITED),
    child_visits=slotted(0),
    child_value=slotted(0, dtype),
    child_prior=slotted(0, prior.dtype),
    embedding=jax.tree.map(rooted, root.embedding),
  )


def rows(x: Array, index: Array) -> Array:
  """Reads row `index[b]` of tree b: [N, B, ...] -> [B, ...]."""
  batch = jnp.arange(index.shape[0])
  return x.at[index, batch].get(mode='clip')


def write(x: Array, index: int | Array, slab: Array) -> Array:
  """Writes node `index` [] of all trees at once."""
  return lax.dynamic_update_index_in_dim(x, slab.astype(x.dtype), index, 0)


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
