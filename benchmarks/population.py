"""A population of eight against one member, and what a generation costs.

One core, all arms interleaved in one process, medians of CPU time; FTW's agent
of the laptop preset (`systems/ftw`), a round of learning from 64 seats.

  members     eight members by `population.mapped` over one; bar 8.3
  generation  exploit and explore of eight as a share of the learning between
              two of them (playing not counted, so the true share is smaller);
              bar .01

  python -m benchmarks.population
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from dl_lectures.systems import ftw
from dl_lectures.training import host, population

MEMBERS = 8
CONFIG = dataclasses.replace(ftw.PRESETS['laptop'], members=MEMBERS, games=128)
MOST_MEMBERS, MOST_SHARE = 8.3, 0.01


def _state(config: ftw.Config) -> tuple[ftw.State, ftw.Row]:
  """New members, and rows of steps in which nothing happened."""
  net, key = ftw.network(config), jax.random.key(0)
  shapes = jax.eval_shape(functools.partial(ftw.init, config, net), key)
  _, rows = jax.eval_shape(
    functools.partial(ftw.play, config, net), shapes, key
  )
  zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
  members = jax.jit(jax.vmap(functools.partial(ftw.init_params, config, net)))(
    jax.random.split(key, config.members)
  )
  state: ftw.State = zeros(shapes._replace(games=(), memory=(), lineup=()))
  state = state._replace(
    hyper=ftw.first_hyper(config, key),
    members=state.members._replace(params=members),
  )
  return state, zeros(rows)


def _arms(config: ftw.Config) -> dict[str, Callable[[], Any]]:
  """A round of one and of all, and a generation; compiled."""
  state, rows = _state(config)
  learn = functools.partial(ftw.learn, config, ftw.network(config))
  keys = jax.random.split(jax.random.key(1), config.members)
  arms: dict[str, Callable[[], Any]] = {}
  for name, count in (('one', 1), ('all', config.members)):
    given = jax.tree.map(
      lambda x, count=count: x[:count],
      (state.members, dict(state.hyper), rows, keys),
    )
    of_some = jax.jit(population.mapped(learn)).lower(*given).compile()
    arms[name] = functools.partial(of_some, *given)
  key = jax.random.key(2)
  evolve = jax.jit(functools.partial(ftw.evolve, config))
  arms['generation'] = functools.partial(
    evolve.lower(state, key).compile(), state, key
  )
  return arms


def measure(rounds: int, config: ftw.Config = CONFIG) -> Iterator[dict]:
  """Yields both lines.

  Args:
    rounds: in each, every arm is timed once.
    config: of the population.
  """
  seconds = timing.interleave_cpu(_arms(config), rounds)
  ratio = seconds['all'] / seconds['one']
  share = seconds['generation'] / (config.generation * seconds['all'])
  about = {'name': 'population', 'members': config.members}
  yield {
    **about,
    'what': 'members',
    'unit': 'CPU seconds of a round',
    'ours': seconds['all'],
    'peer': 'one member',
    'peer_value': seconds['one'],
    'ratio': ratio,
    'bar': MOST_MEMBERS,
    'met': ratio <= MOST_MEMBERS,
  }
  yield {
    **about,
    'what': 'generation',
    'unit': 'share of learning',
    'ours': share,
    'peer': 'none',
    'peer_value': None,
    'ratio': None,
    'bar': MOST_SHARE,
    'met': share <= MOST_SHARE,
  }


def main() -> None:
  """Prints the lines."""
  timing.cases_to_run(__doc__)
  timing.on_one_core()
  host.tune_allocator()
  for line in measure(rounds=9):
    timing.show(line)


if __name__ == '__main__':
  main()
