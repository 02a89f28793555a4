"""A training step for a system with a single loss.

A system with more than one loss writes its own step with the same signature,
`(state, batch, key) -> (state, metrics)`.
"""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from dl_lectures.types import Array, Key, Metrics, StepFn, TrainState

# (params, net_state, key, batch) -> (loss [], (net_state, metrics))
LossFn = Callable[
  [optax.Params, hk.MutableState, Key, Any],
  tuple[Array, tuple[hk.MutableState, Metrics]],
]


def init_state(
  params: optax.Params,
  net_state: hk.MutableState,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """The state before the first update.

  Args:
    params: the network's initial parameters.
    net_state: its initial state, `{}` where it has none.
    optimizer: the optimiser that `make_step` is given too.

  Returns:
    A TrainState at step 0.
  """
  return TrainState(
    params, net_state, optimizer.init(params), jnp.zeros((), jnp.int32)
  )


def make_step(
  loss_fn: LossFn, optimizer: optax.GradientTransformation
) -> StepFn:
  """One gradient step on a loss: pure, not jitted.

  The key is the run's own, the same at every call: the step folds its counter
  into it, so a run that is stopped and resumed draws what an uninterrupted run
  draws.

  Args:
    loss_fn: (params, net_state, key, batch) -> (loss, (net_state, metrics)),
      the loss a scalar mean over the batch.
    optimizer: an optax gradient transformation.

  Returns:
    (state, batch, key) -> (state, metrics). To the metrics of the loss it adds
    `loss` and `grad_norm`, the global Euclidean norm of the gradient; a
    gradient that is not finite shows there before it reaches the loss.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> def loss_fn(params, net_state, key, batch):
    ...   return jnp.mean((params['w'] * batch - 6.0) ** 2), (net_state, {})
    >>> optimizer = optax.sgd(0.25)
    >>> step = make_step(loss_fn, optimizer)
    >>> state = init_state({'w': jnp.array(0.0)}, {}, optimizer)
    >>> state, metrics = step(state, jnp.array([2.0]), jax.random.key(0))
    >>> float(metrics['loss']), float(metrics['grad_norm'])
    (36.0, 24.0)
    >>> float(state.params['w']), int(state.step)
    (6.0, 1)
  """

  def step(
    state: TrainState, batch: Any, key: Key
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (net_state, metrics)), grads = grad_fn(
      state.params, state.net_state, key, batch
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      **metrics,
    }
    return TrainState(params, net_state, opt_state, state.step + 1), metrics

  return step
