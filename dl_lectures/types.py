"""What every part of the library speaks: parameters, states, steps, time steps.

A training step has one shape everywhere, `StepFn`: pure, jitted by its caller,
so that it runs under `jit`, `lax.scan`, `vmap` and any number of devices
unchanged. Everything a run needs to continue exactly is in its state.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import optax

Array = jax.Array
Key = jax.Array  # a typed key, made by jax.random.key
Params = hk.Params
Metrics = Mapping[str, Array]


class UsageError(ValueError):
  """A user's mistake, told in one line: what was given, what is possible.

  Binaries print the message alone and exit with code 2.
  """


def check_fields(
  config: Any, names: str, low: float, high: float = math.inf
) -> None:
  """Refuses a setting out of range, for a Config's `__post_init__`.

  Args:
    config: with the fields.
    names: of the fields, with blanks between.
    low: the least that is possible.
    high: the most.

  Raises:
    UsageError: one is not.

  >>> class Config(NamedTuple):
  ...   epsilon: float = 1.5
  >>> check_fields(Config(), 'epsilon', 0, 1)
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: config.epsilon=1.5; 0 to 1 is possible
  """
  for name in names.split():
    value = getattr(config, name)
    if not low <= value <= high:
      possible = f'at least {low}' if high == math.inf else f'{low} to {high}'
      raise UsageError(f'config.{name}={value}; {possible} is possible')


class Claim(NamedTuple):
  """A number that a run stands for, and what it is measured against.

  Attributes:
    name: what is claimed, in words.
    value: as measured.
    interval: 95%, (low, high).
    baseline: the same of something simple: chance, an untrained network.
    baseline_name: what that is.
    paper: the published value; in words where it is not quite the same.
    bar: what was to be reached.
    met: whether it was; `at_least` and `at_most` work it out.
    exact: true for counts and identities, which need no baseline.
  """

  name: str
  value: float | str | None
  interval: tuple[float, float] | None = None
  baseline: float | str | None = None
  baseline_name: str = ''
  paper: float | str | None = None
  bar: float | str | None = None
  met: bool | None = None
  exact: bool = False


def at_least(name: str, value: float, bar: float, **rest: Any) -> Claim:
  """A claim whose value should reach its bar from below.

  >>> at_least('accuracy', 0.9, 0.8, baseline=0.1, baseline_name='chance').met
  True
  """
  return Claim(name, value, bar=bar, met=value >= bar, **rest)


def at_most(name: str, value: float, bar: float, **rest: Any) -> Claim:
  """A claim whose value should stay under its bar.

  >>> at_most('test error', 0.9, 0.8).met
  False
  """
  return Claim(name, value, bar=bar, met=value <= bar, **rest)


class TrainState(NamedTuple):
  """Everything that is needed to continue a single-loss run exactly.

  Attributes:
    params: the network's parameters.
    net_state: BatchNorm averages and the like; `{}` where there are none.
    opt_state: the optimiser's state.
    step: [] int32, the number of updates made so far.
  """

  params: optax.Params
  net_state: hk.MutableState
  opt_state: optax.OptState
  step: Array


# (state, batch, key) -> (state, metrics). The key is the run's own and is the
# same at every call: the step folds its own counter into it.
StepFn = Callable[[Any, Any, Key], tuple[Any, Metrics]]


class TimeStep(NamedTuple):
  """One environment's answer to one action.

  Attributes:
    observation: what the agent sees.
    reward: [] float32, paid for the action that led here.
    discount: [] float32, 0 when the episode has ended, else 1 (or gamma).
  """

  observation: Any
  reward: Array
  discount: Array


class Environment(NamedTuple):
  """A pure environment: two functions and what they are about.

  Attributes:
    reset: key -> (state, time_step).
    step: (state, action, key) -> (state, time_step); an action may be a tree.
    num_actions: the number of discrete actions.
    observation_shape: the shape of an observation.
  """

  reset: Callable[[Key], tuple[Any, TimeStep]]
  step: Callable[[Any, Any, Key], tuple[Any, TimeStep]]
  num_actions: int
  observation_shape: tuple[int, ...]
