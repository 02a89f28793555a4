"""Searches end when they should: by number, by time, by a word."""

import threading
import time

import pytest

from experiments import engine_search
from experiments.engine_search import Clock, Found, Searcher, Task


def counter(room=1000, seconds=0.0):
  """A searcher whose tree is the number of its simulations."""

  def extend(tree):
    time.sleep(seconds)
    return tree + 10

  return Searcher(
    begin=lambda state: 0,
    extend=extend,
    read=lambda tree: Found([tree], tree, 0.0),
    slice=10,
    room=room,
  )


@pytest.mark.parametrize(('asked', 'made'), [(1, 10), (10, 10), (95, 100)])
def test_as_many_simulations_as_asked_in_whole_slices(asked, made):
  found = engine_search.think(counter(), None, Task(asked, None))
  assert found.simulations == made


def test_a_full_tree_ends_a_search_with_limits():
  found = engine_search.think(counter(room=35), None, Task(None, 60.0))
  assert found.simulations == 30


def test_time_ends_a_search():
  start = time.monotonic()
  engine_search.think(counter(10**9, 0.01), None, Task(None, 0.2))
  assert 0.2 <= time.monotonic() - start < 2


def test_without_limits_only_a_stop_ends_it_even_of_a_full_tree():
  task = Task(None, None)
  ended = threading.Event()

  def search():
    engine_search.think(counter(room=20), None, task)
    ended.set()

  threading.Thread(target=search, daemon=True).start()
  assert not ended.wait(0.2)
  task.stopped.set()
  assert ended.wait(5)


def test_limits_that_come_later_count_from_then():
  task = Task(None, None)
  found = []
  thread = threading.Thread(
    target=lambda: found.append(
      engine_search.think(counter(10**9, 0.001), None, task)
    ),
    daemon=True,
  )
  thread.start()
  time.sleep(0.2)
  assert not found
  task.limit(None, 0.1)
  thread.join(5)
  assert found


def test_reports_come_now_and_then_and_at_the_end():
  heard = []
  engine_search.think(
    counter(10**9, 0.01),
    None,
    Task(None, 0.3),
    lambda found, seconds: heard.append(found.simulations),
    every=0.1,
  )
  assert 2 <= len(heard) <= 5
  assert heard == sorted(heard)


@pytest.mark.parametrize(
  ('clock', 'seconds'),
  [
    (Clock(left=100), 3.95),
    (Clock(left=100, increment=1), 4.75),
    (Clock(left=100, moves=4), 24.95),
    (Clock(left=10, moves=1), 9.95),
    (Clock(left=1, increment=5), 0.45),  # never more than half of what is left
    (Clock(left=0, byoyomi=5), 4.95),
    (Clock(left=0), 0.0),
  ],
)
def test_time_is_shared_out(clock, seconds):
  assert engine_search.seconds_for(clock) == pytest.approx(seconds)
