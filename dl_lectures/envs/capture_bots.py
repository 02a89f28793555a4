"""Scripted players of capture the flag, from poor to good.

They know the whole position, also what no agent would see, and the ways of the
map, which are worked out once a game. So they are no rivals under the same
conditions but marks on a scale: what an agent is worth is measured against them
(the slides, deck 000, "Learning to Play Capture The Flag", rate agents against
bots and people).

  at_random   does anything
  walker      fetches the other flag the shortest way and brings it home
  tagger      the same, and turns to tag who is in reach
  team        the same, but players have roles: one guards the base, and who
              is free fetches the own flag back while a mate has the other

Between them lie as many more as are wanted: `mixed` does anything in a share of
the steps.

A bot decides for all agents at once and knows nothing but the position, so that
two teams are two bots of which each gives its half:

>>> rules = Rules(size=9)
>>> games = play(rules, walker, mixed(tagger, 0.5), jax.random.key(0))
>>> games.score.shape  # after 0 ... 128 steps
(129, 2)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import capture_maps
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.envs.capture_the_flag import Rules, State
from dl_lectures.types import Array, Key, UsageError

# (rules, state, steps, key) -> actions [A] int32, for all agents. `steps` are
# `capture_maps.distances` of the map.
Bot = Callable[[Rules, State, Array, Key], Array]

_MOVES = (ctf.FORWARD, ctf.RIGHT, ctf.BACK, ctf.LEFT)
_TURNS = (ctf.TAG, ctf.TURN_RIGHT, ctf.TURN_RIGHT, ctf.TURN_LEFT)
# How near its base a guard goes to meet who comes, in sizes of the map.
_GUARDED = 0.5
# The share of steps in which who walks goes anywhere.
_ASTRAY = 0.1


def at_random(rules: Rules, state: State, steps: Array, key: Key) -> Array:
  """Does anything."""
  del state, steps
  return jax.random.randint(key, (rules.agents,), 0, len(ctf.ACTIONS))


def walker(rules: Rules, state: State, steps: Array, key: Key) -> Array:
  """Goes to the other team's flag, and home with it; tags nobody."""
  return _walk(rules, state, steps, _errand(rules, state), key)


def tagger(rules: Rules, state: State, steps: Array, key: Key) -> Array:
  """As `walker`, but tags who is ahead, and turns to who is beside."""
  walks = _walk(rules, state, steps, _errand(rules, state), key)
  return _fight(rules, state, walks)


def team(rules: Rules, state: State, steps: Array, key: Key) -> Array:
  """Players with roles: the last of each team guards, the others attack.

  A guard meets an opponent who comes near its base, and attacks while none
  does. While the own flag is away, guards go where it is, and so do the others
  if a mate carries the other flag, which is worth nothing until then.
  """
  side = np.arange(rules.agents) // rules.players
  number = np.arange(rules.agents) % rules.players
  base, own_flag = state.world.base[side], state.flag[side]
  held = jnp.any(state.carries.reshape(2, -1), axis=1)
  guards = (number == rules.players - 1) & (rules.players > 1)
  fetches = (own_flag != base) & ~state.carries & (guards | held[side])

  opponent = (side[:, None] != side[None]) & (state.out == 0)[None]
  away = steps[state.place[None], base[:, None]].astype(jnp.int32)
  away = jnp.where(opponent, away, capture_maps.UNREACHABLE)
  nearest = jnp.argmin(away, axis=1)
  comes = jnp.min(away, axis=1) <= _GUARDED * rules.size
  meets = guards & comes & ~state.carries
  goal = jnp.where(meets, state.place[nearest], _errand(rules, state))
  goal = jnp.where(fetches, own_flag, goal)
  return _fight(rules, state, _walk(rules, state, steps, goal, key))


def mixed(bot: Bot, share: float) -> Bot:
  """A bot that does anything in a share of the steps, drawn for each agent.

  Args:
    bot: what it does in the others.
    share: from 0 to 1.

  Raises:
    UsageError: no such share.
  """
  if not 0 <= share <= 1:
    raise UsageError(f'share={share}; from 0 to 1')

  def choose(rules: Rules, state: State, steps: Array, key: Key) -> Array:
    chance_key, any_key, bot_key = jax.random.split(key, 3)
    anything = at_random(rules, state, steps, any_key)
    given = bot(rules, state, steps, bot_key)
    astray = jax.random.uniform(chance_key, (rules.agents,)) < share
    return jnp.where(astray, anything, given)

  return choose


def play(rules: Rules, first: Bot, second: Bot, key: Key) -> State:
  """Plays a game of two bots on a new map.

  Args:
    rules: of the game.
    first: plays team 0.
    second: plays team 1.
    key: consumed.

  Returns:
    The positions, [length + 1, ...]: where it began and after each step.
  """
  reset_key, key = jax.random.split(key)
  start = ctf.reset(rules, reset_key)
  steps = capture_maps.distances(start.world)
  keys = jax.random.split(key, (rules.length, 2))

  def move(state: State, keys: Key) -> tuple[State, State]:
    theirs = second(rules, state, steps, keys[1])
    action = first(rules, state, steps, keys[0])
    action = action.at[rules.players :].set(theirs[rules.players :])
    state, _ = ctf.step(rules, state, action)
    return state, state

  _, after = jax.lax.scan(move, start, keys)
  return jax.tree.map(
    lambda one, more: jnp.concatenate([one[None], more]), start, after
  )


def _errand(rules: Rules, state: State) -> Array:
  """[A] cells: home for who carries, else to the other team's flag."""
  side = np.arange(rules.agents) // rules.players
  return jnp.where(state.carries, state.world.base[side], state.flag[1 - side])


def _walk(
  rules: Rules, state: State, steps: Array, goal: Array, key: Key
) -> Array:
  """[A] the moves that lead to these cells the shortest way.

  A cell that somebody stands on is gone round, if that costs a step or two. Now
  and then it goes anywhere: two who are in each other's way would else stand
  there for ever.
  """
  side = np.arange(rules.agents) // rules.players
  size, noise = rules.size, jax.random.uniform(key, (rules.agents, 5))
  ways = (state.heading[:, None] + np.arange(4)[None]) % 4
  beside = (
    state.place[:, None] + jnp.array([-size, 1, size, -1])[ways]
  )  # [A, 4]
  far = steps[beside, goal[:, None]].astype(jnp.float32)
  far += noise[:, :4] * jnp.where(noise[:, 4:] < _ASTRAY, 100.0, 0.5)
  taken = beside[:, :, None] == state.place[None, None]
  far += 3 * jnp.any(taken & (state.out == 0)[None, None], axis=2)
  # One's own base is no way through.
  own = beside == state.world.base[side][:, None]
  far = jnp.where(own & ~state.carries[:, None], capture_maps.UNREACHABLE, far)
  best = jnp.argmin(far, axis=1)
  stays = (goal == state.place) | (jnp.min(far, 1) >= capture_maps.UNREACHABLE)
  return jnp.where(stays, ctf.NOTHING, jnp.array(_MOVES)[best])


def _fight(rules: Rules, state: State, action: Array) -> Array:
  """[A] these actions, but tags and turns where an opponent is in reach."""
  plays = state.out == 0

  def in_reach(turn: int) -> Array:
    met = ctf.targets(
      rules, state.ground, state.place, (state.heading + turn) % 4, plays
    )
    return jnp.any(met, axis=1)

  ready = state.cooldown <= 1
  for turn in (2, 3, 1):
    turns = in_reach(turn) & ready & ~state.carries
    action = jnp.where(turns, _TURNS[turn], action)
  return jnp.where(in_reach(0) & (state.cooldown == 0), ctf.TAG, action)
