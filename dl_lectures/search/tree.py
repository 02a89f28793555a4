"""The search tree: what a search reads and writes, and what one reads off it.

Node-major: node `i` of all `B` trees is one contiguous slab, so that a new node
of every tree is one write. Node 0 is the root; a node first visited in
simulation `i` is node `i + 1`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.types import Array

ROOT = 0
UNVISITED = -1


class RootFnOutput(NamedTuple):
  """What is known of the position to be searched.

  Attributes:
    prior_logits: [B, A] float32, the policy's logits.
    value: [B] float32, the position's value for the player to move.
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


class Tree(NamedTuple):
  """A batch of `B` trees of up to `N` nodes, `A` actions at each.

  Attributes:
    visits: [N, B] int32, visits of a node; 0 where there is no node yet.
    value: [N, B] float32, mean of what was backed up through the node.
    raw_value: [N, B] float32, the network's value of the node.
    reward: [N, B] float32, reward of the edge into the node.
    discount: [N, B] float32, discount of the edge into the node.
    parent: [N, B] int32.
    action: [N, B] int32, the action of the edge into the node.
    prior_logits: [N, B, A] float32.
    children: [N, B, A] int32, node index of each child or `UNVISITED`.
    embedding: [N, B, ...].
  """

  visits: Array
  value: Array
  raw_value: Array
  reward: Array
  discount: Array
  parent: Array
  action: Array
  prior_logits: Array
  children: Array
  embedding: Any

  def summary(self) -> SearchSummary:
    """Returns what the search says of the root."""
    children = self.children[ROOT]
    visited = children != UNVISITED
    read = lambda x: jnp.take_along_axis(x.T, jnp.maximum(children, 0), axis=1)
    visits = jnp.where(visited, read(self.visits), 0).astype(self.value.dtype)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    qvalues = read(self.reward) + read(self.discount) * read(self.value)
    return SearchSummary(
      visit_counts=visits,
      visit_probs=jnp.where(
        total > 0, visits / jnp.maximum(total, 1), 1 / visits.shape[-1]
      ),
      value=self.value[ROOT],
      qvalues=jnp.where(visited, qvalues, 0.0),
    )


def init(root: RootFnOutput, num_simulations: int) -> Tree:
  """Returns trees that hold their root alone, with room for the rest."""
  batch, num_actions = root.prior_logits.shape
  nodes = num_simulations + 1
  dtype = root.value.dtype

  def slab(x, fill=0):
    return jnp.full((nodes, *x.shape), fill, x.dtype).at[ROOT].set(x)

  zeros = jnp.zeros((nodes, batch), dtype)
  absent = jnp.full((nodes, batch), -1, jnp.int32)
  return Tree(
    visits=slab(jnp.ones((batch,), jnp.int32)),
    value=slab(root.value),
    raw_value=slab(root.value),
    reward=zeros,
    discount=zeros,
    parent=absent,
    action=absent,
    prior_logits=slab(root.prior_logits),
    children=jnp.full((nodes, batch, num_actions), UNVISITED, jnp.int32),
    embedding=jax.tree.map(slab, root.embedding),
  )
