"""The loops of a search: they end, stop at the limit and copy no tree."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from benchmarks import selfplay
from benchmarks.search import hashed_game
from dl_lectures import search
from dl_lectures.envs import games

# A shape that no other array of the program has: 29 simulations, the root and
# nobody.
SIMULATIONS, NODES, TREES = 29, 31, 6


@pytest.mark.parametrize(
  ('policy', 'num_actions'),
  [
    ('alphazero_policy', 7),
    ('alphazero_policy', 40),
    ('gumbel_muzero_policy', 40),
  ],
)
def test_trees_are_updated_in_place(policy, num_actions):
  """A copy of the tree each simulation would cost more than the search."""
  make_root, recurrent_fn = hashed_game(search, num_actions, -1.0)

  def carry_on(params, key, action, embedding):
    state, same = embedding  # much of a position does not change
    out, state = recurrent_fn(params, key, action, state)
    return out, (state, same)

  root = make_root(TREES)
  root = root._replace(embedding=(root.embedding, jnp.ones((TREES, 5))))
  program = jax.jit(
    lambda root: (
      getattr(search, policy)(
        None, jax.random.key(0), root, carry_on, SIMULATIONS
      ).action
    )
  )
  text = program.lower(root).compile().as_text()
  assert text is not None
  inside, _, _ = text.partition('\nENTRY ')
  whole = re.compile(rf'= \w+\[{NODES},\S* copy\(')
  assert f'[{NODES},' in inside
  assert not whole.findall(inside)


@pytest.mark.parametrize(
  ('policy', 'num_actions', 'max_depth'),
  [
    ('muzero_policy', 7, 1),
    ('muzero_policy', 40, 3),
    ('gumbel_muzero_policy', 7, 3),
    ('gumbel_muzero_policy', 40, 1),
  ],
)
def test_the_depth_limit_is_that_of_mctx(policy, num_actions, max_depth):
  key = jax.random.key(5)
  noise = jax.random.gumbel(jax.random.split(key)[1], (4, num_actions))

  def run(library, **settings):
    root, recurrent_fn = hashed_game(library, num_actions, -1.0, 1)
    if policy == 'muzero_policy':
      settings = {'dirichlet_fraction': 0.0}
    return jax.jit(
      lambda key: getattr(library, policy)(
        None, key, root(4), recurrent_fn, 30, max_depth=max_depth, **settings
      ).search_tree.summary()
    )(key)

  ours, peer = run(search, gumbel=noise), run(mctx)
  np.testing.assert_array_equal(ours.visit_counts, peer.visit_counts)
  np.testing.assert_allclose(ours.value, peer.value, atol=1e-5)


SELF_PLAY = """
import jax, jax.numpy as jnp
from dl_lectures import search
from dl_lectures.envs import games
game = games.make('tic_tac_toe')
def model(params, key, action, states):
  mover = jax.vmap(game.to_play)(states)
  states = jax.vmap(game.step)(states, action)
  over = jax.vmap(game.terminal)(states)
  reward = jax.vmap(game.reward)(states)
  logits = jnp.where(jax.vmap(game.legal_mask)(states), 0.0, -1e9)
  return search.RecurrentFnOutput(
    jnp.take_along_axis(reward, mover[:, None], axis=1)[:, 0],
    jnp.where(over, 0.0, -1.0), logits, jnp.zeros(4)), states
def ply(carry, key):
  states, kept = carry
  legal = jax.vmap(game.legal_mask)(states)
  root = search.RootFnOutput(
    jnp.where(legal, 0.0, -1e9), jnp.zeros(4), states)
  found = search.alphazero_policy(None, key, root, model, 40, ~legal, kept=kept)
  found_g = search.gumbel_muzero_policy(None, key, root, model, 40, ~legal)
  both = jnp.where(jnp.arange(4) < 2, found.action, found_g.action)
  kept = search.reuse(found.search_tree, both, 80)
  return (jax.vmap(game.step)(states, both), kept), None
states = jax.vmap(game.init)(jax.random.split(jax.random.key(0), 4))
legal = jnp.ones((4, 9))
nothing = search.alphazero_policy(None, jax.random.key(0),
  search.RootFnOutput(legal, jnp.zeros(4), states), model, 1).search_tree
kept = search.reuse(nothing, jnp.full(4, -1), 80)
keys = jax.random.split(jax.random.key(0), 14)
(states, _), _ = jax.jit(lambda c: jax.lax.scan(ply, c, keys))((states, kept))
assert bool(jax.vmap(game.terminal)(states).all())
print('over')
"""


@pytest.mark.slow
def test_self_play_ends_though_games_are_searched_after_their_end():
  """In a process of its own, because a loop that spins cannot be stopped."""
  done = subprocess.run(
    [sys.executable, '-c', SELF_PLAY],
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
  )
  assert done.stdout == 'over\n', done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'batch', 'num_simulations'),
  [('pgx_connect_four', 16, 64), ('pgx_go_9x9', 8, 32), ('pgx_chess', 4, 32)],
)
def test_visits_equal_mctx_with_a_network(name, batch, num_simulations):
  pytest.importorskip('pgx')
  game = games.make(name)
  states = selfplay.start(game, batch)
  # A few plies apart, so that the trees are not all the same.
  for ply in range(6):
    legal = jax.vmap(game.legal_mask)(states)
    draw = jax.random.gumbel(jax.random.key(ply), legal.shape)
    states = jax.jit(jax.vmap(game.step))(
      states, jnp.argmax(jnp.where(legal, draw, -jnp.inf), axis=1)
    )
  evaluate = selfplay.network(game, states)

  def run(library):
    step = selfplay.model(game, evaluate, library)

    @jax.jit
    def visits(states):
      logits, value = evaluate(states)
      return (
        library.muzero_policy(
          (),
          jax.random.key(0),
          library.RootFnOutput(
            prior_logits=logits,
            value=value,
            embedding=jax.vmap(game.compact)(states),
          ),
          step,
          num_simulations,
          invalid_actions=~jax.vmap(game.legal_mask)(states),
          dirichlet_fraction=0.0,
        )
        .search_tree.summary()
        .visit_counts
      )

    return np.asarray(visits(states))

  np.testing.assert_array_equal(run(search), run(mctx))
