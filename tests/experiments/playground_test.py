"""The playground's server by its answers; its page in headless Chromium."""

import contextlib
import http.client
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from dl_lectures.types import UsageError
from experiments import playground

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {'layers': [2], 'train_share': 0.1, 'learning_rate': 0.3}


@pytest.fixture(scope='module')
def server():
  with playground.Server(0) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def ask(
  server: playground.Server,
  method: str,
  path: str,
  body: Any = None,
  **headers: str,
) -> tuple[int, http.client.HTTPMessage, bytes]:
  connection = http.client.HTTPConnection(
    '127.0.0.1', server.server_port, timeout=60
  )
  if body is not None:
    headers = {'Content-Type': 'application/json'} | headers
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
  headers = {name.replace('_', '-'): x for name, x in headers.items()}
  with contextlib.closing(connection):
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def call(server: playground.Server, path: str, fields: Any) -> dict[str, Any]:
  status, _, body = ask(server, 'POST', path, fields)
  assert status == 200, body
  return json.loads(body)


def test_the_page_is_whole(server):
  status, headers, body = ask(server, 'GET', '/')
  assert status == 200
  assert "default-src 'none'" in headers['Content-Security-Policy']
  page = body.decode()
  # Nothing is fetched from anywhere: the one address is a name space.
  assert set(re.findall(r'https?://[^\s"\'<]+', page)) == {
    'http://www.w3.org/2000/svg'
  }
  assert not re.search(r'<link|@import|src=', page)
  inside = re.search(r'application/json">(.*?)</script>', page, re.DOTALL)
  assert inside
  catalogue = json.loads(inside[1])
  assert catalogue['default']['layers'] == [4, 2]
  assert set(catalogue['thumbnails']) == {
    name for names in catalogue['data'].values() for name in names
  }


def test_a_network_is_trained_and_the_loss_falls(server):
  begun = call(server, '/reset', {**SMALL, 'data': 'gauss'})
  assert begun['epoch'] == 0
  assert len(begun['points']['train']) == 40
  assert len(begun['points']['test']) == 360
  assert [len(w) for w in begun['weights']] == [2, 2]
  assert not begun['diverged']
  made = call(server, '/step', {'session': begun['session'], 'epochs': 20})
  assert made['epoch'] == 20
  assert [row[0] for row in made['losses']] == list(range(1, 21))
  first, last = begun['losses'][0], made['losses'][-1]
  assert last[1] < 0.3 * first[1]
  assert last[2] < 0.3 * first[2]
  assert made['output'] != begun['output']
  # Nothing is asked for, nothing changes.
  same = call(server, '/step', {'session': begun['session'], 'epochs': 0})
  assert same['losses'] == []
  assert same['output'] == made['output']


def test_two_pages_do_not_disturb_each_other(server):
  first, second = (call(server, '/reset', SMALL) for _ in range(2))
  assert first['session'] != second['session']
  ones = call(server, '/step', {'session': first['session'], 'epochs': 2})
  twos = [
    call(server, '/step', {'session': second['session'], 'epochs': 1})
    for _ in range(2)
  ]
  assert twos[1]['output'] == ones['output']


def test_a_rate_may_change_in_training(server):
  begun = call(server, '/reset', SMALL)
  still = call(
    server,
    '/step',
    {'session': begun['session'], 'epochs': 1, 'learning_rate': 1e-5},
  )
  assert still['losses'][-1][1] == pytest.approx(
    begun['losses'][0][1], abs=1e-3
  )


def test_divergence_is_told_and_nothing_is_lost(server):
  begun = call(
    server,
    '/reset',
    {
      **SMALL,
      'problem': 'regression',
      'data': 'plane',
      'layers': [],
      'learning_rate': 10,
    },
  )
  made = call(server, '/step', {'session': begun['session'], 'epochs': 100})
  assert made['diverged']
  assert made['epoch'] == len(made['losses']) < 100


@pytest.mark.parametrize(
  ('path', 'body', 'message'),
  [
    ('/reset', {'layer': [2]}, 'layer: no such field; did you mean layers?'),
    ('/reset', {'noise': 'much'}, "noise: a number is expected, not 'much'"),
    ('/reset', {'noise': True}, 'noise: a number is expected, not True'),
    ('/reset', {'layers': [9]}, 'layers: 9 neurons; 1 to 8 in each'),
    ('/reset', {'layers': [1] * 7}, 'layers: 7; at most 6 are possible'),
    ('/reset', {'layers': 3}, 'layers: a list is expected'),
    ('/reset', {'learning_rate': -1}, 'learning_rate: -1.0; 1e-05 to 10'),
    (
      '/reset',
      {'learning_rate': 10**400},
      'learning_rate: a number of a usual',
    ),
    ('/reset', {'features': []}, 'features: each at most once, and one at'),
    ('/reset', {'data': 'plane'}, "data: 'plane'; possible: circle, xor"),
    ('/reset', {'activation': 'relu'}, "'relu'; possible: .* mean ReLU"),
    ('/reset', [1], 'an object of settings is expected'),
    ('/reset', b'{', 'no JSON'),
    ('/reset', b'\xff', 'no JSON'),
    ('/reset', b'[' * 9000, 'no JSON|object'),
    ('/reset', b'{"noise": NaN}', 'NaN is no number'),
    ('/reset', b' ' * 10_001, '10001 bytes; at most 10000 are read'),
    ('/step', {'session': 1}, 'epochs: is missing'),
    ('/step', {'session': 10**6, 'epochs': 1}, 'session: 1000000 has ended'),
    ('/step', {'session': 1, 'epochs': 101}, 'epochs: 101; 0 to 100'),
    ('/step', {'session': 1, 'epochs': 1, 'x': 1}, 'x: no such field'),
    ('/step', 'x', 'an object'),
  ],
)
def test_a_bad_request_is_told_in_a_line(server, path, body, message):
  status, headers, answer = ask(server, 'POST', path, body)
  assert status == 400
  assert headers['Content-Type'] == 'application/json'
  assert answer.count(b'\n') == 1
  assert re.search(message, json.loads(answer)['error'])


@pytest.mark.parametrize(
  ('method', 'path', 'headers', 'status'),
  [
    ('GET', '/', {'Host': 'localhost:8080'}, 200),
    ('GET', '/', {'Host': 'evil.example'}, 403),
    ('GET', '/', {'Host': 'evil.example:8004'}, 403),
    ('GET', '/', {'Host': '127.0.0.1.evil.example'}, 403),
    ('GET', '/', {'Origin': 'http://evil.example'}, 403),
    ('POST', '/reset', {'Host': 'evil.example'}, 403),
    ('POST', '/reset', {'Origin': 'http://evil.example'}, 403),
    ('POST', '/reset', {'Origin': 'null'}, 403),
    ('POST', '/reset', {'Origin': 'http://localhost:1'}, 403),
    ('POST', '/reset', {'Content-Type': 'text/plain'}, 400),
    ('POST', '/reset', {'Content-Length': '-1'}, 400),
    ('POST', '/weights', {}, 404),
    ('GET', '/../pyproject.toml', {}, 404),
    ('PUT', '/', {}, 501),
    ('OPTIONS', '/reset', {}, 501),
  ],
)
def test_whom_it_answers(server, method, path, headers, status):
  body = b'{"layers": [2]}' if method == 'POST' else None
  found, told, answer = ask(server, method, path, body, **headers)
  assert found == status
  if status != 200:
    assert answer.count(b'\n') == 1
    assert json.loads(answer)['error']
    assert 'Access-Control-Allow-Origin' not in told


def test_it_listens_on_this_machine_only(server):
  assert server.server_address[0] == '127.0.0.1'


def test_old_networks_are_given_up():
  sessions = playground.Sessions()
  begun = [sessions.reset(SMALL)['session'] for _ in range(17)]
  assert begun == list(range(1, 18))
  sessions.step({'session': 2, 'epochs': 0})
  with pytest.raises(UsageError, match='session: 1 has ended'):
    sessions.step({'session': 1, 'epochs': 0})


def test_a_taken_port(server):
  with pytest.raises(UsageError, match=r'--port=\d+ cannot be had'):
    playground.Server(server.server_port)


@pytest.mark.slow
def test_the_program(tmp_path):
  command = [sys.executable, '-m', 'experiments.playground']
  with subprocess.Popen(
    [*command, '--port=0'], cwd=ROOT, stdout=subprocess.PIPE, text=True
  ) as program:
    assert program.stdout
    line = program.stdout.readline()
    found = re.search(r'http://127\.0\.0\.1:(\d+)/', line)
    assert found, line
    taken = subprocess.run(
      [*command, f'--port={found[1]}'], cwd=ROOT, capture_output=True, text=True
    )
    assert taken.returncode == 2
    assert taken.stderr.count('\n') == 1
    assert 'cannot be had' in taken.stderr
    with socket.create_connection(('127.0.0.1', int(found[1]))):
      program.send_signal(signal.SIGINT)
      assert program.wait(60) == 0
    assert program.stdout.read() == 'stopped\n'


# ------------------------------------------------------------------- a browser


class Browser:
  """Headless Chromium, told what to do through its pipe, by its own protocol.

  Its messages are JSON, each ended by a zero byte, on descriptors 3 and 4.
  """

  def __init__(self, program: str, profile: pathlib.Path):
    to_read, self._to_write = os.pipe()
    self._to_read, to_write = os.pipe()
    # The descriptors get their numbers in a process of their own.
    exec_it = (
      'import fcntl, os, sys; '
      'high = [fcntl.fcntl(int(x), fcntl.F_DUPFD, 10) for x in sys.argv[1:3]]; '
      'os.dup2(high[0], 3); os.dup2(high[1], 4); '
      'os.execvp(sys.argv[3], sys.argv[3:])'
    )
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-c', exec_it, str(to_read), str(to_write), program),
        *('--headless=new', '--no-sandbox', '--disable-gpu'),
        *('--no-first-run', '--disable-extensions', '--hide-scrollbars'),
        *(f'--user-data-dir={profile}', '--remote-debugging-pipe'),
      ],
      pass_fds=(to_read, to_write),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    self._numbers, self._rest = itertools.count(1), b''
    self.problems: list[Any] = []
    self._session: str | None = None

  def open(self) -> None:
    """A page, of which it is told what goes wrong."""
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    self._session = self.call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self.call(f'{domain}.enable')

  def call(self, method: str, **params: Any) -> Any:
    number = next(self._numbers)
    message: dict[str, Any] = {
      'id': number,
      'method': method,
      'params': params,
    }
    if self._session is not None:
      message['sessionId'] = self._session
    os.write(self._to_write, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._next()
      if answer.get('id') == number:
        assert 'error' not in answer, answer
        return answer['result']
      if answer.get('method') in (
        'Runtime.exceptionThrown',
        'Log.entryAdded',
      ):
        self.problems.append(answer['params'])

  def _next(self) -> Any:
    while b'\0' not in self._rest:
      more = os.read(self._to_read, 1 << 16)
      assert more, 'the browser has gone'
      self._rest += more
    message, _, self._rest = self._rest.partition(b'\0')
    return json.loads(message)

  def value(self, expression: str) -> Any:
    """What an expression is in the page; promises are waited for."""
    found = self.call(
      'Runtime.evaluate',
      expression=expression,
      awaitPromise=True,
      returnByValue=True,
    )
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def wait(self, expression: str, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      found = self.value(expression)
      if found:
        return found
      time.sleep(0.1)
    raise AssertionError(f'not within {seconds} s: {expression}')

  def close(self) -> None:
    self._session = None
    with contextlib.suppress(AssertionError, OSError):
      self.call('Browser.close')
    self._process.kill()
    self._process.wait(30)
    os.close(self._to_write)
    os.close(self._to_read)


@pytest.fixture
def browser(tmp_path):
  names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
  program = next(filter(None, map(shutil.which, names)), None)
  if program is None:
    pytest.skip(f'no browser is installed: none of {", ".join(names)}')
  with contextlib.closing(Browser(program, tmp_path)) as browser:
    browser.open()
    yield browser


# The share of the output's pixels of either colour.
_COLOURS = """(() => {
  const canvas = document.getElementById('output');
  const data = canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height).data;
  let warm = 0, cold = 0;
  for (let i = 0; i < data.length; i += 4) {
    warm += data[i] > data[i + 2] + 40;
    cold += data[i + 2] > data[i] + 40;
  }
  return [4 * warm / data.length, 4 * cold / data.length];
})()"""


@pytest.mark.slow
def test_the_page_in_a_browser(browser, server):
  def narrow(width: int) -> None:
    browser.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=900,
      deviceScaleFactor=1,
      mobile=False,
    )

  narrow(1200)
  browser.call('Page.navigate', url=server.url)
  browser.wait("document.readyState === 'complete' && seen !== null")
  first = browser.value('losses[0][1]')
  browser.value("document.getElementById('play').focus()")
  # By the keyboard: Space presses the button that has the focus.
  for kind in ('keyDown', 'keyUp'):
    browser.call(
      'Input.dispatchKeyEvent', type=kind, key=' ', code='Space', text=' '
    )
  browser.wait('losses.at(-1)[1] < 0.2', 300)
  assert browser.value("document.getElementById('play').textContent") == 'Pause'
  assert browser.value('losses.at(-1)[1]') < 0.5 * first
  browser.value("document.getElementById('play').click()")
  browser.wait('!playing && !stepping')
  # Both classes have their colour, and a border is drawn between them.
  warm, cold = browser.value(_COLOURS)
  assert warm > 0.2
  assert cold > 0.05
  segments = "Number(document.getElementById('output').dataset.segments)"
  assert browser.value(segments) > 20
  # Every neuron has its picture, and every weight its line.
  drawn = browser.value("""canvases.filter(canvas => new Set(canvas
    .getContext('2d').getImageData(0, 0, 20, 20).data).size > 9).length""")
  assert drawn == 2 + 4 + 2
  assert browser.value("document.querySelectorAll('#net path').length") == 18
  epoch = browser.value('seen.epoch')
  browser.value("document.getElementById('step').click()")
  browser.wait(f'seen.epoch === {epoch + 1}')
  # What is changed begins anew.
  browser.value("document.getElementById('more 0').click()")
  browser.wait('seen.epoch === 0 && seen.weights[0][0].length === 5')
  # A change that the server refuses is told, and the page lives on.
  browser.value('settings.layers = [99]; reset()')
  told = browser.wait("document.getElementById('status').textContent")
  assert '99 neurons' in told
  browser.value('settings.layers = [3]; reset()')
  browser.wait("document.getElementById('status').textContent === ''")
  for width in (1200, 800, 400):
    narrow(width)
    assert browser.value('document.documentElement.scrollWidth') <= width
  # The one that the server refused, as it is told in the console.
  problems = [p for p in browser.problems if '400' not in json.dumps(p)]
  assert not problems
