"""Go on any square board: Tromp-Taylor rules, exact superko, in pure JAX.

The rules, as decided here:

- Area scoring: a player's stones and the empty regions that touch only them.
  Nobody removes dead stones: capture them before passing. White gets `komi`.
- Suicide is illegal. Two passes in a row end the game; so does ply
  `max_plies` = 2 * board_size^2 (AlphaZero's 722 on 19x19), and the board is
  then scored as it stands.
- Superko FORBIDS a move, by the whole history of the game. 'positional': no
  move may recreate an earlier position. 'situational': none with the same
  player to move. A pass is always legal. 'loses' is what pgx does: only the
  simple ko is forbidden, and who recreates a position has lost the game.

How it is fast. Every stone carries the number of its chain, so captures and
joins are comparisons. What a move would do is found for all cells at once: ONE
scatter-add counts, per chain, its liberties (with multiplicity) and sums its
stones' Zobrist keys. A neighbouring chain dies by a stone on a cell if the
cell is all of its liberties. The same pass gives the hash of the position
after every move, for superko.

    chains --scatter-add--> liberties, keys of each chain --shift by one-->
    what each cell's four neighbours are --> legal, kills, hash after the move

Superko compares that hash with up to `max_plies` earlier ones. Doing this for
every cell would cost more than all the rest, so three tests come first; the
first two are exact, the third errs only towards looking closer.

1. The move is legal otherwise.
2. A stone of the mover's colour has been taken from this cell before. Proof:
   the earlier position has the mover's stone there and the cell is empty now,
   so the stone was taken in between; only capture empties a cell. (A capture by
   the move itself is NOT necessary: two stones sent and one returned come back
   with a quiet move.)
3. A Bloom filter of the history has the hash, by two of its bits.

What passes is compared with the history, one cell a turn of a while loop. In
random games that is one position in 50 on 9x9 and one in 17 on 19x19; for 64
games played together, .6 and .9 turns a ply. Hashes are sums, not xors (two,
mod 2^32): so a chain's is one more channel of the scatter-add.

`python -m benchmarks.rules go_9x9 go_19x19`, 64 games on one core: 1.8 and
6.2 us a state and step (pgx: 15 and 263), 2.8 and 10.9 kB a state, of which
the hashes are half.

Example: White has taken a stone and may not be taken back at once.

>>> from dl_lectures.envs import games
>>> ko = games.play_moves(make(5), 'B4 C4 A3 D3 B2 C2 C3 B3'.split())
>>> print(render(ko))
   A B C D E
 5 . . . . . 5
 4 . X O . . 4
 3 X[O]. O . 3
 2 . X O . . 2
 1 . . . . . 1
   A B C D E
Black to move
>>> bool(legal_mask(ko)[parse_action(5, 'C3')])
False

Source: Silver et al., "Mastering the game of Go without human knowledge",
Nature 2017 (rules, 17 planes); Tromp and Taylor's rules,
https://tromp.github.io/go.html; slides, deck 000, "AlphaZero: One Algorithm,
Three Games".
"""

import functools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.envs import bits, games
from dl_lectures.types import Array, Key, UsageError

MAX_BOARD_SIZE = 25  # letters without the I; a row is a word of 32 bits
HISTORY = 8
SUPERKO = ('positional', 'situational', 'loses')

# What Black wins by when both play perfectly, less half a point: so that Black
# wins, but only just. (T. Drange's table of small boards by area scoring,
# http://www.mathpuzzle.com/go; 7x7 is what strong players agree on.) On 5x5
# Black could own every cell, 24.5; the usual komi leaves White a game.
KOMI = {2: 0.5, 3: 8.5, 4: 1.5, 6: 3.5, 7: 8.5}
USUAL_KOMI = 7.5

_LETTERS = 'ABCDEFGHJKLMNOPQRSTUVWXYZ'
_NOBODY = 1 << 14  # no chain has this number
# A chain's neighbours in the order up, down, left, right; kills has a bit each.
_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Rules(NamedTuple):
  """What is fixed for a game.

  Attributes:
    board_size: S.
    komi: points that White gets.
    superko: one of `SUPERKO`.
    max_plies: the game ends there at the latest.
  """

  board_size: int
  komi: float
  superko: str
  max_plies: int


class State(NamedTuple):
  """A position and what is needed of its past; S the board's side, P plies.

  Attributes:
    chains: [S*S] int16, 0 where empty; the number of the stone's chain,
      positive if Black, negative if White: 1 + the cell of the stone that
      joined it last.
    legal: [S*S + 1] bool, the legal mask.
    kills: [S*S] uint8, what the mover takes by playing a cell: bit d is the
      chain of the neighbour in direction d (up, down, left, right).
    taken: [S*S] uint8, bit 0 (1): a black (white) stone has been taken here.
    boards: [8, 2, S] uint32, the last eight positions, newest first, (Black,
      White), a word a row, bit c the column c.
    hashes: [2, P] uint32, low and high word of the hash of the position after
      ply i, and zeros.
    bloom: [W] uint32, the filter of these hashes.
    ply: [] int32.
    to_play: [] int32, 0 Black, 1 White.
    last_action: [] int32, -1 at the start.
    passes: [] int32, how many in a row.
    over: [] bool.
    margin: [] int32, once over, Black's area less White's; komi not counted.
    winner: [] int32, once over, 1 Black, -1 White, 0 for a draw.
  """

  chains: Array
  legal: Array
  kills: Array
  taken: Array
  boards: Array
  hashes: Array
  bloom: Array
  ply: Array
  to_play: Array
  last_action: Array
  passes: Array
  over: Array
  margin: Array
  winner: Array


@functools.cache
def _keys(board_size: int) -> np.ndarray:
  """Returns [2, 2, S*S] uint32: Zobrist keys (colour, low and high word)."""
  rng = np.random.default_rng(board_size)
  return rng.integers(1 << 32, size=(2, 2, board_size**2), dtype=np.uint32)


@functools.cache
def _neighbours(board_size: int) -> np.ndarray:
  """Returns [S*S, 4] int32: the neighbouring cells; S*S is off the board."""
  row, column = np.divmod(np.arange(board_size**2), board_size)
  cells = []
  for down, right in _DIRECTIONS:
    r, c = row + down, column + right
    inside = (r >= 0) & (r < board_size) & (c >= 0) & (c < board_size)
    cells.append(np.where(inside, r * board_size + c, board_size**2))
  return np.stack(cells, axis=-1).astype(np.int32)


def _bloom_words(max_plies: int) -> int:
  # Half a word a ply: under 1% of what is not there looks as if it were.
  return 1 << max(1, math.ceil(math.log2(max_plies / 2)))


def init(rules: Rules, key: Key) -> State:
  """Returns the empty board, Black to move; the key is not used."""
  del key
  size, cells = rules.board_size, rules.board_size**2
  return State(
    chains=jnp.zeros(cells, jnp.int16),
    legal=jnp.ones(cells + 1, bool),
    kills=jnp.zeros(cells, jnp.uint8),
    taken=jnp.zeros(cells, jnp.uint8),
    boards=jnp.zeros((HISTORY, 2, size), jnp.uint32),
    hashes=jnp.zeros((2, rules.max_plies), jnp.uint32),
    # The empty board needs no place here: no move can recreate it.
    bloom=jnp.zeros(_bloom_words(rules.max_plies), jnp.uint32),
    ply=jnp.int32(0),
    to_play=jnp.int32(0),
    last_action=jnp.int32(-1),
    passes=jnp.int32(0),
    over=jnp.bool_(False),
    margin=jnp.int32(0),
    winner=jnp.int32(0),
  )


def step(rules: Rules, state: State, action: Array) -> State:
  """Puts the mover's stone on the cell `action`, or passes if it is S*S.

  An illegal action (a cell that is taken, suicide, superko, no cell, the game
  over) changes nothing.
  """
  size, cells = rules.board_size, rules.board_size**2
  action = jnp.asarray(action, jnp.int32)
  playing = (action >= 0) & (action <= cells)
  playing &= state.legal[jnp.clip(action, 0, cells)]
  placing = playing & (action < cells)
  white = state.to_play == 1
  sign = jnp.where(white, -1, 1).astype(jnp.int16)

  # The four neighbours' chains are taken, joined or left alone.
  cell = jnp.clip(action, 0, cells - 1)
  near = state.chains.at[jnp.asarray(_neighbours(size))[cell]].get(
    mode='fill', fill_value=0
  )
  killed = (state.kills[cell] >> jnp.arange(4, dtype=jnp.uint8)) & 1 == 1
  touched = placing & ((near * sign > 0) | killed)
  touched = jnp.where(touched, near, jnp.int16(_NOBODY))
  hit = jnp.zeros(cells, bool)
  for direction in range(4):
    hit |= state.chains == touched[direction]
  captured = hit & (state.chains * sign < 0)
  new = jnp.arange(cells) == jnp.where(placing, action, -1)
  chains = jnp.where(
    captured,
    jnp.int16(0),
    jnp.where(
      new | (hit & ~captured),
      sign * (cell + 1).astype(jnp.int16),
      state.chains,
    ),
  )
  # Read in many places, and in a search computed anew for each of them.
  chains = bits.settle(chains.astype(jnp.uint16)).astype(jnp.int16)

  keys = jnp.asarray(_keys(size))
  own, other = jnp.where(white, keys[::-1], keys)
  change = jnp.where(new[None], own, 0) - jnp.where(captured[None], other, 0)
  before = state.hashes[:, jnp.minimum(state.ply, rules.max_plies - 1)]
  now = before + change.sum(axis=-1, dtype=jnp.uint32)
  ply = state.ply + playing
  hashes = state.hashes.at[:, jnp.where(playing, ply, rules.max_plies)].set(
    now, mode='drop'
  )
  newest = _pack(chains, size)
  boards = jnp.concatenate([newest[None], state.boards[:-1]])
  passes = jnp.where(placing, 0, state.passes + playing)
  after = state._replace(
    chains=chains,
    taken=state.taken
    | jnp.where(captured, jnp.where(white, 1, 2), 0).astype(jnp.uint8),
    boards=jnp.where(playing, boards, state.boards),
    hashes=hashes,
    ply=ply,
    to_play=jnp.where(playing, 1 - state.to_play, state.to_play),
    last_action=jnp.where(playing, action, state.last_action),
    passes=passes,
  )
  ko = jnp.int32(-1)
  repeated = jnp.bool_(False)
  if rules.superko == 'loses':
    repeated = placing & _seen(rules, after, now)
    # A lone stone that took a lone stone.
    edge = jnp.asarray(_neighbours(size))[cell] == cells
    lone = ((near * sign < 0) | edge).all()
    simple = placing & lone & (captured.sum() == 1)
    ko = jnp.where(simple, jnp.argmax(captured), -1)
  else:
    after = after._replace(bloom=_remember(after.bloom, now))
  over = (passes >= 2) | (ply >= rules.max_plies) | repeated
  ending = over & ~state.over
  margin = _margin(newest, size, ending)
  winner = jnp.sign(margin - rules.komi).astype(jnp.int32)
  winner = jnp.where(repeated, -sign.astype(jnp.int32), winner)
  after = after._replace(
    over=state.over | over,
    margin=jnp.where(ending, margin, state.margin),
    winner=jnp.where(ending, winner, state.winner),
  )
  return _look_ahead(rules, after, now, ko)


def _pack(chains: Array, size: int) -> Array:
  """Returns [2, S] uint32: the black and the white stones, a word a row."""
  stones = jnp.stack([chains > 0, chains < 0]).reshape(2, size, size)
  bits = np.uint32(1) << np.arange(size, dtype=np.uint32)
  return jnp.where(stones, bits[None, None], 0).sum(-1, dtype=jnp.uint32)


# Low and high word, of any shape. Two arrays: stacked into one they would be
# computed anew for each of its readers, half a microsecond a position.
Hash = Sequence[Array] | Array


def _probes(now: Hash, words: int) -> list[tuple[Array, Array]]:
  """Returns where a hash has its two bits: (words, shifts)."""
  return [(x % np.uint32(words), x >> np.uint32(27)) for x in now]


def _remember(bloom: Array, now: Array) -> Array:
  index = jnp.arange(bloom.shape[0], dtype=jnp.uint32)
  for word, bit in _probes(now, bloom.shape[0]):
    bloom |= jnp.where(index == word, jnp.uint32(1) << bit, 0)
  return bloom


def _seen(rules: Rules, state: State, now: Hash) -> Array:
  """Returns [] bool: `now` is the hash of a position before this one.

  Entries not written yet are zeros, which a position's hash is by accident
  only, as two positions' hashes are equal by accident only: once in 2^64.
  """
  index = jnp.arange(rules.max_plies)
  earlier = index != state.ply
  if rules.superko == 'situational':
    # Players take turns, passes included.
    earlier &= (state.ply - index) % 2 == 1
  equal = (state.hashes[0] == now[0]) & (state.hashes[1] == now[1])
  return (equal & earlier).any()


def _margin(stones: Array, size: int, wanted: Array) -> Array:
  """Returns [] int32: Black's area less White's, if it is wanted.

  Both colours flood the empty cells, [2, S] words at a time. The loop looks at
  `wanted` before it turns: a batch in which no game ends pays nothing.
  """
  full = np.uint32((1 << size) - 1)
  empty = (~(stones[0] | stones[1]) & full)[None]

  def flood(carry):
    reached, _ = carry
    grown = reached << 1 | reached >> 1
    grown |= jnp.pad(reached[:, 1:], ((0, 0), (0, 1)))
    grown |= jnp.pad(reached[:, :-1], ((0, 0), (1, 0)))
    grown = reached | grown & empty
    return grown, (grown != reached).any()

  reached, _ = lax.while_loop(lambda carry: carry[1], flood, (stones, wanted))
  own = reached & ~reached[::-1]
  area = lax.population_count(own).sum(axis=-1).astype(jnp.int32)
  return area[0] - area[1]


def _look_ahead(rules: Rules, state: State, now: Array, ko: Array) -> State:
  """Fills in what the mover may play and what it would take.

  Args:
    rules: the rules.
    state: the position; its `legal` and `kills` are not read.
    now: [2] uint32, its hash.
    ko: [] int32, a cell that is forbidden, -1 for none.
  """
  size, cells = rules.board_size, rules.board_size**2
  chains = state.chains.astype(jnp.int32)
  white = state.to_play == 1
  sign = jnp.where(white, -1, 1)
  empty = chains == 0
  keys = jnp.asarray(_keys(size))
  inside = _inside(size)

  # Of each chain: its pairs of a stone and a liberty, and its stones' keys.
  near = _around(chains, size)
  pairs = jnp.zeros(cells, jnp.uint32)
  for d in range(4):
    pairs += (inside[d] & (near[d] == 0)).astype(jnp.uint32)
  stone_keys = jnp.where((chains > 0)[None], keys[0], keys[1])
  root = jnp.where(empty, cells, jnp.abs(chains) - 1)
  facts = jnp.stack([pairs, *stone_keys], axis=-1)
  facts = jnp.zeros((cells, 3), jnp.uint32).at[root].add(facts, mode='drop')
  facts = facts.at[root].get(mode='fill', fill_value=0)

  # Of each cell: what its neighbours are and whether it is all they live on.
  near_pairs = _around(facts[:, 0], size)
  own_keys = jnp.where(white, keys[1], keys[0])
  low, high = now[:, None] + own_keys
  near_low = _around(facts[:, 1], size)
  near_high = _around(facts[:, 2], size)
  breathes = jnp.zeros(cells, bool)
  kills = jnp.zeros(cells, jnp.uint8)
  for d in range(4):
    same = [inside[d] & inside[e] & (near[d] == near[e]) for e in range(4)]
    last = near_pairs[d] == sum(x.astype(jnp.uint32) for x in same)
    theirs = inside[d] & (near[d] * sign < 0)
    breathes |= inside[d] & (near[d] == 0)
    breathes |= inside[d] & (near[d] * sign > 0) & ~last
    dies = theirs & last & empty
    kills |= jnp.where(dies, jnp.uint8(1 << d), jnp.uint8(0))
    first = dies
    for e in range(d):
      first &= ~same[e]
    low -= jnp.where(first, near_low[d], 0)
    high -= jnp.where(first, near_high[d], 0)
  legal = empty & (breathes | (kills != 0))

  if rules.superko == 'loses':
    legal &= jnp.arange(cells) != ko
  else:
    index = jnp.arange(cells)
    suspect = legal & (state.taken >> state.to_play.astype(jnp.uint8) & 1 == 1)
    for word, shift in _probes((low, high), state.bloom.shape[0]):
      suspect &= state.bloom[word.astype(jnp.int32)] >> shift & 1 == 1

    def examine(carry):
      suspect, legal = carry
      cell = jnp.min(jnp.where(suspect, index, cells))
      at = jnp.minimum(cell, cells - 1)
      seen = _seen(rules, state, (low[at], high[at]))
      return suspect & (index != cell), legal & ((index != cell) | ~seen)

    _, legal = lax.while_loop(
      lambda carry: carry[0].any(), examine, (suspect & ~state.over, legal)
    )
  legal = jnp.append(legal, True) & ~state.over
  return state._replace(legal=legal, kills=kills)


@functools.cache
def _inside(size: int) -> np.ndarray:
  """Returns [4, S*S] bool: is the neighbour in direction d on the board?"""
  return np.ascontiguousarray((_neighbours(size) < size * size).T)


def _around(x: Array, size: int) -> list[Array]:
  """Returns four [S*S]: the value of the neighbour in each direction.

  Where there is none, it is what the flat array holds there: mask it.
  """
  cells = size * size
  padded = jnp.pad(x, size)
  return [
    lax.slice_in_dim(padded, size + shift, size + shift + cells)
    for shift in (-size, size, -1, 1)
  ]


def legal_mask(state: State) -> Array:
  """Returns [S*S + 1] bool; all False once the game is over."""
  return state.legal


def observe(rules: Rules, state: State) -> Array:
  """Returns [S, S, 17] float32, AlphaGo Zero's planes.

  The mover's stones now and the opponent's, the same one ply ago, and so on to
  seven plies ago (zeros before the start), then 1 everywhere if Black is to
  move, 0 if White.
  """
  size = rules.board_size
  boards = jnp.where(state.to_play == 1, state.boards[:, ::-1], state.boards)
  planes = boards.reshape(2 * HISTORY, size).T  # [S, 16]
  bits = planes[:, None] >> np.arange(size, dtype=np.uint32)[None, :, None] & 1
  colour = jnp.broadcast_to(1 - state.to_play, (size, size, 1))
  return jnp.concatenate([bits.astype(jnp.int32), colour], -1).astype(
    jnp.float32
  )


def reward(state: State) -> Array:
  """Returns [2] float32: Black's result and White's."""
  return jnp.stack([state.winner, -state.winner]).astype(jnp.float32)


def setup(
  rules: Rules,
  black: Collection[int] = (),
  white: Collection[int] = (),
  to_play: int = 0,
) -> State:
  """Returns a position without a past (host).

  Args:
    rules: the rules.
    black: the cells with a black stone.
    white: the cells with a white stone.
    to_play: 0 if Black is to move, 1 if White.

  Raises:
    UsageError: a cell that is none or that is named twice, a chain without a
      liberty.
  """
  size, cells = rules.board_size, rules.board_size**2
  for cell in (*black, *white):
    if not 0 <= cell < cells:
      raise UsageError(f'no cell {cell}; possible: 0 to {cells - 1}')
  stones = [*black, *white]
  if len(set(stones)) < len(stones):
    twice = next(x for i, x in enumerate(stones) if x in stones[:i])
    raise UsageError(f'two stones on {action_name(size, twice)}')
  colours = np.zeros(cells + 1, np.int16)
  colours[list(black)] = 1
  colours[list(white)] = -1
  chains = np.zeros(cells, np.int16)
  for cell in stones:
    if chains[cell]:
      continue
    chain, liberties = [cell], 0
    for stone in chain:
      for near in _neighbours(size)[stone]:
        liberties += int(near < cells and colours[near] == 0)
        if (
          near not in chain and near < cells and colours[near] == colours[cell]
        ):
          chain.append(int(near))
    if not liberties:
      raise UsageError(f'the chain of {action_name(size, cell)} has no liberty')
    chains[chain] = colours[cell] * (cell + 1)
  keys = _keys(size)
  now = sum(
    keys[i][:, list(x)].sum(axis=-1, dtype=np.uint32)
    for i, x in enumerate((black, white))
  )
  return _set_up(rules, chains, now, to_play)


@functools.partial(jax.jit, static_argnums=0)
def _set_up(rules: Rules, chains: Array, now: Array, to_play: Array) -> State:
  start = init(rules, jax.random.key(0))
  start = start._replace(
    chains=jnp.asarray(chains, jnp.int16),
    boards=start.boards.at[0].set(_pack(chains, rules.board_size)),
    hashes=start.hashes.at[:, 0].set(now),
    bloom=_remember(start.bloom, now),
    to_play=jnp.asarray(to_play, jnp.int32),
  )
  return _look_ahead(rules, start, now, jnp.int32(-1))


def render(state: State) -> str:
  """Returns the board as text: X Black, O White, the last stone in brackets."""
  size = math.isqrt(state.chains.shape[0])
  cells = np.array(['.', 'X', 'O'])[np.sign(np.asarray(state.chains))]
  letters = '   ' + ' '.join(_LETTERS[:size])
  lines = [letters]
  last = int(state.last_action)
  for row, line in enumerate(cells.reshape(size, size)):
    text = ' ' + ' '.join(line) + ' '
    if row == last // size:
      at = 2 * (last % size)
      text = f'{text[:at]}[{text[at + 1]}]{text[at + 3 :]}'
    lines.append(f'{size - row:2}{text}{size - row}')
  return '\n'.join([*lines, letters, _standing(state)])


def _standing(state: State) -> str:
  winner = int(state.winner)
  if not bool(state.over):
    return ('Black', 'White')[int(state.to_play)] + ' to move'
  result = ('draw', 'Black wins', 'White wins')[winner]
  longest = state.hashes.shape[-1]
  if int(state.passes) < 2 and int(state.ply) < longest:
    return f'{result}: a position came back'
  return f'{result}; area: Black {int(state.margin):+d}'


def action_name(board_size: int, action: int) -> str:
  """Returns 'A1' (bottom left) and so on without the letter I, or 'pass'."""
  if action == board_size**2:
    return 'pass'
  row, column = divmod(int(action), board_size)
  return f'{_LETTERS[column]}{board_size - row}'


def parse_action(board_size: int, text: str) -> int:
  """Returns the action of that name; letters of either case."""
  name = text.strip().upper()
  if name == 'PASS':
    return board_size**2
  column = _LETTERS[:board_size].find(name[:1] or '?')
  row = int(name[1:]) if name[1:].isascii() and name[1:].isdecimal() else 0
  if column < 0 or not 1 <= row <= board_size:
    last = f'{_LETTERS[board_size - 1]}{board_size}'
    no_i = ' (no letter I)' if board_size > 8 else ''
    raise UsageError(
      f'{text!r} is no point; possible: A1 to {last}{no_i}, pass'
    )
  return (board_size - row) * board_size + column


def rules(
  board_size: int = 9,
  komi: float | None = None,
  superko: str = 'positional',
  max_plies: int | None = None,
) -> Rules:
  """Returns the rules with what is not told filled in.

  Args:
    board_size: 2 to 25.
    komi: None for 7.5, and on boards up to 7x7, for which it is known, for
      what Black wins by less half a point (`KOMI`).
    superko: one of `SUPERKO`.
    max_plies: None for 2 * board_size^2.

  Raises:
    UsageError: a value that is impossible.
  """
  if not 2 <= board_size <= MAX_BOARD_SIZE:
    raise UsageError(
      f'go: board_size {board_size}; possible: 2 to {MAX_BOARD_SIZE}'
    )
  if superko not in SUPERKO:
    raise UsageError(f'go: superko {superko!r}; possible: {", ".join(SUPERKO)}')
  if komi is None:
    komi = KOMI.get(board_size, USUAL_KOMI)
  if max_plies is None:
    max_plies = 2 * board_size**2
  if max_plies < 1:
    raise UsageError(f'go: max_plies {max_plies}; possible: from 1')
  return Rules(board_size, float(komi), superko, max_plies)


def make(
  board_size: int = 9,
  komi: float | None = None,
  superko: str = 'positional',
  max_plies: int | None = None,
) -> games.Game:
  """Returns Go on a board of that size; the arguments are those of `rules`.

  The same object for the same rules.

  Raises:
    UsageError: a value that is impossible.

  Example:

  >>> make(19).num_actions, make(19).max_plies
  (362, 722)
  >>> make(9) is make(9, komi=7.5)
  True
  """
  return _make(rules(board_size, komi, superko, max_plies))


@functools.cache
def _make(fixed: Rules) -> games.Game:
  size = fixed.board_size
  return games.Game(
    name='go',
    num_actions=size**2 + 1,
    observation_shape=(size, size, 2 * HISTORY + 1),
    max_plies=fixed.max_plies,
    init=functools.partial(init, fixed),
    step=functools.partial(step, fixed),
    legal_mask=legal_mask,
    observe=functools.partial(observe, fixed),
    to_play=lambda state: state.to_play,
    terminal=lambda state: state.over,
    reward=reward,
    symmetries=games.square_symmetries(size, extra_actions=1),
    render=render,
    action_name=functools.partial(action_name, size),
    parse_action=functools.partial(parse_action, size),
    # What could be computed again, `legal` and `kills`, is 6% of the state, and
    # needs half of a step.
    compact=lambda state: state,
  )
