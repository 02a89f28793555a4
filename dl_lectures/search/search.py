"""Batched Monte Carlo tree search: descend, expand, back up.

All trees of a batch move in lock step, and every loop is written over the batch
by hand: `vmap` of a `while_loop` would copy the whole tree at every level.
Nothing in here draws random numbers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.search import tree as tree_lib
from dl_lectures.search.tree import ROOT, UNVISITED, Node, Tree, rows, write
from dl_lectures.types import Array, Key

# (params, key, action [B], embedding) -> (RecurrentFnOutput, embedding)
RecurrentFn = Callable[
  [Any, Key, Array, Any], tuple[tree_lib.RecurrentFnOutput, Any]
]
# node -> slot [B]; `node.num_children` asks for the next untried action.
SelectFn = Callable[[Node], Array]


def search(
  params: Any,
  rng_key: Key,
  *,
  root: tree_lib.RootFnOutput,
  recurrent_fn: RecurrentFn,
  select: SelectFn,
  num_simulations: int,
  max_depth: int | None = None,
  select_root: Callable[[Node, Array], Array] | None = None,
  root_order: Array | None = None,
) -> Tree:
  """Runs `num_simulations` simulations in every tree of the batch.

  Args:
    params: handed to `recurrent_fn`.
    rng_key: consumed; simulation i hands fold_in(rng_key, i) to `recurrent_fn`.
    root: the positions to search, [B, ...].
    recurrent_fn: makes and evaluates new nodes.
    select: chooses a slot at a node.
    num_simulations: evaluations in each tree.
    max_depth: the deepest node's distance from the root.
    select_root: (node, simulation) -> slot, instead of `select` at the root.
    root_order: [B, M], the actions that the root tries, first to last, instead
      of by descending prior.
  """
  depth_limit = num_simulations if max_depth is None else max_depth

  def simulate(i, tree):
    parent, slot = descend(
      tree,
      select,
      depth_limit,
      None if select_root is None else lambda node: select_root(node, i),
    )
    key = jax.random.fold_in(rng_key, i)
    tree, leaf, value = expand(
      params, key, tree, i + 1, parent, slot, recurrent_fn, root_order
    )
    return back_up(tree, leaf, value)

  tree = tree_lib.init(root, num_simulations + 1)
  if root_order is not None:
    first = root_order[:, 0]
    prior = jnp.take_along_axis(tree.untried[ROOT], first[:, None], axis=1)
    tree = tree._replace(
      next_action=write(tree.next_action, ROOT, first),
      next_prior=write(tree.next_prior, ROOT, prior[:, 0]),
    )
  return lax.fori_loop(0, num_simulations, simulate, tree)


def descend(
  tree: Tree,
  select: SelectFn,
  depth_limit: int,
  select_root: SelectFn | None = None,
) -> tuple[Array, Array]:
  """Walks every tree from its root to the edge that is evaluated next.

  The walk stops at an untried action, at a terminal node (reached by an edge of
  discount 0) and at the depth limit.

  Returns:
    (node [B], slot [B]): the edge.
  """

  def step(depth, node, rule):
    slot = rule(tree.node(node))
    child = child_at(tree, node, slot)
    ends = (child == UNVISITED) | (rows(tree.discount, child) == 0)
    return slot, child, ends | (depth + 1 >= depth_limit)

  def body(carry):
    depth, node, slot, child, done = carry
    node = jnp.where(done, node, child)
    new_slot, child, ends = step(depth, node, select)
    slot = jnp.where(done, slot, new_slot)
    return depth + 1, node, slot, child, done | ends

  root = jnp.zeros((tree.visits.shape[1],), jnp.int32)
  carry = (jnp.int32(0), root, root, root, jnp.zeros(root.shape, bool))
  if select_root is not None:
    carry = (jnp.int32(1), root, *step(0, root, select_root))
  _, node, slot, _, _ = lax.while_loop(lambda c: ~jnp.all(c[-1]), body, carry)
  return node, slot


def expand(
  params: Any,
  key: Key,
  tree: Tree,
  index: Array,
  parent: Array,
  slot: Array,
  recurrent_fn: RecurrentFn,
  root_order: Array | None = None,
) -> tuple[Tree, Array, Array]:
  """Evaluates one edge of every tree and makes its node, number `index` [].

  An edge that leads to a node already (terminal, or at the depth limit) is
  evaluated again, and its row of the new slab stays unused.

  Returns:
    (tree, leaf [B], value [B] of the leaf).
  """
  batch = jnp.arange(parent.shape[0])
  old = child_at(tree, parent, slot)
  fresh = old == UNVISITED
  leaf = jnp.where(fresh, index, old)
  action = jnp.where(
    fresh, rows(tree.next_action, parent), rows(tree.action, old)
  )
  embedding = jax.tree.map(lambda x: rows(x, parent), tree.embedding)
  out, embedding = recurrent_fn(params, key, action, embedding)
  prior = tree_lib.softmax(out.prior_logits)
  next_prior, next_action = tree_lib.best(prior)
  tree = tree._replace(
    value=write(tree.value, index, out.value),
    raw_value=write(tree.raw_value, index, out.value),
    reward=write(tree.reward, index, out.reward),
    discount=write(tree.discount, index, out.discount),
    action=write(tree.action, index, action),
    parent=write(tree.parent, index, parent),
    slot=write(tree.slot, index, slot),
    next_action=write(tree.next_action, index, next_action),
    next_prior=write(tree.next_prior, index, next_prior),
    rest_prior=write(tree.rest_prior, index, jnp.sum(prior, axis=-1)),
    embedding=jax.tree.map(
      lambda x, y: write(x, index, y), tree.embedding, embedding
    ),
  )
  # The parent: one action less is untried, one child more is known.
  where = jnp.where(fresh, parent, len(tree.visits))
  untried = tree.untried.at[where, batch, action].set(0, mode='drop')
  left = rows(untried, parent)
  num_children = rows(tree.num_children, parent) + 1
  child_prior = rows(tree.next_prior, parent)
  next_prior, next_action = tree_lib.best(left)
  if root_order is not None:
    at_root = (parent == ROOT) & (num_children < root_order.shape[1])
    place = jnp.minimum(num_children, root_order.shape[1] - 1)
    ordered = jnp.take_along_axis(root_order, place[:, None], axis=1)
    ordered_prior = jnp.take_along_axis(left, ordered, axis=1)
    next_action = jnp.where(at_root, ordered[:, 0], next_action)
    next_prior = jnp.where(at_root, ordered_prior[:, 0], next_prior)

  def put(x, y, *place):
    return x.at[where, batch, *place].set(y, mode='drop', unique_indices=True)

  tree = tree._replace(
    untried=write(untried, index, prior),
    num_children=put(tree.num_children, num_children),
    next_action=put(tree.next_action, next_action),
    next_prior=put(tree.next_prior, next_prior),
    rest_prior=put(tree.rest_prior, jnp.sum(left, axis=-1)),
    child=put(tree.child, leaf, slot),
    child_prior=put(tree.child_prior, child_prior, slot),
  )
  return tree, leaf, out.value


def back_up(tree: Tree, leaf: Array, value: Array) -> Tree:
  """Carries each leaf's value up to its root, one level of all trees at once.

  A level turns the value seen from a node into that seen from its parent,
  reward + discount * value. `N`, the root's parent, is out of bounds: what a
  tree that has arrived would write there is dropped.
  """
  batch = jnp.arange(leaf.shape[0])
  above_root = len(tree.visits)

  def body(carry):
    visits, means, child_visits, child_value, node, value = carry
    count = rows(visits, node)
    mean = (rows(means, node) * count + value) / (count + 1)
    reward, discount = rows(tree.reward, node), rows(tree.discount, node)
    parent = jnp.where(node == above_root, node, rows(tree.parent, node))
    here, edge = (node, batch), (parent, batch, rows(tree.slot, node))
    return (
      visits.at[here].set(count + 1, mode='drop'),
      means.at[here].set(mean, mode='drop'),
      child_visits.at[edge].set(count + 1, mode='drop'),
      child_value.at[edge].set(reward + discount * mean, mode='drop'),
      parent,
      reward + discount * value,
    )

  carry = (tree.visits, tree.value, tree.child_visits, tree.child_value)
  visits, means, child_visits, child_value, _, _ = lax.while_loop(
    lambda c: jnp.any(c[4] != above_root), body, (*carry, leaf, value)
  )
  return tree._replace(
    visits=visits,
    value=means,
    child_visits=child_visits,
    child_value=child_value,
  )


def child_at(tree: Tree, node: Array, slot: Array) -> Array:
  """Returns the child in a slot of every tree's node, [B], or `UNVISITED`."""
  batch = jnp.arange(node.shape[0])
  child = tree.child.at[node, batch, slot].get(
    mode='fill', fill_value=UNVISITED
  )
  return child
