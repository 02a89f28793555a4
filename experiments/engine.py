"""Plays for other programs: GTP for Go, UCI for chess, USI for shogi.

The program reads commands from its standard input and answers on its standard
output, as graphical boards and referees expect of an engine. A search that may
be stopped at any moment grows one tree, asks the network for several leaves at
once, and keeps the part of the tree that the game goes on with.
"""

import importlib.metadata
import sys
from typing import Any

import jax
import numpy as np

from dl_lectures import search
from dl_lectures.envs import games
from dl_lectures.search import single
from dl_lectures.systems import alphazero
from dl_lectures.types import UsageError
from experiments import engine_gtp, engine_search, engine_uci, notation, tool

# Simulations between two looks at the clock; leaves of one network call.
SLICE, LEAVES = 32, 8
ROOM = 1_000_000


def make_searcher(trained: alphazero.Trained) -> engine_search.Searcher:
  """The search of a run's newest player, tree kept from move to move.

  Args:
    trained: of any game.
  """
  config, game, net = trained.config, trained.game, trained.net
  model = alphazero.make_model(config, game, net, config.prior_exponent)
  evaluate = single.evaluator(model)

  @jax.jit
  def look(state):
    states = jax.tree.map(lambda x: x[None], state)
    found = alphazero.evaluate_positions(game, net, trained.weights, states)
    root = search.RootFnOutput(
      config.prior_exponent * found.logits,
      found.value,
      jax.vmap(game.compact)(states),
    )
    return root, jax.vmap(game.legal_mask)(states)

  compact = jax.jit(game.compact)
  kept: list[single.Node] = []

  def begin(state: Any) -> single.Node:
    # The position may be one or two moves on from the last one.
    wanted = jax.device_get(compact(state))
    for tree in kept[-1:]:
      for node in (tree, *_children(tree), *_grandchildren(tree)):
        if _same(node.embedding, wanted):
          kept[:] = [node]
          return node
    root, legal = look(state)
    kept[:] = [single.begin(root, ~np.asarray(legal))]
    return kept[0]

  def extend(tree: single.Node) -> single.Node:
    single.grow(tree, evaluate, trained.weights, SLICE, LEAVES)
    return tree

  def read(tree: single.Node) -> engine_search.Found:
    line = single.principal_variation(tree)
    return engine_search.Found(line, tree.visits - 1, tree.value)

  return engine_search.Searcher(begin, extend, read, SLICE, ROOM)


def _children(node: single.Node) -> list[single.Node]:
  return [e[0] for e in node.edges if e is not None and not e[0].over]


def _grandchildren(node: single.Node) -> list[single.Node]:
  return [grand for child in _children(node) for grand in _children(child)]


def _same(a: Any, b: Any) -> bool:
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def serve(protocol: str, workdir: str, simulations: int) -> None:
  """Serves one protocol until the other side says quit, or goes.

  Args:
    protocol: 'gtp', 'uci' or 'usi'.
    workdir: of the run whose newest player plays.
    simulations: of a move, where no time is set.

  Raises:
    UsageError: the run is of a game that the protocol does not know.
  """
  trained = alphazero.load(workdir)
  written = notation.of(trained.game)
  if written.protocol != protocol:
    raise UsageError(
      f'--protocol={protocol}, but {workdir} plays {trained.game.name}: '
      f'{written.protocol} is possible'
    )
  searcher = make_searcher(trained)
  version = importlib.metadata.version('dl_lectures')
  if protocol == 'gtp':
    rules = _go(trained)
    # Compiled before the referee's clock runs.
    searcher.extend(searcher.begin(rules.start))
    komi = _komi(rules.board_size)
    engine = engine_gtp.Engine(rules, searcher, simulations, komi, version)
    engine_gtp.serve(engine, sys.stdin, _write)
    return
  dialect = (_chess if protocol == 'uci' else _shogi)(written, trained.game)
  searcher.extend(searcher.begin(dialect.position('startpos')))
  name = f'dl_lectures {version} AlphaZero'
  engine_uci.serve(
    engine_uci.Engine(
      dialect, searcher, simulations, name, lambda line: _write(line + '\n')
    ),
    sys.stdin,
  )


def _write(text: str) -> None:
  sys.stdout.write(text)
  sys.stdout.flush()


def _komi(board_size: int) -> float:
  from dl_lectures.envs import go

  return go.KOMI.get(board_size, go.USUAL_KOMI)


def _go(trained: alphazero.Trained) -> engine_gtp.Rules:
  game = trained.game
  step, legal = jax.jit(game.step), jax.jit(game.legal_mask)
  size = game.observation_shape[0]

  def black_area(state: Any) -> int:
    while not bool(game.terminal(state)):
      state = step(state, np.int32(size * size))
    return int(state.margin)

  return engine_gtp.Rules(
    game,
    size,
    game.init(jax.random.key(0)),
    lambda state, action: step(state, np.int32(action)),
    lambda state: np.asarray(legal(state)),
    lambda state: bool(game.terminal(state)),
    black_area,
  )


def _chess(written: notation.Notation, game: games.Game) -> engine_uci.Dialect:
  from dl_lectures.envs import chess, chess_endgames, chess_notation

  few = game.name in chess_endgames.PIECES

  def position(text: str) -> chess.State:
    start, _, moves = f'{text} '.partition(' moves ')
    start, state = start.strip(), None
    if start.startswith('fen '):
      state = chess_notation.from_fen(start.removeprefix('fen ').strip())
      if few and not chess_endgames.holds(game.name, state):
        raise UsageError(f'{start}: {game.name} has no such men')
    elif start == 'startpos' and few:
      state = game.init(jax.random.key(0))  # such games begin anywhere
    elif start != 'startpos':
      raise UsageError(f'position {start!r}; possible: startpos, fen ...')
    return chess_notation.play(moves.split(), state)

  return engine_uci.Dialect(
    name='uci',
    ponder='Ponder',
    new_game='ucinewgame',
    nothing='(none)',
    position=position,
    colour=lambda state: 'wb'[int(chess.to_play(state))],
    move=written.name,
    step=_stepper(game),
    stuck=_stuck(game),
    render=chess.render,
  )


def _shogi(written: notation.Notation, game: games.Game) -> engine_uci.Dialect:
  from dl_lectures.envs import shogi, shogi_notation

  return engine_uci.Dialect(
    name='usi',
    ponder='USI_Ponder',
    new_game='usinewgame',
    nothing='resign',
    position=shogi_notation.position,
    colour=lambda state: 'bw'[int(shogi.to_play(state))],
    move=written.name,
    step=_stepper(game),
    stuck=_stuck(game),
    render=shogi.render,
  )


def _stepper(game):
  step = jax.jit(game.step)
  return lambda state, action: step(state, np.int32(action))


def _stuck(game):
  legal = jax.jit(game.legal_mask)
  return lambda state: not np.asarray(legal(state)).any()


def main() -> None:
  """Runs the program."""
  tool.run(
    serve,
    doc=__doc__,
    flags=(
      tool.Flag('workdir', 'the directory of a run'),
      tool.Flag(
        'protocol',
        'gtp, uci or usi',
        'gtp',
        tool.one_of('gtp', 'uci', 'usi'),
      ),
      tool.Flag(
        'simulations',
        'of a move where no time is set',
        400,
        tool.whole_number(1, ROOM),
      ),
    ),
    examples=(
      '--protocol=gtp --workdir=runs/go_5x5',
      '--protocol=uci --workdir=runs/chess --simulations=800',
    ),
  )


if __name__ == '__main__':
  main()
