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
  Frontier,
  Node,
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
# nodes -> slots [...]; `num_children` asks for the next action.
SelectFn = Callable[[Node], Array]

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
  select_root: Callable[[Array, Node], Array] | None = None,
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
    select_root: (simulation, root) -> slot, instead of `select` at the root.
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
    frontier = in_order(
      unpack(tree.frontier[ROOT]), tree.untried[ROOT], root_order
    )
    tree = tree._replace(frontier=write(tree.frontier, ROOT, pack(frontier)))
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
  root = jnp.full(tree.visits.shape[1:], ROOT)
  slot_at_root = root
  size = (depth_limit // LEVELS + 2) * LEVELS
  path = jnp.zeros((size, *root.shape), jnp.int32).at[0].set(root)

  def follow(carry):
    level, path, length, parent, node = carry
    nodes = []
    for i in range(LEVELS):
      node = jnp.where(level + i < depth_limit, node, NOBODY)
      nodes.append(node)
      parent = jnp.where(node > NOBODY, node, parent)
      node = jnp.where(node > NOBODY, rows(tree.chosen, node), NOBODY)
    nodes = jnp.maximum(jnp.stack(nodes), NOBODY)
    path = lax.dynamic_update_slice_in_dim(path, nodes, level, 0)
    length += jnp.sum(nodes > NOBODY, axis=0)
    return level + LEVELS, path, length, parent, node

  if select_root is None:
    carry = (jnp.int32(0), path, jnp.zeros_like(root), root, root)
  else:
    slot_at_root = select_root(tree.root())
    node = at_slot(tree.child[ROOT], slot_at_root)
    carry = (jnp.int32(1), path, jnp.ones_like(root), root, node)
  _, path, length, parent, _ = lax.while_loop(
    lambda carry: jnp.any(carry[-1] > NOBODY), follow, carry
  )
  slot = rows(tree.choice, parent)
  if select_root is not None:
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
  old = jnp.abs(tree.child.at[parent, batch, slot].get(mode='clip'))
  fresh = old == NOBODY
  above = unpack(rows(tree.frontier, parent))
  action = jnp.where(
    fresh, above.action.astype(jnp.int32), rows(tree.action, old)
  )
  embedding = jax.tree.map(lambda x: rows(x, parent), tree.embedding)
  out, embedding = recurrent_fn(params, key, action, embedding)
  prior = tree_lib.softmax(out.prior_logits)
  zero = jnp.zeros_like(parent)
  # One action of the parent's less is untried, one child more is known.
  where = jnp.where(fresh, parent, NOBODY)
  untried = write(tree.untried, node, prior)
  untried = untried.at[where, batch, action].set(0)
  left = rows(untried, parent)
  rest = tree_lib.frontier_of(left, above.num_children + 1)
  if root_order is not None:
    ordered = in_order(rest, left, root_order)
    rest = jax.tree.map(
      lambda x, y: jnp.where(parent == ROOT, x, y), ordered, rest
    )
  frontier = tree.frontier.at[where, batch].set(pack(rest))
  new = pack(tree_lib.frontier_of(prior, zero))
  child = jnp.where(out.discount == 0, -node, node)
  tree = tree._replace(
    raw_value=write(tree.raw_value, node, out.value),
    reward=write(tree.reward, node, out.reward),
    discount=write(tree.discount, node, out.discount),
    action=write(tree.action, node, action),
    parent=write(tree.parent, node, parent),
    slot=write(tree.slot, node, slot),
    frontier=write(frontier, node, new),
    untried=untried,
    child=tree.child.at[where, batch, slot].set(child),
    child_prior=tree.child_prior.at[where, batch, slot].set(above.prior),
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
    level, tree, value = carry
    level -= LEVELS
    node = lax.dynamic_slice_in_dim(path, level, LEVELS)
    reward, discount = rows(tree.reward, node), rows(tree.discount, node)
    value, returns = lax.scan(
      to_parent, value, (node, reward, discount), reverse=True, unroll=True
    )
    visits = rows(tree.visits, node)
    mean = (rows(tree.value, node) * visits + returns) / (visits + 1)
    edge = (rows(tree.parent, node), batch, rows(tree.slot, node))
    tree = tree._replace(
      visits=tree.visits.at[node, batch].set(visits + 1),
      value=tree.value.at[node, batch].set(mean),
      child_visits=tree.child_visits.at[edge].set(visits + 1),
      child_value=tree.child_value.at[edge].set(reward + discount * mean),
    )
    choice = choose(tree, node, select)
    chosen = tree.child.at[node, batch, choice].get(mode='clip')
    tree = tree._replace(
      choice=tree.choice.at[node, batch].set(choice),
      chosen=tree.chosen.at[node, batch].set(chosen),
    )
    return level, tree, value

  level = (length + LEVELS - 1) // LEVELS * LEVELS
  _, tree, _ = lax.while_loop(
    lambda carry: carry[0] > 0, body, (level, tree, value)
  )
  return tree


def choose(tree: Tree, index: Array, select: SelectFn) -> Array:
  """Returns the slots that nodes [..., B] choose.

  Most nodes have few children: only as many slots are looked at as the node
  with the most of them needs, in steps of four.
  """
  widths = [tree.child.shape[2]]
  while widths[0] > 8:
    widths.insert(0, max(8, widths[0] // 4))
  if len(widths) == 1:
    return select(tree.node(index))
  most = jnp.max(rows(tree.frontier, index)[..., 0])
  place = jnp.sum(most > jnp.asarray(widths[:-1]))
  return lax.switch(
    place, [lambda w=w: select(tree.node(index, w)) for w in widths]
  )


def in_order(frontier: Frontier, untried: Array, order: Array) -> Frontier:
  """Makes the actions of `order` [B, M] the first to be tried."""
  count, last = frontier.num_children.astype(jnp.int32), order.shape[1] - 1
  action = jnp.take_along_axis(order, jnp.minimum(count, last)[:, None], axis=1)
  prior = jnp.take_along_axis(untried, action, axis=1)
  return frontier._replace(
    action=jnp.where(count <= last, action[:, 0], frontier.action),
    prior=jnp.where(count <= last, prior[:, 0], frontier.prior),
  )


def at_slot(child: Array, slot: Array) -> Array:
  """Reads slot [B] of [B, K]; nobody past the last."""
  batch = jnp.arange(slot.shape[0])
  return child.at[batch, slot].get(mode='fill', fill_value=NOBODY)
