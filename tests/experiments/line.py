"""Fits a line: the smallest system, which drives the loop and the CLI.

A second paragraph, which the help does not show.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures import training, types
from dl_lectures.training import report
from dl_lectures.types import TrainState, UsageError
from experiments import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run."""

  seed: int = 0  # of every random number
  num_steps: int = 30  # of gradient descent
  batch_size: int = 8  # points a step; Gauss: all of
  # them
  learning_rate: float = 0.1  # of SGD

  # The line's own two numbers,
  # slope first.
  line: tuple[float, ...] = (2.0, -1.0)
  noisy: bool = True  # whether the points lie beside the line
  name: str = 'line'  # what the report calls it
  clip: float | None = None  # largest gradient norm
  poison: int = 0
  pause: float = 0.0  # seconds slept after a step

  def __post_init__(self):
    if self.learning_rate <= 0:
      raise UsageError(
        f'learning_rate={self.learning_rate}; a positive number is possible'
      )


PRESETS = {
  'smoke': Config(num_steps=10),
  'laptop': Config(),
  'paper': Config(num_steps=1000, batch_size=64, line=(1.0,)),
}


class Batch(NamedTuple):
  x: np.ndarray  # [B] float32
  y: np.ndarray  # [B] float32


def batches(config: Config, step: int) -> Iterator[Batch]:
  """The batches after `step`; that of step `config.poison` holds a NaN."""
  while True:
    step += 1
    rng = np.random.default_rng([config.seed, step])
    x = rng.normal(size=config.batch_size).astype(np.float32)
    y = np.polyval(config.line, x).astype(np.float32)
    if step == config.poison:
      y[0] = np.nan
    yield Batch(x, y)


def train(config: Config, *, workdir: str | None) -> Mapping[str, Any]:
  def loss_fn(params, net_state, key, batch):
    noise = 0.1 * jax.random.normal(key, batch.y.shape) * config.noisy
    predicted = params['w'] * batch.x + params['b']
    return jnp.mean((predicted - batch.y - noise) ** 2), (net_state, {})

  optimizer = optax.sgd(config.learning_rate, momentum=0.9)

  def init(key: jax.Array) -> TrainState:
    params = {'w': jax.random.normal(key, ()), 'b': jnp.zeros(())}
    return training.init_state(params, {}, optimizer)

  def after(step: int, state: TrainState) -> None:
    time.sleep(config.pause)

  def measure(step: int, state: TrainState) -> dict[str, jax.Array]:
    params: Any = state.params
    return {'line': jnp.stack([params['w'], params['b']])}

  result = training.fit(
    training.make_step(loss_fn, optimizer),
    init,
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=lambda step: batches(config, step),
    hooks=[
      training.Hook(after, every=1),
      training.Hook(measure, every=10, at_start=True),
    ],
  )
  if result.status == 'interrupted':
    return result.metrics
  print('this line goes to stderr, although train printed it')
  metrics = {'loss': result.metrics['loss'], 'slope': result.metrics['line'][0]}
  error = abs(metrics['slope'] - config.line[0])
  report.write(
    workdir,
    title=config.name,
    config=config,
    claims=[types.at_most('error of the slope', error, 0.5)],
    metrics=metrics,
    figures={},
    minutes=result.seconds / 60,
  )
  return metrics


if __name__ == '__main__':
  cli.run(
    train,
    config=Config,
    presets=PRESETS,
    doc=__doc__,
    examples=(
      'python -m experiments.line --preset=smoke',
      'python -m experiments.line --config.learning_rate=0.05',
      'python -m experiments.line --seeds=0,1,2 --results=line.json',
    ),
  )
