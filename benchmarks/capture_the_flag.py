"""Capture the flag against JaxMARL's MPE_simple_tag: agent-steps a CPU second.

One core, 64 games at a time, all arms interleaved in one process, medians of
CPU time. Both play random actions, drawn beforehand, through 128 steps in one
compiled loop, and observe after each; the observations are carried along, so
that they are computed. The peer is stepped without its automatic reset, as ours
has none. Four agents play in either; ours see 9 x 9 cells and 9 numbers on a
map of 13 x 13, the peer's 14 or 16 numbers.

  with observations   step and observation
  with the compass    the same with 20 more numbers
  line of sight       the same where walls hide what is behind them
  reset               CPU seconds of a reset with a new map, as a share of what
                      a game of 256 steps takes
  training            an agent against itself in 64 games, updates included,
                      beside the usual harness: games that Python steps one by
                      one. Their step and observation are our own, compiled, and
                      so are the network's choices, for all games at once, and
                      the updates; what differs is who turns the crank.

`ratio` is how many times more agent-steps a second ours makes.

  python -m benchmarks.capture_the_flag
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.systems import impala
from dl_lectures.training import host

BATCH, STEPS, AGENTS = 64, 128, 4
BAR = 1.0
TRAINING_BAR = 5.0
CASES = {
  'with observations': ctf.Rules(size=13),
  'with the compass': ctf.Rules(size=13, compass=True),
  'line of sight': ctf.Rules(size=13, line_of_sight=True),
}
EXTRA = "jaxmarl: pip install 'dl_lectures[benchmarks]'"


def _arm(step: Callable, start: Any, inputs: Any) -> Callable[[], Any]:
  """Returns a compiled call of a loop; `step`: (state, input) -> (state, more).

  What it returns besides is carried along, so that it is computed each time.
  """
  one = jax.vmap(step)

  def run(start, inputs):
    first = jax.tree.map(lambda x: x[0], inputs)
    more = jax.eval_shape(one, start, first)[1]
    more = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), more)
    loop = jax.lax.scan(
      lambda carry, x: (one(carry[0], x), None), (start, more), inputs
    )
    return loop[0]

  compiled = jax.jit(run).lower(start, inputs).compile()
  return functools.partial(compiled, start, inputs)


def _ours(rules: ctf.Rules) -> tuple[Callable[[], Any], Callable[[], Any]]:
  """A loop of steps with observations, and a reset."""

  def step(state, action):
    state, events = ctf.step(rules, state, action)
    return state, (events, ctf.observe(rules, state))

  keys = jax.random.split(jax.random.key(0), BATCH)
  reset = jax.jit(jax.vmap(functools.partial(ctf.reset, rules)))
  reset = reset.lower(keys).compile()
  shape = (STEPS, BATCH, AGENTS)
  actions = jax.random.randint(
    jax.random.key(1), shape, 0, len(ctf.ACTIONS), jnp.int32
  )
  return _arm(step, reset(keys), actions), functools.partial(reset, keys)


def _peer() -> Callable[[], Any]:
  """A loop of JaxMARL's steps; ImportError without it."""
  jaxmarl = importlib.import_module('jaxmarl')
  env = jaxmarl.make('MPE_simple_tag_v3')

  def step(state, x):
    key, action = x
    actions = dict(zip(env.agents, action, strict=True))
    seen, state, *more = env.step_env(key, state, actions)
    return state, (seen, *more)

  keys = jax.random.split(jax.random.key(0), BATCH)
  _, start = jax.vmap(env.reset)(keys)
  drawn = jax.random.key(1)
  inputs = (
    jax.random.split(drawn, (STEPS, BATCH)),
    jax.random.randint(drawn, (STEPS, BATCH, AGENTS), 0, 5, jnp.int32),
  )
  return _arm(step, start, inputs)


def _trained() -> tuple[Callable[[], Any], Callable[[], Any], int]:
  """Training as one program, with Python between games, and agent-steps."""
  config = dataclasses.replace(
    impala.PRESETS['laptop'], games=BATCH, self_play=1.0
  )
  rules, net = config.rules(), impala.network(config)
  key = jax.random.key(0)
  state = jax.jit(functools.partial(impala.init, config, net))(key)
  whole = jax.jit(impala.make_step(config, net)).lower(state, None, key)

  observe = jax.jit(functools.partial(ctf.observe, rules))

  @jax.jit
  def step(state, action):
    state, events = ctf.step(rules, state, action)
    return state, events, ctf.observe(rules, state)

  @jax.jit
  def act(params, seen, key):
    noise = jax.random.gumbel(key, (config.rows, impala.ACTIONS), jnp.float32)
    return impala.act(net, params, (), seen, noise)

  learn = jax.jit(functools.partial(impala.learn, config, net))
  games = [jax.tree.map(lambda x, i=i: x[i], state.games) for i in range(BATCH)]

  def together(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *jax.device_get(trees))

  def seats(seen: Sequence[Any]) -> Any:
    """Games of four seats each, as rows."""
    return jax.tree.map(
      lambda x: x.reshape(config.rows, *x.shape[2:]), together(seen)
    )

  def by_hand():
    now = list(games)
    seen = [observe(game) for game in now]
    steps = []
    for number in range(config.unroll):
      rows = seats(seen)
      action, _, behaviour = act(
        state.train.params, rows, jax.random.fold_in(key, number)
      )
      chosen = np.asarray(action).reshape(BATCH, AGENTS)
      moved = [step(game, own) for game, own in zip(now, chosen, strict=True)]
      now = [game for game, _, _ in moved]
      seen = [what for _, _, what in moved]
      events = seats([what for _, what, _ in moved])
      over = np.repeat([int(game.time) == rules.length for game in now], AGENTS)
      steps.append((rows, np.asarray(action), behaviour, events, over))
    observed, action, behaviour, events, over = together(steps)
    last = seats(seen)
    row = impala.Row(
      observation=jax.tree.map(
        lambda x, y: np.concatenate([x, y[None]]), observed, last
      ),
      memory=(),
      action=action,
      behaviour=behaviour,
      reward=events.astype(np.float32) @ np.array(config.rewards, np.float32),
      discount=jnp.where(over, 0.0, config.discount),
    )
    return learn(state.train, row, jnp.float32(0), key)

  ours = functools.partial(whole.compile(), state, None, key)
  return ours, by_hand, config.rows * config.unroll


def training(rounds: int) -> dict[str, Any]:
  """The line about training.

  Args:
    rounds: in each, either arm is timed once.
  """
  ours, by_hand, steps = _trained()
  seconds = timing.interleave_cpu({'ours': ours, 'peer': by_hand}, rounds)
  ratio = seconds['peer'] / seconds['ours']
  return {
    'name': 'capture_the_flag',
    'what': 'training',
    'batch': BATCH,
    'unit': 'agent-steps a CPU second',
    'ours': steps / seconds['ours'],
    'peer': 'our games, stepped one by one from Python',
    'peer_value': steps / seconds['peer'],
    'ratio': ratio,
    'bar': TRAINING_BAR,
    'met': ratio >= TRAINING_BAR,
  }


def measure(rounds: int) -> Iterator[dict[str, Any]]:
  """Yields all lines.

  Args:
    rounds: in each, every arm is timed once.
  """
  loops = {name: _ours(rules) for name, rules in CASES.items()}
  arms = {name: loop for name, (loop, _) in loops.items()}
  first = next(iter(CASES))
  arms['reset'] = loops[first][1]
  try:
    arms['peer'] = _peer()
    peer = f'jaxmarl {importlib.metadata.version("jaxmarl")}, MPE_simple_tag'
  except ImportError:
    peer = EXTRA
  seconds = timing.interleave_cpu(arms, rounds)
  speed = {
    name: BATCH * STEPS * AGENTS / seconds[name]
    for name in (*CASES, 'peer')
    if name in seconds
  }
  for name in CASES:
    ratio = speed[name] / speed['peer'] if 'peer' in speed else None
    bar = BAR if name == first else None
    yield {
      'name': 'capture_the_flag',
      'what': name,
      'batch': BATCH,
      'unit': 'agent-steps a CPU second',
      'ours': speed[name],
      'peer': peer,
      'peer_value': speed.get('peer'),
      'ratio': ratio,
      'bar': bar,
      'met': None if ratio is None or bar is None else ratio >= bar,
    }
  whole_game = seconds[first] * 256 / STEPS
  yield {
    'name': 'capture_the_flag',
    'what': 'reset',
    'batch': BATCH,
    'unit': 'share of a game of 256 steps',
    'ours': seconds['reset'] / whole_game,
    'peer': 'none',
    'peer_value': None,
    'ratio': None,
    'bar': None,
    'met': None,
  }


def main() -> None:
  """Prints the lines."""
  timing.cases_to_run(__doc__)
  timing.on_one_core()
  host.tune_allocator()
  for line in measure(rounds=9):
    timing.show(line)
  timing.show(training(rounds=5))


if __name__ == '__main__':
  main()
