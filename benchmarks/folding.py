"""Descents on torsions side by side against scipy's L-BFGS-B, one by one.

Both arms get the same potential, the same starts and the same number of
evaluations of its value and gradient (`evaluations`, as counted): ours 8
restarts of Adam in one program, the peer a loop over the restarts in which
`scipy.optimize.minimize` calls our jitted gradient. Medians of CPU time, of
arms that are interleaved in one process on one core; its linear algebra has one
thread, with which the peer is at its fastest. Beside the time stands what
either found, the lowest potential and the median over the restarts: per
evaluation the peer may well be the better descent, and `lbfgs` is our own, side
by side, at the same budget.

The last line fits cost per restart and step, of 8 restarts, to a power of the
length, from 50 to 400 residues.

  python -m benchmarks.folding
"""

import functools
import time
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy
import threadpoolctl
from scipy import optimize

from benchmarks import timing
from dl_lectures.analysis import known_structures
from dl_lectures.data import proteins
from dl_lectures.ops import potentials
from dl_lectures.systems import alphafold
from dl_lectures.training import host

BAR = 10.0
PEER = f'scipy {scipy.__version__}, L-BFGS-B'
NAME = '1ctf_A'  # 68 residues
LENGTHS = (50, 100, 200, 400)

_descend = jax.jit(
  jax.vmap(alphafold.descend, (None, None, 0)), static_argnums=0
)
_make_potential = jax.jit(potentials.make_potential, static_argnums=0)


def problem(
  config: alphafold.FoldConfig, size: int
) -> tuple[potentials.Potential, potentials.Pose]:
  """The potential of the truth, and starts; the chain repeated to fill it."""
  protein = proteins.load()[NAME]
  copies = -(-size // len(protein.sequence))
  # Copies that lie apart: more pairs, none of them in each other's way.
  shift = np.array([60.0, 0, 0], np.float32)
  joined = protein._replace(
    sequence=(protein.sequence * copies)[:size],
    backbone=np.concatenate(
      [protein.backbone + i * shift for i in range(copies)]
    )[:size],
    cb=np.concatenate([protein.cb + i * shift for i in range(copies)])[:size],
    breaks=np.zeros(size, bool),
  )
  chain = potentials.make_chain(joined.sequence, joined.breaks, size)
  truth = known_structures.make_truth(joined, size)
  key = jax.random.key(config.seed)
  beliefs = known_structures.blurred_truth(known_structures.Blur(), truth, key)
  potential = _make_potential(config, chain, beliefs)
  keys = jax.random.split(key, config.restarts)
  sample = functools.partial(
    potentials.sample_pose, potential.torsions, potential.chain
  )
  return potential, jax.jit(jax.vmap(sample))(keys)


def one_by_one(
  config: alphafold.FoldConfig,
  potential: potentials.Potential,
  starts: potentials.Pose,
):
  """() -> (energies [K], evaluations): scipy on each restart in turn."""
  pose = jax.tree.map(lambda x: x[0], starts)
  _, unravel = jax.flatten_util.ravel_pytree(pose.torsions)
  jumps = pose.jumps

  @jax.jit
  def evaluate(flat):
    def loss(flat):
      told = potentials.Pose(unravel(flat), jumps)
      return potentials.energy(config, potential, told, 1.0)

    return jax.value_and_grad(loss)(flat)

  def run() -> tuple[np.ndarray, int]:
    energies, evaluations = [], 0
    for torsions in np.asarray(starts.torsions, np.float64):
      x = torsions.ravel()
      left = config.steps
      value = np.inf
      # It stops where it finds no lower point; the rest of its budget is
      # another try, with its memory emptied.
      while left > 0:

        def counted(x):
          value, gradient = evaluate(jnp.asarray(x, jnp.float32))
          return float(value), np.asarray(gradient, np.float64)

        found = optimize.minimize(
          counted,
          x,
          jac=True,
          method='L-BFGS-B',
          options={'maxfun': left, 'maxiter': left, 'ftol': 0.0, 'gtol': 0.0},
        )
        left -= max(found.nfev, 1)
        x, stuck = found.x, found.fun >= value
        value = min(value, float(found.fun))
        if stuck:
          break
      evaluations += config.steps - left
      energies.append(value)
    return np.array(energies), evaluations

  return run


def speed(size: int, steps: int, restarts: int, rounds: int) -> dict[str, Any]:
  """One line: both arms at the same number of evaluations."""
  config = alphafold.FoldConfig(steps=steps, restarts=restarts)
  potential, starts = problem(config, size)
  peer = one_by_one(config, potential, starts)
  other = alphafold.FoldConfig(
    steps=steps, restarts=restarts, optimizer='lbfgs'
  )
  found: dict[str, Any] = {'peer': peer()}

  def timed_peer():
    found['peer'] = peer()
    return found['peer'][0]

  arms = {
    'adam': lambda: _descend(config, potential, starts).energy,
    'lbfgs': lambda: _descend(other, potential, starts).energy,
    'peer': timed_peer,
  }
  times = timing.interleave(arms, rounds, time.process_time)
  energies = {
    'adam': np.asarray(arms['adam']()),
    'lbfgs': np.asarray(arms['lbfgs']()),
    'peer': found['peer'][0],
  }
  evaluations = found['peer'][1]
  # Where the peer gave up early, its time is that of the whole budget.
  whole = times['peer'] * restarts * steps / evaluations
  ratio = whole / times['adam']
  return {
    'name': 'restarts side by side',
    'length': size,
    'restarts': restarts,
    'evaluations': restarts * steps,
    'unit': 'milliseconds',
    'ours': times['adam'],
    'ours_lbfgs': times['lbfgs'],
    'peer': PEER,
    'peer_value': whole,
    'peer_evaluations': evaluations,
    'ratio': ratio,
    'lowest': {name: float(e.min()) for name, e in energies.items()},
    'median': {name: float(np.median(e)) for name, e in energies.items()},
    'bar': BAR,
    'met': ratio >= BAR,
  }


def growth(
  lengths: tuple[int, ...], steps: int, restarts: int, rounds: int
) -> dict[str, Any]:
  """Microseconds a restart and step against the length."""
  config = alphafold.FoldConfig(steps=steps, restarts=restarts)
  arms = {}
  for length in lengths:
    given = problem(config, length)
    arms[str(length)] = functools.partial(
      lambda potential, starts: _descend(config, potential, starts).energy,
      *given,
    )
  times = timing.interleave(arms, rounds, time.process_time)
  cost = [1e3 * times[str(n)] / (steps * restarts) for n in lengths]
  exponent, _ = np.polyfit(np.log(lengths), np.log(cost), 1)
  return {
    'name': 'cost of a restart and step',
    'unit': 'microseconds',
    'lengths': list(lengths),
    'ours': [round(c, 2) for c in cost],
    'exponent': round(float(exponent), 3),
    'peer': None,
    'peer_value': None,
    'ratio': None,
    'bar': None,
    'met': None,
  }


def main() -> None:
  """Prints one line a case."""
  timing.cases_to_run(__doc__)
  timing.on_one_core()
  host.tune_allocator()
  host.enable_compile_cache()
  start = time.monotonic()
  with threadpoolctl.threadpool_limits(1):
    for size in (68, 128):
      timing.show(speed(size, steps=800, restarts=8, rounds=3))
  timing.show(growth(LENGTHS, steps=20, restarts=8, rounds=5))
  timing.show({'name': 'minutes', 'ours': (time.monotonic() - start) / 60})


if __name__ == '__main__':
  main()
