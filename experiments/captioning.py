"""Trains captioning: python -m experiments.captioning --help."""

from dl_lectures.systems import captioning
from experiments import cli

if __name__ == '__main__':
  cli.run(
    captioning.train,
    config=captioning.Config,
    presets=captioning.PRESETS,
    doc=captioning.__doc__ or '',
    examples=(
      'python -m experiments.captioning',
      'python -m experiments.captioning --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.captioning --config.num_steps=4000',
    ),
  )
