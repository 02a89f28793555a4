"""Many games of capture the flag side by side, and who plays in them.

All games have one length and go on in lock-step, so that all seats of all games
are rows of one batch: whoever decides is handed them together. `unroll` plays
some steps for a learner, which keeps what it saw and did; `play` plays whole
games of two sides, each of which has one team's seats:

>>> rules = ctf.Rules(size=9, length=32)
>>> first = bot(rules, capture_bots.walker)
>>> second = bot(rules, capture_bots.at_random)
>>> start = starts(rules, jax.random.key(0), jnp.array([0.0, 1.0, 0.0, 1.0]))
>>> after, scores = play(
...   rules, first, second, start, jax.random.key(1), lambda now: now.score
... )
>>> after.score.shape, scores.shape  # of 4 games; before and after each step
((4, 2), (33, 4, 2))

Source: the slides, deck 000, "Learning to Play Capture The Flag".

Shapes: G games, A agents of a game, n of a team, T steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.envs import capture_bots, capture_maps
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.envs.capture_the_flag import Observation, Rules, State
from dl_lectures.types import Array, Key

# (memory, state [G, ...], observation [G, A, ...], given)
#   -> (action [G, A], memory, what of it is to be kept)
Act = Callable[[Any, State, Observation, Any], tuple[Array, Any, Any]]


class Played(NamedTuple):
  """What happened in some steps.

  Attributes:
    observation: [T + 1, G, A, ...], before each step, and after the last.
    action: [T, G, A] int32.
    events: [T, G, A, 13] uint8, what came of it.
    over: [T, G] bool, the game ended with this step.
    extras: [T, ...] each, what was to be kept.
  """

  observation: Observation
  action: Array
  events: Array
  over: Array
  extras: Any


class Side(NamedTuple):
  """Who plays one team's seats in G games at once.

  Attributes:
    begin: state [G, ...] -> its memory before the first step.
    act: (team, memory, state [G, ...], observation [G, n, ...] of its own
      seats, key) -> (action [G, n], memory). A network looks at the
      observation alone.
  """

  begin: Callable[[State], Any]
  act: Callable[[int, Any, State, Observation, Key], tuple[Array, Any]]


def unroll(
  rules: Rules, act: Act, memory: Any, state: State, given: Any
) -> tuple[State, Any, Played]:
  """Plays T steps of G games.

  Args:
    rules: of the games.
    act: decides for all seats.
    memory: its own, before.
    state: [G, ...]; nobody plays on after the end of a game.
    given: [T, ...] each, what `act` gets in each step: keys, or what was drawn
      beforehand, which is faster.

  Returns:
    The games and the memory after it, and what happened.
  """
  observe = jax.vmap(functools.partial(ctf.observe, rules))
  move = jax.vmap(functools.partial(ctf.step, rules))

  def step(carry: tuple[State, Any], given: Any) -> tuple[Any, Any]:
    state, memory = carry
    seen = observe(state)
    action, memory, extras = act(memory, state, seen, given)
    state, events = move(state, action)
    over = state.time == rules.length
    return (state, memory), (seen, action, events, over, extras)

  (state, memory), (seen, *rest) = jax.lax.scan(step, (state, memory), given)
  seen = jax.tree.map(
    lambda rows, last: jnp.concatenate([rows, last[None]]), seen, observe(state)
  )
  return state, memory, Played(seen, *rest)


def bot(rules: Rules, decide: capture_bots.Bot) -> Side:
  """A scripted player as a side.

  Args:
    rules: of the games.
    decide: of `envs/capture_bots`.
  """

  def begin(state: State) -> Array:
    return jax.vmap(capture_maps.distances)(state.world)

  def act(
    team: int, steps: Array, state: State, seen: Observation, key: Key
  ) -> tuple[Array, Array]:
    del seen
    keys = jax.random.split(key, len(steps))
    action = jax.vmap(functools.partial(decide, rules))(state, steps, keys)
    return seats(rules, team, action), steps

  return Side(begin, act)


def seats(rules: Rules, team: int, of_all: Any) -> Any:
  """What belongs to one team: [G, A, ...] -> [G, n, ...], of every leaf."""
  own = slice(team * rules.players, (team + 1) * rules.players)
  return jax.tree.map(lambda x: x[:, own], of_all)


def both(
  rules: Rules, first: Side, second: Side
) -> Callable[[Any, State, Observation, Key], tuple[Array, list[Any]]]:
  """Two sides as who plays all seats.

  Args:
    rules: of the games.
    first: plays team 0.
    second: plays team 1.

  Returns:
    (memories of both, state [G, ...], observation [G, A, ...], keys [2]) ->
    (action [G, A], memories).
  """

  def decide(memories, state, seen, keys):
    done = [
      side.act(
        team, memories[team], state, seats(rules, team, seen), keys[team]
      )
      for team, side in enumerate((first, second))
    ]
    action = jnp.concatenate([action for action, _ in done], axis=1)
    return action, [memory for _, memory in done]

  return decide


def starts(rules: Rules, key: Key, indoor: Array) -> State:
  """Games on new maps, from ordinary starts: [G, ...].

  Args:
    rules: of the games.
    key: consumed.
    indoor: [G] float32, the probability of each to be on an indoor map.
  """

  def start(key: Key, indoor: Array) -> State:
    map_key, key = jax.random.split(key)
    world = capture_maps.draw(map_key, rules.size, rules.players, indoor)
    return ctf.begin(rules, world, key)

  return jax.vmap(start)(jax.random.split(key, len(indoor)), indoor)


def play(
  rules: Rules,
  first: Side,
  second: Side,
  start: State,
  key: Key,
  watch: Callable[[State], Any] = lambda state: (),
) -> tuple[State, Any]:
  """Plays whole games.

  Args:
    rules: of the games.
    first: plays team 0.
    second: plays team 1.
    start: [G, ...], of `starts`.
    key: consumed.
    watch: positions [G, ...] -> what of them is to be kept.

  Returns:
    The positions [G, ...] at the end, and what was kept, [length + 1, ...]
    each: of where it began and after each step.
  """
  decide = both(rules, first, second)

  def step(carry: tuple[State, Any], keys: Key) -> tuple[Any, Any]:
    state, memories = carry
    seen = jax.vmap(functools.partial(ctf.observe, rules))(state)
    action, memories = decide(memories, state, seen, keys)
    state, _ = jax.vmap(functools.partial(ctf.step, rules))(state, action)
    return (state, memories), watch(state)

  memories = [side.begin(start) for side in (first, second)]
  keys = jax.random.split(key, (rules.length, 2))
  (after, _), watched = jax.lax.scan(step, (start, memories), keys)
  watched = jax.tree.map(
    lambda one, more: jnp.concatenate([one[None], more]), watch(start), watched
  )
  return after, watched
