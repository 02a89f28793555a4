"""What the tree costs in self-play: search against its own floor.

The floor makes the same environment steps and network calls, one after the
other, without a tree. All arms are interleaved in one process; values are
medians, in milliseconds a search. Network: 2 residual blocks of 32 channels.

  python -m benchmarks.selfplay
"""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from dl_lectures import search
from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.training import host

# Game, trees, simulations a move.
CASES = (
  ('connect_four', 64, 64),
  ('pgx_go_9x9', 32, 32),
  ('pgx_chess', 16, 32),
  ('pgx_shogi', 16, 32),
)
BAR = 0.10


def measure(
  name: str, batch: int, num_simulations: int, rounds: int
) -> dict[str, Any]:
  """One line of the output."""
  game = games.make(name)
  config = alphazero.Config(channels=32, blocks=2, width=0)
  net = alphazero.network(config, game)
  model = alphazero.make_model(game, net)
  start = jax.vmap(game.init)(jax.random.split(jax.random.key(0), batch))
  weights = net.init(jax.random.key(1), jax.vmap(game.observe)(start), True)
  key = jax.random.key(2)

  @jax.jit
  def tree(states):
    logits, value = alphazero.evaluate_positions(game, net, weights, states)
    return search.alphazero_policy(
      weights,
      key,
      search.RootFnOutput(logits, value, states),
      model,
      num_simulations,
      dirichlet_fraction=0.0,
      temperature=0.0,
    ).action_weights

  @jax.jit
  def floor(states):
    logits, _ = alphazero.evaluate_positions(game, net, weights, states)

    def simulate(carry, _):
      states, action = carry
      output, states = model(weights, key, action, states)
      return (states, jnp.argmax(output.prior_logits, axis=-1)), output.value

    carry = (states, jnp.argmax(logits, axis=-1))
    return jax.lax.scan(simulate, carry, length=num_simulations)[1]

  times = timing.interleave(
    {'tree': lambda: tree(start), 'floor': lambda: floor(start)}, rounds
  )
  over = times['tree'] / times['floor'] - 1
  return {
    'name': 'selfplay',
    'game': name,
    'B': batch,
    'S': num_simulations,
    'ours': times['tree'],
    'peer': 'the same steps and network calls without a tree',
    'peer_value': times['floor'],
    'ratio': times['tree'] / times['floor'],
    'over_floor': over,
    'bar': BAR,
    'met': over <= BAR,
  }


def main() -> None:
  """Prints one line a game."""
  host.tune_allocator()
  host.enable_compile_cache()
  for name, batch, num_simulations in CASES:
    timing.show(measure(name, batch, num_simulations, rounds=9))


if __name__ == '__main__':
  main()
