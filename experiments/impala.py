"""Trains IMPALA to capture the flag: python -m experiments.impala --help."""

from dl_lectures.systems import impala
from experiments import cli

if __name__ == '__main__':
  cli.run(
    impala.train,
    config=impala.Config,
    presets=impala.PRESETS,
    doc=impala.__doc__ or '',
    examples=(
      'python -m experiments.impala',
      'python -m experiments.impala --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.impala --config.memory=128 --config.compass=False',
    ),
  )
