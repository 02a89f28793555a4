"""Trains a classifier: python -m experiments.classifier --help."""

from dl_lectures.systems import classifier
from experiments import cli

if __name__ == '__main__':
  cli.run(
    classifier.train,
    config=classifier.Config,
    presets=classifier.PRESETS,
    doc=classifier.__doc__ or '',
    examples=(
      'python -m experiments.classifier',
      'python -m experiments.classifier --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.classifier --preset=lenet',
      'python -m experiments.classifier --preset=spiral --config.hidden=8,8,8',
    ),
  )
