"""Trains SMILES-LSTM: python -m experiments.smiles_lstm --help."""

from dl_lectures.systems import smiles_lstm
from experiments import cli

if __name__ == '__main__':
  cli.run(
    smiles_lstm.train,
    config=smiles_lstm.Config,
    presets=smiles_lstm.PRESETS,
    doc=smiles_lstm.__doc__ or '',
    examples=(
      'python -m experiments.smiles_lstm',
      'python -m experiments.smiles_lstm --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.smiles_lstm --config.dataset=tox21.csv.gz '
      '--workdir=runs/tox21 --seeds=0,1,2 --results=tox21.json',
    ),
  )
