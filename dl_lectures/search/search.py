"""Batched Monte Carlo tree search: descend, expand, back up.

All trees of a batch move in lock step, and every loop is written over the batch
by hand: `vmap` of a `while_loop` would copy the whole tree at every level.
Nothing in here draws random numbers.

What is written to an array is computed from what was read of it before, or is
read only after the last write: then XLA updates every array in place.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.search import tree as tree_lib
from dl_lectures.search.tree import (
  NOBODY,
  ROOT,
  Children,
  Record,
  Tree,
  rows,
  write,
)
from dl_lectures.types import Array, Key

# (params, key, action [B], embedding) -> (RecurrentFnOutput, embedding)
RecurrentFn = Callable[
  [Any, Key, Array, Any], tuple[tree_lib.RecurrentFnOutput, Any]
]
# (node, its children) -> slot [B]; `num_children` asks for the next action.
SelectFn = Callable[[Record, Children], Array]


def search(
  params: Any,
  rng_key: Key,
  *,
  root: tree_lib.RootFnOutput,
  recurrent_fn: RecurrentFn,
  select: SelectFn,
  num_simulations: int,
  max_depth: int | None = None,
  select_root: Callable[[Array, Record, Children], Array] | None = None,
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
    select_root: (simulation, node, children) -> slot, instead of `select` at
      the root.
    root_order: [B, M], the actions that the root tries, first to last, instead
      of by descending prior.
  """
  depth_limit = num_simulations if max_depth is None else max_depth

  def simulate(i, tree):
    at_root = None
    if select_root is not None:
      at_root = functools.partial(select_root, i)
    parent, slot = descend(tree, select, depth_limit, at_root)
    key = jax.random.fold_in(rng_key, i)
    tree, leaf, value = expand(
      params, key, tree, ROOT + 1 + i, parent, slot, recurrent_fn, root_order
    )
    return back_up(tree, leaf, value)

  tree = tree_lib.init(root, num_simulations)
  if root_order is not None:
    record = tree.record(ROOT)
    record = in_order(
      record, record.parent == NOBODY, tree.untried[ROOT], root_order
    )
    tree = tree._replace(
      records=write(tree.records, ROOT, tree_lib.stack(record))
    )
  return lax.fori_loop(0, num_simulations, simulate, tree)


def descend(
  tree: Tree,
  select: SelectFn,
  depth_limit: int,
  select_root: SelectFn | None = None,
) -> tuple[Array, Array]:
  """Walks every tree from its root to the edge that is evaluated next.

  The walk stops at an action without a node, before a terminal node and at the
  depth limit.

  Returns:
    (node [B], slot [B]): the edge.
  """

  def step(depth, node, rule):
    children = tree.children_of(node)
    slot = rule(tree.record(node), children).astype(jnp.int32)
    child = at_slot(children.node, slot)
    return slot, jnp.where(depth < depth_limit, child, NOBODY)

  def body(carry):
    depth, node, slot, child = carry
    go = child > NOBODY
    node = jnp.where(go, child.astype(jnp.int32), node)
    new_slot, new_child = step(depth, node, select)
    slot = jnp.where(go, new_slot, slot)
    return depth + 1, node, slot, jnp.where(go, new_child, NOBODY)

  root = jnp.full((tree.records.shape[1],), ROOT, jnp.int32)
  carry = (jnp.int32(1), root, root, root.astype(jnp.float32))
  if select_root is not None:
    carry = (jnp.int32(2), root, *step(1, root, select_root))
  _, node, slot, _ = lax.while_loop(
    lambda carry: jnp.any(carry[-1] > NOBODY), body, carry
  )
  return node, slot


def expand(
  params: Any,
  key: Key,
  tree: Tree,
  node: Array,
  parent: Array,
  slot: Array,
  recurrent_fn: RecurrentFn,
  root_order: Array | None = None,
) -> tuple[Tree, Array, Array]:
  """Evaluates one edge of every tree and makes its node, number `node` [].

  An edge that leads to a node already (terminal, or at the depth limit) is
  evaluated again, and its row of the new slab stays unused.

  Returns:
    (tree, leaf [B], value [B] of the leaf).
  """
  batch = jnp.arange(parent.shape[0])
  above, children = tree.record(parent), tree.children_of(parent)
  old = jnp.abs(at_slot(children.node, slot)).astype(jnp.int32)
  fresh = old == NOBODY
  action = jnp.where(fresh, above.next_action, tree.record(old).action)
  action = action.astype(jnp.int32)
  embedding = jax.tree.map(lambda x: rows(x, parent), tree.embedding)
  out, embedding = recurrent_fn(params, key, action, embedding)
  prior = tree_lib.softmax(out.prior_logits)
  next_prior, next_action = tree_lib.best(prior)
  record = Record(
    visits=jnp.zeros_like(out.value),
    value=jnp.zeros_like(out.value),
    raw_value=out.value,
    reward=out.reward,
    discount=out.discount,
    action=action,
    parent=parent,
    slot=slot,
    num_children=jnp.zeros_like(out.value),
    next_action=next_action,
    next_prior=next_prior,
    rest_prior=jnp.sum(prior, axis=-1),
  )
  # One action of the parent's less is untried, one child more is known.
  where = jnp.where(fresh, parent, NOBODY)
  untried = write(tree.untried, node, prior)
  untried = untried.at[where, batch, action].set(0)
  left = rows(untried, parent)
  next_prior, next_action = tree_lib.best(left)
  child = jnp.stack(
    [above.next_prior, jnp.where(out.discount == 0, -node, node)], -1
  )
  above = above._replace(
    num_children=above.num_children + 1,
    next_action=next_action,
    next_prior=next_prior,
    rest_prior=jnp.sum(left, axis=-1),
  )
  if root_order is not None:
    above = in_order(above, parent == ROOT, left, root_order)
  records = tree.records.at[where, batch].set(tree_lib.stack(above))
  tree = Tree(
    records=write(records, node, tree_lib.stack(record)),
    children=tree.children.at[where, batch, 2:, slot].set(child),
    untried=untried,
    embedding=jax.tree.map(
      lambda x, y: write(x, node, y), tree.embedding, embedding
    ),
  )
  return tree, jnp.where(fresh, node, old), out.value


def back_up(tree: Tree, leaf: Array, value: Array) -> Tree:
  """Carries each leaf's value up to its root, one level of all trees at once.

  A level turns the value seen from a node into that seen from its parent,
  reward + discount * value.
  """
  batch = jnp.arange(leaf.shape[0])

  def body(carry):
    records, children, node, value = carry
    record = Record(*jnp.moveaxis(rows(records, node), -1, 0))
    visits = record.visits + 1
    mean = (record.value * record.visits + value) / visits
    edge = jnp.stack([visits, record.reward + record.discount * mean], -1)
    parent = jnp.where(node == NOBODY, NOBODY, record.parent).astype(jnp.int32)
    slot = record.slot.astype(jnp.int32)
    return (
      records.at[node, batch, :2].set(jnp.stack([visits, mean], -1)),
      children.at[parent, batch, :2, slot].set(edge),
      parent,
      record.reward + record.discount * value,
    )

  carry = (tree.records, tree.children, leaf, value)
  records, children, _, _ = lax.while_loop(
    lambda carry: jnp.any(carry[2] != NOBODY), body, carry
  )
  return tree._replace(records=records, children=children)


def in_order(
  record: Record, at_root: Array, untried: Array, root_order: Array
) -> Record:
  """Lets the root try its actions in `root_order` [B, M] while that lasts."""
  last = root_order.shape[1] - 1
  place = jnp.minimum(record.num_children.astype(jnp.int32), last)[:, None]
  action = jnp.take_along_axis(root_order, place, axis=1)
  prior = jnp.take_along_axis(untried, action, axis=1)
  at_root &= record.num_children <= last
  return record._replace(
    next_action=jnp.where(at_root, action[:, 0], record.next_action),
    next_prior=jnp.where(at_root, prior[:, 0], record.next_prior),
  )


def at_slot(child_values: Array, slot: Array) -> Array:
  """Reads slot [B] of [B, K]; 0 past the last."""
  return child_values.at[jnp.arange(slot.shape[0]), slot].get(
    mode='fill', fill_value=0
  )
