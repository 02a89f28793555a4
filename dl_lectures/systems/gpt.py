"""GPT: a transformer that reads a text and predicts what comes next.

Radford et al., "Language models are unsupervised multitask learners" (GPT-2),
2019 [R]; the small configuration on characters is of nanoGPT,
github.com/karpathy/nanoGPT [K]. Slides: deck 003, "Transformer", "GPT-2".

      text ──> tokens ──> pieces of T + 1, from anywhere
                               |
              x = pieces[:T]   |   y = pieces[1:]
                               v
      embedding + position ──> L x [ x + attention(norm(x))   causal
                                     x + mlp(norm(x))       ] width D
                               |
      norm ──> product with the embedding (tied) ──> p(y | x up to it)
                               |
      AdamW on the mean of -log p, warm-up, cosine

Beside it stand n-grams of the same text, which cost seconds: at this size they
are better, and the report says so.

  python -m experiments.gpt --preset=laptop --config.text=tiny_shakespeare

`laptop` is nanoGPT's configuration for a CPU: 804,096 parameters, 2,000
updates. On the last tenth of tiny Shakespeare it reaches 1.905 nats a character
(three seeds) in about 7 minutes a seed on a busy core; Kneser-Ney of order 8
has 1.519 (`results/gpt.json`). Published [K]: 1.88, from 20 random batches.
`gpt2` is the smallest GPT-2, 124,439,808 parameters; its published weights come
in by `from_published`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.analysis import language
from dl_lectures.data import text
from dl_lectures.nets import sequence
from dl_lectures.training import report

Array = jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [K] on a CPU."""

  seed: int = 0  # of every random number
  # python (docstrings), tiny_shakespeare, or the path of a text; [K]:
  # tiny_shakespeare
  text: str = 'python'
  tokens: str = 'characters'  # or bytes; [K]: characters, GPT-2: byte pairs
  vocab_size: int = 0  # rows of the embedding; 0: as many as there are tokens
  length: int = 64  # T, tokens that are seen; [K]: 64, GPT-2: 1,024
  layers: int = 4  # [K]: 4, GPT-2: 12
  heads: int = 4  # [K]: 4, GPT-2: 12
  width: int = 128  # D; [K]: 128, GPT-2: 768
  with_bias: bool = False  # of products and norms; [K]: False, GPT-2: True
  dropout: float = 0.0  # [K]: 0, GPT-2: .1
  batch_size: int = 12  # pieces of an update; [K]: 12, GPT-2: 512
  steps: int = 2000  # updates; [K]: 2,000
  learning_rate: float = 1e-3  # the highest; [K]: 1e-3
  final_learning_rate: float = 1e-4  # the last; [K]: 1e-4
  warmup: int = 100  # updates until the highest; [K]: 100
  beta2: float = 0.99  # of Adam; [K]: .99
  weight_decay: float = 0.1  # of matrices; [K]: .1
  clip: float = 1.0  # the longest gradient; [K]: 1
  evaluate_every: int = 500  # updates; [K]: 250
  ngram_orders: tuple[int, ...] = (1, 2, 3, 5, 8)  # of the n-grams beside it
  sample: int = 400  # tokens written for the report
  temperature: float = 0.8  # of their distribution; [K]: .8

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'length layers heads width batch_size steps', 1)
    types.check_fields(self, 'vocab_size warmup weight_decay', 0)
    types.check_fields(self, 'evaluate_every sample', 0)
    types.check_fields(self, 'dropout beta2', 0, 1)
    for name in ('learning_rate', 'final_learning_rate', 'clip', 'temperature'):
      if getattr(self, name) <= 0:
        raise types.UsageError(
          f'config.{name}={getattr(self, name)}; more than 0 is possible'
        )
    if self.width % self.heads:
      raise types.UsageError(
        f'config.heads={self.heads} of width {self.width}; its divisors are '
        'possible'
      )
    if self.tokens not in text.TOKENS:
      raise types.UsageError(
        f'config.tokens={self.tokens!r}; possible: {", ".join(text.TOKENS)}'
      )
    language.check_orders(self.ngram_orders)


PRESETS = {
  'smoke': Config(
    length=16,
    layers=1,
    heads=2,
    width=16,
    batch_size=8,
    steps=30,
    warmup=5,
    evaluate_every=0,
    ngram_orders=(1, 3),
    sample=40,
  ),
  'laptop': Config(),
  # [K], config/train_shakespeare_char.py: 1.4697 on tiny Shakespeare, minutes
  # on a GPU.
  'gpu': Config(
    length=256,
    layers=6,
    heads=6,
    width=384,
    dropout=0.2,
    batch_size=64,
    steps=5000,
  ),
  # [R], the smallest; the optimiser's settings are those of [K] for it.
  'gpt2': Config(
    tokens='bytes',
    vocab_size=50257,
    length=1024,
    layers=12,
    heads=12,
    width=768,
    with_bias=True,
    dropout=0.1,
    batch_size=480,
    steps=600_000,
    learning_rate=6e-4,
    final_learning_rate=6e-5,
    warmup=2000,
    beta2=0.95,
  ),
}

State = types.TrainState
Batch = Array  # [B, T + 1] int32


def network(config: Config, vocab_size: int) -> sequence.SequenceModel:
  """The model: [B, T] tokens to logits [B, T, V]."""
  return sequence.transformer(
    config.width,
    vocab_size,
    num_layers=config.layers,
    num_heads=config.heads,
    vocab_size=vocab_size,
    positions='learned',
    max_length=config.length,
    with_bias=config.with_bias,
    tied=True,
    dropout=config.dropout,
  )


def vocabulary_size(config: Config, corpus: text.Corpus) -> int:
  """V: the rows of the embedding.

  Raises:
    UsageError: fewer than there are tokens.
  """
  needed = corpus.vocabulary.size
  if config.vocab_size and config.vocab_size < needed:
    raise types.UsageError(
      f'config.vocab_size={config.vocab_size}; at least {needed} is possible '
      f'with the {config.tokens} of {corpus.name}'
    )
  return config.vocab_size or needed


def optimizer(config: Config) -> optax.GradientTransformation:
  """AdamW with warm-up and cosine; vectors (biases, norms) do not decay."""
  rate = optax.warmup_cosine_decay_schedule(
    init_value=config.learning_rate / (config.warmup + 1),
    peak_value=config.learning_rate,
    warmup_steps=config.warmup,
    decay_steps=max(config.steps, config.warmup + 1),
    end_value=config.final_learning_rate,
  )
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(
      rate,
      b2=config.beta2,
      weight_decay=config.weight_decay,
      mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    ),
  )


def loss(
  net: sequence.SequenceModel,
  params: hk.Params,
  net_state: hk.MutableState,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[hk.MutableState, types.Metrics]]:
  """The mean of -log p(next token), nats: [R], equation 1."""
  logits = net.apply((params, net_state), key, batch[:, :-1], is_training=True)
  return jnp.mean(language.cross_entropy(logits, batch[:, 1:])), (net_state, {})


def init(
  config: Config, net: sequence.SequenceModel, key: types.Key
) -> types.TrainState:
  """The state before the first update; consumes the key."""
  params, net_state = net.init(key, jnp.zeros((1, config.length), jnp.int32))
  return training.init_state(params, net_state, optimizer(config))


def make_step(config: Config, net: sequence.SequenceModel) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update."""
  return training.make_step(functools.partial(loss, net), optimizer(config))


def batches(
  config: Config, corpus: text.Corpus, step: int
) -> Iterator[np.ndarray]:
  """Pieces of the first 90% of the text, from update `step` on."""
  return text.crops(
    corpus.train, config.length, config.batch_size, config.seed, step
  )


def continue_text(
  config: Config,
  net: sequence.SequenceModel,
  weights: Any,
  prompt: Array,
  count: int,
  key: types.Key,
) -> Array:
  """Writes on; of a longer text the model sees the last T tokens.

  Positions are learned, so that beyond T tokens the window moves and is read
  anew for each.

  Args:
    config: with T and the temperature.
    net: the model.
    weights: its weights.
    prompt: [P] int32, 1 <= P; the last T count.
    count: N.
    key: consumed.

  Returns:
    [N] int32.
  """
  prompt = jnp.asarray(prompt)[-config.length :]
  window = jnp.zeros(config.length, jnp.int32).at[: prompt.size].set(prompt)

  def write(carry, noise):
    window, seen = carry
    logits = net.apply(weights, None, window[None])[0, seen - 1]
    # Gumbel's trick: a draw from the softmax.
    token = jnp.argmax(logits / config.temperature + noise).astype(jnp.int32)
    is_full = seen == config.length
    window = jnp.where(is_full, jnp.roll(window, -1), window)
    at = jnp.minimum(seen, config.length - 1)
    return (window.at[at].set(token), at + 1), token

  vocab_size = jax.eval_shape(net.apply, weights, None, window[None]).shape[-1]
  noise = jax.random.gumbel(key, (count, vocab_size))
  first = window, jnp.int32(prompt.size)
  return jax.lax.scan(write, first, noise)[1]


def evaluate(
  config: Config,
  net: sequence.SequenceModel,
  weights: Any,
  tokens: np.ndarray,
) -> np.ndarray:
  """The loss at each position of windows side by side, [T], nats."""
  return language.loss_by_position(net, weights, tokens, config.length)


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns a text, measures itself beside n-grams, writes, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  corpus = text.load(config.text, config.tokens)
  text.check_length(corpus.valid, config.length)
  net = network(config, vocabulary_size(config, corpus))

  def valid_loss(step: int, state: State) -> types.Metrics:
    del step
    weights = state.params, state.net_state
    losses = evaluate(config, net, weights, corpus.valid)
    return {'valid_loss': losses.mean()}

  result = training.fit(
    make_step(config, net),
    functools.partial(init, config, net),
    config=config,
    workdir=workdir,
    num_steps=config.steps,
    batches=functools.partial(batches, config, corpus),
    hooks=[training.Hook(valid_loss, config.evaluate_every), *hooks],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, corpus, net, result, workdir)


def conclude(
  config: Config,
  corpus: text.Corpus,
  net: sequence.SequenceModel,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Measures on the last tenth, counts n-grams, writes, and reports."""
  start = time.monotonic()
  weights = result.state.params, result.state.net_state
  losses = evaluate(config, net, weights, corpus.held_out)
  counted = language.ngram_losses(corpus, config.ngram_orders)
  written = ''
  if config.sample:
    tokens = jax.jit(
      functools.partial(continue_text, config, net), static_argnums=2
    )(
      weights,
      corpus.held_out[: config.length],
      config.sample,
      jax.random.key(config.seed),
    )
    # Rows of the embedding beyond the vocabulary are never learned.
    known = np.minimum(np.asarray(tokens), corpus.vocabulary.size - 1)
    written = text.decode(corpus.vocabulary, known)
  records = training.logging.read(workdir) if workdir else []
  report.save_figure(
    draw(corpus, records, losses, counted, written), workdir, 'gpt'
  )
  late = losses[config.length // 2 :].mean()
  best = min(counted, key=lambda order: counted[order])
  metrics = {
    'loss': float(losses.mean()),
    'late_loss': float(late),
    'ngram_loss': counted[best],
    'ngram_order': best,
    'bits': language.bits(float(losses.mean())),
    'parameters': count_parameters(result.state.params),
    'sample': written,
  }
  report.write(
    workdir,
    title=f'GPT on {corpus.name}',
    config=config,
    claims=make_claims(config, losses, counted, metrics['parameters']),
    metrics=metrics,
    figures={
      'gpt': 'How it learns, what context is worth to it, and what it writes.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def count_parameters(params: Any) -> int:
  """How many numbers there are in arrays, or in their shapes."""
  return sum(x.size for x in jax.tree.leaves(params))


def is_published(config: Config, preset: str = 'laptop') -> bool:
  """Whether text and settings are those of a preset on tiny Shakespeare."""
  published = dataclasses.replace(
    PRESETS[preset],
    text='tiny_shakespeare',
    seed=config.seed,
    **{
      name: getattr(config, name)
      for name in ('evaluate_every', 'ngram_orders', 'sample', 'temperature')
    },
  )
  return config == published


def make_claims(
  config: Config,
  losses: np.ndarray,
  counted: Mapping[int, float],
  parameters: int,
) -> list[types.Claim]:
  """The rows of the report; bars where the settings are published ones."""
  best = min(counted, key=lambda order: counted[order])
  beside = {
    'baseline': counted[best],
    'baseline_name': f'Kneser-Ney, order {best}',
  }
  name = 'loss on the last tenth, nats a token'
  loss = float(losses.mean())
  if is_published(config):
    first = types.at_most(name, loss, 1.93, paper=1.88, **beside)
  elif is_published(config, 'gpu'):
    first = types.at_most(name, loss, 1.5, paper=1.4697, **beside)
  else:
    first = types.Claim(name, loss, **beside)
  half = config.length // 2
  claims = [
    first,
    types.Claim(
      f'the same where at least {half + 1} tokens are seen',
      float(losses[half:].mean()),
      **beside,
    ),
  ]
  shortest = min(counted)
  for order in sorted(counted)[1:]:
    published = {5: 1.561, 8: 1.519}
    value = counted[order]
    bar: dict[str, Any] = {}
    if config.text == 'tiny_shakespeare' and order in published:
      bar = {
        'bar': f'{published[order]} +- .002',
        'met': abs(value - published[order]) <= 0.002,
      }
    claims.append(
      types.Claim(
        f'Kneser-Ney of order {order}, nats a token',
        value,
        baseline=counted[shortest],
        baseline_name=f'order {shortest}',
        **bar,
      )
    )
  claims.append(types.Claim('parameters', parameters, exact=True))
  return claims


def draw(
  corpus: text.Corpus,
  records: Sequence[Mapping[str, Any]],
  losses: np.ndarray,
  counted: Mapping[int, float],
  written: str,
) -> Figure:
  """Losses in training and by position, n-grams beside; the text below."""
  page = Figure(figsize=(9.6, 6.4), layout='constrained')
  learning, positions, sample = page.subplot_mosaic(
    [['learning', 'positions'], ['sample', 'sample']], height_ratios=(3, 2)
  ).values()
  language.draw_losses(learning, records, counted)
  learning.set(title=f'GPT on {corpus.name}')
  language.draw_positions(positions, losses, counted)
  language.draw_text(sample, written)
  return page


# What the published tensors are called, and here; {i} is the block.
_NAMES = {
  'wte.weight': ('embedding', 'w'),
  'wpe.weight': ('positions', 'w'),
  'h.{i}.ln_1.weight': ('block_{i}/norm_1', 'scale'),
  'h.{i}.ln_1.bias': ('block_{i}/norm_1', 'offset'),
  'h.{i}.attn.c_attn.weight': ('block_{i}/attention/qkv', 'w'),
  'h.{i}.attn.c_attn.bias': ('block_{i}/attention/qkv', 'b'),
  'h.{i}.attn.c_proj.weight': ('block_{i}/attention/out', 'w'),
  'h.{i}.attn.c_proj.bias': ('block_{i}/attention/out', 'b'),
  'h.{i}.ln_2.weight': ('block_{i}/norm_2', 'scale'),
  'h.{i}.ln_2.bias': ('block_{i}/norm_2', 'offset'),
  'h.{i}.mlp.c_fc.weight': ('block_{i}/mlp_in', 'w'),
  'h.{i}.mlp.c_fc.bias': ('block_{i}/mlp_in', 'b'),
  'h.{i}.mlp.c_proj.weight': ('block_{i}/mlp_out', 'w'),
  'h.{i}.mlp.c_proj.bias': ('block_{i}/mlp_out', 'b'),
  'ln_f.weight': ('norm', 'scale'),
  'ln_f.bias': ('norm', 'offset'),
}
# Of the published files too, but no parameters: masks, and the tied head.
_NOT_LEARNED = ('.attn.bias', '.attn.masked_bias', 'lm_head.weight')


def from_published(
  config: Config, tensors: Mapping[str, np.ndarray]
) -> hk.Params:
  """GPT-2's weights by their published names, as parameters of `network`.

  The layout is the same, so that nothing is transposed: products are x @ w,
  queries, keys and values side by side.

  Args:
    config: such as PRESETS['gpt2'], with its `vocab_size`.
    tensors: 'wte.weight' [V, D], 'h.0.attn.c_attn.weight' [D, 3 D] and so on,
      with or without 'transformer.' before; see `read_tensors`.

  Returns:
    The parameters, float32.

  Raises:
    UsageError: a tensor is missing, unknown, or of another shape.
  """
  given = {
    name.removeprefix('transformer.'): value
    for name, value in tensors.items()
    if not name.endswith(_NOT_LEARNED)
  }
  expected = jax.eval_shape(
    lambda key: init(config, network(config, config.vocab_size), key),
    jax.random.key(0),
  ).params
  params: dict[str, dict[str, Array]] = {}
  for pattern, (module, leaf) in _NAMES.items():
    blocks = range(config.layers) if '{i}' in pattern else range(1)
    for name, ours in (
      (pattern.format(i=i), module.format(i=i)) for i in blocks
    ):
      if leaf not in expected[ours]:
        continue
      shape = expected[ours][leaf].shape
      value = given.pop(name, None)
      if value is None or value.shape != shape:
        was = 'missing' if value is None else list(value.shape)
        raise types.UsageError(
          f'tensor {name!r}: {was}; {list(shape)} is expected'
        )
      params.setdefault(ours, {})[leaf] = jnp.asarray(value, jnp.float32)
  if given:
    raise types.UsageError(
      f'tensor {min(given)!r} is not known to a GPT-2 of {config.layers} layers'
      + (', without biases' if not config.with_bias else '')
    )
  return params


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The tensors of a .safetensors file, as GPT-2's are published.

  The format: 8 bytes of length, so many bytes of JSON that say of each tensor
  its type, shape and place, and the numbers.

  Args:
    path: of the file.

  Returns:
    Name -> array, read when it is used.

  Raises:
    UsageError: another kind of file, or a type of number not known here.
  """
  kinds = {'F32': '<f4', 'F16': '<f2', 'F64': '<f8', 'I64': '<i8', 'U8': 'u1'}
  try:
    with pathlib.Path(path).open('rb') as file:
      size = int.from_bytes(file.read(8), 'little')
      head = json.loads(file.read(size) if size < 1 << 28 else b'')
    head.pop('__metadata__', None)
    return {
      name: np.memmap(
        path,
        kinds[about['dtype']],
        'r',
        8 + size + about['data_offsets'][0],
        tuple(about['shape']),
      )
      for name, about in head.items()
    }
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise types.UsageError(
      f'{os.fspath(path)} is not a .safetensors file ({error!r})'
    ) from error
