"""One tree for one game that somebody waits for: grown, kept, cut back.

The batched search searches many positions, one leaf of each at a time. A person
or a program that plays one game wants other things: a search that may be
stopped and gone on with, the tree of the last move kept for the next (subtree
reuse), and a network that is asked for several leaves of the one tree at once.
Descents of one round must then differ: each leaves behind a virtual loss, a
simulation that seems to have lost, until its value is known (Segal, "On the
scalability of parallel UCT", CG 2010; AlphaGo, Silver et al. 2016, Methods).

The tree lives on the host, only legal moves have a place in it, and the network
and the rules are the batched search's own `recurrent_fn`. With one leaf a round
the visits are those of `alphazero_policy`.

Slides: deck 000, "AlphaZero: One Algorithm, Three Games".
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dl_lectures.search.search import RecurrentFn
from dl_lectures.search.tree import RecurrentFnOutput, RootFnOutput
from dl_lectures.types import UsageError

# (params, actions [K], embeddings [K, ...]) -> the same as a `recurrent_fn`.
Evaluate = Callable[..., tuple[RecurrentFnOutput, Any]]


class Node:
  """A position; it changes as the tree grows.

  Attributes:
    embedding: what `recurrent_fn` needs to go on from here.
    over: whether the game has ended.
    visits: simulations that came through, its own making among them.
    value: mean of what they found, for the player to move here.
    actions: [n] int32, the legal ones.
    prior: [n] float32, of each.
    edge_visits: [n] int32, simulations that took each.
    edge_value: [n] float32, what they found, for the player to move here.
    pending: [n] int32, descents that took each and whose value is not known.
    edges: [n], the (node, reward, discount) that each leads to, or None.
  """

  __slots__ = (
    'actions',
    'edge_value',
    'edge_visits',
    'edges',
    'embedding',
    'over',
    'pending',
    'prior',
    'value',
    'visits',
  )

  def __init__(self, embedding, prior_logits, value, over, invalid=None):
    """Makes a node of a position that has just been evaluated.

    Args:
      embedding: of one position.
      prior_logits: [A]; -1e9 and less is illegal.
      value: [], the network's, for the player to move.
      over: whether the game has ended.
      invalid: [A] bool, what else is illegal.
    """
    allowed = prior_logits > -1e8
    if invalid is not None:
      allowed = allowed & ~invalid
    self.actions = np.flatnonzero(allowed).astype(np.int32)
    logits = prior_logits[self.actions].astype(np.float32)
    weights = np.exp(logits - logits.max(initial=-np.inf))
    self.prior = weights / max(weights.sum(dtype=np.float32), 1e-30)
    count = len(self.actions)
    self.edge_visits = np.zeros(count, np.int32)
    self.edge_value = np.zeros(count, np.float32)
    self.pending = np.zeros(count, np.int32)
    self.edges: list[Any] = [None] * count
    self.embedding, self.over = embedding, bool(over)
    self.visits, self.value = 1, float(value)

  def choose(self, c_init: float, c_base: float) -> int:
    """PUCT, argmax Q + c P sqrt(N) / (1 + n); virtual losses are in Q and n."""
    taken = self.edge_visits + self.pending
    visits = np.float32(self.visits + self.pending.sum())
    won = self.edge_value * self.edge_visits - self.pending
    q = won / np.maximum(taken, 1)
    bonus = np.sqrt(visits) * (
      np.float32(c_init) + np.log((visits + c_base + 1) / np.float32(c_base))
    )
    return int(np.argmax(q + bonus * self.prior / (1 + taken)))


def evaluator(recurrent_fn: RecurrentFn) -> Evaluate:
  """Compiles the rules and the network of a search for its rounds.

  Args:
    recurrent_fn: as of `alphazero_policy`; it is handed a constant key.
  """

  @jax.jit
  def evaluate(params, actions, embeddings):
    return recurrent_fn(params, jax.random.key(0), actions, embeddings)

  return evaluate


def begin(root: RootFnOutput, invalid_actions: Any = None) -> Node:
  """Returns the tree of a root alone.

  Args:
    root: of one position, [1, ...].
    invalid_actions: [1, A], true where an action is illegal.

  Raises:
    UsageError: no action is legal, so that there is nothing to search.
  """
  root = jax.device_get(root)
  invalid = None
  if invalid_actions is not None:
    invalid = np.asarray(invalid_actions)[0]
  node = Node(
    _row(root.embedding, 0), root.prior_logits[0], root.value[0], False, invalid
  )
  if not len(node.actions):
    raise UsageError('a position without a legal action cannot be searched')
  return node


def grow(
  root: Node,
  evaluate: Evaluate,
  params: Any,
  num_simulations: int,
  num_leaves: int = 8,
  *,
  c_init: float = 1.25,
  c_base: float = 19652.0,
) -> int:
  """Grows a tree by `num_simulations` simulations, in place.

  Args:
    root: of the tree, not terminal.
    evaluate: from `evaluator`.
    params: handed to the network.
    num_simulations: to make.
    num_leaves: at most so many are evaluated in one call. A round is shorter
      where two descents end at the same new edge.
    c_init: of PUCT, as for `alphazero_policy`.
    c_base: the same.

  Returns:
    The number of calls of the network.

  Example: a game in which action 1 pays 1 and action 0 nothing, and that is
  all.

  >>> import jax.numpy as jnp
  >>> def recurrent_fn(params, key, action, embedding):
  ...   zeros = jnp.zeros(action.shape)
  ...   out = RecurrentFnOutput(
  ...     reward=action.astype(jnp.float32), discount=zeros,
  ...     prior_logits=jnp.zeros((*action.shape, 2)), value=zeros)
  ...   return out, embedding
  >>> tree = begin(RootFnOutput(jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1)))
  >>> calls = grow(tree, evaluator(recurrent_fn), None, 20, num_leaves=4)
  >>> int(tree.actions[tree.edge_visits.argmax()]), int(tree.visits)
  (1, 21)
  """
  left, calls = num_simulations, 0
  while left > 0:
    paths: list[list[tuple[Node, int]]] = []
    while len(paths) < min(num_leaves, left):
      path = _descend(root, c_init, c_base)
      node, edge = path[-1]
      reached = node.edges[edge]
      if reached is not None:  # the end of a game, whose result is known
        left -= 1
        _back_up(path, reached[0].value)
      elif node.pending[edge]:
        break
      else:
        for node, edge in path:
          node.pending[edge] += 1
        paths.append(path)
    if paths:
      calls += 1
      left -= len(paths)
      _evaluate(paths, evaluate, params, num_leaves)
  return calls


def child(root: Node, action: int) -> Node | None:
  """The subtree behind an action, to be gone on with; None if there is none."""
  (place,) = np.nonzero(root.actions == action)
  edge = root.edges[place[0]] if len(place) else None
  return None if edge is None or edge[0].over else edge[0]


def visit_counts(root: Node, num_actions: int) -> np.ndarray:
  """[A] int32, simulations through each action."""
  counts = np.zeros(num_actions, np.int32)
  counts[root.actions] = root.edge_visits
  return counts


def qvalues(root: Node, num_actions: int) -> np.ndarray:
  """[A] float32, for the player to move; 0 where no simulation went."""
  values = np.zeros(num_actions, np.float32)
  values[root.actions] = root.edge_value
  return values


def principal_variation(root: Node, most: int = 12) -> list[int]:
  """The actions that most simulations took, one after the other.

  Of several with the most, the one of the best value.
  """
  line, node = [], root
  while len(line) < most and not node.over and node.edge_visits.sum() > 0:
    visits = node.edge_visits
    value = np.where(visits == visits.max(), node.edge_value, -np.inf)
    edge = int(np.argmax(value))
    line.append(int(node.actions[edge]))
    node = node.edges[edge][0]
  return line


def _descend(
  root: Node, c_init: float, c_base: float
) -> list[tuple[Node, int]]:
  """The edges from the root to one that is new or ends the game."""
  path, node = [], root
  while True:
    edge = node.choose(c_init, c_base)
    path.append((node, edge))
    reached = node.edges[edge]
    if reached is None or reached[0].over:
      return path
    node = reached[0]


def _evaluate(paths, evaluate: Evaluate, params: Any, num_leaves: int) -> None:
  """Makes the nodes that new edges lead to, and backs their values up."""
  # One shape, one compilation: a short round is filled up with its first leaf.
  ends = [path[-1] for path in paths]
  filled = ends + ends[:1] * (num_leaves - len(ends))
  actions = np.array([node.actions[edge] for node, edge in filled], np.int32)
  embeddings = jax.tree.map(
    lambda *rows: np.stack(rows), *[node.embedding for node, _ in filled]
  )
  out, after = jax.device_get(evaluate(params, actions, embeddings))
  for i, path in enumerate(paths):
    node, edge = path[-1]
    discount = float(out.discount[i])
    made = Node(
      _row(after, i), out.prior_logits[i], out.value[i], discount == 0
    )
    made.visits = 0
    node.edges[edge] = (made, float(out.reward[i]), discount)
    for node, edge in path:
      node.pending[edge] -= 1
    _back_up(path, float(out.value[i]))


def _back_up(path: list[tuple[Node, int]], value: float) -> None:
  """Carries a value from the node that a path leads to up to its root."""
  node, edge = path[-1]
  reached = node.edges[edge][0]
  reached.value = (reached.value * reached.visits + value) / (
    reached.visits + 1
  )
  reached.visits += 1
  for node, edge in reversed(path):
    reached, reward, discount = node.edges[edge]
    node.edge_visits[edge] += 1
    node.edge_value[edge] = reward + discount * reached.value
    value = reward + discount * value
    node.value = (node.value * node.visits + value) / (node.visits + 1)
    node.visits += 1


def _row(tree: Any, i: int) -> Any:
  return jax.tree.map(lambda x: x[i], tree)
