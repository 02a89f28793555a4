"""Looks at a classifier before it is trained: the slides' checklist, run.

    python -m experiments.diagnose --preset=lenet

Presets and settings are those of `experiments.classifier`. In seconds: whether
shapes are right, no example touches another's logits, the first loss is
log(classes), all numbers are finite, every parameter has a gradient, units
live, weights do not blow up, and a small sample is learned by heart
(`dl_lectures.analysis.diagnose`). Penalty, dropout and noise are left out: they
keep a network from learning by heart.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import optax

from dl_lectures import types
from dl_lectures.analysis import diagnose
from dl_lectures.systems import classifier
from dl_lectures.training import checkpoint, loop, report
from experiments import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
  """The settings of a classifier, and of the look at it."""

  sample: int = 32  # examples that are to be learned by heart
  sample_steps: int = 500  # updates on them

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    super().__post_init__()
    types.check_fields(self, 'sample sample_steps', 2)


PRESETS = {
  name: Config(**dataclasses.asdict(preset))
  for name, preset in classifier.PRESETS.items()
}


def train(config: Config, *, workdir: str | None) -> Mapping[str, Any]:
  """Runs the checks, prints them, and reports.

  Args:
    config: the settings.
    workdir: where the report is kept; None keeps nothing.

  Returns:
    How many checks passed, of how many.
  """
  if workdir is not None:
    loop.check_writable(workdir)
    checkpoint.check_config(workdir, config)
  start = time.monotonic()
  data = classifier.load(config)
  plain = dataclasses.replace(config, dropout=0.0, input_noise=0.0)
  x, label = (part[: config.sample] for part in data.train)
  findings, watch = diagnose.diagnose(
    classifier.network(plain, data),
    x,
    label,
    data.num_classes,
    optax.adam(config.learning_rate),
    jax.random.key(config.seed),
    steps=config.sample_steps,
  )
  figures = {}
  if watch is not None:
    figure = diagnose.draw(watch, data.num_classes)
    report.save_figure(figure, workdir, 'diagnose')
    figures['diagnose'] = 'A small sample as it is learned by heart.'
  metrics = {
    'passed': sum(finding.passed for finding in findings),
    'checks': len(findings),
  }
  report.write(
    workdir,
    title=f'{config.model} on {data.name}, before training',
    config=config,
    claims=[
      types.Claim(
        finding.name,
        finding.value,
        bar=finding.wanted,
        met=finding.passed,
        exact=True,
      )
      for finding in findings
    ],
    metrics=metrics,
    figures=figures,
    minutes=(time.monotonic() - start) / 60,
  )
  return metrics


if __name__ == '__main__':
  cli.run(
    train,
    config=Config,
    presets=PRESETS,
    doc=__doc__ or '',
    examples=(
      'python -m experiments.diagnose --preset=lenet',
      'python -m experiments.diagnose --config.learning_rate=10',
      'python -m experiments.diagnose --preset=spiral --config.model=softmax',
    ),
  )
