"""What is kept of a tree is what was there, and the search goes on from it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.search import hashed_game
from dl_lectures import search
from dl_lectures.envs import games
from dl_lectures.search import tree
from dl_lectures.search.tree import NOBODY, ROOT
from dl_lectures.types import UsageError


def play(num_actions, num_simulations, kept=None, noise=0.0, invalid=None):
  """Searches the roots of a hashed game, of which a seventh of all ends."""
  make_root, recurrent_fn = hashed_game(search, num_actions, -1.0, 1)
  root = make_root(8)
  if kept is not None:
    # The priors of the position reached: any will do.
    root = root._replace(embedding=kept.embedding[ROOT])
  return search.alphazero_policy(
    None,
    jax.random.key(3),
    root,
    recurrent_fn,
    num_simulations,
    invalid,
    dirichlet_fraction=noise,
    kept=kept,
  )


play = functools.partial(jax.jit, static_argnums=(0, 1))(play)
reuse = jax.jit(search.reuse, static_argnums=2)


def by_actions(tree, b, node=ROOT):
  """One tree as actions -> (visits, value, reward, discount, children)."""
  tree = jax.tree.map(np.asarray, tree)

  def walk(node):
    children = {}
    for slot, number in enumerate(tree.child[node, b]):
      below = abs(int(number))
      if below == NOBODY:
        continue
      _, reward, discount, action, its_slot, _ = tree.edge[below, :, b]
      assert its_slot == slot
      assert tree.line[below, :2, b].tolist() == [below, node]
      assert (number < 0) == (discount == 0)
      edge = (
        reward,
        discount,
        tree.child_visits[node, b, slot],
        tree.child_value[node, b, slot],
        tree.child_prior[node, b, slot],
      )
      children[int(action)] = (edge, walk(below))
    return (
      tree.visits[node, b],
      tree.value[node, b],
      tree.edge[node, 0, b],
      jax.tree.map(lambda x: x[node, b].tolist(), tree.embedding),
      children,
    )

  return walk(node)


def child_number(tree, b, action):
  for number in np.asarray(tree.child[ROOT, b]):
    below = abs(int(number))
    if below != NOBODY and int(tree.edge[below, 3, b]) == action:
      return int(number)
  return NOBODY


# Seven actions have a slot each; of 40, those that have been tried.
@pytest.mark.parametrize('num_actions', [7, 40])
def test_the_kept_subtree_is_the_old_one(num_actions):
  found = play(num_actions, 60)
  tree = found.search_tree
  visits = np.asarray(tree.summary().visit_counts)
  # The likeliest child, one that was never tried if there is one, and none.
  action = visits.argmax(axis=1)
  action[1], action[2] = visits[1].argmin(), -1
  kept = reuse(tree, jnp.asarray(action), 60)
  whole = 0
  for b, a in enumerate(action):
    number = child_number(tree, b, a) if a >= 0 else NOBODY
    if number <= NOBODY:
      assert not np.asarray(kept.visits)[:, b].any()
      continue
    assert by_actions(kept, b) == by_actions(tree, b, number)
    assert kept.visits[ROOT, b] == visits[b, a]
    assert not np.asarray(kept.line)[ROOT, 1:, b].any()
    whole += 1
  assert whole >= 4


@pytest.mark.parametrize('num_actions', [7, 40])
def test_a_search_goes_on_where_it_was(num_actions):
  first = play(num_actions, 60)
  visits = np.asarray(first.search_tree.summary().visit_counts)
  kept = reuse(first.search_tree, first.action, 60)
  before = np.maximum(np.asarray(kept.visits)[ROOT] - 1, 0)
  terminal = before == 0
  taken = visits[np.arange(8), np.asarray(first.action)]
  np.testing.assert_array_equal(before[~terminal], taken[~terminal] - 1)
  second = play(num_actions, 40, kept)
  counts = second.search_tree.summary().visit_counts
  np.testing.assert_array_equal(counts.sum(axis=1), before + 40)
  np.testing.assert_array_equal(
    second.search_tree.visits[ROOT], before + 40 + 1
  )
  # Move after move in trees of one size.
  third = play(num_actions, 40, reuse(second.search_tree, second.action, 60))
  assert (third.search_tree.summary().visit_counts.sum(axis=1) >= 40).all()
  check_sums(third.search_tree)


def check_sums(tree):
  """Every node's visits are its own and its children's; so is its line."""
  tree = jax.tree.map(np.asarray, tree)
  size, batch = tree.visits.shape
  for b in range(batch):
    for node in range(ROOT, size):
      if tree.visits[node, b] == 0:
        continue
      below = np.abs(tree.child[node, b])
      below = below[below > NOBODY]
      over = node > ROOT and tree.edge[node, 2, b] == 0
      assert not (over and len(below))
      if not over:
        assert tree.visits[node, b] == 1 + tree.visits[below, b].sum()
      assert (below > node).all()
      assert (tree.edge[below, 5, b] == tree.edge[node, 5, b] + 1).all()


def test_what_goes_on_equals_what_was_never_cut():
  """A root with a single action: keeping its child loses nothing."""
  make_root, recurrent_fn = hashed_game(search, 7, -1.0, 1)

  def through_a_door(params, key, action, embedding):
    """One more position in front, where there is nothing to choose."""
    state, inside = embedding
    inner, after = recurrent_fn(params, key, action, state)
    first = make_root(4)
    pick = lambda a, b: jnp.where(  # noqa: E731
      inside.reshape(-1, *[1] * (a.ndim - 1)), a, b
    )
    out = search.RecurrentFnOutput(
      reward=pick(inner.reward, jnp.zeros(4)),
      discount=pick(inner.discount, -jnp.ones(4)),
      prior_logits=pick(inner.prior_logits, first.prior_logits),
      value=pick(inner.value, first.value),
    )
    return out, (pick(after, state), jnp.ones_like(inside))

  first = make_root(4)
  door = jnp.where(jnp.arange(7) == 0, 0.0, -1e9)

  def run(root, num_simulations, kept=None):
    return search.alphazero_policy(
      None,
      jax.random.key(0),
      root,
      through_a_door,
      num_simulations,
      dirichlet_fraction=0.0,
      kept=kept,
    ).search_tree

  outside = search.RootFnOutput(
    jnp.broadcast_to(door, (4, 7)),
    jnp.zeros(4),
    (first.embedding, jnp.zeros(4, bool)),
  )
  inside = search.RootFnOutput(
    first.prior_logits, first.value, (first.embedding, jnp.ones(4, bool))
  )
  tree = jax.jit(lambda: run(outside, 31))()
  kept = search.reuse(tree, jnp.zeros(4, jnp.int32))
  gone_on = jax.jit(lambda kept: run(inside, 20, kept))(kept)
  at_once = jax.jit(lambda: run(inside, 50))()
  for b in range(4):
    assert by_actions(gone_on, b) == by_actions(at_once, b)


@pytest.mark.parametrize('num_actions', [7, 40])
def test_the_roots_priors_are_the_new_ones(num_actions):
  first = play(num_actions, 60)
  kept = reuse(first.search_tree, first.action, 60)
  invalid = jnp.zeros((8, num_actions), bool)
  action = np.asarray(kept.edge[ROOT + 1, 3]).astype(int)  # one of its children
  tried = np.asarray(kept.visits)[ROOT + 1] > 0
  invalid = invalid.at[jnp.arange(8), action].set(True)
  second = play(num_actions, 40, kept, 0.0, invalid)
  before = play(num_actions, 0 + 1, kept).search_tree.summary().visit_counts
  after = second.search_tree.summary().visit_counts
  row = np.arange(8)[tried]
  # What is illegal now gets no further visit.
  assert (after[row, action[row]] <= before[row, action[row]]).all()
  assert tried.sum() >= 5


def test_a_subtree_without_room_starts_afresh():
  found = play(7, 60)
  kept = reuse(found.search_tree, found.action, 60)
  sizes = (np.asarray(kept.visits) > 0).sum(axis=0)
  room = int(np.median(sizes[sizes > 0]))
  small = reuse(found.search_tree, found.action, room)
  assert small.visits.shape == (room + 1, 8)
  fits = (np.asarray(small.visits) > 0).sum(axis=0)
  np.testing.assert_array_equal(fits, np.where(sizes <= room, sizes, 0))


def test_kept_trees_of_another_batch_are_refused():
  found = play(7, 20)
  kept = reuse(found.search_tree, found.action, 20)
  make_root, recurrent_fn = hashed_game(search, 7, -1.0)
  with pytest.raises(UsageError, match='8 trees of 7 actions, the root 3 of 7'):
    search.alphazero_policy(
      None, jax.random.key(0), make_root(3), recurrent_fn, 4, kept=kept
    )


def test_trees_too_many_to_number_are_refused():
  shapes: Any = [
    jax.ShapeDtypeStruct(shape, jnp.float32)
    for shape in ((1 << 16, 300), (1 << 16,), (1 << 16,))
  ]
  root = search.RootFnOutput(*shapes)
  _, recurrent_fn = hashed_game(search, 300, -1.0)
  with pytest.raises(UsageError, match='search fewer positions at once'):
    jax.eval_shape(
      lambda root: (
        search.muzero_policy(
          None, jax.random.key(0), root, recurrent_fn, 400
        ).action
      ),
      root,
    )


SIMULATIONS = 400


@pytest.mark.slow
def test_kept_trees_never_lose_tic_tac_toe():
  """Against every defence at once, one batch of games a ply."""
  game = games.make('tic_tac_toe')

  def recurrent_fn(params, key, action, states):
    del params, key
    mover = jax.vmap(game.to_play)(states)
    states = jax.vmap(game.step)(states, action)
    over = jax.vmap(game.terminal)(states)
    result = jax.vmap(game.reward)(states)
    legal = jax.vmap(game.legal_mask)(states)
    return search.RecurrentFnOutput(
      reward=jnp.take_along_axis(result, mover[:, None], axis=1)[:, 0],
      discount=jnp.where(over, 0.0, -1.0),
      prior_logits=jnp.where(legal, 0.0, -1e9),
      value=jnp.zeros(action.shape),
    ), states

  # All replies to the searcher: 8 * 6 * 4 * 2 lines where it begins.
  lines = np.stack(
    np.meshgrid(*[np.arange(n) for n in (8, 6, 4, 2)], indexing='ij'), axis=-1
  ).reshape(-1, 4)
  batch = len(lines)

  @jax.jit
  def move(states, kept):
    legal = jax.vmap(game.legal_mask)(states)
    root = search.RootFnOutput(
      jnp.where(legal, 0.0, -1e9), jnp.zeros(batch), states
    )
    found = search.alphazero_policy(
      None,
      jax.random.key(0),
      root,
      recurrent_fn,
      SIMULATIONS,
      ~legal,
      dirichlet_fraction=0.0,
      temperature=0.0,
      kept=kept,
    )
    kept = search.reuse(found.search_tree, found.action, 2 * SIMULATIONS)
    return jax.vmap(game.step)(states, found.action), kept

  @jax.jit
  def answer(states, reply, kept):
    """The other side's `reply`-th legal move; the tree follows it."""
    legal = jax.vmap(game.legal_mask)(states)
    rank = jnp.cumsum(legal, axis=1) - 1
    reply = reply % jnp.maximum(legal.sum(axis=1), 1)
    action = jnp.argmax(legal & (rank == reply[:, None]), axis=1)
    kept = search.reuse(
      kept, jnp.where(legal.any(axis=1), action, -1), 2 * SIMULATIONS
    )
    return jax.vmap(game.step)(states, action), kept

  states = jax.vmap(game.init)(jax.random.split(jax.random.key(0), batch))
  kept = None
  gained = 0
  for ply in range(4):
    states, kept = move(states, kept)
    states, kept = answer(states, jnp.asarray(lines[:, ply]), kept)
    gained += int((np.asarray(kept.visits)[ROOT] > 0).sum())
  states, kept = move(states, kept)
  assert bool(jax.vmap(game.terminal)(states).all())
  assert (np.asarray(jax.vmap(game.reward)(states))[:, 0] >= 0).all()
  assert gained > batch  # of 4 * batch, less the games that ended early


@pytest.mark.parametrize('num_actions', [40, 521, 600])
def test_the_next_action_is_the_likeliest_that_is_left(num_actions):
  """Looked for in all of them, in blocks of 22 (521 is prime) and of 24."""
  draw = np.random.default_rng(0)
  # Whole numbers, so that sums are exact and there are ties.
  prior = draw.integers(0, 9, (3, 2, num_actions)).astype(np.float32)
  prior[1:, 1] = 0  # no legal action
  root = tree.untried_of(jnp.asarray(prior[0]), jnp.zeros(2))
  untried = jax.tree.map(
    lambda x: jnp.zeros((4, *x.shape), x.dtype).at[ROOT].set(x), root
  )
  assert (untried.blocks is None) == (num_actions == 40)
  parents = np.array([[ROOT, NOBODY], [2, ROOT]])
  actions = draw.integers(0, num_actions, (2, 2))
  actions[1, 0] = prior[1, 0].argmax()
  left = np.concatenate([np.zeros_like(prior[:1]), prior])
  for i in range(2):
    new = map(jnp.asarray, (prior[1 + i], parents[i], actions[i]))
    untried = tree.try_out(untried, jnp.int32(2 + i), *new)
    left[parents[i], [0, 1], actions[i]] = 0
  node = np.arange(1, 4)[:, None].repeat(2, 1)
  found = tree.frontiers(untried, jnp.asarray(node))
  np.testing.assert_array_equal(untried.prior[1:], left[1:])
  np.testing.assert_array_equal(found.action, left[1:].argmax(-1))
  np.testing.assert_array_equal(found.prior, left[1:].max(-1))
  np.testing.assert_array_equal(found.rest, left[1:].sum(-1))
