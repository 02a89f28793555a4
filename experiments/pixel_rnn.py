"""Trains PixelRNN: python -m experiments.pixel_rnn --help."""

from dl_lectures.systems import pixel_rnn
from experiments import cli

if __name__ == '__main__':
  cli.run(
    pixel_rnn.train,
    config=pixel_rnn.Config,
    presets=pixel_rnn.PRESETS,
    doc=pixel_rnn.__doc__ or '',
    examples=(
      'python -m experiments.pixel_rnn',
      'python -m experiments.pixel_rnn --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.pixel_rnn --config.model=row_lstm',
    ),
  )
