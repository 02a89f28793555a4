"""Trains AlphaStar's policy: python -m experiments.alphastar --help."""

from dl_lectures.systems import alphastar
from experiments import cli

if __name__ == '__main__':
  cli.run(
    alphastar.train,
    config=alphastar.Config,
    presets=alphastar.PRESETS,
    doc=alphastar.__doc__ or '',
    examples=(
      'python -m experiments.alphastar',
      'python -m experiments.alphastar --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.alphastar --config.imitation_steps=0',
    ),
  )
