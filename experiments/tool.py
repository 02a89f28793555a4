"""The command line of programs that use a run: flags, help, exit codes.

What `cli` is to training, this is to what one does with its result.
"""

import difflib
import inspect
import io
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags as absl_flags

from dl_lectures.training import host
from dl_lectures.types import UsageError


class Flag(NamedTuple):
  """One flag of a program.

  Attributes:
    name: as in --name=VALUE; also the argument that `main` gets.
    meaning: what the help says.
    default: its value unless given; None: it must be given.
    parse: text -> value; a ValueError says what is expected.
  """

  name: str
  meaning: str
  default: Any = None
  parse: Callable[[str], Any] = str


def run(
  main: Callable[..., None],
  *,
  flags: Sequence[Flag],
  doc: str,
  examples: Sequence[str],
) -> NoReturn:
  """Calls `main` with the flags of the command line, and exits.

  The exit code is 0 for a program that has ended, 2 for a mistake of the user
  and 1 for what could not be read or written, both told in one line, and 130
  for Ctrl-C, unless `main` makes something of it.

  Args:
    main: main(**values), with a value for each flag.
    flags: all but --help, which every program has.
    doc: what the help begins with.
    examples: command lines for the help.
  """
  argv = sys.argv[1:]
  if {'-h', '-help', '--help'} & {*argv}:
    print(_help(_name(main), flags, doc, examples))
    sys.exit(0)
  # What is no text, or cannot be shown, is shown as a question mark.
  for stream in (sys.stdin, sys.stdout):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')
  try:
    values = _parse(argv, flags)
    host.tune_allocator()
    host.enable_compile_cache()
    main(**values)
    sys.stdout.flush()
    code = 0
  except UsageError as error:
    code = _tell(2, str(error))
  except BrokenPipeError:
    # Who reads has gone (`| head`); the interpreter would flush once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
  except OSError as error:
    code = _tell(1, str(error))
  except KeyboardInterrupt:
    code = _tell(130, 'stopped')
  sys.exit(code)


def whole_number(low: int, high: int) -> Callable[[str], int]:
  """Parses a whole number within bounds.

  >>> whole_number(0, 9)('7')
  7
  """

  def parse(text: str) -> int:
    try:
      value = int(text)
    except ValueError:
      value = low - 1
    if not low <= value <= high:
      raise ValueError(f'a whole number from {low} to {high} is expected')
    return value

  return parse


def one_of(*options: str) -> Callable[[str], str]:
  """Parses one of a few words.

  >>> one_of('you', 'network')('you')
  'you'
  """

  def parse(text: str) -> str:
    if text not in options:
      near = _did_you_mean(text, {option: option for option in options})
      raise ValueError(f'possible: {", ".join(options)}{near}')
    return text

  return parse


class _Parser(absl_flags.ArgumentParser):
  """Parses a flag's text for absl."""

  def __init__(self, parse: Callable[[str], Any]):
    super().__init__()
    self._parse = parse

  def parse(self, argument: str) -> Any:
    return self._parse(argument)


def _parse(argv: Sequence[str], flags: Sequence[Flag]) -> dict[str, Any]:
  values = absl_flags.FlagValues()
  for flag in flags:
    parser = _Parser(flag.parse)
    absl_flags.DEFINE(parser, flag.name, None, '', flag_values=values)
  try:
    rest = values(['', *argv])[1:]
  except absl_flags.UnrecognizedFlagError as error:
    known = {flag.name: f'--{flag.name}' for flag in flags}
    raise UsageError(
      f'--{error.flagname}: there is no such flag; possible: '
      + ', '.join([*known.values(), '--help'])
      + _did_you_mean(error.flagname, known)
    ) from error
  except absl_flags.Error as error:
    raise UsageError(str(error).removeprefix('flag ')) from error
  if rest:
    raise UsageError(
      f'{rest[0]} is not a flag; flags are given as --flag=value, see --help'
    )
  found = {}
  for flag in flags:
    given = values[flag.name].value
    if given is None and flag.default is None:
      raise UsageError(f'--{flag.name}= is missing: {flag.meaning}; see --help')
    if given == '':
      raise UsageError(f'--{flag.name}= is empty; it is {flag.meaning}')
    found[flag.name] = flag.default if given is None else given
  return found


def _did_you_mean(word: str, options: dict[str, str]) -> str:
  near = difflib.get_close_matches(word, options, 1, 0.5)
  return f'; did you mean {options[near[0]]}?' if near else ''


def _name(main: Callable[..., None]) -> str:
  path = inspect.getsourcefile(main) or 'program'
  return os.path.splitext(os.path.basename(path))[0]


def _tell(code: int, message: str) -> int:
  print(' '.join(message.split()), file=sys.stderr, flush=True)
  return code


def _help(
  name: str, flags: Sequence[Flag], doc: str, examples: Sequence[str]
) -> str:
  lines = [inspect.cleandoc(doc), '', 'Flags:']
  for flag in flags:
    usual = flag.default
    if isinstance(usual, tuple):
      usual = ','.join(map(str, usual))
    default = '' if usual in (None, '') else f'; {usual} by default'
    lines.append(f'  --{flag.name}=VALUE')
    meaning = textwrap.wrap(flag.meaning + default, 72, break_on_hyphens=False)
    lines += [f'      {line}' for line in meaning]
  lines += ['  --help', '      shows this', '', 'Examples:']
  lines += [f'  python -m experiments.{name} {example}' for example in examples]
  return '\n'.join(lines)
