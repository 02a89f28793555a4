"""AlphaZero: a network that knows only the rules teaches itself a board game.

Silver et al., "A general reinforcement learning algorithm that masters chess,
shogi, and Go through self-play", Science 362 (2018) [AZ]; Silver et al.,
"Mastering the game of Go without human knowledge", Nature 550 (2017) [AGZ];
Danihelka et al., "Policy improvement by planning with Gumbel", ICLR 2022 [G];
Trudeau & Bowling, "Targeted search control in AlphaZero for effective policy
improvement", AAMAS 2023 [T], for games that begin off the beaten track. Slides:
deck 000, "AlphaZero: One Algorithm, Three Games", "Discovering Chess Opening
Theory", "Amount of Search per Decision".

      games [L] ──> search(network, rules) ──> policy pi [L, A], value v [L]
        ^                   |                            |
        |              play a ~ pi                 row (state, pi, v)
        └──── rules <───────┘                            v
                                    window of rows [P + T, L]: results flow
                                    back from the ends of games: target z
                                                         v
      network <── Adam <── -pi log p + (z - v)^2 <── ring of positions [L, N]

Each lane plays its own game and owns its own ring, so one step is the same
computation on one device and on many: lanes are split, parameters copied.

  python -m experiments.alphazero --preset=laptop --workdir=runs/alphazero

Thirteen minutes on one CPU core. An exact solver finds that in decisive Connect
Four positions of semi-strong play, plies 8-12, the raw network keeps
the result in .85 (a player that wins or blocks at once: .49) and 256
simulations in .88 (untrained: .66); of random play, plies 15-24, .95 (.85) and
.97 (.90). Most of the opening prior ends at the one winning column. The paper
has no such figure: it beats Stockfish, Elmo and AlphaGo Zero after hours on
5,000 TPUs. `results/alphazero.json` holds the exact numbers.

Other presets, each judged by who knows better: `go_5x5` opens in the centre
with all of its visits and loses to GNU Go's level 10 with neither colour;
`chess_krk` mates with king and rook in all of 1,200 positions against a
defender who reads a table of all of them, with 200 simulations a move
(untrained: .01); its raw network does in .82. There a result is discounted by
.98 a ply, so that a mate in 3 is worth more than one in 20 and the mating side
has no cause to wander.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures import nets, search, training, types
from dl_lectures.analysis import endgames, matches, move_quality, strength
from dl_lectures.envs import chess_endgames, games
from dl_lectures.training import checkpoint, replay, report, sharding

P = jax.sharding.PartitionSpec

Array = jax.Array
GameState = Any
Weights = tuple[hk.Params, hk.MutableState]

# When, as shares of a run, copies of the player are kept to be rated later, and
# when its moves are judged.
EARLIER = (0.0, 0.03, 0.1, 0.3)
MILESTONES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
# The best first move, by game and board, where a solver has found it.
BEST_OPENINGS = {('go', 5): 12}
# Of a target policy so many moves are kept, the likeliest.
MOST_MOVES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the published value."""

  seed: int = 0  # of every random number of the run
  game: str = 'connect_four'  # any game that envs.games.make knows
  board_size: int = 0  # of games with several; 0: the game's usual one
  channels: int = 64  # of the convolutions; AGZ: 256
  blocks: int = 2  # residual blocks; AGZ: 19 or 39
  width: int = 256  # of blocks of linear layers; 0: of convolutions, as in AGZ
  batch_norm: bool = False  # AGZ: True; without, blocks start as identities
  policy_channels: int = 8  # of a tower's policy head; 0: AZ's planes; AGZ: 2
  value_channels: int = 4  # of a tower's value head; AGZ: 1
  head_width: int = 64  # hidden units of a tower's value head; AGZ: 256
  lanes: int = 128  # games played at once; AZ: 5,000 TPUs
  plies_per_step: int = 32  # moves in each lane between two learning phases
  num_simulations: int = 32  # a move; AZ: 800
  gumbel: bool = True  # Gumbel AlphaZero [G]; AZ: False (PUCT, Dirichlet)
  value_scale: float = 0.25  # of Gumbel's improved policy; [G]: .5 on [-1, 1]
  dirichlet_alpha: float = 0.3  # AZ: chess .3, shogi .15, Go .03
  dirichlet_fraction: float = 0.25  # AZ: .25
  temperature_plies: int = 10  # plies played with noise; AZ: 30
  opening_plies: int = 27  # at most so many exploratory plies first [T]; AZ: 0
  td_lambda: float = 0.5  # of the value targets; AZ: 1, the game's result
  discount: float = 1.0  # of a result a ply later: below 1, wins are hurried
  wrong_resignations: float = 0.0  # tolerated share; 0: never resign. AGZ: .05
  resign_audit: float = 0.1  # share of games that never resign; AGZ: .1
  window: int = 491_520  # positions kept; AZ: 1M games
  batch_size: int = 512  # AZ: 4,096
  updates_per_step: int = 48  # learning steps after each self-play phase
  learning_rate: float = 1e-3  # AZ: .2 for chess and shogi, .02 for Go
  learning_rate_drops: tuple[float, ...] = ()  # tenfold, at these shares; else
  # cosine to zero. AZ: .143, .429, .714
  adam: bool = True  # AZ: False, momentum .9
  weight_decay: float = 0.03  # AdamW's; AZ: 1e-4 in the loss
  prior_exponent: float = 0.25  # in play, not self-play; AlphaGo: .67, AZ: 1
  averaging: float = 0.99  # of the parameters that play; AZ: 0
  num_steps: int = 600  # self-play and learning phases; AZ: 700k updates
  judged: tuple[int, ...] = (0, 16, 64, 256)  # simulations a move in judgement
  rating_games: int = 48  # of each pair that is rated; 0: nobody is rated

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    for low, names in (
      (1, 'channels lanes plies_per_step num_simulations batch_size'),
      (1, 'updates_per_step num_steps value_channels'),
      (0, 'policy_channels rating_games width'),
      (0, 'blocks temperature_plies opening_plies board_size learning_rate'),
      (0, 'weight_decay value_scale dirichlet_alpha'),
    ):
      types.check_fields(self, names, low)
    shares = 'td_lambda discount averaging dirichlet_fraction'
    types.check_fields(self, f'{shares} wrong_resignations', 0, 1)
    types.check_fields(self, 'resign_audit', 0, 1)
    if self.batch_size % self.lanes:
      raise types.UsageError(
        f'config.batch_size={self.batch_size}; the multiples of '
        f'config.lanes={self.lanes} are possible'
      )


class Position(NamedTuple):
  """What is learned from.

  Attributes:
    state: the game's state, compact.
    moves: [K] int32, the likeliest moves; [0] where all are kept.
    policy: [K] or [A] float32, the search's distribution over them.
    value: [] float32, the target for the player to move.
  """

  state: GameState
  moves: Array
  policy: Array
  value: Array


class Row(NamedTuple):
  """One ply of self-play in one lane, before its game's result is known.

  Attributes:
    position: with the search's own value in place of the target.
    player: [] int32, who moved.
    reward: [] float32, the mover's result if the game ended here, else 0.
    done: [] bool, whether the game ended with this move.
    off_policy: [] bool, whether the move was not the search's choice.
    used: [] bool, whether the row has already gone to the ring.
  """

  position: Position
  player: Array
  reward: Array
  done: Array
  off_policy: Array
  used: Array


class Ended(NamedTuple):
  """What is to be known of games that ended; zeros elsewhere, [T, L].

  Attributes:
    games: 1 where one ended.
    plies: its length.
    resigned: 1 where a player resigned.
    audited: 1 where nobody was allowed to.
    wrong: 1 where, audited, somebody would have resigned and did not lose.
  """

  games: Array
  plies: Array
  resigned: Array
  audited: Array
  wrong: Array


class Lane(NamedTuple):
  """The games being played, one a lane.

  Attributes:
    state: the current positions.
    ply: [L] int32.
    opening: [L] int32, the ply before which moves are exploratory.
    sharpness: [L] float32 in [0, 1], exploratory moves ~ prior^sharpness.
    audit: [L] bool, whether this game is played to its end in any case.
    lowest: [L, 2] float32, each player's lowest root value in this game.
  """

  state: GameState
  ply: Array
  opening: Array
  sharpness: Array
  audit: Array
  lowest: Array


class State(NamedTuple):
  """Everything that is needed to continue a run exactly."""

  train: types.TrainState
  average: hk.Params  # the averaged parameters, which play
  lanes: Lane  # [L, ...]
  pending: Row  # [L, P, ...], the last P plies
  rings: replay.Replay  # [L, N, ...]
  resign_below: Array  # [] float32, the root value at which players resign
  earlier: Any  # the weights of earlier selves, [len(EARLIER), ...]
  step: Array  # [] int32


class Noise(NamedTuple):
  """Everything random in one phase of self-play, drawn outside its loop."""

  root: Array  # [T, L, A], Gumbel or Dirichlet
  choice: Array  # [T, L, A], Gumbel: samples moves
  start: Array  # [T, L, 3], uniform: how new games begin
  fresh: GameState  # [1, L], where the games of a lane begin


class Thought(NamedTuple):
  """What a player thinks of a batch of positions.

  Attributes:
    action: [B] int32, the move it would play.
    visits: [B, A], simulations through each move; 0 for the raw network.
    policy: [B, A] float32, the search's improved policy, or the prior.
    prior: [B, A] float32, the network's own distribution over legal moves.
    qvalues: [B, A] float32, what the search makes of each move it visited, for
      the player to move; 0 elsewhere.
    value: [B] float32, for the player to move.
  """

  action: Array
  visits: Array
  policy: Array
  prior: Array
  qvalues: Array
  value: Array


Player = Callable[[Weights, GameState], Thought]
# By the number of simulations of a move.
Players = Mapping[int, Player]


def network(config: Config, game: games.Game) -> hk.TransformedWithState:
  """The two-headed residual network of [AGZ], methods, "Neural network".

  It maps observations [B, H, W, C] and `is_training` to logits [B, A] and
  values [B]. On a small board blocks of linear layers behind one convolution
  of 4x4 see the whole board at once, for a third of the time.
  """

  def forward(observation: Array, is_training: bool) -> nets.PolicyValue:
    norm = (
      (lambda: hk.BatchNorm(True, True, 0.99)) if config.batch_norm else None
    )
    if config.width:
      kernel = min(4, *observation.shape[1:3])
      x = nets.Conv2D(config.channels, kernel, padding='VALID')(observation)
      x = hk.Flatten()(jax.nn.relu(x))
      x = nets.ResidualMLP(config.width, config.blocks)(x)
    else:
      x = nets.ResidualTower(config.channels, config.blocks, norm)(
        observation, is_training
      )
    return nets.PolicyValueHead(
      game.num_actions,
      config.policy_channels,
      config.value_channels,
      config.head_width,
      norm,
    )(x, is_training)

  return hk.transform_with_state(forward)


def evaluate_positions(
  game: games.Game,
  net: hk.TransformedWithState,
  weights: Weights,
  states: GameState,
) -> nets.PolicyValue:
  """Masked logits [B, A] and values [B] of the states [B]."""
  observations = jax.vmap(game.observe)(states)
  (logits, value), _ = net.apply(*weights, None, observations, False)
  legal = jax.vmap(game.legal_mask)(states)
  return nets.PolicyValue(jnp.where(legal, logits, -1e9), value)


def ensemble_prior(
  game: games.Game,
  net: hk.TransformedWithState,
  weights: Weights,
  states: GameState,
) -> Array:
  """The prior [B, A] over legal moves, averaged over the symmetries."""
  observations = jax.vmap(game.observe)(states)
  legal = jax.vmap(game.legal_mask)(states)
  total = jnp.zeros(legal.shape)
  for symmetry in game.symmetries:
    seen = symmetry.observation(observations)
    (logits, _), _ = net.apply(*weights, None, seen, False)
    # The turned board's action j is the action turned[j] of this one.
    turned = symmetry.policy(jnp.arange(legal.shape[1]))
    back = jnp.argsort(turned)
    total += jax.nn.log_softmax(logits)[:, back]
  return jax.nn.softmax(jnp.where(legal, total / len(game.symmetries), -1e9))


def make_model(
  config: Config,
  game: games.Game,
  net: hk.TransformedWithState,
  prior_exponent: float = 1.0,
) -> search.RecurrentFn:
  """The rules and the network as the search sees them (`recurrent_fn`).

  The reward is the mover's; a negative discount changes sides, 0 ends the game.
  A prior is raised to `prior_exponent`: less than 1 trusts it less.
  """

  def recurrent_fn(weights, rng_key, action: Array, states: GameState):
    del rng_key
    mover = jax.vmap(game.to_play)(states)
    states = jax.vmap(game.step)(states, action)
    over = jax.vmap(game.terminal)(states)
    rewards = jax.vmap(game.reward)(states)
    same = jax.vmap(game.to_play)(states) == mover
    logits, value = evaluate_positions(game, net, weights, states)
    return search.RecurrentFnOutput(
      reward=of_player(rewards, mover),
      discount=config.discount
      * jnp.where(over, 0.0, jnp.where(same, 1.0, -1.0)),
      prior_logits=prior_exponent * logits,
      value=jnp.where(over, 0.0, value),
    ), jax.vmap(game.compact)(states)

  return recurrent_fn


def think(
  config: Config,
  game: games.Game,
  net: hk.TransformedWithState,
  num_simulations: int,
) -> Player:
  """Makes a player without chance: (weights, states [B]) -> thoughts.

  Args:
    config: of the run whose weights will play.
    game: the rules.
    net: the network.
    num_simulations: of a move; 0 for the raw network, its prior averaged over
      the board's symmetries (AlphaGo, Extended Data Table 2).
  """
  model = make_model(config, game, net, config.prior_exponent)
  no_key = jax.random.key(0)

  @jax.jit
  def choose(weights: Weights, states: GameState) -> Thought:
    logits, value = evaluate_positions(game, net, weights, states)
    legal = jax.vmap(game.legal_mask)(states)
    if num_simulations == 0:
      prior = ensemble_prior(game, net, weights, states)
      nothing = jnp.zeros_like(prior)
      action = jnp.argmax(prior, axis=-1)
      return Thought(action, nothing, prior, prior, nothing, value)
    root = search.RootFnOutput(
      config.prior_exponent * logits, value, jax.vmap(game.compact)(states)
    )
    found = search.alphazero_policy(
      weights,
      no_key,
      root,
      model,
      num_simulations,
      ~legal,
      dirichlet_fraction=0.0,
    )
    summary = found.search_tree.summary()
    # With few simulations many moves have the most: the best of them counts.
    most = jnp.max(summary.visit_counts, axis=-1, keepdims=True)
    best = jnp.where(summary.visit_counts == most, summary.qvalues, -jnp.inf)
    return Thought(
      jnp.argmax(best, axis=-1).astype(jnp.int32),
      summary.visit_counts,
      found.action_weights,
      jax.nn.softmax(logits),
      summary.qvalues,
      summary.value,
    )

  return choose


def think_in_parts(
  player: Player, weights: Weights, states: GameState, size: int = 128
) -> Iterator[Thought]:
  """Thinks of many positions, `size` at a time, as host arrays.

  One shape, one compilation: the last part is filled up from the front, and
  what was thought of the filling is dropped. Few are filled up to a power of 2.
  """
  total = jax.tree.leaves(states)[0].shape[0]
  size = size if total > size // 4 else 1 << (total - 1).bit_length()
  for start in range(0, total, size):
    which = np.arange(start, start + size) % total
    part = jax.device_get(player(weights, take(states, which)))
    yield take(part, slice(total - start))


def think_of_all(
  player: Player, weights: Weights, states: GameState
) -> Thought:
  """The same of all positions at once."""
  parts = think_in_parts(player, weights, states)
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def draw(config: Config, game: games.Game, key: types.Key) -> Noise:
  """All random numbers of one phase of self-play."""
  shape = (config.plies_per_step, config.lanes, game.num_actions)
  root, choice, start, fresh = jax.random.split(key, 4)
  if config.gumbel:
    root_noise = jax.random.gumbel(root, shape)
  else:
    alpha = jnp.full(shape[2:], config.dirichlet_alpha)
    root_noise = jax.random.dirichlet(root, alpha, shape[:2])
  return Noise(
    root_noise,
    jax.random.gumbel(choice, shape),
    jax.random.uniform(start, (*shape[:2], 3)),
    jax.vmap(jax.vmap(game.init))(jax.random.split(fresh, (1, config.lanes))),
  )


def self_play(
  config: Config,
  game: games.Game,
  net: hk.TransformedWithState,
  weights: Weights,
  resign_below: Array,
  lanes: Lane,
  noise: Noise,
) -> tuple[Lane, Row, Ended]:
  """Plays T plies in every lane; a lane whose game ends begins another.

  Returns the lanes, the rows [L, T] and what ended, [L, T].
  """
  model = make_model(config, game, net)
  fresh = take(noise.fresh, 0)
  no_key = jax.random.key(0)  # all noise is drawn beforehand

  def play_ply(lanes: Lane, drawn: tuple[Array, Array, Array]):
    root_noise, choice_noise, start_noise = drawn
    states = lanes.state
    logits, value = evaluate_positions(game, net, weights, states)
    legal = jax.vmap(game.legal_mask)(states)
    small = jax.vmap(game.compact)(states)
    root = search.RootFnOutput(logits, value, small)
    noisy = (lanes.ply < config.temperature_plies)[:, None]
    if config.gumbel:
      found = search.gumbel_muzero_policy(
        weights,
        no_key,
        root,
        model,
        config.num_simulations,
        ~legal,
        value_scale=config.value_scale,
        rescale_values=False,
        gumbel=jnp.where(noisy, root_noise, 0.0),
      )
    else:
      found = search.alphazero_policy(
        weights,
        no_key,
        root,
        model,
        config.num_simulations,
        ~legal,
        dirichlet_noise=root_noise,
        dirichlet_fraction=config.dirichlet_fraction,
        gumbel=jnp.where(noisy, choice_noise, 0.0),
      )

    # Off the beaten track: the first plies of a game follow the network's
    # prior, flattened by the game's own degree, instead of the search.
    exploring = lanes.ply < lanes.opening
    flat = jnp.where(legal, lanes.sharpness[:, None] * logits, -jnp.inf)
    flat_choice = jnp.argmax(flat + choice_noise, axis=-1)
    action = jnp.where(exploring, flat_choice, found.action)

    value = improved_value(found)
    player = jax.vmap(game.to_play)(states)
    mine = player[:, None] == jnp.arange(2)[None]
    lowest = jnp.where(
      mine & ~exploring[:, None],
      jnp.minimum(lanes.lowest, value[:, None]),
      lanes.lowest,
    )
    gives_up = (value < resign_below) & ~lanes.audit & ~exploring

    after = jax.vmap(game.step)(states, action)
    over = jax.vmap(game.terminal)(after)
    rewards = jax.vmap(game.reward)(after)
    done = over | gives_up
    row = Row(
      Position(small, *likeliest(found.action_weights), value),
      player,
      jnp.where(gives_up, -1.0, of_player(rewards, player)),
      done,
      exploring & ~gives_up,
      jnp.zeros_like(done),
    )
    lost_hope = jnp.any((lowest < resign_below) & (rewards >= 0), axis=-1)
    ended = Ended(
      done,
      jnp.where(done, lanes.ply + 1, 0),
      gives_up,
      over & lanes.audit,
      over & lanes.audit & lost_hope,
    )
    play_on = lanes._replace(state=after, ply=lanes.ply + 1, lowest=lowest)
    lanes = select(done, start_lanes(config, fresh, start_noise), play_on)
    return lanes, (row, ended)

  per_ply = (noise.root, noise.choice, noise.start)
  lanes, (rows, ended) = jax.lax.scan(play_ply, lanes, per_ply)
  rows, ended = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (rows, ended))
  return lanes, rows, ended


def improved_value(found: search.PolicyOutput) -> Array:
  """The values [B] of positions under the policy that their search found.

  sum pi'(a) Q(a) over the moves that were tried. The mean over all simulations
  would be too low: Gumbel's halving tries moves only to drop them.
  """
  summary = found.search_tree.summary()
  share = jnp.where(summary.visit_counts > 0, found.action_weights, 0.0)
  total = jnp.maximum(jnp.sum(share, axis=-1), 1e-9)
  return jnp.sum(share * summary.qvalues, axis=-1) / total


def start_lanes(config: Config, fresh: GameState, uniform: Array) -> Lane:
  """New games for lanes [L]: states [L], and numbers [L, 3] in [0, 1)."""
  lanes = uniform.shape[0]
  opening = jnp.floor(uniform[:, 0] * (config.opening_plies + 1))
  return Lane(
    fresh,
    jnp.zeros(lanes, jnp.int32),
    opening.astype(jnp.int32),
    # Cubed: only a small exponent makes a prior flat that is sure of itself.
    uniform[:, 1] ** 3,
    uniform[:, 2] < config.resign_audit,
    jnp.ones((lanes, 2)),
  )


def likeliest(policy: Array) -> tuple[Array, Array]:
  """Keeps the likeliest moves of a policy [..., A], and their shares of 1.

  Returns the moves and the shares [..., K]; of few moves all shares, and no
  moves [..., 0].
  """
  if policy.shape[-1] <= MOST_MOVES:
    return jnp.zeros((*policy.shape[:-1], 0), jnp.int32), policy
  shares, moves = jax.lax.top_k(policy, MOST_MOVES)
  return moves, shares / jnp.sum(shares, axis=-1, keepdims=True)


def spread(moves: Array, shares: Array, num_actions: int) -> Array:
  """The policy [B, A] of what `likeliest` kept of it."""
  if not moves.shape[-1]:
    return shares
  batch = jnp.arange(moves.shape[0])[:, None]
  return jnp.zeros((moves.shape[0], num_actions)).at[batch, moves].set(shares)


def take(tree: Any, which: Any) -> Any:
  """Indexes the first axis of every leaf."""
  return jax.tree.map(lambda x: x[which], tree)


def of_player(values: Array, player: Array) -> Array:
  """Takes from [B, 2] the column of each player [B]."""
  return jnp.take_along_axis(values, player[:, None], axis=1)[:, 0]


def select(condition: Array, x: Any, y: Any) -> Any:
  """Takes x [L, ...] where the condition [L] holds, else y, leaf by leaf."""

  def leaf(a: Array, b: Array) -> Array:
    shape = (*condition.shape, *([1] * (a.ndim - condition.ndim)))
    return jnp.where(condition.reshape(shape), a, b)

  return jax.tree.map(leaf, x, y)


def value_targets(
  rows: Row, td_lambda: float, discount: float = 1.0
) -> tuple[Array, Array]:
  """Lets results flow back from the ends of games, in one lane.

  z_t = r_t + discount_t ((1 - lambda_t) v_{t+1} + lambda_t z_{t+1}), the
  lambda-return with a negative discount where the players change and 0 where
  the game ends. What follows an exploratory move says nothing of the position
  before it: there z_t is the search's own value.

  Args:
    rows: [n, ...], consecutive plies.
    td_lambda: 1 for the game's result alone [AZ].
    discount: of a ply, without its sign.

  Returns:
    targets [n] and whether they are known yet [n].
  """

  def back(carry, row):
    target, known, next_value, next_player = carry
    value, player, reward, done, off_policy = row
    side = jnp.where(player == next_player, discount, -discount)
    later = (1 - td_lambda) * next_value + td_lambda * target
    target = jnp.where(done, reward, side * later)
    target = jnp.where(off_policy, value, target)
    known = known | done | off_policy
    return (target, known, value, player), (target, known)

  value = rows.position.value
  zero = jnp.zeros_like(value[0])
  start = (zero, jnp.zeros_like(rows.done[0]), zero, rows.player[0])
  per_ply = (value, rows.player, rows.reward, rows.done, rows.off_policy)
  _, (target, known) = jax.lax.scan(back, start, per_ply, reverse=True)
  return target, known


def make_loss(game: games.Game, net: hk.TransformedWithState):
  """The loss of [AZ], equation 1: (z - v)^2 - pi . log p."""

  def loss_fn(params, net_state, key, batch: tuple[Position, Array]):
    position, weight = batch
    observation = jax.vmap(game.observe)(position.state)
    legal = jax.vmap(game.legal_mask)(position.state)
    # Every position is seen through a symmetry of the board drawn for it.
    which = jax.random.randint(key, weight.shape, 0, len(game.symmetries))
    policy = spread(position.moves, position.policy, game.num_actions)
    observation, policy, legal = see(game, which, (observation, policy, legal))
    (logits, value), net_state = net.apply(
      params, net_state, None, observation, True
    )
    log_p = jax.nn.log_softmax(jnp.where(legal, logits, -1e9))
    policy_loss = -jnp.sum(policy * log_p, axis=-1)
    value_loss = jnp.square(position.value - value)
    entropy = -jnp.sum(policy * jnp.log(jnp.maximum(policy, 1e-9)), axis=-1)

    def mean(x: Array) -> Array:
      return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)

    loss = mean(policy_loss + value_loss)
    metrics = {
      'policy_excess': mean(policy_loss - entropy),
      'value_loss': mean(value_loss),
    }
    return loss, (net_state, metrics)

  return loss_fn


def see(game: games.Game, which: Array, seen: tuple[Array, Array, Array]):
  """Applies the symmetry `which` [B] to observations, policies and masks."""
  observation, policy, legal = seen
  seen_all = [
    (s.observation(observation), s.policy(policy), s.policy(legal))
    for s in game.symmetries
  ]
  for i, turned in enumerate(seen_all):
    seen = select(which == i, turned, seen)
  return seen


def make_optimizer(config: Config) -> optax.GradientTransformation:
  """Adam with weight decay, or the momentum of [AZ], and the schedule."""
  updates = config.num_steps * config.updates_per_step
  if config.learning_rate_drops:
    drops = {int(x * updates): 0.1 for x in config.learning_rate_drops}
    rate = optax.piecewise_constant_schedule(config.learning_rate, drops)
  else:
    rate = optax.cosine_decay_schedule(config.learning_rate, updates)
  if config.adam:
    return optax.adamw(rate, weight_decay=config.weight_decay)
  return optax.chain(
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(rate, momentum=0.9),
  )


def init(config: Config, game: games.Game, net, key: types.Key) -> State:
  """A network that knows nothing, games at their start, empty rings."""
  net_key, lane_key, game_key = jax.random.split(key, 3)
  fresh = jax.vmap(game.init)(jax.random.split(game_key, config.lanes))
  one = take(fresh, 0)
  params, net_state = net.init(net_key, game.observe(one)[None], True)
  uniform = jax.random.uniform(lane_key, (config.lanes, 3))
  position = Position(
    game.compact(one),
    *likeliest(jnp.zeros(game.num_actions)),
    jnp.zeros(()),
  )
  row = Row(
    position,
    jnp.zeros((), jnp.int32),
    jnp.zeros(()),
    jnp.zeros((), bool),
    jnp.zeros((), bool),
    jnp.ones((), bool),
  )
  ring = replay.init(position, config.window // config.lanes)

  def copies(tree: Any, *shape: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), tree)

  return State(
    training.init_state(params, net_state, make_optimizer(config)),
    params,
    start_lanes(config, fresh, uniform),
    copies(row, config.lanes, game.max_plies),
    copies(ring, config.lanes),
    -jnp.ones(()),
    copies((params, net_state), len(EARLIER)),
    jnp.zeros((), jnp.int32),
  )


def state_sharding(mesh: jax.sharding.Mesh) -> Any:
  """Where a run's state lives: lanes are split, parameters copied."""
  whole: Any = sharding.replicated(mesh)
  split: Any = sharding.split(mesh)
  return State(
    train=whole,
    average=whole,
    lanes=split,
    pending=split,
    rings=split,
    resign_below=whole,
    earlier=whole,
    step=whole,
  )


def make_step(config: Config, game: games.Game, net, mesh) -> types.StepFn:
  """One phase of self-play and the learning that follows it."""
  update = training.make_step(make_loss(game, net), make_optimizer(config))
  whole, split = P(), P('data')
  play = sharding.per_device(
    lambda *args: self_play(config, game, net, *args),
    mesh,
    in_specs=(whole, whole, split, P(None, 'data')),
    out_specs=(split, split, split),
  )
  drawn = config.batch_size // config.lanes

  def step(state: State, batch: None, key: types.Key):
    del batch
    key = jax.random.fold_in(key, state.step)
    play_key, learn_key = jax.random.split(key)
    weights = (state.average, state.train.net_state)
    lanes, rows, ended = play(
      weights, state.resign_below, state.lanes, draw(config, game, play_key)
    )
    ended = jax.tree.map(lambda x: jnp.sum(x, dtype=jnp.float32), ended)

    window = jax.tree.map(
      lambda *x: jnp.concatenate(x, axis=1), state.pending, rows
    )
    target, known = jax.vmap(value_targets, (0, None, None))(
      window, config.td_lambda, config.discount
    )
    rings = jax.vmap(replay.append)(
      state.rings, window.position._replace(value=target), known & ~window.used
    )
    window = window._replace(used=window.used | known)
    pending = jax.tree.map(lambda x: x[:, config.plies_per_step :], window)

    def learn(carry, uniform):
      train, average = carry
      positions = jax.vmap(replay.sample)(rings, uniform)
      weight = jnp.broadcast_to(
        (rings.size > 0)[:, None].astype(jnp.float32), uniform.shape
      )
      flat = jax.tree.map(
        lambda x: x.reshape(config.batch_size, *x.shape[2:]),
        (positions, weight),
      )
      train, metrics = update(train, flat, learn_key)
      average = optax.incremental_update(
        train.params, average, 1 - config.averaging
      )
      return (train, average), metrics

    shape = (config.updates_per_step, config.lanes, drawn)
    (train, average), metrics = jax.lax.scan(
      learn,
      (state.train, state.average),
      jax.random.uniform(learn_key, shape),
    )
    games_ended = jnp.maximum(ended.games, 1.0)
    metrics = jax.tree.map(jnp.mean, metrics) | {
      'games': ended.games,
      'plies': ended.plies / games_ended,
      'resigned': ended.resigned / games_ended,
      'resign_below': state.resign_below,
      'positions': jnp.sum(rings.size),
    }
    keep = jnp.array([int(x * config.num_steps) for x in EARLIER]) == state.step
    now = take(weights, None)
    state = State(
      train,
      average,
      lanes,
      pending,
      rings,
      adapt_resignation(config, state.resign_below, ended),
      jax.tree.map(
        lambda old, new: jnp.where(
          keep.reshape(-1, *([1] * (old.ndim - 1))), new, old
        ),
        state.earlier,
        now,
      ),
      state.step + 1,
    )
    return state, metrics

  return step


def adapt_resignation(config: Config, below: Array, ended: Ended) -> Array:
  """Moves the threshold to where the tolerated share resigns wrongly.

  [AGZ], methods, "Self-play", estimated by the rule of Robbins and Monro: up
  while audited games show fewer mistakes than are tolerated, down else.
  """
  wrong = ended.wrong / jnp.maximum(ended.audited, 1.0)
  change = 0.1 * (config.wrong_resignations - wrong)
  change = jnp.where(ended.audited > 0, change, 0.0)
  # A draw is worth 0: whoever sees better has no cause to give up.
  return jnp.clip(below + change, -1.0, -0.5)


def playing(state: State) -> Weights:
  """The weights that play."""
  return on_one_device((state.average, state.train.net_state))


def on_one_device(tree: Any) -> Any:
  """What all devices hold whole, as this process's first one holds it."""
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def opening_prior(game: games.Game, players: Players, weights: Weights):
  """What the network would play first: [A]."""
  start = take(game.init(jax.random.key(0)), None)
  return players[0](weights, start).prior[0]


class Judge(NamedTuple):
  """Who knows exactly which moves of a game are good.

  Attributes:
    examine: (players by their simulations, every) -> findings by name; only
      one position in `every` is looked at.
    claims: (findings, the untrained player's, the opening prior) -> claims.
    panels: (records of the run, findings, the untrained player's) -> pictures.
    sample: while learning, and of the untrained player, only one position in so
      many is looked at.
  """

  examine: Callable[..., Mapping[str, move_quality.Quality]]
  claims: Callable[..., list[types.Claim]]
  panels: Callable[..., list[strength.Panel]]
  sample: int


def judge_of(game: games.Game) -> Judge | None:
  """The exact judge of a game, where there is one."""
  if game.name == 'connect_four':
    return Judge(
      move_quality.judge, move_quality.claims, move_quality.panels, sample=4
    )
  if game.name in chess_endgames.PIECES:
    return Judge(
      functools.partial(endgames.examine, game.name),
      functools.partial(endgames.claims, game.name),
      functools.partial(endgames.panels, game.name),
      sample=8,
    )
  return None


def judge(
  game: games.Game, players: Players, weights: Weights, sampled: bool = False
) -> Mapping[str, move_quality.Quality]:
  """What the exact judge of a game, if there is one, says of the players."""
  found = judge_of(game)
  if found is None:
    return {}
  every = found.sample if sampled else 1

  def choose(player: Player, states: GameState) -> np.ndarray:
    return np.asarray(think_of_all(player, weights, states).action)

  return found.examine(
    {n: functools.partial(choose, p) for n, p in players.items()}, every
  )


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Trains, judges and reports; returns the final metrics.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Raises:
    UsageError: an unknown game, a size that the devices do not divide, a
      window too small for the game.
  """
  game = games.make(config.game, config.board_size or None)
  mesh = sharding.make_mesh()
  sharding.check_divides('config.lanes', config.lanes, mesh)
  least = config.lanes * (game.max_plies + config.plies_per_step)
  if config.window < least:
    raise types.UsageError(
      f'config.window={config.window}; at least {least} is possible, which is '
      f'lanes * (plies_per_step + {game.max_plies}, the longest {game.name})'
    )
  net = network(config, game)
  players = {n: think(config, game, net, n) for n in (0, *config.judged)}
  milestones = {int(x * config.num_steps) for x in MILESTONES}

  def look_at_opening(step: int, state: State) -> types.Metrics | None:
    del step
    if game.num_actions > MOST_MOVES:
      return None
    prior = opening_prior(game, players, playing(state))
    return {'opening_prior': prior}

  def look_at_moves(step: int, state: State) -> Any:
    if step not in milestones:
      return None
    found = judge(game, players, playing(state), sampled=True)
    return {name: quality.kept for name, quality in found.items()}

  result = training.fit(
    make_step(config, game, net, mesh),
    lambda key: init(config, game, net, key),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    mesh=mesh,
    state_sharding=state_sharding(mesh),
    count_params=lambda state: state.train.params,
    hooks=[
      training.Hook(look_at_opening, max(1, config.num_steps // 50), True),
      training.Hook(look_at_moves, 1, True),
      *hooks,
    ],
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, game, players, result, workdir)


def conclude(
  config: Config,
  game: games.Game,
  players: Players,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Rates and judges the player at the end of its run, and reports."""
  start = time.monotonic()
  weights = playing(result.state)
  panels, claims = [], []
  metrics = dict(result.metrics)
  records = [] if workdir is None else training.logging.read(workdir)
  prior = np.asarray(opening_prior(game, players, weights))
  exact = judge_of(game)
  if exact is not None:
    beginner = take(on_one_device(result.state.earlier), 0)
    found = judge(game, players, weights)
    untrained = judge(game, players, beginner, sampled=True)
    metrics |= {name: quality.kept for name, quality in found.items()}
    claims += exact.claims(found, untrained, prior)
    panels += exact.panels(records, found, untrained)
  best = BEST_OPENINGS.get((game.name, game.observation_shape[0]))
  if best is not None:
    claims += opening_claims(game, players, weights, best)
    seen = [r for r in records if 'opening_prior' in r]
    panels += [
      strength.first_move_over_training(
        game.action_name(best),
        [r['seconds'] for r in seen],
        [r['opening_prior'][best] for r in seen],
        1 / game.num_actions,
      )
    ]
  if config.rating_games:
    standings = rate(config, game, players, result.state)
    rated = ('raw network', standings[-1].name)
    claims += strength.claims(standings, rated, standings[1].name)
    panels += [strength.elo(standings)]
  if panels:
    report.save_figure(strength.figure(panels), workdir, 'alphazero')
  report.write(
    workdir,
    title=f'AlphaZero learns {game.name}',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={'alphazero': 'From the rules alone, by self-play.'}
    if panels
    else {},
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def opening_claims(
  game: games.Game, players: Players, weights: Weights, best: int
) -> list[types.Claim]:
  """Whether the search finds the best first move, and knows that it wins.

  5x5 Go is solved: Black, who begins in the centre, owns the whole board (van
  der Werf, van den Herik and Uiterwijk, "Solving Go on small boards", ICGA
  Journal 2003).
  """
  most = max(players)
  start = take(game.init(jax.random.key(0)), None)
  thought = jax.device_get(players[most](weights, start))
  visits = thought.visits[0]
  return [
    types.at_least(
      f'visits of the best first move, {named(most)}',
      float(visits[best] / visits.sum()),
      0.9,
      baseline=1 / game.num_actions,
      baseline_name='uniform',
    ),
    types.at_least(
      f'value of the empty board, {named(most)} (1: certain win)',
      float(thought.value[0]),
      0.9,
      baseline=0.0,
      baseline_name='an untrained network',
    ),
  ]


def rate(
  config: Config, game: games.Game, players: Players, state: State
) -> list[matches.Standing]:
  """Elo of the player, of its earlier selves and of players without a network.

  Every member of the pool meets its neighbours and the anchors, so that the
  scale is fixed by players that do not learn.
  """

  def bound(num_simulations: int, weights: Weights) -> matches.Player:
    player = players[num_simulations]
    return lambda states, key: player(weights, states).action

  pool = {
    'random play': matches.random_player(game),
    '100 random games a move': matches.rollout_player(game, 100),
  }
  usual = config.judged[len(config.judged) // 2]
  for i, share in enumerate(EARLIER):
    earlier = take(on_one_device(state.earlier), i)
    pool[f'{named(usual)}, {share:.0%} trained'] = bound(usual, earlier)
  for num_simulations in sorted(players):
    pool[named(num_simulations)] = bound(num_simulations, playing(state))
  names = list(pool)
  pairs = [
    (name, other)
    for i, name in enumerate(names)
    for j, other in enumerate(names[:i])
    if i - j <= 2 or j == 1
  ]
  key = jax.random.key(0)
  return matches.round_robin(game, pool, key, config.rating_games, pairs)


def named(num_simulations: int) -> str:
  """What a player with so many simulations a move is called."""
  return f'{num_simulations} simulations' if num_simulations else 'raw network'


class Trained(NamedTuple):
  """A player as a workdir holds it."""

  config: Config
  game: games.Game
  net: hk.TransformedWithState
  weights: Weights
  step: int


def load(workdir: str) -> Trained:
  """Reads the newest player of a run, which may still be going on.

  Raises:
    UsageError: there is no run, or nothing of it is kept yet.
  """
  config = checkpoint.read_config(workdir, Config, 'alphazero')
  game = games.make(config.game, config.board_size or None)
  net = network(config, game)
  abstract = jax.eval_shape(
    lambda key: init(config, game, net, key), jax.random.key(0)
  )
  found = checkpoint.Checkpointer.open(
    pathlib.Path(workdir, 'checkpoints')
  ).restore(abstract)
  if found is None:
    raise types.UsageError(f'{workdir} holds no checkpoint yet; wait a minute')
  return Trained(config, game, net, playing(found[1]), found[0])


_SMOKE = Config(
  channels=8,
  blocks=1,
  width=32,
  lanes=16,
  plies_per_step=8,
  num_simulations=8,
  window=4096,
  batch_size=32,
  updates_per_step=4,
  num_steps=6,
  judged=(0, 16),
  rating_games=8,
)

# Endgames begin at random: they need no exploratory openings.
_ENDGAME = Config(
  game='chess_kqk',
  lanes=64,
  plies_per_step=16,
  value_scale=1.0,
  opening_plies=0,
  td_lambda=0.95,
  discount=0.98,
  window=131_072,
  updates_per_step=12,
  learning_rate=2e-3,
  num_steps=120,
  judged=(0, 32, 200),
  rating_games=0,
)

# 5x5 Go, 17 minutes on a busy core. Black should own all of it: who opens with
# two plies at random as Black has nearly always lost, so that nobody is rated.
_GO = Config(
  game='go',
  board_size=5,
  value_scale=1.0,
  temperature_plies=6,
  opening_plies=8,
  td_lambda=0.95,
  window=327_680,
  updates_per_step=24,
  learning_rate=2e-3,
  num_steps=450,
  judged=(0, 64, 256),
  rating_games=0,
)

# The published settings of chess.
_PAPER = Config(
  game='chess',
  channels=256,
  blocks=19,
  width=0,
  batch_norm=True,
  policy_channels=0,
  value_channels=1,
  head_width=256,
  lanes=4096,
  plies_per_step=16,
  num_simulations=800,
  gumbel=False,
  temperature_plies=30,
  window=4096 * 20_000,
  batch_size=4096,
  updates_per_step=13,
  learning_rate=0.2,
  weight_decay=1e-4,
  td_lambda=1.0,
  learning_rate_drops=(1 / 7, 3 / 7, 5 / 7),
  adam=False,
  averaging=0.0,
  prior_exponent=1.0,
  wrong_resignations=0.05,
  opening_plies=0,
  num_steps=700_000 // 13,
  judged=(0, 800),
  rating_games=0,
)

PRESETS = {
  # Seconds: shows that everything runs.
  'smoke': _SMOKE,
  # Connect Four, thirteen minutes on one CPU core.
  'laptop': Config(),
  'go_5x5': _GO,
  # 9x9 Go: 33 minutes of a busy core, then 17 of 40 games against GNU Go's
  # level 10, with 256 simulations.
  'go_9x9': dataclasses.replace(
    _GO,
    board_size=9,
    lanes=64,
    temperature_plies=12,
    opening_plies=20,
    num_steps=130,
  ),
  # Mates with a queen, and with a rook: 7 and 14 minutes of one CPU core.
  'chess_kqk': _ENDGAME,
  'chess_krk': dataclasses.replace(_ENDGAME, game='chess_krk', num_steps=400),
  'paper': _PAPER,
  'paper_shogi': dataclasses.replace(
    _PAPER, game='shogi', dirichlet_alpha=0.15
  ),
  'paper_go': dataclasses.replace(
    _PAPER,
    game='go',
    board_size=19,
    policy_channels=2,
    dirichlet_alpha=0.03,
    learning_rate=0.02,
  ),
}
