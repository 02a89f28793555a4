"""FTW: who sits where, who follows whom, and that a population goes on."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.systems import ftw
from dl_lectures.training import checkpoint, host, population, sharding

TINY = ftw.Config(
  size=9,
  view=5,
  regions=5,
  length=16,
  unroll=8,
  members=8,
  games=8,
  hidden=(8,),
  units=4,
  latents=2,
  batches=1,
  generation=2,
  threshold=0.5,
  agent_steps=20 * 8 * 4 * 8,
  num_games=128,
)
net = ftw.network(TINY)


def lineup(seed):
  """[2 groups, 2 lineups, 4], each member once in a group."""
  draw = np.random.default_rng(seed)
  return jnp.asarray([draw.permutation(8) for _ in range(2)]).reshape(2, 2, 4)


def state():
  """Without weights and games: members are numbers."""
  nothing: Any = ()
  hyper = ftw.first_hyper(TINY, jax.random.key(0))
  number = jnp.arange(8.0)
  return ftw.State(
    members=types.TrainState({'w': number}, {}, (), jnp.zeros(8, jnp.int32)),
    hyper=hyper,
    elo=jnp.array([0.0, 400.0] * 4),
    last=ftw.Generation(jnp.arange(8), jnp.zeros(8), hyper),
    games=nothing,
    lineup=lineup(0),
    memory=nothing,
    step=jnp.int32(0),
  )


def test_each_member_gets_its_own_seats_and_acts_in_them():
  seats = lineup(1)
  # Two games of each lineup, in order of group, lineup and number.
  each = jnp.repeat(seats.reshape(4, 4), 2, axis=0)
  rows = ftw.to_members(TINY, seats, each)
  assert rows.shape == (8, 4)
  expected = np.repeat(np.arange(8)[:, None], 4, axis=1)
  np.testing.assert_array_equal(rows, expected)
  given = jnp.arange(32).reshape(8, 4)
  there = ftw.to_seats(TINY, seats, given)
  np.testing.assert_array_equal(there // 4, each)
  np.testing.assert_array_equal(ftw.to_members(TINY, seats, there), given)
  # What an agent has more comes along.
  deep = jnp.stack([each, -each], axis=-1)
  np.testing.assert_array_equal(
    ftw.to_members(TINY, seats, deep)[..., 1], -expected
  )


def test_who_loses_takes_over_weights_and_changes_what_it_got():
  config = dataclasses.replace(TINY, chance=1.0)
  before = state()
  after = jax.jit(functools.partial(ftw.evolve, config))(
    before, jax.random.key(3)
  )
  parent = np.asarray(after.last.parent)
  follows = parent != np.arange(8)
  # Weak ones only, and strong ones they follow, or one that is equal.
  assert follows.any()
  assert (before.elo[parent] >= before.elo).all()
  np.testing.assert_array_equal(after.members.params['w'], parent)
  np.testing.assert_array_equal(after.elo, before.elo[parent])
  for name, value in after.hyper.items():
    was = np.asarray(before.hyper[name])
    np.testing.assert_array_equal(after.last.hyper[name], was)
    np.testing.assert_array_equal(np.asarray(value)[~follows], was[~follows])
    if name != 'period':
      factor = np.asarray(value)[follows] / was[parent][follows]
      assert (np.abs(factor - 1) > 0.01).any(), name
  population.check(ftw.RANGES, after.hyper)


def test_first_values_are_near_ours_or_anywhere():
  near = ftw.first_hyper(TINY, jax.random.key(0))
  ratio = np.asarray(near['rewards']) / ftw.FIRST_REWARDS
  assert ratio.shape == (8, 13)
  assert (ratio >= 0.499).all() & (ratio <= 2.001).all()
  wide = ftw.first_hyper(
    dataclasses.replace(TINY, spread=0.0), jax.random.key(0)
  )
  assert (np.asarray(wide['rewards']) / ftw.FIRST_REWARDS).max() > 10
  for hyper in (near, wide):
    assert set(hyper) == set(ftw.RANGES)
    population.check(ftw.RANGES, hyper)


def test_what_does_not_evolve_stays_as_it_is():
  key = jax.random.key(1)
  still = dataclasses.replace(TINY, evolves='settings', chance=1.0)
  before = state()._replace(hyper=ftw.first_hyper(still, key))
  np.testing.assert_array_equal(
    before.hyper['rewards'], np.tile(ftw.FIRST_REWARDS, (8, 1))
  )
  after = ftw.evolve(still, before, jax.random.key(3))
  assert (after.last.parent != np.arange(8)).any()
  np.testing.assert_array_equal(after.hyper['rewards'], before.hyper['rewards'])
  assert (after.hyper['entropy_cost'] != before.hyper['entropy_cost']).any()

  fixed = dataclasses.replace(TINY, evolves='nothing', shaped=False)
  assert not ftw.evolving(fixed)
  hyper = ftw.first_hyper(fixed, key)
  for name, value in ftw.FIRST.items():
    np.testing.assert_array_equal(hyper[name], np.full(8, value, np.float32))
  # Captures by oneself, by the mate, by an opponent.
  worth = np.flatnonzero(hyper['rewards'][0])
  assert worth.tolist() == [0, 3, 6]


def test_what_is_known_stands_beside_the_untrained_and_the_seen():
  known = {
    'best member': np.array([0.9, 0.7]),
    'one unit of it': np.array([0.6, 0.6]),
    'untrained': np.array([0.8, 0.6]),
    'observation': np.array([1.0, 0.9]),
  }
  claims = ftw.mind_claims(known)
  assert len({claim.name for claim in claims}) == 3
  assert [c.value for c in claims] == pytest.approx([0.8, 0.8, 0.6])
  assert [c.baseline for c in claims] == pytest.approx([0.7, 0.95, 0.8])


def test_without_a_slow_memory_there_is_one_lstm():
  config = dataclasses.replace(TINY, slow=False)
  alone = ftw.network(config)
  params, whole = (
    jax.eval_shape(functools.partial(ftw.init_params, *pair), jax.random.key(0))
    for pair in ((config, alone), (TINY, net))
  )
  assert {name for name in whole if 'slow' in name or 'prior' in name}
  assert not {name for name in params if 'slow' in name or 'prior' in name}
  assert ftw.divergences(None) == (0, 0)
  with pytest.raises(types.UsageError, match='all, settings, nothing'):
    dataclasses.replace(TINY, evolves='all but one')


@pytest.mark.slow
def test_games_that_end_are_rated_and_what_was_played_is_learned_from():
  begin = jax.jit(functools.partial(ftw.restart, TINY))
  play = jax.jit(functools.partial(ftw.play, TINY, net))
  now = jax.jit(functools.partial(ftw.init, TINY, net))(jax.random.key(0))
  for step in range(2):
    now = begin(now._replace(step=jnp.int32(step)), jax.random.key(step))
    now, rows = play(now, jax.random.key(10 + step))
    # The first games of group 1 are cut short.
    assert (now.elo == 0).all()
  first = rows.discount[:, -1, :2]
  np.testing.assert_array_equal(first, np.zeros((8, 2)))
  assert (rows.discount[:, -1, 2:] == np.float32(0.98)).all()

  of_one = jax.jit(net.apply)
  for member in (0, 5):
    row = jax.tree.map(lambda x, m=member: x[m], rows)
    seen = jax.tree.map(lambda x: jnp.swapaxes(x[:-1], 0, 1), row.observation)
    output, memory = of_one(
      jax.tree.map(lambda x, m=member: x[m], now.members.params),
      seen,
      row.memory,
      jnp.swapaxes(row.noise, 0, 1),
      now.hyper['period'][member],
      jnp.float32(1),
    )
    log_probs = jax.nn.log_softmax(jnp.swapaxes(output.logits, 0, 1))
    chosen = jnp.take_along_axis(log_probs, row.action[..., None], axis=-1)
    np.testing.assert_allclose(chosen[..., 0], row.behaviour, atol=1e-5)
    np.testing.assert_allclose(
      memory.fast.cell, now.memory.fast.cell[member], atol=1e-5
    )

  # Group 0 ends: team 0 of all its games has won.
  score = now.games.score.at[:, 0].set(5)
  won = now._replace(games=now.games._replace(score=score), step=jnp.int32(2))
  after = begin(won, jax.random.key(4))
  winners = np.asarray(now.lineup[0, :, :2]).ravel()
  losers = np.asarray(now.lineup[0, :, 2:]).ravel()
  assert (after.elo[winners] == after.elo[winners[0]]).all()
  assert (after.elo[winners[0]] > 0) & (after.elo[losers[0]] < 0)
  assert after.games.time.tolist() == [0] * 4 + [8] * 4
  assert (after.memory.slow.hidden[:, :2] == 0).all()
  assert (after.memory.slow.hidden[:, 2:] != 0).any()


def run(workdir, *hooks):
  """All 20 steps, each with a checkpoint."""
  return training.fit(
    ftw.make_step(TINY, net),
    lambda key: ftw.init(TINY, net, key),
    config=TINY,
    workdir=workdir,
    num_steps=TINY.num_steps,
    mesh=sharding.make_mesh(1),
    count_params=lambda state: state.members.params,
    hooks=[ftw.lineage_hook(TINY, str(workdir)), *hooks],
    save_every_seconds=0,
  ).state


def live(workdir, steps=None):
  """A process that runs; with `steps`, killed when it has made so many."""
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  program = [sys.executable, __file__, str(workdir)]
  with subprocess.Popen(
    program, env=environment, stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout is not None
    for made, _ in enumerate(process.stdout, 1):
      if made == steps:
        process.kill()
  return process.returncode


@pytest.mark.slow
def test_a_killed_population_goes_on_bit_for_bit(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert live(whole) == 0
  # The last step but one of a life may have no checkpoint yet; each of the
  # generations, every second step, is in the lineage before it has one.
  for steps in (1, 6, 4):
    assert live(killed, steps) == -signal.SIGKILL
  begun = checkpoint.Checkpointer.open(killed / 'checkpoints').steps()
  assert 4 < begun[-1] < 20
  assert live(killed) == 0

  # All steps are done: what was saved is read back.
  jax.tree.map(np.testing.assert_array_equal, run(whole), run(killed))
  told = [(at / ftw.LINEAGE).read_text() for at in (whole, killed)]
  assert told[0] == told[1]
  logged = [training.logging.read(at) for at in (whole, killed)]
  for line in (*logged[0], *logged[1]):
    del line['seconds']
  assert logged[0] == logged[1]

  lineage = population.read(whole / ftw.LINEAGE)
  assert [line.parent for line in lineage[:8]] == [None] * 8
  assert {line.step for line in lineage} <= set(range(0, 21, 2))
  assert len(lineage) > 8
  for member in range(8):
    assert population.schedule(lineage, member)[0][0] == 0


@functools.cache
def six_steps(devices, each):
  mesh = sharding.make_mesh(devices)
  result = training.fit(
    ftw.make_step(TINY, net, None, mesh, each),
    lambda key: ftw.init(TINY, net, key),
    config=TINY,
    workdir=None,
    num_steps=6,
    mesh=mesh,
    count_params=lambda state: state.members.params,
  )
  assert result.status == 'done'
  return result.state


@pytest.mark.slow
@pytest.mark.parametrize(
  ('devices', 'each'),
  [(4, population.mapped), (1, jax.vmap), (4, jax.vmap)],
  ids=('four devices', 'vmap', 'four devices, vmap'),
)
def test_all_ways_over_the_members_are_the_same(devices, each):
  one, other = six_steps(1, population.mapped), six_steps(devices, each)
  assert (one.last.parent != jnp.arange(8)).any()

  def same(x, y):
    if jnp.issubdtype(x.dtype, jnp.floating):
      # Sums are added up in another order.
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    else:
      np.testing.assert_array_equal(x, y)

  jax.tree.map(same, one, other)


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(TINY, members=4, generation=8)
  metrics = ftw.train(config, workdir=str(tmp_path))
  assert 0.3 < metrics['share_random'] < 0.7
  assert metrics['knows/observation'] > 0.8
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert 'Elo of the best member' in summary['claims'][0]['name']
  for name in (
    *('ftw.png', 'knowledge.png', 'memories.png'),
    *('behaviours.png', 'game.gif'),
  ):
    assert (tmp_path / 'figures' / name).exists()


def test_parameters_of_the_large_network():
  config = ftw.PRESETS['paper']
  model = ftw.network(config)
  params = jax.eval_shape(
    functools.partial(ftw.init_params, config, model), jax.random.key(0)
  )
  count = {
    name: sum(x.size for x in jax.tree.leaves(tree))
    for name, tree in params.items()
  }
  core = {k: n for k, n in count.items() if k.startswith('temporal')}
  assert core == {
    'temporal_hierarchy/slow': 4 * (2 * 256**2 + 256),
    'temporal_hierarchy/fast': 4 * (3 * 256**2 + 256),
    'temporal_hierarchy/posterior': 257 * 512,
    'temporal_hierarchy/prior': 257 * 512,
  }
  assert count['control'] == (3 * 256 + 1) * 9 * 9


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'members': 6}, 'config.members=6 for games of 4; multiples of 4'),
    ({'size': 8}, 'a map of 8 x 8 cells'),
    ({'unroll': 2}, 'config.unroll=2; the divisors of config.length=128 that'),
    ({'games': 6}, 'config.games=6; multiples of .* = 4'),
    ({'regions': 2}, 'config.regions=2; the divisors of config.view=9'),
    ({'batches': 3}, 'config.batches=3; the divisors of the 64 seats'),
    ({'threshold': 1.2}, 'config.threshold=1.2; 0 to 1'),
    ({'spread': 0.5}, r'from .* to .*; no such range'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(ftw.Config(), **changes)


def test_a_schedule_is_followed(tmp_path):
  path = tmp_path / ftw.LINEAGE
  before = ftw.first_hyper(TINY, jax.random.key(0))
  after = jax.tree.map(lambda x: x + 1, before)
  population.append(path, population.begun(before))
  parent = jnp.array([3, 1, 2, 3, 4, 5, 6, 7])
  population.append(
    path, population.births(10, parent, jnp.zeros(8), before, after)
  )
  config = dataclasses.replace(TINY, schedule=str(path))
  schedule = ftw.read_schedule(config)
  assert schedule is not None
  for step, expected in ((9, before), (10, after)):
    # Member 0 follows member 3 and changes what it got.
    whom = 0 if step == 10 else 3
    hyper = ftw.follow(config, schedule, jnp.int32(step))
    assert set(hyper) == set(expected)
    for name, value in hyper.items():
      one = np.asarray(expected[name][whom])
      assert value.shape == (8, *one.shape)
      np.testing.assert_allclose(value, np.stack([one] * 8), rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'member', 'message'),
  [
    ('nowhere', 0, 'nowhere is no file; the lineage.jsonl of a run'),
    (ftw.LINEAGE, 9, 'member 9 has no beginning in this lineage'),
    (ftw.LINEAGE, 0, 'tells of rate; a lineage of FTW is possible'),
  ],
)
def test_schedules_that_are_not_there(tmp_path, name, member, message):
  population.append(
    tmp_path / ftw.LINEAGE, population.begun({'rate': jnp.ones(2)})
  )
  config = dataclasses.replace(
    TINY, schedule=str(tmp_path / name), of_member=member
  )
  with pytest.raises(types.UsageError, match=message):
    ftw.read_schedule(config)


def test_a_lineage_that_was_cut_short_is_told_in_one_line(tmp_path):
  path = tmp_path / ftw.LINEAGE
  population.append(path, population.begun({'rate': jnp.ones(2)}))
  path.write_text(path.read_text()[:-20])
  with pytest.raises(types.UsageError, match='line 2: no birth of a lineage'):
    population.write_from(path, 3, [])
  # And at once where a run is to go on.
  with pytest.raises(types.UsageError, match='line 2: no birth of a lineage'):
    ftw.lineage_hook(TINY, str(tmp_path))


if __name__ == '__main__':
  host.tune_allocator()
  host.enable_compile_cache()
  run(
    sys.argv[1],
    training.Hook(lambda step, state: print(step, flush=True), 1),
  )
