"""Trains a population to capture the flag: python -m experiments.ftw --help."""

from dl_lectures.systems import ftw
from experiments import cli

if __name__ == '__main__':
  cli.run(
    ftw.train,
    config=ftw.Config,
    presets=ftw.PRESETS,
    doc=ftw.__doc__ or '',
    examples=(
      'python -m experiments.ftw',
      'python -m experiments.ftw --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.ftw --config.members=8 --config.spread=0',
    ),
  )
