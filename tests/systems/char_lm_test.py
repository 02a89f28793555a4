"""Character models: equal sizes, truncation, resumption, and learning."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dl_lectures import training, types
from dl_lectures.analysis import language
from dl_lectures.data import text
from dl_lectures.systems import char_lm

SENTENCE = 'the quick brown fox jumps over the lazy dog. '
TINY = char_lm.Config(
  model='gru',
  parameters=1500,
  rates=(1, 2),
  length=8,
  memory=8,
  batch_size=8,
  steps=40,
  warmup=5,
  evaluate_every=0,
  ngram_orders=(1, 3),
  sample=12,
)
# Its parameters stay what they are.
STILL = dataclasses.replace(TINY, learning_rate=1e-30, weight_decay=0.0)
CORPUS = text.from_text(SENTENCE * 30, 'fox')
SIZE = CORPUS.vocabulary.size


@functools.cache
def parts(config=TINY):
  net = char_lm.network(config, SIZE)
  init = jax.jit(functools.partial(char_lm.init, config, net))
  return net, jax.jit(char_lm.make_step(config, net)), init(jax.random.key(0))


def run(step, state, config, start, stop):
  metrics = {}
  batches = char_lm.batches(config, CORPUS, start)
  for batch in itertools.islice(batches, stop - start):
    state, metrics = step(state, batch, jax.random.key(7))
  return state, metrics


@pytest.mark.parametrize('name', char_lm.MODELS)
def test_all_models_have_about_as_many_parameters(name):
  config = char_lm.Config(model=name, layers=2, parameters=50_000)
  count = char_lm.count_parameters(char_lm.network(config, 65))
  assert count <= 50_000
  # The next width would not fit.
  build = char_lm.MODELS[name]
  unit = 2 * config.heads if name == 'transformer' else 8
  wider = next(
    w
    for w in itertools.count(unit, unit)
    if char_lm.count_parameters(build(config, w, 65)) > count
  )
  assert char_lm.count_parameters(build(config, wider, 65)) > 50_000


def test_parameters_by_hand():
  # Embedding, three gates' W and U and b, head; of width 8.
  gru = char_lm.count_parameters(char_lm.MODELS['gru'](TINY, 8, 65))
  assert gru - 65 * 8 - (8 * 65 + 65) in (
    3 * (2 * 8 * 8 + 8),
    3 * (2 * 8 * 8 + 8) + 8,  # with one more bias, of U_n h
  )
  lstm = char_lm.count_parameters(char_lm.MODELS['lstm'](TINY, 8, 65))
  assert lstm == 65 * 8 + 4 * (2 * 8 * 8 + 8) + (8 * 65 + 65)
  # The two layers of [K] that are read as one-hot vectors have 240,321.
  paper = char_lm.PRESETS['paper']
  count = char_lm.count_parameters(char_lm.network(paper, 65))
  assert 0.85 * 240_321 < count <= 240_321


def test_carries_go_on_and_gradients_do_not():
  net, step, state = parts(STILL)
  first, second = itertools.islice(char_lm.batches(TINY, CORPUS, 0), 2)
  state, _ = step(state, first, jax.random.key(0))
  params, carry = state.params, state.net_state['carry']
  state, metrics = step(state, second, jax.random.key(0))

  @jax.jit
  @jax.value_and_grad
  def of_second(params, carry):
    logits, _ = net.apply_from((params, {}), None, carry, second[:, :-1])
    return language.cross_entropy(logits, jnp.asarray(second[:, 1:])).mean()

  @jax.jit
  def of_both(params):
    whole = np.concatenate([first[:, :-1], second], axis=1)
    logits = net.apply((params, {}), None, whole[:, :-1])
    losses = language.cross_entropy(logits, jnp.asarray(whole[:, 1:]))
    return losses[:, TINY.length :].mean()

  # The second piece after the first, as one sequence ...
  assert float(metrics['loss']) == pytest.approx(
    float(of_both(params)), rel=1e-5
  )
  # ... of whose beginning the gradient knows nothing.
  _, gradient = of_second(params, carry)
  expected = float(optax.tree.norm(gradient))
  assert float(metrics['grad_norm']) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
  'name', ['lstm', pytest.param('transformer', marks=pytest.mark.slow)]
)
def test_stopping_and_resuming_changes_nothing(name):
  config = dataclasses.replace(TINY, model=name, dropout=0.2)
  _, step, state = parts(config)
  whole, metrics = run(step, state, config, 0, 20)
  halfway, _ = run(step, state, config, 0, 10)
  resumed, _ = run(step, jax.tree.map(np.asarray, halfway), config, 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  assert all(np.isfinite(x) for x in metrics.values())
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), state.params, whole.params
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_it_writes_with_the_memory_of_the_training():
  config = dataclasses.replace(TINY, temperature=1e-4)
  net, _, state = parts()
  # Far from alike, so that no two logits are close.
  weights = jax.tree.map(lambda x: 4 * x, char_lm.weights_of(state))
  prompt = CORPUS.held_out[:5]
  new = char_lm.continue_text(
    config, net, weights, prompt, 6, jax.random.key(0)
  )
  apply = jax.jit(net.apply)
  seen = [*prompt, *([0] * 6)]
  for at in range(5, 11):
    logits = apply(weights, None, np.array(seen)[None])
    seen[at] = int(np.argmax(logits[0, at - 1]))
  assert new.tolist() == seen[5:]


@pytest.mark.slow
def test_it_learns_a_text_and_reports(tmp_path):
  path = tmp_path / 'fox.txt'
  path.write_text(SENTENCE * 100)
  config = dataclasses.replace(
    TINY, text=str(path), parameters=4000, steps=200, learning_rate=2e-2
  )
  metrics = char_lm.train(config, workdir=str(tmp_path / 'run'))
  assert metrics['loss'] < 0.5
  # To remember is worth something in the middle of a sentence.
  assert metrics['loss'] < metrics['forgetful_loss'] < 1.5
  assert len(metrics['sample']) == 12
  summary = training.report.finished(tmp_path / 'run', config)
  assert summary is not None
  first, second, size = summary['claims']
  assert first['value'] == metrics['loss']
  assert second['value'] == metrics['forgetful_loss']
  assert first['baseline'] == metrics['ngram_loss']
  assert size['value'] <= 4000
  assert (tmp_path / 'run' / 'figures' / 'char_lm.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'steps': 0}, r'config.steps=0; at least 1'),
    ({'model': 'lsmt'}, r"config.model='lsmt'; possible: rnn, gru, lstm"),
    ({'dropout': 1.5}, r'config.dropout=1.5; 0 to 1'),
    ({'tokens': 'words'}, r"config.tokens='words'; possible: characters"),
    ({'learning_rate': 0.0}, r'config.learning_rate=0.0; more than 0'),
    ({'rates': (0,)}, r'config.rates=0; one or more'),
    ({'ngram_orders': ()}, r'config.ngram_orders='),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(TINY, **changes)


def test_too_few_parameters_are_refused():
  config = dataclasses.replace(TINY, parameters=100)
  with pytest.raises(types.UsageError, match=r'parameters=100; at least \d+'):
    char_lm.network(config, SIZE)
