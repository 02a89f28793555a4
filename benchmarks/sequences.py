"""Sequence models against Haiku's and PyTorch's, in CPU time.

All arms are interleaved in one process with the same weights and inputs; values
are medians of CPU time, in milliseconds or tokens a second, and beside them
stands the largest relative difference of the two arms' results. All on one
core, as PyTorch and XLA share work differently.

- lstm: forward and backward of 256 units, T = 128, B = 32, the gradient of all
  weights, against hk.LSTM and torch.nn.LSTM. gru: the same against hk.GRU.
- gpt_step: an update (forward, backward, clipping, AdamW) of the GPT of
  `systems.gpt`'s laptop preset, which is nanoGPT's for the CPU, against PyTorch
  2 run eagerly.
- generate: 63 tokens after 1, one and sixteen lanes: the cache in one compiled
  loop against a full pass in PyTorch for each token, and against our own.

PyTorch is the extra `benchmarks`; without it its lines say so.
"""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from dl_lectures import nets
from dl_lectures.systems import gpt
from dl_lectures.training import generation, host

HAS_TORCH = importlib.util.find_spec('torch') is not None
LAPTOP = gpt.PRESETS['laptop']
VOCABULARY, NEW = 65, 63

Arms = dict[str, Callable[[], Any]]


def torch() -> Any:
  """PyTorch, on one thread."""
  module = importlib.import_module('torch')
  module.set_num_threads(1)
  return module


def recurrent(
  layer: str, units: int = 256, length: int = 128, lanes: int = 32
) -> Arms:
  """Arms that return the gradient of the mean square of all outputs."""
  ours_of, haiku_of = {
    'lstm': (nets.LSTM, hk.LSTM),
    'gru': (nets.GRU, hk.GRU),
  }[layer]
  draw = np.random.default_rng(0)
  x = jnp.float32(draw.normal(size=(lanes, length, units)))

  def haiku(x):
    core = haiku_of(units)
    state = core.initial_state(x.shape[0])
    return hk.dynamic_unroll(core, x, state, time_major=False)[0]

  def gradient(function):
    net = hk.without_apply_rng(hk.transform(function))
    loss = lambda params, x: jnp.mean(net.apply(params, x) ** 2)  # noqa: E731
    return net, jax.jit(jax.grad(loss))

  ours, ours_gradient = gradient(lambda x: ours_of(units)(x))
  _, haiku_gradient = gradient(haiku)
  params = jax.jit(ours.init)(jax.random.key(0), x)
  (own,) = params.values()
  if layer == 'gru':
    # Theirs are z, r, a with 1 - z for our z: only as many sums, not the same.
    theirs = {
      'gru': {
        'w_i': own['w_x'],
        'w_h': jnp.concatenate([own['w_h'], own['w_a']], axis=1),
        'b': own['b'],
      }
    }
    return {
      'ours': lambda: ours_gradient(params, x),
      'haiku': lambda: haiku_gradient(theirs, x),
    }
  # Haiku adds 1 to the forget gate, the third of four.
  shift = jnp.repeat(jnp.array([0.0, 0.0, 1.0, 0.0]), units)
  both = jnp.concatenate([own['w_x'], own['w_h']])
  theirs = {'lstm/linear': {'w': both, 'b': own['b'] - shift}}

  def as_theirs(gradients):
    (g,) = gradients.values()
    return [jnp.concatenate([g['w_x'], g['w_h']]), g['b']]

  def in_order(gradients):
    return [gradients['lstm/linear'][name] for name in ('w', 'b')]

  arms = {
    'ours': lambda: as_theirs(ours_gradient(params, x)),
    'haiku': lambda: in_order(haiku_gradient(theirs, x)),
  }
  if HAS_TORCH:
    arms['torch'] = torch_lstm(own, x)
  return arms


def torch_lstm(own: dict[str, jax.Array], x: jax.Array) -> Callable[[], Any]:
  """nn.LSTM with our weights."""
  pt, units = torch(), x.shape[2]
  lstm = pt.nn.LSTM(units, units)

  def exchange(w):  # our order is i, g, f, o, theirs i, f, g, o
    i, g, f, o = np.split(np.asarray(w), 4, axis=-1)
    return np.concatenate([i, f, g, o], axis=-1)

  with pt.no_grad():
    for name, w in (
      ('weight_ih_l0', exchange(own['w_x']).T),
      ('weight_hh_l0', exchange(own['w_h']).T),
      ('bias_ih_l0', exchange(own['b'])),
      ('bias_hh_l0', 0 * np.asarray(own['b'])),
    ):
      getattr(lstm, name).copy_(pt.tensor(w))
  inputs = pt.tensor(np.swapaxes(np.asarray(x), 0, 1))

  def run():
    lstm.zero_grad(set_to_none=True)
    lstm(inputs)[0].square().mean().backward()
    w = [lstm.weight_ih_l0.grad.numpy().T, lstm.weight_hh_l0.grad.numpy().T]
    return [exchange(np.concatenate(w)), exchange(lstm.bias_ih_l0.grad.numpy())]

  return run


def torch_gpt(config: gpt.Config, params: hk.Params) -> Any:
  """The same transformer as a torch module, with our weights."""
  pt = torch()
  functional = pt.nn.functional

  class Block(pt.nn.Module):
    def __init__(self):
      super().__init__()
      width = config.width
      self.norm_1 = pt.nn.LayerNorm(width, bias=False)
      self.qkv = pt.nn.Linear(width, 3 * width, bias=False)
      self.out = pt.nn.Linear(width, width, bias=False)
      self.norm_2 = pt.nn.LayerNorm(width, bias=False)
      self.mlp_in = pt.nn.Linear(width, 4 * width, bias=False)
      self.mlp_out = pt.nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
      shape = *x.shape[:2], config.heads, config.width // config.heads
      parts = self.qkv(self.norm_1(x)).split(config.width, dim=2)
      query, key, value = (p.view(shape).transpose(1, 2) for p in parts)
      y = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True
      )
      x = x + self.out(y.transpose(1, 2).reshape(x.shape))
      y = self.mlp_in(self.norm_2(x))
      return x + self.mlp_out(functional.gelu(y, approximate='tanh'))

  class GPT(pt.nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = pt.nn.Embedding(VOCABULARY, config.width)
      self.positions = pt.nn.Embedding(config.length, config.width)
      self.blocks = pt.nn.ModuleList(Block() for _ in range(config.layers))
      self.norm = pt.nn.LayerNorm(config.width, bias=False)

    def forward(self, tokens, last=False):
      x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
      for block in self.blocks:
        x = block(x)
      x = self.norm(x)
      return (x[:, -1:] if last else x) @ self.embedding.weight.T

  def fill(module, path):
    for name, child in module.named_children():
      fill(child, [*path, name])
    if not path or not hasattr(module, 'weight'):
      return
    name = '/'.join(path)
    name = name.replace('blocks/', 'block_')
    name = name.replace('qkv', 'attention/qkv').replace('out', 'attention/out')
    name = name.replace('mlp_attention/out', 'mlp_out')
    (w,) = params[name].values()
    w = np.asarray(w)
    is_linear = isinstance(module, pt.nn.Linear)
    module.weight.copy_(pt.tensor(w.T if is_linear else w))

  model = GPT()
  with pt.no_grad():
    fill(model, [])
  return model


def language_model(config: gpt.Config) -> tuple[Any, tuple[hk.Params, Any]]:
  """The network, and weights larger than it starts with."""
  net = gpt.network(config, VOCABULARY)
  tokens = jnp.zeros((1, config.length), jnp.int32)
  weights = jax.jit(net.init)(jax.random.key(0), tokens)
  return net, jax.tree.map(lambda w: 2 * w, weights)


def gpt_step(config: gpt.Config = LAPTOP) -> Arms:
  """Arms that make an update each time and return the loss before it."""
  net, (params, _) = language_model(config)
  draw = np.random.default_rng(0)
  shape = config.batch_size, config.length + 1
  batch = draw.integers(VOCABULARY, size=shape)
  step = jax.jit(gpt.make_step(config, net), donate_argnums=0)
  state = gpt.init(config, net, jax.random.key(0))._replace(
    params=jax.tree.map(jnp.copy, params)
  )
  tokens, key = jnp.int32(batch), jax.random.key(1)

  def ours():
    nonlocal state
    state, metrics = step(state, tokens, key)
    return [metrics['loss']]

  arms: Arms = {'ours': ours}
  if not HAS_TORCH:
    return arms
  pt, model = torch(), torch_gpt(config, params)
  inputs, targets = pt.tensor(batch[:, :-1]), pt.tensor(batch[:, 1:])
  optimizer = pt.optim.AdamW(
    [
      {
        'params': [p for p in model.parameters() if (p.dim() > 1) == decayed],
        'weight_decay': config.weight_decay if decayed else 0.0,
      }
      for decayed in (True, False)
    ],
    lr=config.learning_rate,
    betas=(0.9, config.beta2),
  )
  count = 0

  def theirs():
    nonlocal count
    for group in optimizer.param_groups:
      group['lr'] = warmed_up(config, count)
    count += 1
    optimizer.zero_grad(set_to_none=True)
    logits = model(inputs)
    loss = pt.nn.functional.cross_entropy(
      logits.view(-1, VOCABULARY), targets.reshape(-1)
    )
    loss.backward()
    pt.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return [loss.detach().numpy()]

  return arms | {'torch': theirs}


def warmed_up(config: gpt.Config, count: int) -> float:
  """The learning rate of update `count`: a line, and then a cosine."""
  low = config.learning_rate / (config.warmup + 1)
  if count < config.warmup:
    return low + count / config.warmup * (config.learning_rate - low)
  done = (count - config.warmup) / max(1, config.steps - config.warmup)
  wave = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
  return config.final_learning_rate + wave * (
    config.learning_rate - config.final_learning_rate
  )


def generate(lanes: int, new: int = NEW, config: gpt.Config = LAPTOP) -> Arms:
  """Arms that return the greedy continuation of one token."""
  net, weights = language_model(config)
  prompt = np.arange(lanes)[:, None] % VOCABULARY

  def ours(cache):
    return lambda: [
      generation.generate(
        net, weights, prompt, new, method='greedy', cache=cache
      ).tokens
    ]

  arms: Arms = {'ours': ours(True), 'whole': ours(False)}
  if not HAS_TORCH:
    return arms
  pt, model = torch(), torch_gpt(config, weights[0])

  def theirs():
    tokens = pt.tensor(prompt)
    with pt.no_grad():
      for _ in range(new):
        best = model(tokens, last=True)[:, -1].argmax(-1, keepdim=True)
        tokens = pt.cat([tokens, best], dim=1)
    return [tokens[:, 1:].numpy()]

  return arms | {'torch': theirs}


# Arms, the peers with their bars, and tokens of a call: speeds, not times.
CASES: dict[str, tuple[Callable[..., Arms], dict[str, float | None], int]] = {
  'lstm': (lambda **s: recurrent('lstm', **s), {'haiku': 1.6, 'torch': 1}, 0),
  'gru': (lambda **s: recurrent('gru', **s), {'haiku': None}, 0),
  'gpt_step': (gpt_step, {'torch': 1.15}, 0),
  'generate_1': (
    lambda **s: generate(1, **s),
    {'torch': 6, 'whole': None},
    NEW,
  ),
  'generate_16': (
    lambda **s: generate(16, **s),
    {'torch': 35, 'whole': None},
    16 * NEW,
  ),
}


def peer_name(peer: str) -> str:
  """With its version."""
  if peer == 'torch':
    return f'torch {torch().__version__}, eager'
  if peer == 'haiku':
    return f'haiku {hk.__version__}'
  return 'ours, the whole sequence for each token'


def measure(
  name: str, rounds: int = 31, **sizes: Any
) -> Iterator[dict[str, Any]]:
  """The lines of a case, one for each peer.

  Args:
    name: of the case.
    rounds: how often each arm is timed.
    sizes: arguments of the case.
  """
  make, peers, tokens = CASES[name]
  arms = make(**sizes)
  first = {arm: run() for arm, run in arms.items()}  # and compiled
  times = timing.interleave(arms, rounds, clock=time.process_time)
  values = {
    arm: 1e3 * tokens / time if tokens else time for arm, time in times.items()
  }
  for peer, bar in peers.items():
    line = {
      'name': name,
      'unit': 'tokens/s' if tokens else 'ms',
      'ours': values['ours'],
    }
    if peer not in arms:
      yield line | {
        'peer': 'torch, not installed: pip install dl_lectures[benchmarks]',
        'peer_value': None,
        'ratio': None,
        'bar': bar,
        'met': None,
      }
      continue
    ratio = times[peer] / times['ours']
    yield line | {
      'peer': peer_name(peer),
      'peer_value': values[peer],
      'ratio': ratio,
      'largest_difference': difference(first['ours'], first[peer]),
      'bar': bar,
      'met': None if bar is None else ratio >= bar,
    }


def difference(ours: Any, theirs: Any) -> float | None:
  """The largest, relative to the largest number; None of other networks."""
  if not isinstance(ours, list):
    return None
  return max(
    float(np.max(np.abs(np.float64(a) - np.float64(b))) / np.max(np.abs(b)))
    for a, b in zip(ours, theirs, strict=True)
  )


def main() -> None:
  """Prints one line a measurement."""
  names = timing.cases_to_run(__doc__, CASES)
  timing.on_one_core()
  host.tune_allocator()
  host.enable_compile_cache()
  for name in names:
    for line in measure(name):
      timing.show(line)


if __name__ == '__main__':
  main()
