"""The command line that every system shares.

    python -m experiments.<system> --preset=smoke|laptop|paper --workdir=DIR
      --config.field=value --seeds=0,1,2 --results=FILE

A binary is its system's `train`, Config and presets handed to `run`. What a
field means is told by the comment beside it in the Config's source: there is
no second copy.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import io
import json
import math
import os
import pathlib
import shlex
import shutil
import signal
import statistics
import sys
import textwrap
import tokenize
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags

from dl_lectures.training import checkpoint, host, loop, report, sharding
from dl_lectures.types import UsageError

DEFAULT_PRESET = 'laptop'

# What each of the shared flags does.
_FLAGS = {
  'preset': 'a set of settings',
  'workdir': 'where the run is kept, and continued from',
  'seeds': 'several seeds, such as 0,1,2: one run each, in workdir/seed_K',
  'results': 'a JSON file for the claims, joined over the seeds',
  'help': 'shows this',
}


def run(
  train: Callable[..., Mapping[str, Any]],
  *,
  config: type,
  presets: Mapping[str, Any],
  doc: str,
  examples: Sequence[str],
  divided: Callable[[Any], int] | None = None,
) -> NoReturn:
  """Runs a system from the command line, and exits.

  The final metrics are one JSON line on stdout (of several seeds their means),
  everything else goes to stderr. The exit code is 0 for a run that has ended
  or was stopped by Ctrl-C or SIGTERM, 2 for a mistake of the user (told in one
  line, nothing changed on disk), 1 for a run that went wrong, 130 for a second
  Ctrl-C.

  Args:
    train: train(config, *, workdir) -> final metrics. It ends with
      `report.write`, unless `fit` was interrupted: a run without that summary
      has not ended, and the same command continues it.
    config: the dataclass of the settings, with a field `seed`. Its fields are
      bool, int, float, str, tuples of these, or one of these or None; its
      `__post_init__` raises UsageError for a value out of range.
    presets: name -> an instance of it; 'laptop' is the default.
    doc: the system's docstring, whose first paragraph the help shows.
    examples: command lines for the help.
    divided: config -> the number of lanes that its step divides over devices:
      cores then become devices. By default a step has all cores as one device.
  """
  argv = sys.argv[1:]
  system = _system(config)
  if {'-h', '-help', '--help'} & {*argv}:
    print(_help(argv, system, config, presets, doc, examples))
    sys.exit(0)
  signal.signal(signal.SIGTERM, _interrupt)
  try:
    given = _parse(argv, config)
    jobs = _jobs(given, system, presets)
    if divided is not None:
      host.one_device_per_core(math.gcd(*(divided(j.config) for j in jobs)))
    host.tune_allocator()
    host.enable_compile_cache()
    if 'JAX_NUM_PROCESSES' in os.environ:
      sharding.initialize_distributed()
    code = _run_all(train, jobs, given['results'], system, argv)
  except UsageError as error:
    code = _tell(2, str(error))
  except loop.NonFiniteError as error:
    code = _tell(1, str(error))
  except KeyboardInterrupt as error:
    # `fit` says more when it is cut off: by a second Ctrl-C.
    code = (
      _tell(130, f'aborted: {error}')
      if str(error)
      else _tell(0, 'stopped; the same command continues')
    )
  sys.exit(code)


def _system(config: type) -> str:
  """The name of the file that the Config is in."""
  return pathlib.Path(inspect.getsourcefile(config) or 'system').stem


def _program(system: str) -> str:
  """The binary that runs; it need not be called as its system is."""
  name = report.program()
  return name if name.startswith('experiments.') else f'experiments.{system}'


class _Job(NamedTuple):
  """One run of the command: several seeds make several."""

  config: Any
  workdir: str
  preset: str


def _tell(code: int, message: str) -> int:
  print(' '.join(message.split()), file=sys.stderr, flush=True)
  return code


def _interrupt(signum: int, frame: Any) -> NoReturn:
  """SIGTERM outside of `fit`, where nothing is lost."""
  del signum, frame
  raise KeyboardInterrupt


def _run_all(
  train: Callable[..., Mapping[str, Any]],
  jobs: Sequence[_Job],
  results: str | None,
  system: str,
  argv: Sequence[str],
) -> int:
  summaries = []
  for number, job in enumerate(jobs, 1):
    summary = report.finished(job.workdir, job.config)
    if summary is not None:
      _tell(0, f'this run ended on {summary["date"]}; its result:')
    else:
      # Not before the first one: what `train` refuses is told in one line.
      if number > 1:
        _tell(0, f'run {number} of {len(jobs)}')
      with contextlib.redirect_stdout(sys.stderr):
        train(job.config, workdir=job.workdir)
      summary = report.finished(job.workdir, job.config)
      if summary is None:
        return 0  # interrupted; `fit` has said how to go on
    print(report.to_text(summary), file=sys.stderr)
    _tell(0, f'report: {os.path.join(job.workdir, "report.html")}')
    summaries.append(summary)
  if results is not None:
    command = shlex.join(['python', '-m', _program(system), *argv])
    joined = report.aggregate(summaries, command, jobs[0].preset)
    os.makedirs(os.path.dirname(os.path.abspath(results)), exist_ok=True)
    with open(results, 'w', encoding='utf-8') as file:
      file.write(json.dumps(joined, indent=2) + '\n')
    # The picture of the first seed stands beside the figures of all.
    picture = pathlib.Path(jobs[0].workdir, 'figures', f'{system}.png')
    if picture.exists():
      shutil.copyfile(picture, pathlib.Path(results).with_suffix('.png'))
    if len(jobs) > 1:
      print(report.to_text(joined), file=sys.stderr)
    _tell(0, f'results: {results}')
  print(json.dumps(_final_metrics(summaries)), flush=True)
  return 0


def _final_metrics(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The metrics of one run, or their means over the seeds."""
  if len(summaries) == 1:
    return summaries[0]['metrics']
  metrics: dict[str, Any] = {
    'seeds': [seed for summary in summaries for seed in summary['seeds']]
  }
  for name in summaries[0]['metrics']:
    values = [summary['metrics'].get(name) for summary in summaries]
    if all(isinstance(value, int | float) for value in values):
      metrics[name] = statistics.fmean(values)
  return metrics


def _jobs(
  given: Mapping[str, Any], system: str, presets: Mapping[str, Any]
) -> list[_Job]:
  """What is to be run; raises UsageError, and changes nothing."""
  preset = given['preset']
  if preset not in presets:
    raise UsageError(
      f'--preset={preset} is unknown; possible: {", ".join(presets)}'
      + _did_you_mean(preset, {name: f'--preset={name}' for name in presets})
    )
  workdir = given['workdir'] or os.path.join('runs', f'{system}-{preset}')
  settings, seeds = given['settings'], given['seeds']
  if seeds and 'seed' in settings:
    raise UsageError('--seeds and --config.seed cannot both be given')
  if len(set(seeds)) < len(seeds):
    raise UsageError(f'--seeds={",".join(map(str, seeds))} names one twice')
  try:
    jobs = [
      _Job(
        dataclasses.replace(presets[preset], **settings, seed=seed),
        os.path.join(workdir, f'seed_{seed}'),
        preset,
      )
      for seed in seeds
    ] or [
      _Job(dataclasses.replace(presets[preset], **settings), workdir, preset)
    ]
  except ValueError as error:
    raise UsageError(str(error)) from error
  for job in jobs:
    if not 0 <= job.config.seed < 2**32:
      raise UsageError(f'seed {job.config.seed}; 0 to {2**32 - 1} are possible')
    loop.check_writable(job.workdir)
    checkpoint.check_config(job.workdir, job.config)
  if given['results'] is not None:
    if os.path.isdir(given['results']):
      raise UsageError(f'--results={given["results"]} is a directory')
    loop.check_writable(os.path.dirname(os.path.abspath(given['results'])))
  return jobs


class _Parser(flags.ArgumentParser):
  """Parses a flag's text as a type, for absl."""

  def __init__(self, kind: Any):
    super().__init__()
    self._kind = kind

  def parse(self, argument: str) -> Any:
    return _convert(argument, self._kind)


def _parse(argv: Sequence[str], config: type) -> dict[str, Any]:
  """The flags given: preset, workdir, seeds, results, and the settings."""
  values = flags.FlagValues()
  flags.DEFINE_string('preset', DEFAULT_PRESET, '', flag_values=values)
  flags.DEFINE_string('workdir', None, '', flag_values=values)
  flags.DEFINE_string('results', None, '', flag_values=values)
  seeds = _Parser(tuple[int, ...])
  flags.DEFINE(seeds, 'seeds', None, '', flag_values=values)
  kinds = typing.get_type_hints(config)
  names = [field.name for field in dataclasses.fields(config)]
  for name in names:
    if kinds[name] is bool:
      flag = flags.BooleanFlag(f'config.{name}', None, '')
      flag.parser = _Parser(bool)
      flags.DEFINE_flag(flag, values)
    else:
      flags.DEFINE(
        _Parser(kinds[name]), f'config.{name}', None, '', flag_values=values
      )
  try:
    rest = values(['', *argv])[1:]
  except flags.UnrecognizedFlagError as error:
    raise UsageError(_unknown_flag(error, argv, names)) from error
  except flags.Error as error:
    raise UsageError(str(error).removeprefix('flag ')) from error
  if rest:
    raise UsageError(
      f'{rest[0]} is not a flag; settings are given as --config.field=value, '
      'see --help'
    )
  for name in ('workdir', 'results'):
    if values[name].value == '':
      raise UsageError(f'--{name}= is empty; a path is expected')
  return {
    'preset': values['preset'].value,
    'workdir': values['workdir'].value,
    'results': values['results'].value,
    'seeds': values['seeds'].value or (),
    'settings': {
      name: values[f'config.{name}'].value
      for name in names
      if values[f'config.{name}'].present
    },
  }


def _convert(text: str, kind: Any) -> Any:
  """Text as a value of a field's type.

  >>> _convert('1_000', int), _convert('1e-3', float), _convert('no', bool)
  (1000, 0.001, False)
  >>> _convert('1,2', tuple[int, ...]), _convert('none', int | None)
  ((1, 2), None)
  """
  arguments = typing.get_args(kind)
  if type(None) in arguments:
    (kind,) = [a for a in arguments if a is not type(None)]
    return None if text.lower() == 'none' else _convert(text, kind)
  if typing.get_origin(kind) is tuple:
    parts = [part.strip() for part in text.strip('() ').split(',')]
    parts = [part for part in parts if part]
    if arguments[-1] is ...:
      return tuple(_convert(part, arguments[0]) for part in parts)
    if len(parts) != len(arguments):
      raise ValueError(f'{len(arguments)} values are expected')
    return tuple(map(_convert, parts, arguments))
  if kind is bool:
    if text.lower() in ('true', 'yes', '1'):
      return True
    if text.lower() in ('false', 'no', '0'):
      return False
    raise ValueError('true or false is expected')
  if kind is str:
    return text
  try:
    value = kind(text)
    if value != value:
      raise ValueError
    return value
  except ValueError:
    name = {int: 'a whole number', float: 'a number'}[kind]
    raise ValueError(f'{name} is expected') from None


def _unknown_flag(
  error: flags.UnrecognizedFlagError, argv: Sequence[str], names: Sequence[str]
) -> str:
  """What to say of a flag that does not exist."""
  name = error.flagname
  given = next(
    (a for a in argv if a.lstrip('-').partition('=')[0] == name), f'--{name}'
  )
  value = given.partition('=')[1] + given.partition('=')[2]
  fields = {field: f'--config.{field}{value}' for field in names}
  if name.startswith('config.'):
    return (
      f'{given}: there is no such field; possible: {", ".join(names)}'
      + _did_you_mean(name.removeprefix('config.'), fields)
    )
  shared = {flag: f'--{flag}{value}' for flag in _FLAGS}
  return (
    f'{given}: there is no such flag; possible: '
    + ', '.join(f'--{flag}' for flag in _FLAGS)
    + ' and --config.field for the fields that --help lists'
    + _did_you_mean(name, fields | shared)
  )


def _did_you_mean(word: str, options: Mapping[str, str]) -> str:
  """Names the option nearest to a word, abbreviations included.

  >>> _did_you_mean('lr', {'learning_rate': '--config.learning_rate'})
  '; did you mean --config.learning_rate?'
  >>> _did_you_mean('xyzzy', {'seed': '--config.seed'})
  ''
  """
  known = {
    ''.join(part[:1] for part in name.split('_')): name
    for name in options
    if '_' in name
  }
  known |= {name: name for name in options}
  near = difflib.get_close_matches(word, known, 1, 0.5)
  near = near or [name for name in options if word in name or name in word]
  return f'; did you mean {options[known[near[0]]]}?' if near else ''


def field_comments(config: type) -> dict[str, str]:
  """What a dataclass's source says about each of its fields.

  Comments above a field and beside it are its own. Where a field has one
  beside it, comments on the lines that follow directly continue it, if the
  next field has one beside it too.

  Args:
    config: a dataclass whose source can be read.

  Returns:
    Field name -> its comments in one line, '' without any.
  """
  found: dict[str, str] = {}
  for owner in reversed(config.__mro__):
    if dataclasses.is_dataclass(owner):
      found |= _comments(textwrap.dedent(inspect.getsource(owner)))
  return found


def _comments(source: str) -> dict[str, str]:
  (definition,) = ast.parse(source).body
  assert isinstance(definition, ast.ClassDef)
  alone: dict[int, str] = {}
  beside: dict[int, str] = {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      text = token.string.lstrip('#').strip()
      only = token.line.lstrip().startswith('#')
      (alone if only else beside)[token.start[0]] = text
  fields = [
    (node.target.id, node.lineno, node.end_lineno or node.lineno)
    for node in definition.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
  ]
  own: dict[str, list[str]] = {}
  for i, (name, first, last) in enumerate(fields):
    above: list[str] = []
    line = first - 1
    while line in alone:
      above.insert(0, alone[line])
      line -= 1
    side = [beside[n] for n in range(first, last + 1) if n in beside]
    previous = fields[i - 1] if i else None
    if side and previous and line == previous[2] and line in beside:
      own[previous[0]] += above
      above = []
    own[name] = above + side
  return {name: ' '.join(comments) for name, comments in own.items()}


def _help(
  argv: Sequence[str],
  system: str,
  config: type,
  presets: Mapping[str, Any],
  doc: str,
  examples: Sequence[str],
) -> str:
  """Everything one may set, with the values of the preset asked for."""
  asked = [a.partition('=')[2] for a in argv if a.startswith('--preset=')]
  shown = asked[-1] if asked and asked[-1] in presets else DEFAULT_PRESET
  usage = f'python -m {_program(system)}'
  lines = [
    inspect.cleandoc(doc).split('\n\n')[0],
    '',
    f'{usage} [--preset=NAME] [--workdir=DIR] [--config.FIELD=VALUE ...]',
    '',
    'Flags:',
  ]
  notes = {
    'preset': f'; {DEFAULT_PRESET} by default',
    'workdir': f'; runs/{system}-PRESET by default',
  }
  for name, meaning in _FLAGS.items():
    lines += _entry(f'--{name}', meaning + notes.get(name, ''))
  lines += ['', 'Presets, and what they set otherwise than ' + DEFAULT_PRESET]
  usual = presets[DEFAULT_PRESET]
  for name, preset in presets.items():
    differing = [
      f'{field.name}={_text(getattr(preset, field.name))}'
      for field in dataclasses.fields(config)
      if getattr(preset, field.name) != getattr(usual, field.name)
    ]
    lines += _entry(f'--preset={name}', ', '.join(differing) or 'the default')
  lines += ['', f'Settings, with their values in the preset {shown}:']
  comments = field_comments(config)
  kinds = typing.get_type_hints(config)
  for field in dataclasses.fields(config):
    kind = kinds[field.name]
    kind_name = kind.__name__ if isinstance(kind, type) else str(kind)
    if typing.get_origin(kind) is tuple:
      kind_name = str(kind)
    value = _text(getattr(presets[shown], field.name))
    lines += _entry(
      f'--config.{field.name}={value}  ({kind_name})',
      comments.get(field.name, ''),
    )
  lines += ['', 'Examples:', *(f'  {example}' for example in examples)]
  return '\n'.join(lines)


def _entry(name: str, meaning: str) -> list[str]:
  wrapped = textwrap.wrap(
    meaning, 72, break_on_hyphens=False, break_long_words=False
  )
  return [f'  {name}', *(f'      {line}' for line in wrapped)]


def _text(value: Any) -> str:
  """A value as it is typed on the command line."""
  if isinstance(value, tuple):
    return ','.join(map(_text, value))
  if isinstance(value, bool) or value is None:
    return str(value).lower()
  return str(value)
