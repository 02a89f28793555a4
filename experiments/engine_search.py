"""Searching against the clock, until somebody says stop.

A search here is a tree that grows by a slice of simulations at a time; between
two slices it is asked whether that is enough. What a slice is, and how trees
are made, is the `Searcher`'s business.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# What a move costs besides thinking: pipes, the referee, the last slice.
OVERHEAD = 0.05
# So many more moves the rest of the time is to last for.
MOVES_TO_GO = 25


class Found(NamedTuple):
  """What a search has found so far.

  Attributes:
    line: the actions of the best line, the move to play first.
    simulations: the tree's.
    value: in [-1, 1], for the player to move.
  """

  line: Sequence[int]
  simulations: int
  value: float


class Searcher(NamedTuple):
  """A player whose search can be stopped.

  Attributes:
    begin: state -> tree of its root alone.
    extend: tree -> tree after a slice more of simulations.
    read: tree -> what it says.
    slice: the simulations of a slice.
    room: the most simulations a tree has room for.
  """

  begin: Callable[[Any], Any]
  extend: Callable[[Any], Any]
  read: Callable[[Any], Found]
  slice: int
  room: int


class Clock(NamedTuple):
  """The time that a player has left, in seconds.

  Attributes:
    left: until its flag falls.
    increment: what each move adds.
    moves: until more time is added; 0 where nothing says so.
    byoyomi: for each move once `left` is used up.
  """

  left: float
  increment: float = 0.0
  moves: int = 0
  byoyomi: float = 0.0


def seconds_for(clock: Clock) -> float:
  """How long to think of one move.

  >>> round(seconds_for(Clock(left=50)), 2)
  1.95
  >>> round(seconds_for(Clock(left=0, byoyomi=10)), 2)
  9.95
  """
  if clock.byoyomi:
    share = clock.left / MOVES_TO_GO + clock.byoyomi
    most = clock.left + clock.byoyomi
  else:
    share = clock.left / (clock.moves or MOVES_TO_GO) + 0.8 * clock.increment
    most = clock.left if clock.moves == 1 else 0.5 * clock.left
  return max(min(share, most) - OVERHEAD, 0.0)


class Task:
  """One search, as those see it who may end it; safe between threads.

  Attributes:
    stopped: set once it is to end at the next chance.
  """

  def __init__(self, simulations: int | None, seconds: float | None):
    """Makes a task whose time runs from now.

    Args:
      simulations: after which it ends; None: no such limit.
      seconds: after which it ends; None: no such limit. Without either it
        goes on until it is stopped.
    """
    self.stopped = threading.Event()
    self._begun = time.monotonic()
    self._simulations, self._seconds = simulations, seconds

  def limit(self, simulations: int | None, seconds: float | None) -> None:
    """Gives it other limits, of which the time runs from now."""
    limits = simulations, seconds
    self._begun = time.monotonic()
    self._simulations, self._seconds = limits

  @property
  def seconds(self) -> float:
    """How long its time has been running."""
    return time.monotonic() - self._begun

  @property
  def endless(self) -> bool:
    """Whether nothing but a stop ends it."""
    return self._simulations is None and self._seconds is None

  def over(self, simulations: int) -> bool:
    """Whether so many simulations are enough."""
    return self.stopped.is_set() or any(
      limit is not None and reached >= limit
      for limit, reached in (
        (self._simulations, simulations),
        (self._seconds, self.seconds),
      )
    )


def think(
  searcher: Searcher,
  state: Any,
  task: Task,
  report: Callable[[Found, float], None] = lambda found, seconds: None,
  every: float = 1.0,
) -> Found:
  """Searches until the task is over.

  Args:
    searcher: whose trees grow.
    state: the position; not a terminal one.
    task: says when it is enough. One without limits ends when it is stopped,
      even if the tree is full before.
    report: hears of the search now and then, and at its end.
    every: seconds between two reports.
  """
  tree = searcher.extend(searcher.begin(state))
  done, said = searcher.slice, 0.0
  while not task.over(done):
    if done + searcher.slice <= searcher.room:
      tree = searcher.extend(tree)
      done += searcher.slice
    elif task.endless:
      # It may still get a limit: the other side has moved as expected.
      task.stopped.wait(0.05)
    else:
      break
    if task.seconds - said >= every:
      said = task.seconds
      report(searcher.read(tree), said)
  found = searcher.read(tree)
  report(found, task.seconds)
  return found
