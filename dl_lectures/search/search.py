"""Batched Monte Carlo tree search: descend, expand, back up.

All trees of a batch move in lock step and every loop is written over the batch
by hand: `vmap` of a `while_loop` would copy the whole tree at every level.
Nothing inside draws random numbers but `recurrent_fn`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dl_lectures.search import tree as tree_lib
from dl_lectures.search.tree import ROOT, UNVISITED, Tree
from dl_lectures.types import Array, Key

# (params, key, action [B], embedding) -> (RecurrentFnOutput, embedding)
RecurrentFn = Callable[
  [Any, Key, Array, Any], tuple[tree_lib.RecurrentFnOutput, Any]
]
# (tree, node [B], simulation [] int32) -> action [B]
SelectFn = Callable[[Tree, Array, Array], Array]


def search(
  params: Any,
  rng_key: Key,
  *,
  root: tree_lib.RootFnOutput,
  recurrent_fn: RecurrentFn,
  select_root: SelectFn,
  select_interior: SelectFn,
  num_simulations: int,
  max_depth: int | None = None,
) -> Tree:
  """Runs `num_simulations` simulations in every tree of the batch."""
  depth_limit = num_simulations if max_depth is None else max_depth

  def simulate(i, tree):
    parent, action = descend(tree, i, select_root, select_interior, depth_limit)
    key = jax.random.fold_in(rng_key, i)
    tree, leaf, value = expand(
      params, key, tree, i, parent, action, recurrent_fn
    )
    return back_up(tree, leaf, value)

  tree = tree_lib.init(root, num_simulations)
  return jax.lax.fori_loop(0, num_simulations, simulate, tree)


def descend(tree, i, select_root, select_interior, depth_limit):
  """Returns the node and the action of every tree's next evaluation, [B]."""
  batch = jnp.arange(tree.visits.shape[1])

  def step(node, select):
    action = select(tree, node, i)
    child = tree.children[node, batch, action]
    ends = (child == UNVISITED) | (
      (tree.discount[child, batch] == 0) & (child != UNVISITED)
    )
    return action, child, ends

  def body(carry):
    depth, node, action, child, done = carry
    new_action, new_child, ends = step(child, select_interior)
    node = jnp.where(done, node, child)
    action = jnp.where(done, action, new_action)
    child = jnp.where(done, child, new_child)
    return depth + 1, node, action, child, done | ends

  node = jnp.zeros_like(batch)
  action, child, done = step(node, select_root)
  carry = (jnp.int32(1), node, action, child, done)
  _, node, action, _, _ = jax.lax.while_loop(
    lambda c: ~jnp.all(c[4]) & (c[0] < depth_limit), body, carry
  )
  return node, action


def expand(params, key, tree, i, parent, action, recurrent_fn):
  """Evaluates one action of every tree; returns (tree, leaf, value [B])."""
  batch = jnp.arange(parent.shape[0])
  embedding = jax.tree.map(lambda x: x[parent, batch], tree.embedding)
  out, embedding = recurrent_fn(params, key, action, embedding)
  old = tree.children[parent, batch, action]
  fresh = old == UNVISITED
  leaf = jnp.where(fresh, i + 1, old)
  # A node that is met again (terminal, or at max_depth) leaves slab i + 1
  # unused: it is written all the same, and nothing ever points to it.
  put = lambda x, y: x.at[i + 1].set(y.astype(x.dtype))
  return (
    tree._replace(
      value=put(tree.value, out.value),
      raw_value=put(tree.raw_value, out.value),
      reward=put(tree.reward, out.reward),
      discount=put(tree.discount, out.discount),
      parent=put(tree.parent, parent),
      action=put(tree.action, action),
      prior_logits=put(tree.prior_logits, out.prior_logits),
      children=tree.children.at[parent, batch, action].set(leaf),
      embedding=jax.tree.map(put, tree.embedding, embedding),
    ),
    leaf,
    out.value,
  )


def back_up(tree, leaf, value):
  """Carries the leaf's value up to the root, one level of all trees at once."""
  batch = jnp.arange(leaf.shape[0])

  def body(carry):
    visits, means, node, ret, alive = carry
    count = visits[node, batch]
    mean = means[node, batch]
    mean = (mean * count + ret) / (count + 1.0)
    visits = visits.at[node, batch].add(alive.astype(visits.dtype))
    means = means.at[node, batch].set(
      jnp.where(alive, mean, means[node, batch])
    )
    ret = tree.reward[node, batch] + tree.discount[node, batch] * ret
    alive &= node != ROOT
    node = jnp.where(alive, tree.parent[node, batch], node)
    return visits, means, node, ret, alive

  carry = (tree.visits, tree.value, leaf, value, jnp.ones_like(leaf, bool))
  visits, means, *_ = jax.lax.while_loop(lambda c: jnp.any(c[4]), body, carry)
  return tree._replace(visits=visits, value=means)
