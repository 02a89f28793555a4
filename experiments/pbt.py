"""Population based training on digits: python -m experiments.pbt --help."""

from dl_lectures.systems import pbt
from experiments import cli

if __name__ == '__main__':
  cli.run(
    pbt.train,
    config=pbt.Config,
    presets=pbt.PRESETS,
    doc=pbt.__doc__ or '',
    examples=(
      'python -m experiments.pbt',
      'python -m experiments.pbt --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.pbt --config.members=16 --config.factor=1.2',
    ),
  )
