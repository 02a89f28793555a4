"""Trains AlphaZero: python -m experiments.alphazero --help."""

from dl_lectures.systems import alphazero
from experiments import cli

if __name__ == '__main__':
  cli.run(
    alphazero.train,
    config=alphazero.Config,
    presets=alphazero.PRESETS,
    doc=alphazero.__doc__ or '',
    divided=lambda config: config.lanes,
    examples=(
      'python -m experiments.alphazero',
      'python -m experiments.alphazero --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.alphazero --config.game=tic_tac_toe '
      '--config.num_steps=40',
    ),
  )
