"""One tree on the host: the batched visits, kept trees, many leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.search import hashed_game
from dl_lectures import search
from dl_lectures.envs import games
from dl_lectures.search import single
from dl_lectures.types import UsageError


def row(tree, i):
  return jax.tree.map(lambda x: x[i : i + 1], tree)


@pytest.mark.parametrize(
  ('num_actions', 'discount', 'ends'),
  [(7, -1.0, 1), (40, -1.0, 0), (7, 0.9, 0)],
)
def test_one_leaf_a_round_gives_the_visits_of_the_batched_search(
  num_actions, discount, ends
):
  make_root, recurrent_fn = hashed_game(search, num_actions, discount, ends)
  roots = make_root(4)
  found = search.alphazero_policy(
    None,
    jax.random.key(0),
    roots,
    recurrent_fn,
    96,
    dirichlet_fraction=0.0,
  ).search_tree.summary()
  evaluate = single.evaluator(recurrent_fn)
  for i in range(4):
    tree = single.begin(row(roots, i))
    calls = single.grow(tree, evaluate, None, 96, num_leaves=1)
    assert calls <= 96
    np.testing.assert_array_equal(
      single.visit_counts(tree, num_actions), found.visit_counts[i]
    )
    assert tree.value == pytest.approx(float(found.value[i]), abs=1e-4)
    np.testing.assert_allclose(
      single.qvalues(tree, num_actions), found.qvalues[i], atol=1e-4
    )


def nodes(tree):
  yield tree
  for edge in tree.edges:
    if edge is not None:
      yield from nodes(edge[0])


@pytest.mark.parametrize('num_leaves', [2, 8, 32])
def test_many_leaves_a_round_count_every_simulation_once(num_leaves):
  make_root, recurrent_fn = hashed_game(search, 7, -1.0, 1)
  tree = single.begin(make_root(1))
  evaluate = single.evaluator(recurrent_fn)
  calls = single.grow(tree, evaluate, None, 100, num_leaves)
  assert tree.visits == 101
  assert tree.edge_visits.sum() == 100
  assert calls < 100
  for node in nodes(tree):
    assert not node.pending.any()
    assert node.over or node.visits == 1 + node.edge_visits.sum()
    for count, edge in zip(node.edge_visits, node.edges, strict=True):
      assert count == (0 if edge is None else edge[0].visits)


def test_a_search_that_is_gone_on_with_is_the_same_search():
  make_root, recurrent_fn = hashed_game(search, 7, -1.0, 1)
  evaluate = single.evaluator(recurrent_fn)
  whole, parts = single.begin(make_root(1)), single.begin(make_root(1))
  single.grow(whole, evaluate, None, 60, 1)
  for _ in range(6):
    single.grow(parts, evaluate, None, 10, 1)
  assert parts.edge_visits.tolist() == whole.edge_visits.tolist()


def test_the_subtree_behind_a_move_is_kept_as_it_was():
  make_root, recurrent_fn = hashed_game(search, 60, -1.0)
  evaluate = single.evaluator(recurrent_fn)
  tree = single.begin(make_root(1))
  single.grow(tree, evaluate, None, 100, 4)
  action = single.principal_variation(tree)[0]
  kept = single.child(tree, action)
  assert kept is not None
  before = kept.visits
  assert before == single.visit_counts(tree, 60)[action]
  single.grow(kept, evaluate, None, 50, 4)
  assert kept.visits == before + 50
  fresh = int(
    np.setdiff1d(np.arange(60), tree.actions[tree.edge_visits > 0])[0]
  )
  assert single.child(tree, fresh) is None


def test_of_moves_tried_as_often_the_better_is_meant():
  make_root, recurrent_fn = hashed_game(search, 60, -1.0)
  tree = single.begin(make_root(1))
  single.grow(tree, single.evaluator(recurrent_fn), None, 100, 4)
  first, *_, last = np.flatnonzero(tree.edge_visits)
  tree.edge_visits[[first, last]] = tree.edge_visits.max() + 1
  tree.edge_value[[first, last]] = 0.1, 0.2
  assert single.principal_variation(tree, 1) == [tree.actions[last]]
  tree.edge_visits[first] += 1
  assert single.principal_variation(tree, 1) == [tree.actions[first]]


def test_a_way_without_choice_is_followed_one_leaf_at_a_time():
  def recurrent_fn(params, key, action, embedding):
    zeros = jnp.zeros(action.shape)
    logits = jnp.where(jnp.arange(3)[None] == 1, 0.0, -1e9)
    out = search.RecurrentFnOutput(
      zeros, zeros - 1, jnp.broadcast_to(logits, (*action.shape, 3)), zeros
    )
    return out, embedding + 1

  root = search.RootFnOutput(
    jnp.array([[-1e9, 0.0, -1e9]]), jnp.zeros(1), jnp.zeros(1, jnp.int32)
  )
  tree = single.begin(root)
  assert single.grow(tree, single.evaluator(recurrent_fn), None, 10, 8) == 10
  assert single.principal_variation(tree, 20) == [1] * 10


def test_nothing_to_search_is_told():
  root = search.RootFnOutput(jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1))
  with pytest.raises(UsageError, match='without a legal action'):
    single.begin(root, np.ones((1, 2), bool))


@functools.cache
def tic_tac_toe():
  """The game, and a search of it without a network."""
  game = games.make('tic_tac_toe')

  def recurrent_fn(params, key, action, states):
    mover = jax.vmap(game.to_play)(states)
    states = jax.vmap(game.step)(states, action)
    over = jax.vmap(game.terminal)(states)
    reward = jnp.take_along_axis(
      jax.vmap(game.reward)(states), mover[:, None], axis=1
    )[:, 0]
    legal = jax.vmap(game.legal_mask)(states)
    return search.RecurrentFnOutput(
      reward=reward,
      discount=jnp.where(over, 0.0, -1.0),
      prior_logits=jnp.where(legal, 0.0, -1e9),
      value=jnp.zeros_like(reward),
    ), states

  return game, single.evaluator(recurrent_fn)


@pytest.mark.parametrize('begins', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_tic_tac_toe_is_never_lost_with_kept_trees(begins):
  game, evaluate = tic_tac_toe()
  step, legal_mask = jax.jit(game.step), jax.jit(game.legal_mask)
  lines = 0

  def fresh(state):
    logits = jnp.where(legal_mask(state), 0.0, -1e9)[None]
    states = jax.tree.map(lambda x: x[None], state)
    return single.begin(search.RootFnOutput(logits, jnp.zeros(1), states))

  def play(state, tree):
    """Our move; then all of the other side's."""
    nonlocal lines
    if bool(game.terminal(state)):
      lines += 1
      assert float(game.reward(state)[begins]) >= 0
      return
    if int(game.to_play(state)) == begins:
      tree = fresh(state) if tree is None else tree
      # What is kept counts: only the rest is searched again.
      single.grow(tree, evaluate, None, max(100, 2500 - tree.visits), 8)
      action = single.principal_variation(tree, 1)[0]
      play(step(state, action), single.child(tree, action))
      return
    for action in np.flatnonzero(legal_mask(state)):
      kept = None if tree is None else single.child(tree, int(action))
      play(step(state, int(action)), kept)

  play(game.init(jax.random.key(0)), None)
  assert lines > 20
