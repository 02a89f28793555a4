"""Trains AlphaFold's network: python -m experiments.alphafold_train --help."""

from dl_lectures.systems import alphafold
from experiments import cli

if __name__ == '__main__':
  cli.run(
    alphafold.train,
    config=alphafold.Config,
    presets=alphafold.PRESETS,
    doc=alphafold.__doc__ or '',
    examples=(
      'python -m experiments.alphafold_train',
      'python -m experiments.alphafold_train --preset=smoke',
      'python -m experiments.alphafold_train --config.towers=16,48 '
      '--config.num_steps=5000',
    ),
  )
