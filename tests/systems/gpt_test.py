"""GPT: its sizes, GPT-2 in NumPy, resumption, and that it learns a text."""

import dataclasses
import functools
import itertools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.data import text
from dl_lectures.systems import gpt

SENTENCE = 'the quick brown fox jumps over the lazy dog. '
TINY = gpt.Config(
  length=8,
  layers=1,
  heads=2,
  width=8,
  batch_size=8,
  steps=40,
  warmup=5,
  evaluate_every=0,
  ngram_orders=(1, 3),
  sample=12,
  with_bias=True,
)
CORPUS = text.from_text(SENTENCE * 30, 'fox')
SIZE = CORPUS.vocabulary.size


@functools.cache
def parts(config=TINY):
  net = gpt.network(config, SIZE)
  state = jax.jit(functools.partial(gpt.init, config, net))(jax.random.key(0))
  return net, jax.jit(gpt.make_step(config, net)), state


def shapes(config, vocab_size):
  net = gpt.network(config, vocab_size)
  init = functools.partial(gpt.init, config, net)
  return jax.eval_shape(init, jax.random.key(0)).params


def test_sizes_are_the_published_ones():
  gpt2 = gpt.PRESETS['gpt2']
  assert gpt.count_parameters(shapes(gpt2, gpt2.vocab_size)) == 124_439_808
  # nanoGPT prints 0.80M for it, with the 65 characters of tiny Shakespeare.
  assert gpt.count_parameters(shapes(gpt.PRESETS['laptop'], 65)) == 804_096
  # By hand: embedding, positions, blocks (qkv, out, mlp, norms), norm.
  block = 4 * 8 * 8 + 8 * 8 * 8 + (3 + 1 + 4 + 1) * 8 + 4 * 8
  expected = SIZE * 8 + 8 * 8 + block + 2 * 8
  assert gpt.count_parameters(shapes(TINY, SIZE)) == expected


def test_the_loss_is_that_of_the_next_token():
  net, _, state = parts()
  batch = next(gpt.batches(TINY, CORPUS, 0))
  key = jax.random.key(0)
  total, _ = gpt.loss(net, state.params, {}, key, jnp.asarray(batch))
  logits = np.asarray(net.apply((state.params, {}), None, batch[:, :-1]))
  p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  rows = np.arange(8)[:, None], np.arange(8)
  by_hand = -np.log(p[(*rows, batch[:, 1:])]).mean()
  assert float(total) == pytest.approx(by_hand, rel=1e-5)
  # At first all tokens are about alike.
  assert float(total) == pytest.approx(math.log(SIZE), rel=0.02)


def test_learning_rate_and_decay():
  config = dataclasses.replace(
    TINY, steps=30, warmup=10, learning_rate=0.1, final_learning_rate=0.02
  )

  def expected(step):
    if step < 10:
      return 0.1 * (step + 1) / 11
    share = min((step - 10) / 20, 1)
    return 0.02 + 0.5 * (1 + math.cos(math.pi * share)) * 0.08

  optimizer = gpt.optimizer(config)
  params = {'w': jnp.ones((2, 3)), 'b': jnp.ones(3)}
  state = optimizer.init(params)
  nothing = jax.tree.map(jnp.zeros_like, params)
  for step in range(32):
    changes, state = optimizer.update(nothing, state, params)
    updates: Any = changes
    # Without a gradient only the decay is left, and only that of matrices.
    np.testing.assert_array_equal(updates['b'], 0)
    np.testing.assert_allclose(updates['w'], -0.1 * expected(step), rtol=0.1)
    if step in (10, 20, 30):
      np.testing.assert_allclose(updates['w'], -0.1 * expected(step), rtol=1e-5)


def greedy(net, weights, prompt, count):
  apply = jax.jit(net.apply)
  seen = list(prompt)
  for _ in range(count):
    # Behind them anything may stand: the model does not look ahead.
    window = np.full((1, TINY.length), SIZE - 1)
    last = seen[-TINY.length :]
    window[0, : len(last)] = last
    logits = apply(weights, None, window)[0, len(last) - 1]
    seen.append(int(np.argmax(logits)))
  return seen[len(prompt) :]


def test_it_writes_on_from_the_last_tokens():
  net, _, state = parts()
  # Far from alike, so that no two logits are close.
  params = jax.tree.map(lambda x: 8 * x, state.params)
  cold = dataclasses.replace(TINY, temperature=1e-4)
  write = jax.jit(
    functools.partial(gpt.continue_text, cold, net), static_argnums=2
  )
  for prompt in (CORPUS.train[:3], CORPUS.train[:20]):
    got = write((params, {}), prompt, 10, jax.random.key(1))
    assert got.tolist() == greedy(net, (params, {}), prompt, 10)


def test_it_draws_from_the_distribution():
  net, _, state = parts()
  params = jax.tree.map(lambda x: 4 * x, state.params)
  config = dataclasses.replace(TINY, temperature=0.5)
  prompt = jnp.asarray(CORPUS.train[:5])
  logits = net.apply((params, {}), None, prompt[None])[0, -1]
  write = jax.jit(
    jax.vmap(
      lambda key: gpt.continue_text(config, net, (params, {}), prompt, 1, key)
    )
  )
  drawn = write(jax.random.split(jax.random.key(0), 4000))[:, 0]
  shares = np.bincount(drawn, minlength=SIZE) / 4000
  np.testing.assert_allclose(shares, jax.nn.softmax(2 * logits), atol=0.03)


def run(step, state, config, start, stop):
  metrics = {}
  batches = gpt.batches(config, CORPUS, start)
  for batch in itertools.islice(batches, stop - start):
    state, metrics = step(state, batch, jax.random.key(7))
  return state, metrics


def test_stopping_and_resuming_changes_nothing():
  config = dataclasses.replace(TINY, dropout=0.3)
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


def published(config, vocab_size, seed=0):
  """Made-up tensors with GPT-2's names and shapes."""
  d, draw = config.width, np.random.default_rng(seed)
  sizes: dict[str, Any] = {
    'wte.weight': (vocab_size, d),
    'wpe.weight': (config.length, d),
  }
  norms = ['ln_f']
  for i in range(config.layers):
    norms += [f'h.{i}.ln_1', f'h.{i}.ln_2']
    for name, rows, columns in (
      ('attn.c_attn', d, 3 * d),
      ('attn.c_proj', d, d),
      ('mlp.c_fc', d, 4 * d),
      ('mlp.c_proj', 4 * d, d),
    ):
      sizes[f'h.{i}.{name}.weight'] = rows, columns
      sizes[f'h.{i}.{name}.bias'] = (columns,)
  for norm in norms:
    sizes[f'{norm}.weight'] = sizes[f'{norm}.bias'] = (d,)
  return {
    name: draw.normal(scale=0.4, size=size).astype(np.float32)
    for name, size in sizes.items()
  }


def gpt2_in_numpy(tensors, tokens, layers, heads):
  """The forward pass as published, of one sequence: [T] -> [T, V]."""

  def norm(x, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x * tensors[f'{name}.weight'] + tensors[f'{name}.bias']

  def linear(x, name):
    return x @ tensors[f'{name}.weight'] + tensors[f'{name}.bias']

  def gelu(x):
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))

  x = tensors['wte.weight'][tokens] + tensors['wpe.weight'][: len(tokens)]
  for i in range(layers):
    seen = linear(norm(x, f'h.{i}.ln_1'), f'h.{i}.attn.c_attn')
    parts = [np.split(z, heads, 1) for z in np.split(seen, 3, 1)]
    outputs = []
    for qh, kh, vh in zip(*parts, strict=True):
      scores = qh @ kh.T / np.sqrt(qh.shape[1])
      scores[np.triu_indices(len(tokens), 1)] = -np.inf
      weights = np.exp(scores - scores.max(axis=1, keepdims=True))
      outputs.append(weights / weights.sum(axis=1, keepdims=True) @ vh)
    x = x + linear(np.concatenate(outputs, axis=1), f'h.{i}.attn.c_proj')
    hidden = gelu(linear(norm(x, f'h.{i}.ln_2'), f'h.{i}.mlp.c_fc'))
    x = x + linear(hidden, f'h.{i}.mlp.c_proj')
  return norm(x, 'ln_f') @ tensors['wte.weight'].T


def test_published_weights_give_published_outputs():
  config = dataclasses.replace(TINY, layers=2, vocab_size=SIZE)
  tensors = published(config, SIZE)
  tokens = CORPUS.train[:8]
  expected = gpt2_in_numpy(tensors, tokens, config.layers, config.heads)
  net = gpt.network(config, SIZE)
  # Files hold more than parameters, and some have a prefix.
  more = {'lm_head.weight': tensors['wte.weight'], 'h.0.attn.bias': np.ones(1)}
  for prefix in ('', 'transformer.'):
    given = {f'{prefix}{name}': x for name, x in (tensors | more).items()}
    params = gpt.from_published(config, given)
    got = net.apply((params, {}), None, tokens[None])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_wrong_tensors_are_refused_by_name():
  config = dataclasses.replace(TINY, layers=2, vocab_size=SIZE)
  tensors = published(config, SIZE)
  for changed, message in (
    ({'h.1.ln_2.bias': None}, r"'h.1.ln_2.bias': missing; \[8\] is expected"),
    ({'wpe.weight': np.ones((9, 8))}, r"'wpe.weight': \[9, 8\]; \[8, 8\] is"),
    ({'h.2.ln_1.bias': np.ones(8)}, r"'h.2.ln_1.bias' is not known .* 2 lay"),
  ):
    given = {k: v for k, v in (tensors | changed).items() if v is not None}
    with pytest.raises(types.UsageError, match=message):
      gpt.from_published(config, given)


def test_files_of_tensors_are_read(tmp_path):
  tensors = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.array([1, -2], np.int64),
  }
  head: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  body = b''
  for (name, x), kind in zip(tensors.items(), ('F32', 'I64'), strict=True):
    end = len(body) + x.nbytes
    head[name] = {
      'dtype': kind,
      'shape': list(x.shape),
      'data_offsets': [len(body), end],
    }
    body += x.tobytes()
  told = json.dumps(head).encode()
  path = tmp_path / 'model.safetensors'
  path.write_bytes(len(told).to_bytes(8, 'little') + told + body)
  got = gpt.read_tensors(path)
  assert got.keys() == tensors.keys()
  for name, x in tensors.items():
    np.testing.assert_array_equal(got[name], x)
  for content in (b'', b'no tensors at all'):
    path.write_bytes(content)
    with pytest.raises(types.UsageError, match=r'not a .safetensors file'):
      gpt.read_tensors(path)


def test_it_learns_a_text_and_reports(tmp_path):
  path = tmp_path / 'fox.txt'
  path.write_text(SENTENCE * 30)
  config = dataclasses.replace(
    TINY, text=str(path), width=16, steps=150, learning_rate=1e-2
  )
  metrics = gpt.train(config, workdir=str(tmp_path / 'run'))
  # One letter says little, a few say all.
  assert metrics['loss'] < 1.0
  assert metrics['late_loss'] < metrics['loss']
  assert len(metrics['sample']) == 12
  assert set(metrics['sample']) <= set(SENTENCE)
  summary = training.report.finished(tmp_path / 'run', config)
  assert summary is not None
  claim = summary['claims'][0]
  assert claim['value'] == metrics['loss']
  assert claim['baseline_name'] == 'Kneser-Ney, order 3'
  assert claim['met'] is None
  assert (tmp_path / 'run' / 'figures' / 'gpt.png').exists()


def test_bars_are_for_the_published_settings_alone():
  losses = np.linspace(2.2, 1.6, 64)
  counted = {1: 3.347, 5: 1.5612, 8: 1.53}
  laptop = dataclasses.replace(
    gpt.PRESETS['laptop'], text='tiny_shakespeare', seed=3
  )
  claims = gpt.make_claims(laptop, losses, counted, 804_096)
  first, late, fifth, eighth, size = claims
  assert (first.value, first.bar, first.met) == (pytest.approx(1.9), 1.93, True)
  assert first.baseline == 1.53
  assert late.value == pytest.approx(losses[32:].mean())
  assert (fifth.met, eighth.met) == (True, False)
  assert fifth.baseline == 3.347
  assert size.exact
  assert not gpt.make_claims(laptop, losses + 0.1, counted, 1)[0].met
  for other in (
    dataclasses.replace(laptop, steps=100),
    dataclasses.replace(laptop, text='python'),
  ):
    assert gpt.make_claims(other, losses, counted, 1)[0].met is None


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'steps': 0}, r'config.steps=0; at least 1'),
    ({'dropout': 1.5}, r'config.dropout=1.5; 0 to 1'),
    ({'heads': 3}, r'config.heads=3 of width 8; its divisors'),
    ({'tokens': 'words'}, r"config.tokens='words'; possible: characters"),
    ({'clip': 0.0}, r'config.clip=0.0; more than 0'),
    ({'ngram_orders': ()}, r'config.ngram_orders='),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(TINY, **changes)


def test_a_vocabulary_too_small_and_a_text_too_short():
  with pytest.raises(types.UsageError, match=r'config.vocab_size=5; at least'):
    gpt.vocabulary_size(dataclasses.replace(TINY, vocab_size=5), CORPUS)
  assert gpt.vocabulary_size(TINY, CORPUS) == SIZE
  with pytest.raises(types.UsageError, match=r'for pieces of 2000'):
    next(gpt.batches(dataclasses.replace(TINY, length=2000), CORPUS, 0))


def test_a_longer_sequence_than_learned_is_refused():
  net, _, state = parts()
  with pytest.raises(types.UsageError, match='8 learned positions'):
    net.apply((state.params, {}), None, np.zeros((1, 9), np.int32))
