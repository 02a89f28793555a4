"""Trains sequence to sequence: python -m experiments.seq2seq --help."""

from dl_lectures.systems import seq2seq
from experiments import cli

if __name__ == '__main__':
  cli.run(
    seq2seq.train,
    config=seq2seq.Config,
    presets=seq2seq.PRESETS,
    doc=seq2seq.__doc__ or '',
    examples=(
      'python -m experiments.seq2seq',
      'python -m experiments.seq2seq --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.seq2seq --config.digits=2 --config.num_steps=1000',
    ),
  )
