"""Games side by side: what is played is what the rules play."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import capture_bots, capture_games
from dl_lectures.envs import capture_the_flag as ctf

RULES = ctf.Rules(size=9, length=24)
GAMES = 6


def test_unroll_is_the_loop_of_steps():
  keys = jax.random.split(jax.random.key(0), GAMES)
  start = jax.vmap(functools.partial(ctf.reset, RULES))(keys)
  shape = (RULES.length, GAMES, RULES.agents)
  actions = jax.random.randint(
    jax.random.key(1), shape, 0, len(ctf.ACTIONS), jnp.int32
  )

  def act(memory, state, seen, given):
    del state, seen
    return given, memory + 1, memory

  unroll = jax.jit(functools.partial(capture_games.unroll, RULES, act))
  after, memory, played = unroll(jnp.int32(0), start, actions)
  assert memory == RULES.length
  assert played.extras.tolist() == list(range(RULES.length))
  assert played.over.tolist() == [[False] * GAMES] * 23 + [[True] * GAMES]
  np.testing.assert_array_equal(played.action, actions)

  step = jax.jit(jax.vmap(functools.partial(ctf.step, RULES)))
  observe = jax.jit(jax.vmap(functools.partial(ctf.observe, RULES)))
  state = start
  for t, action in enumerate(actions):
    seen = jax.tree.map(lambda x, t=t: x[t], played.observation)
    jax.tree.map(np.testing.assert_array_equal, seen, observe(state))
    state, events = step(state, action)
    np.testing.assert_array_equal(events, played.events[t])
  jax.tree.map(np.testing.assert_array_equal, state, after)
  last = jax.tree.map(lambda x: x[-1], played.observation)
  jax.tree.map(np.testing.assert_array_equal, last, observe(after))


def test_a_side_plays_its_own_seats():
  """Who never moves stays on its pad, and the others are all over the map."""

  def still(rules, state, steps, key):
    del state, steps, key
    return jnp.zeros(rules.agents, jnp.int32)

  idle = capture_games.bot(RULES, still)
  runs = capture_games.bot(RULES, capture_bots.walker)

  def whole(key, team):
    start = capture_games.starts(RULES, key, jnp.ones(GAMES))
    sides = (idle, runs) if team == 0 else (runs, idle)
    play = functools.partial(capture_games.play, RULES, *sides)
    return play(start, key, lambda state: state.place)

  for team in (0, 1):
    after, place = jax.jit(functools.partial(whole, team=team))(
      jax.random.key(2)
    )
    pad = np.asarray(after.world.pad)
    stayed = (np.asarray(place) == pad).all(axis=0).reshape(GAMES, 2, 2)
    assert stayed[:, team].all()
    assert not stayed[:, 1 - team].any()
    assert (after.score[:, team] == 0).all()
    assert after.score[:, 1 - team].sum() > 0
