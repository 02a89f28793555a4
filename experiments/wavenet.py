"""Trains WaveNet: python -m experiments.wavenet --help."""

from dl_lectures.systems import wavenet
from experiments import cli

if __name__ == '__main__':
  cli.run(
    wavenet.train,
    config=wavenet.Config,
    presets=wavenet.PRESETS,
    doc=wavenet.__doc__ or '',
    examples=(
      'python -m experiments.wavenet',
      'python -m experiments.wavenet --preset=smoke --workdir=/tmp/smoke',
      'python -m experiments.wavenet --config.sound=voice.wav '
      '--config.rate=16000',
    ),
  )
