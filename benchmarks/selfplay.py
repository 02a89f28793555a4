"""What self-play costs: rules, network and tree, against mctx on pgx's rules.

All arms are interleaved in one process on one core, since self-play has a core
for each device (`host.one_device_per_core`); values are medians, in
milliseconds of CPU time a search. Two lines a case:

- over the floor: our search against the same environment steps and network
  calls, one after the other, without a tree;
- throughput: our search over our rules against mctx.muzero_policy over pgx's,
  with an evaluator that knows nothing (`uniform`) and with the same network of
  2 residual blocks of 32 channels (`network`). The shares of tree, rules and
  network in our time stand beside.

  python -m benchmarks.selfplay [connect_four] [go] [chess] [shogi]
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from dl_lectures import nets, search
from dl_lectures.envs import games
from dl_lectures.search.tree import best
from dl_lectures.systems import alphazero
from dl_lectures.training import host

# Game, board size, pgx's game, trees, simulations a move, and how many times
# pgx's throughput is to be reached: uniform, with the network.
CASES = (
  ('connect_four', None, 'pgx_connect_four', 64, 64, None, None),
  ('go', 9, 'pgx_go_9x9', 32, 32, 3.0, 2.0),
  ('chess', None, 'pgx_chess', 16, 32, 10.0, 5.0),
  ('shogi', None, 'pgx_shogi', 16, 32, 20.0, 4.0),
)
OVER_FLOOR = 0.10
TREE_SHARE = 0.30

# states -> (logits masked, value).
Evaluate = Callable[[Any], nets.PolicyValue]


def uniform(game: games.Game) -> Evaluate:
  """An evaluator that knows the legal moves and nothing else."""

  def evaluate(states):
    legal = jax.vmap(game.legal_mask)(states)
    return nets.PolicyValue(
      jnp.where(legal, 0.0, -1e9), jnp.zeros(legal.shape[:1])
    )

  return evaluate


def network(game: games.Game, states: Any) -> Evaluate:
  """A residual tower of 2 blocks of 32 channels, as it starts."""
  config = alphazero.Config(channels=32, blocks=2, width=0)
  net = alphazero.network(config, game)
  seen = jax.vmap(game.observe)(states)
  weights = jax.jit(net.init, static_argnums=2)(jax.random.key(1), seen, True)
  return lambda states: alphazero.evaluate_positions(game, net, weights, states)


def model(game: games.Game, evaluate: Evaluate, library: Any):
  """The `recurrent_fn` of a library's search."""

  def recurrent_fn(params, key, action, states):
    del params, key
    mover = jax.vmap(game.to_play)(states)
    states = jax.vmap(game.step)(states, action)
    over = jax.vmap(game.terminal)(states)
    rewards = jax.vmap(game.reward)(states)
    logits, value = evaluate(states)
    return library.RecurrentFnOutput(
      reward=alphazero.of_player(rewards, mover),
      discount=jnp.where(over, 0.0, -1.0),
      prior_logits=logits,
      value=jnp.where(over, 0.0, value),
    ), jax.vmap(game.compact)(states)

  return recurrent_fn


def arms(
  game: games.Game, evaluate: Evaluate, states: Any, num_simulations: int
) -> dict[str, Callable[[], Any]]:
  """Our search, the same without a tree, and the rules alone."""
  step = model(game, evaluate, search)
  rules = model(game, uniform(game), search)

  @jax.jit
  def tree(states):
    logits, value = evaluate(states)
    return search.alphazero_policy(
      None,
      jax.random.key(0),
      search.RootFnOutput(logits, value, jax.vmap(game.compact)(states)),
      step,
      num_simulations,
      dirichlet_fraction=0.0,
      temperature=0.0,
    ).action_weights

  def chain(recurrent_fn, evaluate):
    def simulate(carry, _):
      states, action = carry
      output, states = recurrent_fn(None, None, action, states)
      # An argmax would cost more than the rules: see `best`.
      return (states, best(output.prior_logits)[1]), output.value

    @jax.jit
    def run(states):
      first = best(evaluate(states).logits)[1]
      carry = (jax.vmap(game.compact)(states), first)
      return jax.lax.scan(simulate, carry, length=num_simulations)[1]

    return run

  floor, bare = chain(step, evaluate), chain(rules, uniform(game))
  return {
    'tree': lambda: tree(states),
    'floor': lambda: floor(states),
    'rules': lambda: bare(states),
  }


def peer(name: str, evaluator: str, batch: int, num_simulations: int):
  """mctx over pgx's rules, as pgx's own example has it."""
  import mctx

  game = games.make(name)
  states = start(game, batch)
  evaluate = uniform(game) if evaluator == 'uniform' else network(game, states)
  step = model(game._replace(compact=lambda state: state), evaluate, mctx)

  @jax.jit
  def run(states):
    logits, value = evaluate(states)
    return mctx.muzero_policy(
      (),
      jax.random.key(0),
      mctx.RootFnOutput(prior_logits=logits, value=value, embedding=states),
      step,
      num_simulations,
      dirichlet_fraction=0.0,
    ).action_weights

  return lambda: run(states)


def start(game: games.Game, batch: int) -> Any:
  """The beginning of a game, so many times."""
  return jax.jit(jax.vmap(game.init))(
    jax.random.split(jax.random.key(0), batch)
  )


def measure(case: tuple, evaluator: str, rounds: int) -> Iterator[dict]:
  """The lines of one game with one evaluator."""
  name, size, other, batch, num_simulations, *bars = case
  game = games.make(name, size)
  states = start(game, batch)
  evaluate = uniform(game) if evaluator == 'uniform' else network(game, states)
  runs = arms(game, evaluate, states, num_simulations)
  has_peer = all(importlib.util.find_spec(x) for x in ('mctx', 'pgx'))
  if has_peer:
    runs['peer'] = peer(other, evaluator, batch, num_simulations)
  times = timing.interleave(runs, rounds, time.process_time)
  total = times['tree']
  about = {
    'game': name if size is None else f'{name}_{size}x{size}',
    'evaluator': evaluator,
    'B': batch,
    'S': num_simulations,
  }
  if evaluator == 'network':
    over = total / times['floor'] - 1
    yield {
      'name': 'selfplay_over_floor',
      **about,
      'ours': total,
      'peer': 'the same steps and network calls without a tree',
      'peer_value': times['floor'],
      'ratio': total / times['floor'],
      'over_floor': over,
      'bar': OVER_FLOOR,
      'met': over <= OVER_FLOOR,
    }
  shares = {
    'tree_share': 1 - times['floor'] / total,
    'rules_share': times['rules'] / total,
    'network_share': max(times['floor'] - times['rules'], 0.0) / total,
  }
  bar = bars[evaluator == 'network']
  line = {
    'name': 'selfplay_throughput',
    **about,
    'ours': total,
    'simulations_per_second': batch * num_simulations / total * 1e3,
    **shares,
    'tree_share_met': evaluator == 'network'
    or shares['tree_share'] <= TREE_SHARE,
    'bar': bar,
  }
  if not has_peer:
    yield line | {'peer': "pip install 'dl_lectures[test]'", 'met': None}
    return
  ratio = times['peer'] / total
  versions = [importlib.metadata.version(x) for x in ('mctx', 'pgx')]
  yield line | {
    'peer': 'mctx {} on pgx {}'.format(*versions),
    'peer_value': times['peer'],
    'ratio': ratio,
    'met': None if bar is None else ratio >= bar,
  }


def main() -> None:
  """Prints the lines of the games named, of all if none is."""
  names = timing.cases_to_run(__doc__, [case[0] for case in CASES])
  timing.on_one_core()
  host.tune_allocator()
  host.enable_compile_cache()
  for case in CASES:
    if case[0] not in names:
      continue
    for evaluator in ('uniform', 'network'):
      for line in measure(case, evaluator, rounds=7):
        timing.show(line)


if __name__ == '__main__':
  main()
