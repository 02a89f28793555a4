"""Trains a GPT on a text: python -m experiments.gpt --help."""

from dl_lectures.systems import gpt
from experiments import cli

if __name__ == '__main__':
  cli.run(
    gpt.train,
    config=gpt.Config,
    presets=gpt.PRESETS,
    doc=gpt.__doc__ or '',
    examples=(
      'python -m experiments.gpt',
      'python -m experiments.gpt --config.text=tiny_shakespeare',
      'python -m experiments.gpt --config.text=notes.txt --config.steps=500',
      'python -m experiments.gpt --preset=smoke --workdir=/tmp/smoke',
    ),
  )
