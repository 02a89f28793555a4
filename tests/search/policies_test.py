"""Search against mctx, against a plain PUCT, and against perfect play."""

import contextlib
import math
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from benchmarks.search import hashed_game
from dl_lectures import search
from dl_lectures.envs import games


def run_muzero(library, num_actions, batch, num_simulations, **game):
  root, recurrent_fn = hashed_game(library, num_actions, **game)
  invalid = jax.random.bernoulli(jax.random.key(3), 0.3, (batch, num_actions))
  invalid = invalid.at[:, 1].set(False)

  @jax.jit
  def run(key):
    return library.muzero_policy(
      None,
      key,
      root(batch),
      recurrent_fn,
      num_simulations,
      invalid_actions=invalid,
      dirichlet_fraction=0.0,
    ).search_tree.summary()

  # mctx adds 1e-7 of noise to every score, and among thousands of actions some
  # scores are closer than that. There is no argument that turns it off.
  quiet = mock.patch.object(jax.random, 'uniform', return_value=0.0)
  with quiet if library is mctx else contextlib.nullcontext():
    return run(jax.random.key(0))


def check_equal_to_mctx(num_actions, batch, num_simulations, **game):
  ours = run_muzero(search, num_actions, batch, num_simulations, **game)
  peer = run_muzero(mctx, num_actions, batch, num_simulations, **game)
  np.testing.assert_array_equal(ours.visit_counts, peer.visit_counts)
  np.testing.assert_allclose(ours.value, peer.value, atol=1e-5)
  seen = np.asarray(peer.visit_counts) > 0
  np.testing.assert_allclose(
    np.asarray(ours.qvalues)[seen], np.asarray(peer.qvalues)[seen], atol=1e-5
  )
  assert (ours.visit_counts.sum(axis=-1) == num_simulations).all()


@pytest.mark.parametrize(
  ('num_actions', 'num_simulations', 'discount', 'terminal_of_7'),
  [(7, 32, -1.0, 0), (7, 200, -1.0, 2), (7, 32, 0.97, 1), (82, 32, -1.0, 1)],
)
def test_visits_equal_mctx(
  num_actions, num_simulations, discount, terminal_of_7
):
  check_equal_to_mctx(
    num_actions,
    8,
    num_simulations,
    discount=discount,
    terminal_of_7=terminal_of_7,
  )


@pytest.mark.slow
@pytest.mark.parametrize('num_actions', [7, 82, 362, 2187])
@pytest.mark.parametrize('num_simulations', [32, 200, 800])
def test_visits_equal_mctx_at_every_size(num_actions, num_simulations):
  # A simulation of mctx takes time in proportion to its tree.
  batch = min(8, max(1, 100_000 // (num_actions * num_simulations)))
  check_equal_to_mctx(num_actions, batch, num_simulations, discount=-1.0)


@pytest.mark.parametrize(
  ('num_actions', 'num_simulations', 'discount', 'terminal_of_7'),
  [(7, 32, -1.0, 2), (82, 32, 0.9, 1), (600, 32, -1.0, 1)],
)
def test_gumbel_equals_mctx_for_the_same_noise(
  num_actions, num_simulations, discount, terminal_of_7
):
  batch = 8
  key = jax.random.key(5)
  # mctx draws its noise from the second half of its key.
  noise = jax.random.gumbel(jax.random.split(key)[1], (batch, num_actions))

  def run(library, **settings):
    root, recurrent_fn = hashed_game(
      library, num_actions, discount, terminal_of_7
    )
    return jax.jit(
      lambda key: library.gumbel_muzero_policy(
        None, key, root(batch), recurrent_fn, num_simulations, **settings
      )
    )(key)

  peer, ours = run(mctx), run(search, gumbel=noise)
  np.testing.assert_array_equal(ours.action, peer.action)
  np.testing.assert_allclose(
    ours.action_weights, peer.action_weights, atol=1e-5
  )
  np.testing.assert_array_equal(
    ours.search_tree.summary().visit_counts,
    peer.search_tree.summary().visit_counts,
  )


def plain_puct(root, recurrent_fn, num_simulations):
  """AlphaZero's search of one tree, slow and plain: root visits [A]."""

  def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()

  def node(
    prior_logits, value, state, reward=0.0, discount=1.0
  ) -> dict[str, Any]:
    return {
      'p': softmax(np.asarray(prior_logits[0], np.float64)),
      'n': 0,
      'w': 0.0,
      'v': float(value[0]),
      'state': state,
      'r': reward,
      'd': discount,
      'children': {},
    }

  top = node(root.prior_logits, root.value, root.embedding)
  top['n'], top['w'] = 1, top['v']

  def score(parent, action):
    c = math.log((parent['n'] + 19652 + 1) / 19652) + 1.25
    child = parent['children'].get(action)
    n = child['n'] if child else 0
    q = child['r'] + child['d'] * child['w'] / n if child else 0.0
    return q + c * parent['p'][action] * math.sqrt(parent['n']) / (1 + n)

  for _ in range(num_simulations):
    path, at = [top], top
    while True:
      scores = [score(at, a) for a in range(len(at['p']))]
      action = int(np.argmax(scores))
      if action not in at['children'] or at['children'][action]['d'] == 0:
        break
      at = at['children'][action]
      path.append(at)
    if action not in at['children']:
      out, state = recurrent_fn(None, None, jnp.array([action]), at['state'])
      at['children'][action] = node(
        out.prior_logits,
        out.value,
        state,
        float(out.reward[0]),
        float(out.discount[0]),
      )
    leaf = at['children'][action]
    path.append(leaf)
    value = leaf['v']
    for visited in reversed(path):
      visited['n'] += 1
      visited['w'] += value
      value = visited['r'] + visited['d'] * value
  return [
    top['children'][a]['n'] if a in top['children'] else 0
    for a in range(len(top['p']))
  ]


def test_alphazero_equals_a_plain_puct():
  root, recurrent_fn = hashed_game(search, 5, -1.0, 1)
  recurrent_fn = jax.jit(recurrent_fn)
  found = jax.jit(
    lambda: search.alphazero_policy(
      None,
      jax.random.key(0),
      root(3),
      recurrent_fn,
      60,
      dirichlet_fraction=0.0,
    ).search_tree.summary()
  )()
  for row in range(3):
    alone = jax.tree.map(lambda x, row=row: x[row : row + 1], root(3))
    expected = plain_puct(alone, recurrent_fn, 60)
    np.testing.assert_array_equal(found.visit_counts[row], expected)


def test_temperature_and_noise():
  root, recurrent_fn = hashed_game(search, 7, -1.0)
  noise = jnp.zeros((8, 7)).at[:, 4].set(1.0)

  @jax.jit
  def run(temperature):
    return search.alphazero_policy(
      None,
      jax.random.key(1),
      root(8),
      recurrent_fn,
      32,
      dirichlet_fraction=0.4,
      dirichlet_noise=noise,
      temperature=temperature,
    )

  cold = run(jnp.zeros(8))
  # Much of the prior lies on action 4, so that it is visited and chosen often.
  np.testing.assert_array_equal(
    cold.action, jnp.argmax(cold.action_weights, axis=-1)
  )
  assert (cold.action == 4).mean() > 0.5
  np.testing.assert_allclose(cold.action_weights.sum(axis=-1), 1, rtol=1e-5)
  hot = run(jnp.full(8, 1e6))
  assert (hot.action != cold.action).any()
  assert (
    jnp.take_along_axis(hot.action_weights, hot.action[:, None], axis=1) > 0
  ).all()


@pytest.mark.slow
def test_it_never_loses_tic_tac_toe_to_perfect_play():
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

  @jax.jit
  def choose(state):
    legal = game.legal_mask(state)
    root = search.RootFnOutput(
      jnp.where(legal, 0.0, -1e9)[None],
      jnp.zeros(1),
      jax.tree.map(lambda x: x[None], state),
    )
    return search.alphazero_policy(
      None,
      jax.random.key(0),
      root,
      recurrent_fn,
      1600,
      ~legal[None],
      dirichlet_fraction=0.0,
      temperature=0.0,
    ).action[0]

  step = jax.jit(game.step)
  seen = {}

  def worst(state, me):
    """The worst that can happen to the searcher from here: -1, 0 or 1."""
    look = (np.asarray(game.observe(state)).tobytes(), me)
    if look not in seen:
      if bool(game.terminal(state)):
        seen[look] = float(game.reward(state)[me])
      elif int(game.to_play(state)) == me:
        seen[look] = worst(step(state, choose(state)), me)
      else:
        legal = np.flatnonzero(game.legal_mask(state))
        seen[look] = min(worst(step(state, int(a)), me) for a in legal)
    return seen[look]

  start = game.init(jax.random.key(0))
  assert worst(start, 0) >= 0
  assert worst(start, 1) >= 0


@pytest.mark.parametrize(
  'num_actions', [pytest.param(7, marks=pytest.mark.slow), 40]
)
def test_reuse_keeps_what_is_known_below_a_move(num_actions):
  make_root, recurrent_fn = hashed_game(search, num_actions, -1.0, 1)
  roots = make_root(6)

  def run(kept, root):
    return search.alphazero_policy(
      None,
      jax.random.key(0),
      root,
      recurrent_fn,
      48,
      dirichlet_fraction=0.0,
      temperature=0.0,
      kept=kept,
    )

  first = run(None, roots)
  before = first.search_tree.summary()
  kept = search.reuse(first.search_tree, first.action)
  out, states = recurrent_fn(None, None, first.action, roots.embedding)
  batch = np.arange(6)
  visits = np.asarray(before.visit_counts)[batch, np.asarray(first.action)]
  over = np.asarray(out.discount) == 0
  # The child's own first visit is its making, the others are its children's.
  found = np.asarray(kept.summary().visit_counts.sum(axis=1))
  np.testing.assert_array_equal(found[~over], visits[~over] - 1)
  value = np.asarray(kept.summary().value)
  expected = -np.asarray(before.qvalues)[batch, np.asarray(first.action)]
  np.testing.assert_allclose(value[~over], expected[~over], atol=1e-6)
  root = search.RootFnOutput(out.prior_logits, out.value, states)
  second = run(kept, root).search_tree.summary()
  total = np.asarray(second.visit_counts.sum(axis=1))
  np.testing.assert_array_equal(total[~over], 48 + visits[~over] - 1)
  # Where nothing is kept the search is that of a fresh tree.
  fresh = run(search.reuse(first.search_tree, jnp.full(6, -1)), root)
  alone = run(None, root)
  np.testing.assert_array_equal(
    fresh.search_tree.summary().visit_counts,
    alone.search_tree.summary().visit_counts,
  )
