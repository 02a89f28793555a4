"""Search policies: AlphaZero, MuZero and Gumbel MuZero.

A policy runs a search from a root and proposes an action and a target for the
policy network. The calls are those of `mctx`, so that its user swaps the
import.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.search.search import RecurrentFn, SelectFn, search
from dl_lectures.search.tree import FEW, Node, RootFnOutput, Tree, best
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
  kept: Tree | None = None,
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
    kept: the trees of the last move, from `reuse`; the search adds its
      simulations to theirs. `root` is needed all the same.
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
  tree = search(
    params,
    search_key,
    root=RootFnOutput(logits, root.value, root.embedding),
    recurrent_fn=recurrent_fn,
    select=puct(qtransform, c_init=pb_c_init, c_base=pb_c_base),
    num_simulations=num_simulations,
    max_depth=max_depth,
    kept=kept,
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
  num_actions = logits.shape[1]
  if gumbel is None:
    gumbel = jax.random.gumbel(gumbel_key, logits.shape, logits.dtype)
  score = gumbel_scale * gumbel + logits
  score -= jnp.max(logits, axis=-1, keepdims=True)
  if invalid_actions is None:
    num_valid = jnp.full(logits.shape[:1], num_actions)
  else:
    score = jnp.where(invalid_actions, -jnp.inf, score)
    num_valid = jnp.sum(~invalid_actions.astype(bool), axis=-1)
  num_considered = min(max_num_considered_actions, num_actions)
  order_score, order = jax.lax.top_k(score, num_considered)
  table = jnp.asarray(considered_visits(num_considered, num_simulations))
  table = table[jnp.minimum(num_considered, num_valid)]  # [B, S]
  complete = functools.partial(
    completed_q,
    num_actions=num_actions,
    value_scale=value_scale,
    maxvisit_init=maxvisit_init,
    rescale_values=rescale_values,
  )

  few = num_actions <= FEW

  def select_root(i, root):
    considered_visit = jax.lax.dynamic_index_in_dim(
      table, i, axis=1, keepdims=False
    )
    q, _ = complete(root)
    in_turn = jnp.where(root.child_prior > 0, root.child_visits, -1)
    in_turn = in_turn == considered_visit[..., None]
    if few:
      return best(jnp.where(in_turn, jnp.maximum(-1e9, score + q), -jnp.inf))[1]
    slots = min(num_considered, q.shape[1])
    scores = jnp.maximum(-1e9, order_score[:, :slots] + q[:, :slots])
    _, slot = best(jnp.where(in_turn[:, :slots], scores, -jnp.inf))
    return jnp.where(considered_visit == 0, root.next_slot, slot)

  tree = search(
    params,
    search_key,
    root=RootFnOutput(logits, root.value, root.embedding),
    recurrent_fn=recurrent_fn,
    select=functools.partial(lagging_visits, complete=complete),
    select_root=select_root,
    root_order=order.astype(jnp.int32),
    num_simulations=num_simulations,
    max_depth=max_depth,
  )
  child_q, rest_q = complete(tree.root())
  q = tree.by_action(child_q, jnp.broadcast_to(rest_q[..., None], logits.shape))
  visits = tree.summary().visit_counts
  most = visits == jnp.max(visits, axis=-1, keepdims=True)
  score = jnp.where(most, jnp.maximum(-1e9, score + q), -jnp.inf)
  if invalid_actions is not None:
    score = jnp.where(invalid_actions, -jnp.inf, score)
  weights = jax.nn.softmax(_mask(logits + q, invalid_actions))
  return PolicyOutput(best(score)[1], weights, tree)


def puct(qtransform: QTransform, *, c_init: float, c_base: float) -> SelectFn:
  """The rule argmax_a Q(s, a) + c(s) P(s, a) sqrt(N(s)) / (1 + N(s, a))."""

  def select(node: Node) -> Array:
    opened = node.child_visits > 0
    visits = node.visits.astype(node.value.dtype)
    bonus = jnp.sqrt(visits) * (
      c_init + jnp.log((visits + c_base + 1.0) / c_base)
    )
    child_q, rest_q = qtransform(node.value, node.child_value, opened)
    child_q = jnp.where(opened, child_q, rest_q[..., None])
    child_u = bonus[..., None] * node.child_prior / (node.child_visits + 1)
    # A prior of exactly 0 means illegal: never tried, whatever the others are.
    legal = node.child_prior > 0
    score, slot = best(jnp.where(legal, child_q + child_u, -jnp.inf))
    open_next = (node.next_prior > 0) & (
      rest_q + bonus * node.next_prior > score
    )
    return jnp.where(open_next, node.next_slot, slot)

  return select


def lagging_visits(node: Node, *, complete) -> Array:
  """The action whose share of visits lags most behind the improved policy.

  argmax_a pi'(a) - N(a) / (1 + sum N) with pi' = softmax(logits + completed q):
  Danihelka et al. 2022, equation 14.
  """
  child_q, rest_q = complete(node)
  top = jnp.maximum(jnp.max(child_q, axis=-1), rest_q)
  child = node.child_prior * jnp.exp(child_q - top[..., None])
  rest = jnp.exp(rest_q - top)
  total = jnp.sum(child, axis=-1) + node.rest_prior * rest
  lag = child / total[..., None] - node.child_visits / node.visits[..., None]
  lag, slot = best(jnp.where(node.child_prior > 0, lag, -jnp.inf))
  open_next = (node.next_prior > 0) & (node.next_prior * rest / total > lag)
  return jnp.where(open_next, node.next_slot, slot)


def completed_q(
  node: Node,
  *,
  num_actions: int,
  value_scale: float,
  maxvisit_init: float,
  rescale_values: bool,
) -> tuple[Array, Array]:
  """Scaled values of the tried actions [B, K] and of all the others [B].

  An action not tried has the mixed value (Danihelka et al. 2022, Appendix D).
  """
  opened = node.child_visits > 0
  tiny = jnp.finfo(node.child_prior.dtype).tiny
  prior = jnp.where(opened, jnp.maximum(node.child_prior, tiny), 0.0)
  mass = jnp.sum(prior, axis=-1, keepdims=True)
  weighted = jnp.sum(
    prior * node.child_value / jnp.where(mass > 0, mass, 1.0), axis=-1
  )
  mixed = (node.raw_value + (node.visits - 1) * weighted) / node.visits
  q = jnp.where(opened, node.child_value, mixed[..., None])
  if rescale_values:
    some_left = jnp.sum(opened, axis=-1) < num_actions
    low = jnp.min(jnp.where(opened, q, jnp.inf), axis=-1)
    high = jnp.max(jnp.where(opened, q, -jnp.inf), axis=-1)
    low = jnp.where(some_left, jnp.minimum(low, mixed), low)
    high = jnp.where(some_left, jnp.maximum(high, mixed), high)
    span = jnp.maximum(high - low, 1e-8)
    q = (q - low[..., None]) / span[..., None]
    mixed = (mixed - low) / span
  scale = maxvisit_init + jnp.max(node.child_visits, axis=-1)
  scale *= value_scale
  return scale[..., None] * q, scale * mixed


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


def _mask(logits: Array, invalid_actions: Array | None) -> Array:
  if invalid_actions is None:
    return logits
  logits -= jnp.max(logits, axis=-1, keepdims=True)
  return jnp.where(invalid_actions, jnp.finfo(logits.dtype).min, logits)


def _log(probs: Array) -> Array:
  return jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
