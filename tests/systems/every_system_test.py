"""What holds for every system whose step is `training.make_step`'s."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from dl_lectures import training
from dl_lectures.data import audio, coevolution, proteins, text
from dl_lectures.data import features as inputs
from dl_lectures.systems import (
  alphafold,
  captioning,
  char_lm,
  gpt,
  pixel_rnn,
  seq2seq,
  wavenet,
)


class Run(NamedTuple):
  """What `training.fit` is given."""

  config: Any
  step: Callable[..., Any]
  init: Callable[..., Any]
  batches: Callable[[int], Any]


def of_alphafold() -> Run:
  config = alphafold.Config(
    alignments=1,
    variants=1,
    depth=16,
    crop=16,
    stride=8,
    towers=(1, 8),
    residue_channels=4,
    reference_towers=(1, 4),
    batch_size=8,
  )
  chain = proteins.load()['1ctf_A']
  made = coevolution.alignment(chain, 16, np.random.default_rng(0))
  example = alphafold.Example(
    inputs.features(made),
    inputs.background(chain.sequence),
    inputs.labels(chain),
  )
  both = alphafold.networks(config)
  batches = functools.partial(alphafold.batches, config, [example])
  init = functools.partial(alphafold.init, config, both, next(batches(0)))
  return Run(config, alphafold.make_step(config, both), init, batches)


def of_captioning() -> Run:
  config = dataclasses.replace(captioning.PRESETS['smoke'], batch_size=8)
  nets = captioning.networks(config)
  return Run(
    config,
    captioning.make_step(config, nets),
    functools.partial(captioning.init, config, nets),
    functools.partial(captioning.batches, config),
  )


def of_text(system: Any, config: Any) -> Run:
  corpus = text.from_text('she sells sea shells by the sea shore; ' * 12)
  net = system.network(config, corpus.vocabulary.size)
  return Run(
    config,
    system.make_step(config, net),
    functools.partial(system.init, config, net),
    functools.partial(system.batches, config, corpus),
  )


def of_char_lm() -> Run:
  config = char_lm.Config(
    model='gru', parameters=1500, length=8, memory=8, batch_size=8
  )
  return of_text(char_lm, config)


def of_gpt() -> Run:
  config = gpt.Config(length=8, layers=1, heads=2, width=8, batch_size=8)
  return of_text(gpt, config)


def of_pixel_rnn() -> Run:
  config = dataclasses.replace(pixel_rnn.PRESETS['smoke'], batch_size=8)
  net = pixel_rnn.network(config, config.levels)
  image = np.random.default_rng(0).integers(
    config.levels, size=(16, 4, 4, 1), dtype=np.int32
  )
  return Run(
    config,
    pixel_rnn.make_step(config, net),
    functools.partial(pixel_rnn.init, config, net, (4, 4, 1)),
    functools.partial(pixel_rnn.batches, config, image),
  )


def of_seq2seq() -> Run:
  config = dataclasses.replace(seq2seq.PRESETS['smoke'], units=8, batch_size=16)
  task = seq2seq.make_task(config)
  nets = seq2seq.networks(config, task.sizes)
  return Run(
    config,
    seq2seq.make_step(config, nets),
    functools.partial(seq2seq.init, config, nets),
    task.batches,
  )


def of_wavenet() -> Run:
  config = dataclasses.replace(wavenet.PRESETS['smoke'], doublings=2)
  net = wavenet.network(config)
  sound = audio.load(rate=config.rate, seconds=config.seconds)
  return Run(
    config,
    wavenet.make_step(config, net),
    functools.partial(wavenet.init, config, net),
    functools.partial(wavenet.batches, config, sound),
  )


# One is always run; the others compile for many seconds each.
SYSTEMS = [
  of_wavenet,
  *(
    pytest.param(system, marks=pytest.mark.slow)
    for system in (
      of_alphafold,
      of_captioning,
      of_char_lm,
      of_gpt,
      of_pixel_rnn,
      of_seq2seq,
    )
  ),
]


@pytest.mark.parametrize('system', SYSTEMS)
def test_eight_devices_learn_what_one_learns(system):
  run = system()

  def learned(num_devices):
    state = training.fit(
      run.step,
      run.init,
      config=run.config,
      workdir=None,
      num_steps=3,
      batches=run.batches,
      mesh=training.sharding.make_mesh(num_devices),
    ).state
    return jax.device_get(state.params)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-4),
    learned(1),
    learned(8),
  )
