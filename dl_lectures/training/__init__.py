"""Steps, the loop, and all that is kept of a run."""

from dl_lectures.training import (
  checkpoint,
  host,
  logging,
  replay,
  report,
  rollout,
  sharding,
)
from dl_lectures.training.loop import (
  FitResult,
  Hook,
  NonFiniteError,
  fit,
)
from dl_lectures.training.step import init_state, make_step

__all__ = [
  'FitResult',
  'Hook',
  'NonFiniteError',
  'checkpoint',
  'fit',
  'host',
  'init_state',
  'logging',
  'make_step',
  'replay',
  'report',
  'rollout',
  'sharding',
]
