"""Metrics files: written, cut short, resumed."""

import glob
import importlib
import json
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.training import logging


def _lines(directory):
  return (directory / 'metrics.jsonl').read_text().splitlines()


def test_a_record_is_a_line_of_strict_json(tmp_path):
  writer = logging.MetricsWriter(str(tmp_path))
  writer.write(
    3,
    {
      'loss': jnp.array(0.5),
      'visits': np.array([[1, 2], [3, 4]]),
      'worst': float('inf'),
      'rates': jnp.array([np.nan, 1.0]),
      'count': np.int64(7),
      'good': np.bool_(True),
    },
  )
  writer.close()
  (line,) = _lines(tmp_path)

  def refuse(constant):
    raise AssertionError(constant)

  assert json.loads(line, parse_constant=refuse) == {
    'step': 3,
    'loss': 0.5,
    'visits': [[1, 2], [3, 4]],
    'worst': None,
    'rates': [None, 1.0],
    'count': 7,
    'good': True,
  }


def test_resuming_forgets_later_steps_and_a_torn_line(tmp_path):
  writer = logging.MetricsWriter(str(tmp_path))
  for step in range(1, 6):
    writer.write(step, {'loss': step / 2})
  writer.close()
  with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"step": 6, "lo')
  assert [r['step'] for r in logging.read(str(tmp_path))] == [1, 2, 3, 4, 5]
  writer = logging.MetricsWriter(str(tmp_path), resume_step=3)
  writer.write(4, {'loss': -1.0})
  writer.close()
  assert logging.read(str(tmp_path)) == [
    {'step': 1, 'loss': 0.5},
    {'step': 2, 'loss': 1.0},
    {'step': 3, 'loss': 1.5},
    {'step': 4, 'loss': -1.0},
  ]
  assert len(_lines(tmp_path)) == 4


def test_a_fresh_start_forgets_everything(tmp_path):
  writer = logging.MetricsWriter(str(tmp_path))
  writer.write(0, {'loss': 2.0})
  writer.write(1, {'loss': 1.0})
  writer.close()
  logging.MetricsWriter(str(tmp_path)).close()
  assert logging.read(str(tmp_path)) == []


def test_without_a_file_there_are_no_records(tmp_path):
  assert logging.read(str(tmp_path / 'nowhere')) == []


@pytest.mark.parametrize('junk', ['7', '[]', '{"loss": 1}', 'null', '\x00'])
def test_lines_that_are_no_records_are_left_out(tmp_path, junk):
  (tmp_path / 'metrics.jsonl').write_text(junk + '\n{"step": 1}\n')
  assert logging.read(str(tmp_path)) == [{'step': 1}]


def test_numbers_go_to_tensorboard_and_arrays_do_not(tmp_path):
  proto: Any = importlib.import_module('tensorboardX.proto.event_pb2')

  writer = logging.MetricsWriter(str(tmp_path))
  writer.write(2, {'loss': 0.25, 'visits': np.ones(7)})
  writer.close()
  (path,) = glob.glob(str(tmp_path / 'events.out.tfevents.*'))
  with open(path, 'rb') as file:
    data = file.read()
  values = []
  while data:
    # A record: length, its checksum, the event, its checksum.
    (length,) = struct.unpack('<Q', data[:8])
    event = proto.Event.FromString(data[12 : 12 + length])
    values += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    data = data[16 + length :]
  assert values == [(2, 'loss', 0.25)]
