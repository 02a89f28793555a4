"""Batched Monte Carlo tree search: descend, expand, back up.

A simulation changes the nodes on its path and no others, so every node keeps
the choice that the next simulation to come will make there. Then

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
  LEVELS,
  NOBODY,
  ROOT,
  SAFE,
  Edge,
  Frontier,
  Node,
  Tree,
  at_slot,
  pack,
  put,
  put_at_slot,
  rows,
  rows_to_write,
  unpack,
  write,
)
from dl_lectures.types import Array, Key

# (params, key, action [B], embedding) -> (RecurrentFnOutput, embedding)
RecurrentFn = Callable[
  [Any, Key, Array, Any], tuple[tree_lib.RecurrentFnOutput, Any]
]
# nodes -> slots [...]; `next_slot` asks for the next action.
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
  select_root: Callable[[Array, Node], Array] | None = None,
  root_order: Array | None = None,
  kept: Tree | None = None,
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
    kept: the trees to go on with, from `tree.reuse`.
  """
  tree = begin(root, kept, select, num_simulations, max_depth)
  first = tree.visits.shape[0] - num_simulations
  if root_order is not None and tree.untried is not None:
    roots = jnp.full(root_order.shape[:1], ROOT)
    frontier = unpack(tree.untried.frontier[ROOT])
    frontier = in_order(frontier, tree.untried.prior, roots, root_order)
    frontier = write(tree.untried.frontier, ROOT, pack(frontier))
    tree = tree._replace(untried=tree.untried._replace(frontier=frontier))

  def simulate(i, tree):
    at_root = None
    if select_root is not None:
      at_root = functools.partial(select_root, i)
    parent, slot = descend(tree, at_root, max_depth)
    key = jax.random.fold_in(rng_key, i)
    levels = jnp.max(tree.edges(parent).depth).astype(jnp.int32) + 2
    tree, leaf, value = expand(
      params, key, tree, first + i, parent, slot, recurrent_fn, root_order
    )
    return back_up(tree, leaf, value, levels, select, max_depth)

  return lax.fori_loop(0, num_simulations, simulate, tree)


def begin(
  root: tree_lib.RootFnOutput,
  kept: Tree | None,
  select: SelectFn,
  num_simulations: int,
  max_depth: int | None,
) -> Tree:
  """Returns the trees that a search begins with, with room for it."""
  if kept is None:
    return tree_lib.init(root, num_simulations)
  tree = tree_lib.graft(root, kept, num_simulations)
  # The root's priors may be others than they were, and the limit is one deeper.
  choice = choose(tree, jnp.full(tree.visits.shape[1:], ROOT), select)
  tree = tree._replace(choice=write(tree.choice, ROOT, choice))
  nodes = jnp.arange(tree.visits.shape[0])[:, None]
  nodes = jnp.broadcast_to(nodes, tree.visits.shape)
  depth = tree.edges(nodes).depth
  return tree._replace(
    next=next_nodes(tree, nodes, tree.choice, depth, max_depth)
  )


def descend(
  tree: Tree,
  select_root: SelectFn | None = None,
  max_depth: int | None = None,
) -> tuple[Array, Array]:
  """Follows every tree's choices from its root to the edge evaluated next.

  The walk stops at an action without a node, before a terminal node and at the
  depth limit.

  Returns:
    parent: [B] int32, the last node.
    slot: [B] int32, the slot of the edge there.
  """
  root = start = slot = jnp.full(tree.visits.shape[1:], ROOT)
  if select_root is not None:
    slot = select_root(tree.root())
    start = next_nodes(tree, root, slot, jnp.zeros(root.shape), max_depth)

  def follow(carry):
    last, _ = carry
    for _ in range(LEVELS - 1):
      last = rows(tree.next, last)
    node = rows(tree.next, last)
    return node, jnp.any(node != last)

  parent, _ = lax.while_loop(
    lambda carry: carry[1], follow, (start, jnp.bool_(True))
  )
  if select_root is None:
    return parent, rows(tree.choice, parent)
  below = start != root
  return (
    jnp.where(below, parent, root),
    jnp.where(below, rows(tree.choice, parent), slot),
  )


def next_nodes(
  tree: Tree, node: Array, slot: Array, depth: Array, max_depth: int | None
) -> Array:
  """Where a descent goes on from nodes [..., B]: the node itself if nowhere."""
  child = at_slot(tree.child, node, slot)
  goes_on = child > NOBODY
  if max_depth is not None:
    goes_on &= depth + 1 < max_depth
  return jnp.where(goes_on, child, node)


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
  old = jnp.abs(at_slot(tree.child, parent, slot))
  fresh = old == NOBODY
  # The larger of the two is `node`. But now what is written to `next` below
  # depends on what `descend` has read of it.
  itself = jnp.maximum(node, parent)
  where = jnp.where(fresh, parent, NOBODY)
  action = slot
  if tree.untried is not None:
    above = unpack(rows(tree.untried.frontier, parent))
    action = jnp.where(fresh, above.action, tree.edges(old).action)
    action = action.astype(jnp.int32)
  embedding = jax.tree.map(lambda x: rows_to_write(x, parent), tree.embedding)
  out, embedding = recurrent_fn(params, key, action, embedding)
  prior = tree_lib.softmax(out.prior_logits)
  edge = Edge(
    raw_value=out.value,
    reward=out.reward,
    discount=out.discount,
    action=action.astype(jnp.float32),
    slot=slot.astype(jnp.float32),
    depth=tree.edges(parent).depth + 1,
  )
  line = tree.line.at[parent, :, jnp.arange(len(parent))].get(mode=SAFE).T
  line = jnp.concatenate([itself[None], line[:-1]])
  child = jnp.where(out.discount == 0, -itself, itself)
  tree = tree._replace(
    next=write(tree.next, node, itself),
    edge=write(tree.edge, node, jnp.stack(edge)),
    line=write(tree.line, node, line),
    child=put_at_slot(tree.child, where, slot, child),
    embedding=jax.tree.map(
      lambda x, y: write(x, node, y), tree.embedding, embedding
    ),
  )
  if tree.untried is None:
    tree = tree._replace(child_prior=write(tree.child_prior, node, prior))
  else:
    # One action of the parent's less is untried, one child more is known.
    above = unpack(rows(tree.untried.frontier, parent))
    untried = tree_lib.try_out(tree.untried, node, prior, where, action)
    count = above.num_children + 1
    both = jnp.stack([itself, parent])
    rest = tree_lib.frontiers(untried, both)
    rest = rest._replace(num_children=jnp.stack([0 * count, count]))
    if root_order is not None:
      rest = in_order(rest, untried.prior, both, root_order)
    frontier = put(untried.frontier, jnp.stack([itself, where]), pack(rest))
    tree = tree._replace(
      child_prior=put_at_slot(tree.child_prior, where, slot, above.prior),
      untried=untried._replace(frontier=frontier),
    )
  return tree, jnp.where(fresh, node, old), out.value


def back_up(
  tree: Tree,
  leaf: Array,
  value: Array,
  levels: Array,
  select: SelectFn,
  max_depth: int | None,
) -> Tree:
  """Carries each leaf's value up its path, and lets its nodes choose anew.

  A level turns the value seen from a node into that seen from its parent,
  reward + discount * value.

  Args:
    tree: the trees.
    leaf: [B], where the paths end.
    value: [B], of the leaves.
    levels: [], the nodes of the longest path.
    select: the rule by which nodes choose.
    max_depth: the deepest node's distance from the root.
  """

  def body(carry):
    levels, tree, node, value = carry
    line = tree.lines(node)
    nodes, parents = line[:-1], line[1:]
    edge = tree.edges(nodes)
    returns = []
    for i in range(LEVELS):
      returns.append(value)
      above = edge.reward[i] + edge.discount[i] * value
      value = jnp.where(nodes[i] == NOBODY, value, above)
    visits = rows(tree.visits, nodes)
    mean = rows(tree.value, nodes) * visits + jnp.stack(returns)
    visits += 1
    mean /= visits
    slot = edge.slot.astype(jnp.int32)
    worth = edge.reward + edge.discount * mean
    tree = tree._replace(
      visits=put(tree.visits, nodes, visits),
      value=put(tree.value, nodes, mean),
      child_visits=put_at_slot(tree.child_visits, parents, slot, visits),
      child_value=put_at_slot(tree.child_value, parents, slot, worth),
    )
    choice = choose(
      tree, nodes, lambda x: select(x._replace(visits=visits, value=mean))
    )
    following = next_nodes(tree, nodes, choice, edge.depth, max_depth)
    tree = tree._replace(
      choice=put(tree.choice, nodes, choice),
      next=put(tree.next, nodes, following),
    )
    return levels - LEVELS, tree, parents[-1], value

  _, tree, _, _ = lax.while_loop(
    lambda carry: carry[0] > 0, body, (levels, tree, leaf, value)
  )
  return tree


def choose(tree: Tree, index: Array, select: SelectFn) -> Array:
  """Returns the slots that nodes [..., B] choose.

  Most nodes have few children: only as many slots are looked at as the node
  with the most of them needs.
  """
  widths = [tree.child.shape[2]]
  if tree.untried is None or widths[0] <= 8:
    return select(tree.node(index))
  while widths[0] > 8:
    widths.insert(0, max(8, widths[0] // 4))
  most = jnp.max(rows(tree.untried.frontier, index)[..., 0])
  at = jnp.sum(most > jnp.asarray(widths[:-1]))
  return lax.switch(
    at, [lambda w=w: select(tree.node(index, w)) for w in widths]
  )


def in_order(
  frontier: Frontier, prior: Array, node: Array, order: Array
) -> Frontier:
  """Makes the actions of `order` [B, M] the first to be tried at the roots.

  Args:
    frontier: of nodes [..., B].
    prior: [N, B, A], of the actions that have not been tried.
    node: [..., B] int32, the nodes.
    order: [B, M] int32.
  """
  count, last = frontier.num_children.astype(jnp.int32), order.shape[1] - 1
  batch = jnp.broadcast_to(jnp.arange(len(order)), count.shape)
  action = order[batch, jnp.minimum(count, last)]
  here = (node == ROOT) & (count <= last)
  likely = tree_lib.prior_at(prior, tree_lib.place(prior, node), action)
  return frontier._replace(
    action=jnp.where(here, action, frontier.action),
    prior=jnp.where(here, likely, frontier.prior),
  )
