"""The rules of chess, shogi and Go against pgx: speed, compile time, size.

One core, 64 games at a time, both libraries interleaved in one process, each
called once untimed before it is timed (the first call after another library's
pays for that one's freed memory). Times are CPU time, medians, in microseconds
a state. Steps are eight random legal moves after twenty, in one compiled loop,
as a search or self-play makes them.

  step                 what a player needs: the state after a move, the dense
                       legal mask, whether the game is over, the result;
                       against env.step, which observes too
  packed step          the same without the dense mask, where the state holds
                       the moves as bits
  step and observation likewise with the planes for a network
  observation          against env.observe
  compile              seconds to trace and compile one step
  state                bytes of one

`ratio` is how many times smaller ours is, and is to reach `bar`.

  python -m benchmarks.rules [chess] [shogi] [go_9x9] [go_19x19]
"""

import functools
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from dl_lectures.envs import games
from dl_lectures.training import host

BATCH = 64
_BEFORE, _TIMED = 20, 8  # half moves


class Entry(NamedTuple):
  """A game to measure.

  Attributes:
    module: of `dl_lectures.envs`.
    make: module -> our Game.
    peer: pgx's name of it.
    bars: what is measured -> how many times smaller than pgx's it is to be;
      None where the ratio is shown and not judged.
    packed_step: module -> (state, action) -> state that holds its moves
      packed; None where ours does not.
  """

  module: str
  make: Callable[[ModuleType], games.Game]
  peer: str
  bars: Mapping[str, float | None]
  packed_step: Callable[[ModuleType], Callable] | None = None


GAMES = {
  'chess': Entry(
    module='chess',
    make=lambda chess: chess.GAME,
    peer='chess',
    bars={
      'step': 15,
      'packed step': 30,
      'step and observation': None,
      'observation': 2.5,
      'compile': 1,
      'state': 20,
    },
    packed_step=lambda chess: chess.step,
  ),
  'shogi': Entry(
    module='shogi',
    make=lambda shogi: shogi.GAME,
    peer='shogi',
    bars={
      'step': 100,
      'packed step': None,
      'step and observation': None,
      'observation': None,
      'compile': 1 / 1.5,
      'state': 20,
    },
    packed_step=lambda shogi: shogi.step,
  ),
  'go_9x9': Entry(
    module='go',
    make=lambda go: go.make(9),
    peer='go_9x9',
    bars={
      'step': 4,
      'step and observation': None,
      'observation': None,
      'compile': 1,
      'state': None,
    },
  ),
  'go_19x19': Entry(
    module='go',
    make=lambda go: go.make(19),
    peer='go_19x19',
    bars={
      'step': 15,
      'step and observation': None,
      'observation': None,
      'compile': 1,
      'state': None,
    },
  ),
}


class Case(NamedTuple):
  """What is timed: `function` of one state, and an action where it plays.

  Attributes:
    function: state -> arrays, or state, action -> (state, more arrays).
    states: [B] games.
    actions: [moves, B] legal one after the other; None if nothing is played.
  """

  function: Callable
  states: Any
  actions: jax.Array | None


def ours_of(entry: Entry) -> dict[str, Case]:
  """Returns what is measured of ours, by name."""
  module = importlib.import_module(f'dl_lectures.envs.{entry.module}')
  game = entry.make(module)

  def step(state, action):
    state = game.step(state, action)
    over, result = game.terminal(state), game.reward(state)
    return state, (game.legal_mask(state), over, result)

  def observed(state, action):
    state, more = step(state, action)
    return state, (*more, game.observe(state))

  start = jax.vmap(game.init)(jax.random.split(jax.random.key(0), BATCH))
  played = _random_play(start, game.step, game.legal_mask, game.terminal)
  found = {
    'step': Case(step, *played),
    'step and observation': Case(observed, *played),
    'observation': Case(game.observe, played[0], None),
  }
  if entry.packed_step is not None:
    packed = entry.packed_step(module)

    def packed_step(state, action):
      state = packed(state, action)
      return state, (game.terminal(state), game.reward(state))

    found['packed step'] = Case(packed_step, *played)
  return found


def peers_of(entry: Entry) -> dict[str, Case]:
  """Returns the same of pgx."""
  env: Any = importlib.import_module('pgx').make(entry.peer)
  start = jax.vmap(env.init)(jax.random.split(jax.random.key(0), BATCH))
  played = _random_play(
    start,
    env.step,
    lambda state: state.legal_action_mask,
    lambda state: state.terminated,
  )
  return {
    'step': Case(lambda state, action: (env.step(state, action), ()), *played),
    'observation': Case(env.observe, played[0], None),
  }


def _random_play(
  states: Any, step: Callable, legal_mask: Callable, terminal: Callable
) -> tuple[Any, jax.Array]:
  """Returns games after some random moves, and the moves that follow."""

  @jax.jit
  @jax.vmap
  def play(state, key):
    logits = jnp.where(legal_mask(state), 0.0, -1e9)
    action = jax.random.categorical(key, logits).astype(jnp.int32)
    after, over = step(state, action), terminal(state)
    keep = functools.partial(jnp.where, over)
    return jax.tree.map(keep, state, after), action

  keys = jax.random.split(jax.random.key(1), (_BEFORE + _TIMED, BATCH))
  then, actions = states, []
  for ply, some_keys in enumerate(keys):
    states, action = play(states, some_keys)
    actions.append(action)
    if ply == _BEFORE - 1:
      then = states
  return then, jnp.stack(actions[_BEFORE:])


def _arm(case: Case) -> Callable[[], Any]:
  """Returns a compiled call without arguments."""
  if case.actions is None:
    arguments = (case.states,)
    run = jax.vmap(case.function)
  else:
    arguments = (case.states, case.actions)

    def run(states, actions):
      # Carried along, so that they are computed after every move.
      one = jax.vmap(case.function)
      more = jax.eval_shape(one, states, actions[0])[1]
      more = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), more)
      return jax.lax.scan(
        lambda carry, action: (one(carry[0], action), None),
        (states, more),
        actions,
      )[0]

  return functools.partial(jax.jit(run).lower(*arguments).compile(), *arguments)


def _compile_seconds(case: Case) -> float:
  jax.clear_caches()
  assert case.actions is not None
  start = time.process_time()
  one = jax.jit(jax.vmap(case.function))
  one.lower(case.states, case.actions[0]).compile()
  return time.process_time() - start


def measure(name: str, rounds: int) -> Iterator[dict[str, Any]]:
  """Yields the lines of one game."""
  entry = GAMES[name]
  try:
    ours = ours_of(entry)
  except ImportError as error:
    yield {'name': 'rules', 'game': name, 'met': None, 'skipped': str(error)}
    return
  try:
    peers = peers_of(entry)
    peer = f'pgx {importlib.metadata.version("pgx")}'
  except ImportError:
    peers, peer = {}, "pgx: pip install 'dl_lectures[pgx]'"

  sides = {'ours': ours} | ({'peer': peers} if peers else {})
  arms, states = {}, {}
  for side, found in sides.items():
    for what, case in found.items():
      arms[f'{side} {what}'] = _arm(case)
      moves = 1 if case.actions is None else len(case.actions)
      states[f'{side} {what}'] = BATCH * moves
  values = {
    arm: 1e6 * seconds / states[arm]
    for arm, seconds in timing.interleave_cpu(arms, rounds).items()
  }
  compiles = {side: [] for side in sides}
  for _ in range(3):
    for side, found in sides.items():
      compiles[side].append(_compile_seconds(found['step']))
  for side, found in sides.items():
    values[f'{side} compile'] = float(np.median(compiles[side]))
    values[f'{side} state'] = _bytes(found['step'].states) / BATCH
  if peers:
    for what in ('packed step', 'step and observation'):
      values[f'peer {what}'] = values['peer step']

  for what, bar in entry.bars.items():
    mine, theirs = values[f'ours {what}'], values.get(f'peer {what}')
    ratio = theirs / mine if theirs else None
    yield {
      'name': 'rules',
      'game': name,
      'what': what,
      'batch': BATCH,
      'unit': {'compile': 's', 'state': 'bytes'}.get(what, 'us a state'),
      'ours': mine,
      'peer': peer,
      'peer_value': theirs,
      'ratio': ratio,
      'bar': bar,
      'met': None if ratio is None or bar is None else ratio >= bar,
    }


def _bytes(states: Any) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(states))


def main() -> None:
  """Prints the lines of the games named, of all if none is."""
  names = timing.cases_to_run(__doc__, GAMES)
  timing.on_one_core()
  host.tune_allocator()
  for name in names:
    for line in measure(name, rounds=9):
      timing.show(line)


if __name__ == '__main__':
  main()
