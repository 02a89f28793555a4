"""The search tree: what a search reads and writes, and what one reads off it.

Three ideas make it fast.

1. *Children in the order of opening.* All actions of a node that have not been
   tried share one value, so only the likeliest of them matters. A node keeps
   that one (`Frontier`) and, in slots `0 .. num_children - 1`, what is known of
   the actions tried already. A choice looks at the slots and at one candidate
   more, never at all `A` actions. Where there are no more than `FEW` actions
   that is not worth its while: every action has its own slot from the start.
2. *Node-major arrays.* Node `i` of all `B` trees is one contiguous slab: a new
   node in every tree is one write.
3. *Lines.* A node keeps the numbers of its nearest ancestors, so that several
   levels of a path are read at once, with no walk.

Node 1 is the root. Node 0 is nobody: the root's parent, the child that is not
there yet, and where a tree that has nothing to write writes. A parent's number
is smaller than its children's.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.types import Array, UsageError

NOBODY = 0
ROOT = 1
FEW = 16  # actions, for which each has its own slot
MANY = 512  # actions, of which more are looked through in blocks
LEVELS = 6  # of a path that are treated at once
SAFE = 'promise_in_bounds'


class RootFnOutput(NamedTuple):
  """What is known of the positions to be searched.

  Attributes:
    prior_logits: [B, A] float32, the policy's logits.
    value: [B] float32, the value for the player to move.
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


class Node(NamedTuple):
  """Nodes as a rule of selection sees them; `...` stands for their batch.

  Attributes:
    visits: [...] float32, the simulations that came through.
    value: [...] float32, mean of the values that they backed up.
    raw_value: [...] float32, the network's value.
    next_slot: [...] int32, the slot of the action that is tried next.
    next_prior: [...] float32, its prior, the largest of those that have no slot
      yet; 0 where there is no such action.
    rest_prior: [...] float32, the sum of the priors of all that have no slot.
    child_visits: [..., K] float32, 0 where the action has not been tried.
    child_value: [..., K] float32, for the player to move at the node.
    child_prior: [..., K] float32, 0 where no legal action has the slot.
  """

  visits: Array
  value: Array
  raw_value: Array
  next_slot: Array
  next_prior: Array
  rest_prior: Array
  child_visits: Array
  child_value: Array
  child_prior: Array


class Frontier(NamedTuple):
  """What is known of a node's actions that have not been tried, each [...].

  Attributes:
    num_children: the number of those that have been tried.
    action: the action that is tried next.
    prior: its prior; 0 where no legal action is left.
    rest: the sum of the priors of all of them.
  """

  num_children: Array
  action: Array
  prior: Array
  rest: Array


class Untried(NamedTuple):
  """The actions that have no slot yet.

  Attributes:
    frontier: [N, B, 4] float32, `Frontier`.
    prior: [N, B, A] float32; 0 where tried already or illegal.
    blocks: [N, B, 2, M] float32, the largest and the sum of each of `M` blocks
      of neighbouring priors; None where there are not `MANY`. An action that
      is tried changes one block, and the others need not be read again.
  """

  frontier: Array
  prior: Array
  blocks: Array | None


class Edge(NamedTuple):
  """What is settled when a node is made, each [...] float32.

  Attributes:
    raw_value: the network's value of the node.
    reward: of the edge into the node.
    discount: of the edge into the node.
    action: of the edge into the node.
    slot: the node's slot at its parent.
    depth: its distance from the root.
  """

  raw_value: Array
  reward: Array
  discount: Array
  action: Array
  slot: Array
  depth: Array


class Tree(NamedTuple):
  """A batch of `B` trees of up to `N` nodes, `A` actions, `K` child slots.

  Attributes:
    visits: [N, B] float32, 0 where there is no node yet.
    value: [N, B] float32, mean of the values backed up.
    choice: [N, B] int32, the slot that the next simulation to come here takes.
    next: [N, B] int32, the node in that slot, or the node itself if the
      simulation leaves the tree here.
    edge: [N, 6, B] float32, `Edge`.
    line: [N, L + 1, B] int32, the node, its parent, its parent's parent ...
    child: [N, B, K] int32, the child's number, negative if it is terminal, 0 if
      there is none.
    child_visits: [N, B, K] float32.
    child_value: [N, B, K] float32, reward + discount * the child's value.
    child_prior: [N, B, K] float32.
    untried: what is known of the other actions; None if every action has a
      slot from the start.
    embedding: [N, B, ...].
  """

  visits: Array
  value: Array
  choice: Array
  next: Array
  edge: Array
  line: Array
  child: Array
  child_visits: Array
  child_value: Array
  child_prior: Array
  untried: Untried | None
  embedding: Any

  @property
  def num_actions(self) -> int:
    """A."""
    every = self.child if self.untried is None else self.untried.prior
    return every.shape[2]

  def edges(self, index: Array) -> Edge:
    """Reads the edges into nodes `index[..., b]` of every tree b."""
    size, width = self.edge.shape[1:]
    flat, batch = self.edge.reshape(-1), jnp.arange(width)
    batch = jnp.broadcast_to(batch, index.shape)
    return Edge(
      *(
        flat.at[(index * size + i) * width + batch].get(mode=SAFE)
        for i in range(size)
      )
    )

  def lines(self, index: Array) -> Array:
    """Reads the lines of nodes `index[b]`, [L + 1, B]."""
    size, width = self.line.shape[1:]
    step, batch = jnp.arange(size)[:, None], jnp.arange(width)[None]
    flat = (index[None] * size + step) * width + batch
    return self.line.reshape(-1).at[flat].get(mode=SAFE)

  def node(self, index: Array, width: int | None = None) -> Node:
    """Reads node `index[..., b]` of every tree b, with `width` of its slots."""
    value = rows(self.value, index)
    if self.untried is None:
      none = jnp.zeros_like(value)
      frontier = Frontier(none, none, none, none)
    else:
      frontier = unpack(rows(self.untried.frontier, index))
    return Node(
      visits=rows(self.visits, index),
      value=value,
      raw_value=self.edges(index).raw_value,
      next_slot=frontier.num_children.astype(jnp.int32),
      next_prior=frontier.prior,
      rest_prior=frontier.rest,
      child_visits=rows(self.child_visits, index, width),
      child_value=rows(self.child_value, index, width),
      child_prior=rows(self.child_prior, index, width),
    )

  def root(self) -> Node:
    """Reads the root of every tree."""
    return self.node(jnp.full(self.visits.shape[1:], ROOT))

  def root_actions(self) -> Array:
    """Returns the actions in the root's slots, [B, K] int32; -1 for none."""
    child = jnp.abs(self.child[ROOT])
    action = self.edges(child.T).action.T.astype(jnp.int32)
    return jnp.where(child == NOBODY, -1, action)

  def by_action(self, slots: Array, fill: Array) -> Array:
    """Spreads what the root's slots hold, [B, K], over the actions, [B, A].

    Actions that have not been tried get `fill` [B, A].
    """
    if self.untried is None:
      return jnp.where(self.child[ROOT] == NOBODY, fill, slots)
    action = self.root_actions()
    action = jnp.where(action < 0, fill.shape[1], action)
    batch = jnp.arange(len(fill))[:, None]
    return fill.at[batch, action].set(slots, mode='drop')

  def summary(self) -> SearchSummary:
    """Returns what the search says of the root."""
    zeros = jnp.zeros((self.visits.shape[1], self.num_actions))
    visits = self.by_action(self.child_visits[ROOT], zeros)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    uniform = 1 / visits.shape[1]
    return SearchSummary(
      visit_counts=visits,
      visit_probs=jnp.where(total > 0, visits / jnp.maximum(total, 1), uniform),
      value=self.value[ROOT],
      qvalues=self.by_action(self.child_value[ROOT], zeros),
    )


def init(root: RootFnOutput, capacity: int) -> Tree:
  """Returns trees of their root alone, with room for `capacity` nodes more."""
  batch, num_actions = root.prior_logits.shape
  size = ROOT + 1 + capacity
  few = num_actions <= FEW
  slots = num_actions if few else min(num_actions, capacity)
  check_size(size, batch, slots)
  prior = softmax(root.prior_logits)
  zero = jnp.zeros((batch,))
  one = jnp.full((batch,), ROOT)

  def rooted(x):
    return write(jnp.zeros((size, *x.shape), x.dtype), ROOT, x)

  none = jnp.zeros((size, batch, slots))
  return Tree(
    visits=rooted(zero + 1),
    value=rooted(root.value),
    choice=rooted(best(prior)[1] if few else jnp.zeros_like(one)),
    next=rooted(one),
    edge=rooted(jnp.stack(Edge(root.value, zero, zero, zero, zero, zero))),
    line=jnp.zeros((size, LEVELS + 1, batch), jnp.int32).at[ROOT, 0].set(ROOT),
    child=none.astype(jnp.int32),
    child_visits=none,
    child_value=none,
    child_prior=rooted(prior) if few else none,
    untried=None if few else jax.tree.map(rooted, untried_of(prior, zero)),
    embedding=jax.tree.map(rooted, root.embedding),
  )


def check_size(*size: int) -> None:
  """Raises UsageError for trees whose slots int32 cannot number."""
  if math.prod(size) >= 1 << 31:
    raise UsageError(
      '{} nodes x {} trees x {} slots are too many: '.format(*size)
      + 'at most 2^31; search fewer positions at once'
    )


def reuse(tree: Tree, action: Array, max_nodes: int | None = None) -> Tree:
  """Returns what the trees know of the positions that actions lead to.

  Each tree's new root is the child that its action leads to. Numbers,
  statistics, priors and embeddings below it stay as they are. Hand the result
  to `alphazero_policy` as `kept`.

  A tree is empty, and its next search starts afresh, where the action was never
  tried, where it ended the game, where it is negative (say, because a new game
  begins), and where more than `max_nodes` nodes are to be kept.

  Args:
    tree: from a search.
    action: [B] int32.
    max_nodes: room in the result; by default as much as in `tree`. With a
      number given, the trees of move after move have the same shape, and the
      next search is compiled once.

  Example: half of the simulations on, half of the tree kept.

  >>> from dl_lectures import search
  >>> def recurrent_fn(params, key, action, embedding):
  ...   out = search.RecurrentFnOutput(
  ...     reward=jnp.zeros(action.shape), discount=-jnp.ones(action.shape),
  ...     prior_logits=jnp.zeros((*action.shape, 2)),
  ...     value=jnp.zeros(action.shape))
  ...   return out, embedding
  >>> root = search.RootFnOutput(jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1))
  >>> def play(kept):
  ...   return search.alphazero_policy(
  ...     None, jax.random.key(0), root, recurrent_fn, 20,
  ...     dirichlet_fraction=0.0, kept=kept)
  >>> first = play(None)
  >>> second = play(search.reuse(first.search_tree, jnp.array([1])))
  >>> [int(x.search_tree.summary().visit_counts.sum()) for x in (first, second)]
  [20, 29]
  """
  size, width = tree.visits.shape
  room = size - 1 if max_nodes is None else max_nodes
  nodes = jnp.broadcast_to(jnp.arange(size)[:, None], (size, width))
  slots = jnp.arange(tree.child.shape[2])[None]
  actions = slots if tree.untried is None else tree.root_actions()
  # Positive is a child that the game goes on at.
  at_action = (actions == action[:, None]) & (tree.child[ROOT] > NOBODY)
  child = jnp.max(jnp.where(at_action, tree.child[ROOT], NOBODY), axis=1)[None]
  member = (nodes == child) & (child > NOBODY)
  above = tree.line[:, 1]
  for _ in range(size.bit_length()):  # whose path leads through the child
    member |= rows(member, above)
    above = rows(above, above)
  member &= tree.visits > 0  # not the unused rows of old edges
  member &= jnp.sum(member, axis=0, keepdims=True) <= room
  # Numbers keep their order, so that the child becomes the root.
  new = jnp.where(member, jnp.cumsum(member, axis=0), NOBODY)
  batch = jnp.arange(width)[None]
  old = jnp.zeros((room + 1, width), jnp.int32)
  old = old.at[jnp.where(member, new, room + 1), batch].set(nodes, mode='drop')

  def move(x):
    blank = (old == NOBODY).reshape(*old.shape, *[1] * (x.ndim - 2))
    return jnp.where(blank, jnp.zeros((), x.dtype), rows(x, old))

  def renumber(x):
    flat = jnp.moveaxis(x, 1, -1).reshape(-1, width)
    flat = jnp.sign(flat) * rows(new, jnp.abs(flat))
    return jnp.moveaxis(flat.reshape(len(x), -1, width), -1, 1).reshape(x.shape)

  kept = jax.tree.map(
    move,
    tree._replace(
      edge=jnp.swapaxes(tree.edge, 1, 2), line=jnp.swapaxes(tree.line, 1, 2)
    ),
  )
  if tree.untried is not None:
    most = min(room, kept.child.shape[2])
    kept = kept._replace(
      child=kept.child[..., :most],
      child_visits=kept.child_visits[..., :most],
      child_value=kept.child_value[..., :most],
      child_prior=kept.child_prior[..., :most],
    )
  depth = Edge._fields.index('depth')
  return kept._replace(
    next=renumber(kept.next),
    line=jnp.swapaxes(renumber(kept.line), 1, 2),
    child=renumber(kept.child),
    edge=jnp.swapaxes(kept.edge.at[..., depth].add(-1), 1, 2),
  )


def graft(root: RootFnOutput, kept: Tree, capacity: int) -> Tree:
  """Returns trees that go on from `kept`, with room for `capacity` nodes more.

  The root's priors are those given, also for actions that have been tried: a
  search wants its own noise. An empty tree becomes its root alone.
  """
  batch, num_actions = root.prior_logits.shape
  held = (kept.visits.shape[1], kept.num_actions)
  if held != (batch, num_actions):
    raise UsageError(
      'the kept tree has {} trees of {} actions, '.format(*held)
      + f'the root {batch} of {num_actions}: they must be the same'
    )
  size = kept.visits.shape[0] + capacity
  few = kept.untried is None
  slots = num_actions if few else min(num_actions, size - ROOT - 1)

  check_size(size, batch, slots)

  def grow(x, width=None):
    pad = [(0, capacity), *[(0, 0)] * (x.ndim - 1)]
    if width is not None:
      pad[2] = (0, width - x.shape[2])
    return jnp.pad(x, pad)

  fresh = kept.visits[ROOT] == 0
  prior = softmax(root.prior_logits)
  tree = jax.tree.map(grow, kept)
  tree = tree._replace(
    visits=tree.visits.at[ROOT].set(jnp.where(fresh, 1, kept.visits[ROOT])),
    value=tree.value.at[ROOT].set(
      jnp.where(fresh, root.value, kept.value[ROOT])
    ),
    edge=tree.edge.at[ROOT, 0].set(
      jnp.where(fresh, root.value, kept.edge[ROOT, 0])
    ),
    line=tree.line.at[ROOT, 0].set(ROOT),
    embedding=jax.tree.map(
      lambda x, y: write(x, ROOT, y), tree.embedding, root.embedding
    ),
  )
  if kept.untried is None or tree.untried is None:
    return tree._replace(child_prior=write(tree.child_prior, ROOT, prior))
  actions = kept.root_actions()
  tried = actions >= 0
  where = jnp.where(tried, actions, num_actions)
  untried = prior.at[jnp.arange(batch)[:, None], where].set(0, mode='drop')
  child_prior = jnp.where(
    tried, jnp.take_along_axis(prior, jnp.maximum(actions, 0), axis=1), 0
  )
  root_untried = untried_of(untried, kept.untried.frontier[ROOT, :, 0])
  tree = tree._replace(
    child=grow(kept.child, slots),
    child_visits=grow(kept.child_visits, slots),
    child_value=grow(kept.child_value, slots),
    child_prior=grow(kept.child_prior, slots),
    untried=jax.tree.map(
      lambda x, y: write(x, ROOT, y), tree.untried, root_untried
    ),
  )
  return tree._replace(
    child_prior=tree.child_prior.at[ROOT, :, : actions.shape[1]].set(
      child_prior
    )
  )


def untried_of(prior: Array, num_children: Array) -> Untried:
  """Returns one node's `Untried`, [B, ...], from priors [B, A]."""
  frontier = frontier_of(prior)._replace(num_children=num_children)
  return Untried(pack(frontier), prior, blocks_of(prior))


def frontier_of(prior: Array) -> Frontier:
  """Returns what is left of priors [..., A], as of nodes without children."""
  largest, action = best(prior)
  rest = jnp.sum(prior, axis=-1)
  return Frontier(jnp.zeros_like(largest), action, largest, rest)


def try_out(
  untried: Untried,
  node: Array,
  prior: Array,
  parents: Array,
  action: Array,
) -> Untried:
  """Adds one node to every tree and takes an action from those of its parent.

  Args:
    untried: of the trees; the frontiers stay as they are.
    node: [] int32, the new node's number.
    prior: [B, A], its priors.
    parents: [B] int32, `NOBODY` where no action is taken.
    action: [B] int32.
  """
  batch = jnp.arange(len(action))
  prior_of = write(untried.prior, node, prior)
  prior_of = prior_of.at[parents, batch, action].set(0)
  new = blocks_of(prior)
  if untried.blocks is None or new is None:
    return untried._replace(prior=prior_of)
  block = action // block_width(prior.shape[1])
  changed = jnp.stack(largest_and_sum(block_at(prior_of, parents, block)))
  blocks = write(untried.blocks, node, new)
  # Of each pair of rows, one entry.
  pairs = blocks.reshape(-1, *blocks.shape[2:])
  at = 2 * place(blocks, parents)[None] + jnp.arange(2)[:, None]
  at = at * pairs.shape[2] + block[None]
  pairs = pairs.reshape(-1).at[at].set(changed, mode=SAFE)
  return untried._replace(prior=prior_of, blocks=pairs.reshape(blocks.shape))


def frontiers(untried: Untried, node: Array) -> Frontier:
  """Looks for what nodes `node[..., b]` of every tree b should try next.

  Args:
    untried: of the trees; the frontiers there are not read.
    node: [..., B] int32.

  Returns:
    The frontiers [..., B], as of nodes without children.
  """
  if untried.blocks is None:
    return frontier_of(rows(untried.prior, node))
  blocks = rows(untried.blocks, node)
  largest, block = best(blocks[..., 0, :])
  held = block_at(untried.prior, node, block)
  _, action = best(held)
  return Frontier(
    jnp.zeros_like(largest),
    block * held.shape[-1] + action,
    largest,
    jnp.sum(blocks[..., 1, :], axis=-1),
  )


def block_width(num_actions: int) -> int:
  """The actions in a block: about the square root of all, a divisor if any."""
  root = math.isqrt(num_actions)
  widths = (x for x in range(root, 4 * root) if num_actions % x == 0)
  return next(widths, root)


def blocks_of(prior: Array) -> Array | None:
  """Returns [..., 2, M], `Untried.blocks`, of priors [..., A]."""
  num_actions = prior.shape[-1]
  if num_actions <= MANY:
    return None
  width = block_width(num_actions)
  if beyond := -num_actions % width:
    pad = [(0, 0)] * (prior.ndim - 1)
    prior = jnp.pad(prior, [*pad, (0, beyond)])
  cut = prior.reshape(*prior.shape[:-1], -1, width)
  return jnp.stack(largest_and_sum(cut), axis=-2)


def largest_and_sum(x: Array) -> tuple[Array, Array]:
  """Returns both along the last axis."""
  return jnp.max(x, axis=-1), jnp.sum(x, axis=-1)


def block_at(prior: Array, node: Array, block: Array) -> Array:
  """Reads block `block[..., b]` of node `node[..., b]` from [N, B, A]."""
  num_actions = prior.shape[2]
  width = block_width(num_actions)
  step = lax.broadcasted_iota(jnp.int32, (*block.shape, width), block.ndim)
  action = block[..., None] * width + step
  row = jnp.broadcast_to(place(prior, node)[..., None], action.shape)
  held = prior_at(prior, row, jnp.minimum(action, num_actions - 1))
  return jnp.where(action < num_actions, held, 0)


def prior_at(prior: Array, row: Array, action: Array) -> Array:
  """Reads actions [...] in rows [...], of `place`, from [N, B, A].

  `at_slot` would number every prior, and int32 cannot in a large tree.
  """
  return prior.reshape(-1, prior.shape[2]).at[row, action].get(mode=SAFE)


def pack(frontier: Frontier) -> Array:
  """Lays the fields side by side: whole numbers are exact to 2^24."""
  return jnp.stack([x.astype(jnp.float32) for x in frontier], axis=-1)


def unpack(packed: Array) -> Frontier:
  """Undoes `pack`, but for the dtypes."""
  return Frontier(*(packed[..., i] for i in range(len(Frontier._fields))))


def place(x: Array, node: Array, slot: Array | None = None) -> Array:
  """Where node `node[..., b]` (and slot) of every tree b stands in flat `x`.

  XLA:CPU pays for every index column of a gather and of a scatter: here is one.
  """
  batch = jnp.broadcast_to(jnp.arange(x.shape[1]), node.shape)
  flat = node * x.shape[1] + batch
  return flat if slot is None else flat * x.shape[2] + slot


def rows(x: Array, node: Array, width: int | None = None) -> Array:
  """Reads row `node[..., b]` of every tree b from [N, B, ...].

  Of rows that have one axis more, the first `width` entries.
  """
  flat = x.reshape(-1, *x.shape[2:])
  where = place(x, node)
  return flat.at[where if width is None else (where, slice(width))].get(
    mode=SAFE
  )


def rows_to_write(x: Array, node: Array) -> Array:
  """Reads rows as `rows` does, for what is to be written to `x` again.

  XLA:CPU would fuse a flat gather into that write and copy all of `x` first.
  """
  return x.at[node, jnp.arange(x.shape[1])].get(mode=SAFE)


def put(x: Array, node: Array, values: Array) -> Array:
  """Writes row `node[..., b]` of every tree b of [N, B, ...]."""
  flat = x.reshape(-1, *x.shape[2:])
  return flat.at[place(x, node)].set(values, mode=SAFE).reshape(x.shape)


def at_slot(x: Array, node: Array, slot: Array) -> Array:
  """Reads slot `slot[..., b]` of node `node[..., b]` from [N, B, K]."""
  return x.reshape(-1).at[place(x, node, slot)].get(mode='clip')


def put_at_slot(x: Array, node: Array, slot: Array, values: Array) -> Array:
  """Writes slot `slot[..., b]` of node `node[..., b]` of [N, B, K]."""
  where = place(x, node, slot)
  return x.reshape(-1).at[where].set(values, mode='drop').reshape(x.shape)


def write(x: Array, node: int | Array, slab: Array) -> Array:
  """Writes node `node` [] of all trees at once."""
  return lax.dynamic_update_index_in_dim(x, slab.astype(x.dtype), node, 0)


def softmax(logits: Array) -> Array:
  """Softmax that gives zeros, not nan, where every logit is -inf."""
  finfo = jnp.finfo(logits.dtype)
  top = jnp.max(logits, axis=-1, keepdims=True)
  exp = jnp.exp(logits - jnp.maximum(top, finfo.min))
  return exp / jnp.maximum(jnp.sum(exp, axis=-1, keepdims=True), finfo.tiny)


def best(x: Array) -> tuple[Array, Array]:
  """Returns the largest entry of each row and the first place it stands at."""
  top = jnp.max(x, axis=-1)
  # XLA:CPU walks an argmax one number at a time; two plain reductions are 5 to
  # 10 times as fast where rows are long.
  if x.shape[-1] <= 16:
    return top, jnp.argmax(x, axis=-1).astype(jnp.int32)
  place = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
  place = jnp.where(x == top[..., None], place, x.shape[-1] - 1)
  return top, jnp.min(place, axis=-1)
