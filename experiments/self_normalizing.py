"""Trains self-normalising networks: python -m experiments.self_normalizing."""

from dl_lectures.systems import self_normalizing
from experiments import cli

if __name__ == '__main__':
  cli.run(
    self_normalizing.train,
    config=self_normalizing.Config,
    presets=self_normalizing.PRESETS,
    doc=self_normalizing.__doc__ or '',
    examples=(
      'python -m experiments.self_normalizing',
      'python -m experiments.self_normalizing --config.images=mnist',
      'python -m experiments.self_normalizing --config.depths=4,64',
      'python -m experiments.self_normalizing --preset=smoke '
      '--workdir=/tmp/smoke',
    ),
  )
