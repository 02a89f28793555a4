"""Trains Align-RUDDER: python -m experiments.align_rudder --help."""

from dl_lectures.systems import align_rudder
from experiments import cli

if __name__ == '__main__':
  cli.run(
    align_rudder.train,
    config=align_rudder.Config,
    presets=align_rudder.PRESETS,
    doc=align_rudder.__doc__ or '',
    examples=(
      'python -m experiments.align_rudder',
      'python -m experiments.align_rudder --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.align_rudder --config.num_rooms=4 '
      '--config.num_demonstrations=10',
    ),
  )
