"""Batched Monte Carlo tree search: descend, expand, back up.

A simulation changes the nodes on its path and no others, so every node keeps
the choice that the next simulation to come will make there (`choice`). Then

- `descend` only follows what is written, and
- `back_up`, having brought the new value to the nodes of the path, lets all of
  them choose anew at once, several levels of all trees in one array operation.

All trees of a batch move in lock step, and every loop is written over the batch
by hand: `vmap` of a `while_loop` would copy the whole tree at every turn.
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
  pack,
  rows,
  unpack,
  write,
)
from dl_lectures.types import Array, Key

# (params, key, action [B], embedding) -> (RecurrentFnOutput, embedding)
RecurrentFn = Callable[
  [Any, Key, Array, Any], tuple[tree_lib.RecurrentFnOutput, Any]
]
# (nodes, their children) -> slots; `num_children` asks for the next action.
SelectFn = Callable[[Record, Children], Array]

LEVELS = 8  # of a path that are treated at once


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
    path, length, parent, slot = descend(tree, depth_limit, at_root)
    key = jax.random.fold_in(rng_key, i)
    tree, leaf, value = expand(
      params, key, tree, ROOT + 1 + i, parent, slot, recurrent_fn, root_order
    )
    batch = jnp.arange(leaf.shape[0])
    path = path.at[length, batch].set(leaf)
    return back_up(tree, path, jnp.max(length) + 1, value, select)

  tree = tree_lib.init(root, num_simulations)
  if root_order is not None:
    record = tree.record(ROOT)
    record = in_order(
      record, record.parent == NOBODY, tree.untried[ROOT], root_order
    )
    tree = tree._replace(records=write(tree.records, ROOT, pack(record)))
  return lax.fori_loop(0, num_simulations, simulate, tree)


def descend(
  tree: Tree, depth_limit: int, select_root: SelectFn | None = None
) -> tuple[Array, Array, Array, Array]:
  """Follows every tree's choices from its root to the edge evaluated next.

  The walk stops at an action without a node, before a terminal node and at the
  depth limit.

  Returns:
    path: [D, B] int32, the nodes from the root on, then `NOBODY`.
    length: [B] int32, how many there are.
    parent: [B] int32, the last of them.
    slot: [B] int32, the slot of the edge at `parent`.
  """
  chosen = tree.records[:, :, Record._fields.index('chosen')]
  choice = tree.records[:, :, Record._fields.index('choice')]
  root = jnp.full(chosen.shape[1:], ROOT, jnp.int32)
  size = (depth_limit // LEVELS + 2) * LEVELS
  path = jnp.zeros((size, *root.shape), jnp.int32).at[0].set(root)

  def follow(carry):
    level, path, length, parent, node = carry
    nodes = []
    for i in range(LEVELS):
      node = jnp.where(level + i < depth_limit, node, NOBODY)
      nodes.append(node)
      parent = jnp.where(node > NOBODY, node, parent)
      node = jnp.where(node > NOBODY, rows(chosen, node), 0).astype(jnp.int32)
    nodes = jnp.maximum(jnp.stack(nodes), NOBODY)
    path = lax.dynamic_update_slice_in_dim(path, nodes, level, 0)
    length += jnp.sum(nodes > NOBODY, axis=0)
    return level + LEVELS, path, length, parent, node

  slot_at_root = None
  if select_root is None:
    carry = (jnp.int32(0), path, jnp.zeros_like(root), root, root)
  else:
    children = tree.children_of(ROOT)
    slot_at_root = select_root(tree.record(ROOT), children).astype(jnp.int32)
    node = at_slot(children.node, slot_at_root).astype(jnp.int32)
    carry = (jnp.int32(1), path, jnp.ones_like(root), root, node)
  _, path, length, parent, _ = lax.while_loop(
    lambda carry: jnp.any(carry[-1] > NOBODY), follow, carry
  )
  slot = rows(choice, parent).astype(jnp.int32)
  if slot_at_root is not None:
    slot = jnp.where(parent == ROOT, slot_at_root, slot)
  return path, length, parent, slot


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
  zero = jnp.zeros_like(out.value)
  record = Record(
    visits=zero,
    value=zero,
    choice=zero,
    chosen=zero,
    num_children=zero,
    next_action=next_action,
    next_prior=next_prior,
    rest_prior=jnp.sum(prior, axis=-1),
    raw_value=out.value,
    reward=out.reward,
    discount=out.discount,
    action=action,
    parent=parent,
    slot=slot,
  )
  # One action of the parent's less is untried, one child more is known.
  where = jnp.where(fresh, parent, NOBODY)
  untried = write(tree.untried, node, prior)
  untried = untried.at[where, batch, action].set(0)
  left = rows(untried, parent)
  next_prior, next_action = tree_lib.best(left)
  child = pack((above.next_prior, jnp.where(out.discount == 0, -node, node)))
  above = above._replace(
    num_children=above.num_children + 1,
    next_action=next_action,
    next_prior=next_prior,
    rest_prior=jnp.sum(left, axis=-1),
  )
  if root_order is not None:
    above = in_order(above, parent == ROOT, left, root_order)
  records = tree.records.at[where, batch, 4:8].set(pack(above[4:8]))
  tree = Tree(
    records=write(records, node, pack(record)),
    children=tree.children.at[where, batch, slot, 2:].set(child),
    untried=untried,
    embedding=jax.tree.map(
      lambda x, y: write(x, node, y), tree.embedding, embedding
    ),
  )
  return tree, jnp.where(fresh, node, old), out.value


def back_up(
  tree: Tree, path: Array, length: Array, value: Array, select: SelectFn
) -> Tree:
  """Carries each leaf's value up its path, and lets its nodes choose anew.

  A level turns the value seen from a node into that seen from its parent,
  reward + discount * value.

  Args:
    tree: the trees.
    path: [D, B], each tree's nodes from root to leaf, then `NOBODY`.
    length: [], the length of the longest.
    value: [B], of the leaves.
    select: the rule by which nodes choose.
  """
  batch = jnp.broadcast_to(jnp.arange(path.shape[1]), (LEVELS, path.shape[1]))

  def to_parent(value, edge):
    node, reward, discount = edge
    above = jnp.where(node == NOBODY, value, reward + discount * value)
    return above, value

  def body(carry):
    level, records, children, value = carry
    level -= LEVELS
    node = lax.dynamic_slice_in_dim(path, level, LEVELS)
    record = unpack(Record, rows(records, node))
    value, returns = lax.scan(
      to_parent,
      value,
      (node, record.reward, record.discount),
      reverse=True,
      unroll=True,
    )
    visits = record.visits + 1
    mean = (record.value * record.visits + returns) / visits
    edge = pack((visits, record.reward + record.discount * mean))
    parent = record.parent.astype(jnp.int32)
    slot = record.slot.astype(jnp.int32)
    children = children.at[parent, batch, slot, :2].set(edge)
    record = record._replace(visits=visits, value=mean)
    choice, chosen = choose(children, node, record, select)
    record = record._replace(choice=choice, chosen=chosen)
    records = records.at[node, batch, :4].set(pack(record[:4]))
    return level, records, children, value

  level = (length + LEVELS - 1) // LEVELS * LEVELS
  _, records, children, _ = lax.while_loop(
    lambda carry: carry[0] > 0,
    body,
    (level, tree.records, tree.children, value),
  )
  return tree._replace(records=records, children=children)


def choose(
  children: Array, node: Array, record: Record, select: SelectFn
) -> tuple[Array, Array]:
  """Returns the slots that nodes [L, B] choose and the nodes in them.

  Most nodes have few children: only as many slots are looked at as the node
  with the most of them needs, in steps of four.
  """
  flat = jax.tree.map(lambda x: x.reshape(-1), record)

  def look(width):
    known = rows(children[:, :, :width], node)
    known = unpack(Children, known.reshape(-1, *known.shape[2:]))
    slot = select(flat, known).astype(jnp.int32)
    return slot, at_slot(known.node, slot)

  widths = [children.shape[2]]
  while widths[0] > 8:
    widths.insert(0, max(8, widths[0] // 4))
  if len(widths) == 1:
    slot, chosen = look(widths[0])
  else:
    most = jnp.max(jnp.where(node == NOBODY, 0, record.num_children))
    place = jnp.sum(most > jnp.asarray(widths[:-1]))
    slot, chosen = lax.switch(
      place, [functools.partial(look, width) for width in widths]
    )
  return slot.reshape(node.shape), chosen.reshape(node.shape)


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
