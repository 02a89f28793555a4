"""Go against pgx, against plain Python rules, and by hand."""

import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import go


class PlainGo:
  """Slow, plain rules: the independent oracle.

  A board is a tuple of 1 (Black), -1 (White) and 0; row 0 is the top.
  """

  def __init__(self, size, superko='positional', komi=0.5, max_plies=10_000):
    self.size, self.superko, self.komi = size, superko, komi
    self.max_plies = max_plies
    self.board = (0,) * size**2
    self.mover, self.passes, self.ply = 1, 0, 0
    self.past = {self.key(self.board, 1)}
    self.boards = [self.board]

  def copy(self):
    other = object.__new__(PlainGo)
    other.__dict__ = {**self.__dict__, 'past': set(self.past)}
    other.boards = list(self.boards)
    return other

  def key(self, board, to_play):
    return (board, to_play) if self.superko == 'situational' else board

  def near(self, cell):
    row, column = divmod(cell, self.size)
    for r, c in (
      (row - 1, column),
      (row + 1, column),
      (row, column - 1),
      (row, column + 1),
    ):
      if 0 <= r < self.size and 0 <= c < self.size:
        yield r * self.size + c

  def region(self, board, cell):
    """The cells joined to this one by cells of its kind, and their border."""
    seen, border, todo = {cell}, set(), [cell]
    while todo:
      for other in self.near(todo.pop()):
        if board[other] != board[cell]:
          border.add(other)
        elif other not in seen:
          seen.add(other)
          todo.append(other)
    return seen, border

  def breathes(self, board, cell):
    return any(board[x] == 0 for x in self.region(board, cell)[1])

  def after(self, cell):
    """The board after the mover's stone, None if that is illegal."""
    if self.board[cell]:
      return None
    board = list(self.board)
    board[cell] = self.mover
    for other in self.near(cell):
      if board[other] == -self.mover and not self.breathes(board, other):
        for stone in self.region(board, other)[0]:
          board[stone] = 0
    if not self.breathes(board, cell):
      return None
    board = tuple(board)
    return None if self.key(board, -self.mover) in self.past else board

  @property
  def over(self):
    return self.passes >= 2 or self.ply >= self.max_plies

  def legal(self):
    cells = range(self.size**2)
    if self.over:
      return [False] * (self.size**2 + 1)
    return [self.after(cell) is not None for cell in cells] + [True]

  def play(self, action):
    if action == self.size**2:
      self.passes += 1
    else:
      self.passes = 0
      self.board = self.after(action)
    self.mover = -self.mover
    self.ply += 1
    self.past.add(self.key(self.board, self.mover))
    self.boards.append(self.board)

  def margin(self):
    total = sum(self.board)
    cells = {x for x, stone in enumerate(self.board) if stone == 0}
    while cells:
      region, border = self.region(self.board, min(cells))
      colours = {self.board[x] for x in border}
      if len(colours) == 1:
        total += colours.pop() * len(region)
      cells -= region
    return total

  def result(self):
    return np.sign(self.margin() - self.komi) if self.over else 0

  def planes(self):
    """AlphaGo Zero's planes, [S, S, 17]."""
    boards = [(0,) * self.size**2] * 8 + self.boards
    planes = []
    for board in boards[:-9:-1]:
      planes += [np.equal(board, self.mover), np.equal(board, -self.mover)]
    planes.append(np.full(self.size**2, self.mover == 1))
    return np.stack(planes, -1).reshape(self.size, self.size, 17)


# What the rules say, and plain Python beside it.


def told(game, state):
  return (
    game.legal_mask(state),
    game.terminal(state),
    game.reward(state),
    game.observe(state).astype(bool),
  )


@functools.partial(jax.jit, static_argnums=0)
def children(game, states):
  """Steps every state by every action; what is told of each."""

  def expand(state):
    after = jax.vmap(lambda action: game.step(state, action))(
      jnp.arange(game.num_actions)
    )
    return after, jax.vmap(lambda child: told(game, child))(after)

  return jax.vmap(expand)(states)


def in_chunks(game, states, chunk=512):
  """Yields (start, `children` of that chunk), all chunks of one shape."""
  count = len(jax.tree.leaves(states)[0])
  for start in range(0, count, chunk):
    index = np.minimum(np.arange(start, start + chunk), count - 1)
    part = jax.tree.map(lambda x, i=index: x[i], states)
    yield start, jax.device_get(children(game, part))


def check_every_line(size, superko, depth, max_plies):
  """Compares all lines of play to a depth with the oracle; their number."""
  game = go.make(size, komi=0.5, superko=superko, max_plies=max_plies)
  boards = [PlainGo(size, superko, 0.5, max_plies)]
  states = jax.tree.map(lambda x: x[None], game.init(jax.random.key(0)))
  states, lines = jax.device_get(states), 0
  for _ in range(depth):
    live, later_boards = [], []
    for start, (after, (legal, over, reward, planes)) in in_chunks(
      game, states
    ):
      rows, columns = [], []
      for row, board in enumerate(boards[start : start + len(legal)]):
        for action in np.flatnonzero(board.legal()):
          child = board.copy()
          child.play(int(action))
          lines += 1
          assert legal[row, action].tolist() == child.legal()
          assert over[row, action] == child.over
          result = child.result()
          assert reward[row, action].tolist() == [result, -result]
          if not child.over:
            assert (planes[row, action] == child.planes()).all()
            later_boards.append(child)
            rows.append(row)
            columns.append(action)
      live.append(jax.tree.map(lambda x, r=rows, c=columns: x[r, c], after))
    boards = later_boards
    states = jax.tree.map(lambda *parts: np.concatenate(parts), *live)
    if not boards:
      break
  return lines


def test_every_game_on_2x2_to_the_eighth_ply_equals_plain_rules():
  assert check_every_line(2, 'positional', 8, 8) == 4442


def test_every_line_on_3x3_to_the_fourth_ply_equals_plain_rules():
  assert check_every_line(3, 'positional', 3, 18) == 839


def test_docstring_examples():
  outcome = doctest.testmod(go)
  assert outcome.attempted > 0
  assert outcome.failed == 0
