"""Search policies: AlphaZero, MuZero and Gumbel MuZero.

A policy runs a search from a root and proposes an action and a target for the
policy network. The calls are those of `mctx`, so that its user swaps the import.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.search.search import RecurrentFn, search
from dl_lectures.search.tree import ROOT, UNVISITED, RootFnOutput, Tree
from dl_lectures.types import Array, Key

# (node value [B], child values [B, K], visited [B, K])
#   -> (child values [B, K], value of an unvisited child [B])
QTransform = Callable[[Array, Array, Array], tuple[Array, Array]]


class PolicyOutput(NamedTuple):
  """What a search policy proposes.

  Attributes:
    action: [B] int32.
    action_weights: [B, A] float32, a distribution: the policy's target.
    search_tree: the `Tree`; `search_tree.summary()` for counts and values.
  """

  action: Array
  action_weights: Array
  search_tree: Tree


def raw_q(
  node_value: Array, qvalues: Array, visited: Array
) -> tuple[Array, Array]:
  """Child values as they are; 0 for an unvisited child (AlphaGo Zero)."""
  del visited
  return qvalues, jnp.zeros_like(node_value)


def min_max_q(
  node_value: Array, qvalues: Array, visited: Array
) -> tuple[Array, Array]:
  """Child values scaled to [0, 1] by the node's and siblings' (MuZero, App. B).

  An unvisited child has the smallest value, 0.
  """
  safe = jnp.where(visited, qvalues, node_value[..., None])
  low = jnp.minimum(node_value, jnp.min(safe, axis=-1))
  high = jnp.maximum(node_value, jnp.max(safe, axis=-1))
  span = jnp.maximum(high - low, 1e-8)
  return (qvalues - low[..., None]) / span[..., None], jnp.zeros_like(low)


def alphazero_policy(
  params: Any,
  rng_key: Key,
  root: RootFnOutput,
  recurrent_fn: RecurrentFn,
  num_simulations: int,
  invalid_actions: Array | None = None,
  max_depth: int | None = None,
  *,
  qtransform: QTransform = raw_q,
  dirichlet_fraction: float = 0.25,
  dirichlet_alpha: float = 0.3,
  pb_c_init: float = 1.25,
  pb_c_base: float = 19652.0,
  temperature: float | Array = 1.0,
  dirichlet_noise: Array | None = None,
  gumbel: Array | None = None,
) -> PolicyOutput:
  """PUCT search with raw values (AlphaZero, Silver et al. 2018, Methods).

  Selects argmax_a Q(s, a) + c(s) P(s, a) sqrt(N(s)) / (1 + N(s, a)) with
  c(s) = log((1 + N(s) + c_base) / c_base) + c_init.

  Args:
    params: handed to `recurrent_fn`.
    rng_key: consumed.
    root: the positions to search, [B, ...].
    recurrent_fn: (params, key, action [B], embedding) ->
      (RecurrentFnOutput, embedding). For alternating zero-sum play discount is
      -1, and 0 with the result in `reward` where the game ends.
    num_simulations: evaluations in each tree.
    invalid_actions: [B, A], true where an action is illegal at the root.
    max_depth: the deepest node's distance from the root.
    qtransform: `raw_q`, `min_max_q` or one of your own.
    dirichlet_fraction: share of noise in the root's prior; 0 for none.
    dirichlet_alpha: concentration of that noise.
    pb_c_init: c_init above.
    pb_c_base: c_base above.
    temperature: [] or [B]; the action is drawn from N^(1/temperature); 0 takes
      the most visited.
    dirichlet_noise: [B, A] drawn beforehand, instead of from `rng_key`.
    gumbel: [B, A] standard Gumbel noise drawn beforehand, with which the action
      is drawn instead of with `rng_key`.
  """
  noise_key, action_key, search_key = jax.random.split(rng_key, 3)
  logits = _mask(root.prior_logits, invalid_actions)
  shape, dtype = logits.shape, logits.dtype
  prior = jax.nn.softmax(logits)
  no_noise = isinstance(dirichlet_fraction, (int, float)) and (
    dirichlet_fraction == 0
  )
  if not no_noise:
    if dirichlet_noise is None:
      dirichlet_noise = jax.random.dirichlet(
        noise_key, jnp.full((shape[1],), dirichlet_alpha, dtype), shape[:1]
      )
    if invalid_actions is not None:
      dirichlet_noise = jnp.where(invalid_actions, 0.0, dirichlet_noise)
    total = jnp.sum(dirichlet_noise, axis=-1, keepdims=True)
    noise = jnp.where(
      total > 0,
      dirichlet_noise / jnp.maximum(total, jnp.finfo(dtype).tiny),
      prior,
    )
    prior = (1 - dirichlet_fraction) * prior + dirichlet_fraction * noise
    logits = _log(prior)
  select = functools.partial(
    _select_puct, qtransform=qtransform, c_init=pb_c_init, c_base=pb_c_base
  )
  tree = search(
    params,
    search_key,
    root=RootFnOutput(logits, root.value, root.embedding),
    recurrent_fn=recurrent_fn,
    select_root=select,
    select_interior=select,
    num_simulations=num_simulations,
    max_depth=max_depth,
  )
  weights = tree.summary().visit_probs
  temperature = jnp.broadcast_to(jnp.asarray(temperature, dtype), shape[:1])
  scaled = _log(weights) - _log(jnp.max(weights, axis=-1, keepdims=True))
  scaled /= jnp.maximum(temperature, jnp.finfo(dtype).tiny)[..., None]
  if gumbel is None:
    gumbel = jax.random.gumbel(action_key, shape, dtype)
  scores = jnp.where(weights > 0, scaled + gumbel, -jnp.inf)
  action = jnp.argmax(scores, axis=-1).astype(jnp.int32)
  return PolicyOutput(action, weights, tree)


muzero_policy = functools.partial(alphazero_policy, qtransform=min_max_q)


def gumbel_muzero_policy(
  params: Any,
  rng_key: Key,
  root: RootFnOutput,
  recurrent_fn: RecurrentFn,
  num_simulations: int,
  invalid_actions: Array | None = None,
  max_depth: int | None = None,
  *,
  max_num_considered_actions: int = 16,
  gumbel_scale: float = 1.0,
  value_scale: float = 0.1,
  maxvisit_init: float = 50.0,
  rescale_values: bool = True,
  gumbel: Array | None = None,
) -> PolicyOutput:
  """Gumbel MuZero (Danihelka et al. 2022): a policy that search improves.

  At the root, sequential halving over `max_num_considered_actions` actions
  drawn without replacement; below, the action whose share of visits lags most
  behind softmax(logits + completed q).

  Args:
    params: handed to `recurrent_fn`.
    rng_key: consumed.
    root: the positions to search, [B, ...].
    recurrent_fn: as in `alphazero_policy`.
    num_simulations: evaluations in each tree.
    invalid_actions: [B, A], true where an action is illegal at the root.
    max_depth: the deepest node's distance from the root.
    max_num_considered_actions: the actions that sequential halving begins with.
    gumbel_scale: 0 for play without chance, 1 for self-play.
    value_scale: c_scale of the paper.
    maxvisit_init: c_visit of the paper.
    rescale_values: values to [0, 1] by the smallest and largest at the node.
    gumbel: [B, A] standard Gumbel noise drawn beforehand.
  """
  gumbel_key, search_key = jax.random.split(rng_key)
  logits = _mask(root.prior_logits, invalid_actions)
  if gumbel is None:
    gumbel = jax.random.gumbel(gumbel_key, logits.shape, logits.dtype)
  gumbel = gumbel_scale * gumbel
  complete = functools.partial(
    _completed_q,
    value_scale=value_scale,
    maxvisit_init=maxvisit_init,
    rescale_values=rescale_values,
  )
  invalid = (
    jnp.zeros(logits.shape, bool)
    if invalid_actions is None
    else invalid_actions.astype(bool)
  )
  table = jnp.asarray(
    considered_visits(max_num_considered_actions, num_simulations)
  )
  considered = jnp.minimum(
    max_num_considered_actions, jnp.sum(~invalid, axis=-1)
  )

  def best(tree, considered_visit):
    node = jnp.zeros(logits.shape[:1], jnp.int32)
    visits, qvalues, visited = _children(tree, node)
    q = complete(tree, node, logits, visits, qvalues, visited)
    score = jnp.maximum(
      -1e9, gumbel + logits - jnp.max(logits, axis=-1, keepdims=True) + q
    )
    allowed = (visits == considered_visit[:, None]) & ~invalid
    score = jnp.where(allowed, score, -jnp.inf)
    return jnp.argmax(score, axis=-1).astype(jnp.int32), q

  def select_root(tree, node, i):
    return best(tree, table[considered, i])[0]

  def select_interior(tree, node, i):
    batch = jnp.arange(node.shape[0])
    visits, qvalues, visited = _children(tree, node)
    prior = tree.prior_logits[node, batch]
    q = complete(tree, node, prior, visits, qvalues, visited)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    lag = jax.nn.softmax(prior + q) - visits / (1 + total)
    return jnp.argmax(lag, axis=-1).astype(jnp.int32)

  tree = search(
    params,
    search_key,
    root=RootFnOutput(logits, root.value, root.embedding),
    recurrent_fn=recurrent_fn,
    select_root=select_root,
    select_interior=select_interior,
    num_simulations=num_simulations,
    max_depth=max_depth,
  )
  visits = _children(tree, jnp.zeros(logits.shape[:1], jnp.int32))[0]
  action, q = best(tree, jnp.max(visits, axis=-1))
  weights = jax.nn.softmax(_mask(logits + q, invalid_actions))
  return PolicyOutput(action, weights, tree)


def considered_visits(max_considered: int, num_simulations: int) -> np.ndarray:
  """Sequential halving as visit counts, [max_considered + 1, simulations].

  Row m, column i: with m actions to choose from, simulation i goes to the best
  action among those visited so many times (Karnin et al. 2013).
  """
  return np.asarray(
    [
      _sequential_halving(m, num_simulations) for m in range(max_considered + 1)
    ],
    np.int32,
  )


def _sequential_halving(num_actions: int, num_simulations: int) -> list[int]:
  if num_actions <= 1:
    return list(range(num_simulations))
  rounds = math.ceil(math.log2(num_actions))
  sequence: list[int] = []
  visits, left = [0] * num_actions, num_actions
  while len(sequence) < num_simulations:
    for _ in range(max(1, num_simulations // (rounds * left))):
      sequence.extend(visits[:left])
      visits[:left] = [v + 1 for v in visits[:left]]
    left = max(2, left // 2)
  return sequence[:num_simulations]


def _children(tree: Tree, node: Array) -> tuple[Array, Array, Array]:
  """Returns visits, values and presence of a node's children, each [B, A]."""
  batch = jnp.arange(node.shape[0])
  children = tree.children[node, batch]
  visited = children != UNVISITED
  index = (jnp.maximum(children, ROOT), batch[:, None])
  visits = jnp.where(visited, tree.visits[index], 0)
  qvalues = tree.reward[index] + tree.discount[index] * tree.value[index]
  return visits, qvalues, visited


def _select_puct(tree, node, i, *, qtransform, c_init, c_base):
  del i
  batch = jnp.arange(node.shape[0])
  visits, qvalues, visited = _children(tree, node)
  count = tree.visits[node, batch].astype(qvalues.dtype)
  prior = jax.nn.softmax(tree.prior_logits[node, batch])
  c = c_init + jnp.log((count + c_base + 1.0) / c_base)
  bonus = (jnp.sqrt(count) * c)[:, None] * prior / (visits + 1)
  q, unvisited = qtransform(tree.value[node, batch], qvalues, visited)
  score = jnp.where(visited, q, unvisited[:, None]) + bonus
  score = jnp.where(visited | (prior > 0), score, -jnp.inf)
  return jnp.argmax(score, axis=-1).astype(jnp.int32)


def _completed_q(
  tree,
  node,
  logits,
  visits,
  qvalues,
  visited,
  *,
  value_scale,
  maxvisit_init,
  rescale_values,
):
  """Child values, with the mixed value where unvisited (Appendix D), scaled."""
  batch = jnp.arange(node.shape[0])
  prior = jnp.maximum(jax.nn.softmax(logits), jnp.finfo(logits.dtype).tiny)
  total = jnp.sum(visits, axis=-1)
  mass = jnp.sum(jnp.where(visited, prior, 0.0), axis=-1, keepdims=True)
  weighted = jnp.sum(
    jnp.where(visited, prior * qvalues / jnp.where(visited, mass, 1.0), 0.0),
    axis=-1,
  )
  mixed = (tree.raw_value[node, batch] + total * weighted) / (total + 1)
  q = jnp.where(visited, qvalues, mixed[:, None])
  if rescale_values:
    low = jnp.min(q, axis=-1, keepdims=True)
    high = jnp.max(q, axis=-1, keepdims=True)
    q = (q - low) / jnp.maximum(high - low, 1e-8)
  scale = maxvisit_init + jnp.max(visits, axis=-1, keepdims=True)
  return scale * value_scale * q


def _mask(logits: Array, invalid_actions: Array | None) -> Array:
  if invalid_actions is None:
    return logits
  logits -= jnp.max(logits, axis=-1, keepdims=True)
  return jnp.where(invalid_actions, jnp.finfo(logits.dtype).min, logits)


def _log(probs: Array) -> Array:
  return jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
