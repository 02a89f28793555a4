"""Trains a model of a text: python -m experiments.char_lm --help."""

from dl_lectures.systems import char_lm
from experiments import cli

if __name__ == '__main__':
  cli.run(
    char_lm.train,
    config=char_lm.Config,
    presets=char_lm.PRESETS,
    doc=char_lm.__doc__ or '',
    examples=(
      'python -m experiments.char_lm',
      'python -m experiments.char_lm --config.model=wavenet',
      'python -m experiments.char_lm --config.text=tiny_shakespeare',
      'python -m experiments.char_lm --preset=smoke --workdir=/tmp/smoke',
    ),
  )
