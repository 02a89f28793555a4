"""Trains RUDDER: python -m experiments.rudder --help."""

from dl_lectures.systems import rudder
from experiments import cli

if __name__ == '__main__':
  cli.run(
    rudder.train,
    config=rudder.Config,
    presets=rudder.PRESETS,
    doc=rudder.__doc__ or '',
    examples=(
      'python -m experiments.rudder',
      'python -m experiments.rudder --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.rudder --config.horizon=100 --config.runs=10',
    ),
  )
