"""The playground in a browser: python -m experiments.playground --help.

A network of a few neurons learns points of a plane while one looks into it.
The page is served on this machine only; `systems/playground.py` trains.
"""

import base64
import collections
import dataclasses
import functools
import http.server
import itertools
import json
import pathlib
import sys
import threading
import webbrowser
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from dl_lectures.systems import playground
from dl_lectures.types import UsageError
from experiments import tool

_HOST = '127.0.0.1'
_PAGE = pathlib.Path(__file__).with_suffix('.html')
# Networks that are kept: each page open in a browser trains one.
_MOST_SESSIONS = 16
_MOST_EPOCHS = 100  # of one request
_MOST_BYTES = 10_000  # of a request
# The page is all there is: it loads nothing, and nothing may frame it.
_POLICY = (
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
  "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
  "frame-ancestors 'none'"
)


class Sessions:
  """The networks in training, by the number that their page was given."""

  def __init__(self):
    self._trainings: collections.OrderedDict[int, playground.Training]
    self._trainings = collections.OrderedDict()
    self._numbers = itertools.count(1)
    # One network trains at a time: so nobody waits for a busy machine twice.
    self._lock = threading.Lock()

  def reset(self, fields: Any) -> dict[str, Any]:
    """Begins a training with settings; the answer also has its points."""
    settings = playground.read_settings(fields)
    with self._lock:
      training = playground.begin(settings)
      number = next(self._numbers)
      self._trainings[number] = training
      if len(self._trainings) > _MOST_SESSIONS:
        self._trainings.popitem(last=False)
      train, test = (_rows(part) for part in training.points)
      return {
        'points': {'train': train, 'test': test},
        **_answer(number, training, [(0, training.losses)]),
      }

  def step(self, fields: Any) -> dict[str, Any]:
    """Trains on; both rates may be given anew."""
    if not isinstance(fields, Mapping):
      raise UsageError('an object of settings is expected')
    kinds = {'session': int, 'epochs': int}
    rates = {'learning_rate': float, 'regularisation_rate': float}
    known, read = {**kinds, **rates}, {}
    for name, value in fields.items():
      if name not in known:
        raise UsageError(f'{name}: no such field; possible: {", ".join(known)}')
      read[name] = playground.read_value(name, value, known[name])
    for name in kinds:
      if name not in read:
        raise UsageError(f'{name}: is missing')
    for name in rates:
      if name in read:
        playground.check_range(name, read[name])
    if not 0 <= read['epochs'] <= _MOST_EPOCHS:
      raise UsageError(
        f'epochs: {read["epochs"]}; 0 to {_MOST_EPOCHS} are possible'
      )
    number, epochs = read.pop('session'), read.pop('epochs')
    with self._lock:
      if number not in self._trainings:
        raise UsageError(f'session: {number} has ended; reset to begin anew')
      self._trainings.move_to_end(number)
      training = self._trainings[number]
      training.settings = dataclasses.replace(training.settings, **read)
      made = playground.advance(training, epochs)
      return _answer(number, training, made)


def _rows(points: playground.Points) -> list[list[float]]:
  both = np.concatenate([points.x, points.y[:, None]], axis=1)
  return both.round(3).astype(float).tolist()


def _answer(
  number: int,
  training: playground.Training,
  made: list[tuple[int, playground.Losses]],
) -> dict[str, Any]:
  seen = playground.view(training)
  return {
    'session': number,
    'epoch': training.epoch,
    'diverged': training.diverged,
    # Epoch, then training loss, test loss and both shares of errors.
    'losses': [[epoch, *map(float, losses)] for epoch, losses in made],
    # Finer than colours are: its border is where it is 0.
    'output': _base64(np.rint(32767 * seen.output).astype('<i2')),
    'neurons': _bytes(seen.neurons),
    'weights': [w.round(3).astype(float).tolist() for w in seen.weights],
    'biases': [b.round(3).astype(float).tolist() for b in seen.biases],
  }


def _bytes(picture: np.ndarray) -> str:
  """Values from -1 to 1 as bytes from 0 to 254, in base 64.

  >>> list(base64.b64decode(_bytes(np.array([-1.0, 0.0, 1.0]))))
  [0, 127, 254]
  """
  return _base64(np.rint(127 * picture + 127).astype(np.uint8))


def _base64(numbers: np.ndarray) -> str:
  return base64.b64encode(numbers.tobytes()).decode()


def page() -> bytes:
  """The page, with what there is to choose from in it."""
  small = jnp.asarray(playground.plane(playground.NEURON_SIDE))
  catalogue = {
    'default': dataclasses.asdict(playground.Settings()),
    'data': playground.DATA,
    'features': list(playground.FEATURES),
    'feature_pictures': {
      name: _bytes(np.clip(np.asarray(feature(small)), -1, 1))
      for name, feature in playground.FEATURES.items()
    },
    'activations': list(playground.ACTIVATIONS),
    'regularisations': list(playground.REGULARISATIONS),
    'most_layers': playground.MOST_LAYERS,
    'most_neurons': playground.MOST_NEURONS,
    'output_side': playground.OUTPUT_SIDE,
    'neuron_side': playground.NEURON_SIDE,
    'plane_side': playground.planar.SIDE,
    'thumbnails': {
      name: _rows(
        playground.draw_points(playground.Settings(problem=problem, data=name))[
          0
        ]
      )
      for problem, names in playground.DATA.items()
      for name in names
    },
  }
  text = _PAGE.read_text(encoding='utf-8')
  return text.replace('{{catalogue}}', json.dumps(catalogue)).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers the page, and it alone."""

  protocol_version = 'HTTP/1.1'
  server_version, sys_version = 'playground', ''
  # A connection that says nothing is closed.
  timeout = 600

  def __init__(self, page: bytes, sessions: Sessions, *args: Any):
    self._page = page
    self._calls = {'/reset': sessions.reset, '/step': sessions.step}
    super().__init__(*args)

  def do_GET(self) -> None:
    if not self._is_ours():
      return
    path = self.path.partition('?')[0]
    if path == '/':
      self._send(200, 'text/html; charset=utf-8', self._page)
    elif path == '/favicon.ico':
      self._send(204, 'image/x-icon', b'')
    else:
      self.send_error(404, f'{path:.80}: there is no such page; / is one')

  def do_POST(self) -> None:
    if not self._is_ours():
      return
    if self.path not in self._calls:
      self.send_error(404, f'{self.path:.80}: possible: /reset, /step')
      return
    kind = self.headers.get('Content-Type', '').partition(';')[0].strip()
    length = self.headers.get('Content-Length', '')
    if kind != 'application/json':
      self.send_error(400, 'Content-Type: application/json is expected')
    elif not (length.isascii() and length.isdigit()):
      self.send_error(400, 'Content-Length: a number of bytes is expected')
    elif int(length) > _MOST_BYTES:
      self.send_error(400, f'{length} bytes; at most {_MOST_BYTES} are read')
    else:
      body = self.rfile.read(int(length))
      try:
        answer = self._calls[self.path](_parse(body))
      except UsageError as error:
        self._send_error(400, str(error))
      else:
        self._send_json(200, answer)

  def _is_ours(self) -> bool:
    """Whether a page of this server asks, or a user's own program.

    Another site can make a browser send requests here. It tells itself by the
    origin, or, where its name has been made to mean this machine (DNS
    rebinding), by the host.
    """
    host = self.headers.get('Host', '')
    name = host.rpartition(':')[0] if ':' in host else host
    if name not in (_HOST, 'localhost'):
      self.send_error(403, f'Host {host:.80}: {_HOST} or localhost is expected')
      return False
    origin = self.headers.get('Origin')
    if origin is not None and origin != f'http://{host}':
      self.send_error(403, f'Origin {origin:.80}: http://{host} is expected')
      return False
    return True

  def send_error(
    self, code: int, message: str | None = None, explain: str | None = None
  ) -> None:
    """One line of JSON; also for what the standard library refuses."""
    del explain
    # The body may not have been read: what follows is no request.
    self.close_connection = True
    self._send_error(code, message or self.responses[code][0])

  def _send_error(self, code: int, message: str) -> None:
    self._send_json(code, {'error': ' '.join(message.split())})

  def _send_json(self, code: int, value: Any) -> None:
    self._send(code, 'application/json', (json.dumps(value) + '\n').encode())

  def _send(self, code: int, kind: str, content: bytes) -> None:
    self.send_response(code)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('Cache-Control', 'no-store')
    self.send_header('Content-Security-Policy', _POLICY)
    self.send_header('X-Content-Type-Options', 'nosniff')
    if self.close_connection:
      self.send_header('Connection', 'close')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """Says nothing: a page asks many times a second."""


def _parse(body: bytes) -> Any:
  def refuse(word: str) -> Any:
    raise UsageError(f'{word} is no number of JSON')

  try:
    return json.loads(body, parse_constant=refuse)
  except (ValueError, RecursionError) as error:
    if isinstance(error, UsageError):
      raise
    raise UsageError(f'no JSON: {error}') from error


class Server(http.server.ThreadingHTTPServer):
  """The playground's server, on this machine only.

  Args:
    port: 0 for any that is free.

  Raises:
    UsageError: the port is taken.
  """

  def __init__(self, port: int):
    handler = functools.partial(_Handler, page(), Sessions())
    try:
      super().__init__((_HOST, port), handler)
    except OSError as error:
      raise UsageError(
        f'--port={port} cannot be had ({error.strerror}); another one, or 0 '
        'for any that is free, is possible'
      ) from error

  @property
  def url(self) -> str:
    """Where the page is."""
    return f'http://{_HOST}:{self.server_port}/'

  def handle_error(self, request: Any, client_address: Any) -> None:
    """A page that has been closed is no error."""
    if not isinstance(sys.exception(), ConnectionError | TimeoutError):
      super().handle_error(request, client_address)


def main(port: int, open: str) -> None:
  """Serves until Ctrl-C."""
  with Server(port) as server:
    print(f'the playground is at {server.url} (Ctrl-C ends it)', flush=True)
    if open == 'yes':
      webbrowser.open(server.url)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      print('stopped', flush=True)


if __name__ == '__main__':
  tool.run(
    main,
    flags=(
      tool.Flag(
        'port',
        'where the page is served, on this machine only; 0 takes any that is '
        'free',
        8004,
        tool.whole_number(0, 65535),
      ),
      tool.Flag(
        'open',
        'yes or no, whether the page is opened in a browser',
        'no',
        tool.one_of('yes', 'no'),
      ),
    ),
    doc=(__doc__ or ''),
    examples=('', '--open=yes', '--port=8080'),
  )
