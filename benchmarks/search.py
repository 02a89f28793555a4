"""Tree search against mctx: the same tree, a trivial evaluator.

The evaluator hashes whole numbers into priors and values, so that what is timed
is the tree. All arms are interleaved in one process on one core; values are
medians, in milliseconds of CPU time a search. `same_rows` is the share of trees
whose root visit counts equal those of `mctx.muzero_policy`. A case is `A,B,S`:
actions, trees side by side, simulations.

  python -m benchmarks.search
"""

import functools
import importlib.metadata
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx

from benchmarks import timing
from dl_lectures import search
from dl_lectures.training import host

# (A, B, S) -> how many times as fast as mctx.muzero_policy it is to be.
BARS = {
  (7, 64, 32): 8,
  (7, 64, 200): 6,
  (82, 64, 64): 30,
  (362, 32, 64): 60,
  (4672, 16, 32): 35,
  (82, 16, 800): 25,
}


def hashed_game(
  library: Any, num_actions: int, discount: float, terminal_of_7: int = 0
) -> tuple[Callable, Callable]:
  """A game of hashed numbers for `search` or for `mctx`.

  Args:
    library: the module whose RootFnOutput and RecurrentFnOutput are made.
    num_actions: A.
    discount: of every edge that does not end the game; below 1 in size, edges
      pay rewards too.
    terminal_of_7: of seven positions so many are ends.

  Returns:
    batch size -> root, and the recurrent_fn.
  """

  def scramble(x):
    x = x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)

  def uniform(x):
    return (scramble(x) >> 8).astype(jnp.float32) / (1 << 24)

  def logits(state):
    cells = jnp.arange(num_actions, dtype=jnp.uint32)[None]
    return 4 * uniform(state[:, None] * jnp.uint32(num_actions) + cells)

  def value(state):
    return 2 * uniform(state ^ jnp.uint32(0x9E3779B9)) - 1

  def root(batch):
    state = scramble(jnp.arange(batch, dtype=jnp.uint32) + 77)
    return library.RootFnOutput(
      prior_logits=logits(state), value=value(state), embedding=state
    )

  def recurrent_fn(params, key, action, state):
    del params, key
    state = scramble(state * jnp.uint32(31) + action.astype(jnp.uint32) + 1)
    over = state % 7 < terminal_of_7
    paid = 0.1 * value(state + 5) if abs(discount) < 1 else jnp.zeros(())
    return library.RecurrentFnOutput(
      reward=jnp.where(over, value(state), paid),
      discount=jnp.where(over, 0.0, discount),
      prior_logits=logits(state),
      value=jnp.where(over, 0.0, value(state)),
    ), state

  return root, recurrent_fn


def arm(library: Any, policy: str, case: tuple[int, int, int], **settings):
  """A jitted search without arguments, which gives root visit counts."""
  num_actions, batch, num_simulations = case
  root, recurrent_fn = hashed_game(library, num_actions, -1.0)

  @jax.jit
  def run(key):
    found = getattr(library, policy)(
      None, key, root(batch), recurrent_fn, num_simulations, **settings
    )
    return found.search_tree.summary().visit_counts

  return functools.partial(run, jax.random.key(0))


def measure(case: tuple[int, int, int], rounds: int) -> dict[str, Any]:
  """One line of the output."""
  num_actions, batch, num_simulations = case
  arms = {
    'ours': arm(search, 'muzero_policy', case, dirichlet_fraction=0.0),
    'ours_gumbel': arm(search, 'gumbel_muzero_policy', case),
    'muzero': arm(mctx, 'muzero_policy', case, dirichlet_fraction=0.0),
    'gumbel': arm(mctx, 'gumbel_muzero_policy', case),
  }
  times = timing.interleave(arms, rounds, time.process_time)
  same = jnp.all(arms['ours']() == arms['muzero'](), axis=-1)
  ratio = times['muzero'] / times['ours']
  return {
    'name': 'search',
    'A': num_actions,
    'B': batch,
    'S': num_simulations,
    'ours': times['ours'],
    'ours_gumbel': times['ours_gumbel'],
    'peer': f'mctx {importlib.metadata.version("mctx")} muzero_policy',
    'peer_value': times['muzero'],
    'ratio': ratio,
    'ratio_muzero': ratio,
    'ratio_gumbel': times['gumbel'] / times['ours_gumbel'],
    'same_rows': float(jnp.mean(same)),
    'bar': BARS[case],
    'met': bool(ratio >= BARS[case]),
  }


def _name(case: tuple[int, int, int]) -> str:
  return ','.join(map(str, case))


def main() -> None:
  """Prints one line a case."""
  names = timing.cases_to_run(__doc__, map(_name, BARS))
  timing.on_one_core()
  host.tune_allocator()
  host.enable_compile_cache()
  for case in BARS:
    if _name(case) not in names:
      continue
    # A search of a millisecond needs more of them for a steady median.
    timing.show(measure(case, rounds=max(7, 2_000_000 // math.prod(case))))


if __name__ == '__main__':
  main()
