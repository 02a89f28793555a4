"""A function as its computational graph, with the Jacobian of every step.

Slides: deck 004, "Neural networks as computational graphs": boxes that compute,
arrows that carry values one way and gradients the other. Any function that JAX
can trace is such a graph already, its jaxpr; here it is taken out, evaluated
node by node, and drawn. By the chain rule the sum over all paths of the product
of the local Jacobians is the Jacobian of the whole (`chain` does just that, and
the tests compare it with JAX's own).

  >>> def loss(w, x):
  ...   return jnp.sum(jnp.tanh(x @ w))
  >>> graph = trace(loss, jnp.ones((2, 3)), jnp.ones(2))
  >>> [node.name for node in graph.nodes]
  ['dot_general', 'tanh', 'reduce_sum']
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dl_lectures.types import Array

# Calls that are looked into: what they call stands in their place.
_CALLS = ('jit', 'pjit', 'custom_jvp_call', 'custom_vjp_call', 'closed_call')


class Node(NamedTuple):
  """One operation.

  Attributes:
    name: of the operation.
    inputs: the numbers of the values that it reads.
    output: the number of the value that it makes.
    function: (*values) -> value.
  """

  name: str
  inputs: tuple[int, ...]
  output: int
  function: Callable[..., Array]


class Graph(NamedTuple):
  """A function taken apart.

  Attributes:
    nodes: in an order in which they may be computed.
    values: number -> value, for the inputs traced with and all that follows.
    inputs: numbers of the function's inputs, by their names.
    outputs: numbers of what it returns.
    constants: numbers of what it brings along.
  """

  nodes: list[Node]
  values: dict[int, Array]
  inputs: dict[str, int]
  outputs: list[int]
  constants: list[int]


def trace(function: Callable[..., Any], *arguments: Any) -> Graph:
  """Takes a function apart, at some arguments.

  Args:
    function: of arrays or trees of them, such as a Haiku network's `apply`
      with its parameters. Loops (`lax.scan` and the like) stay one node.
    *arguments: its arguments; each array in them is an input, named by its
      path, such as 'params.linear.w', or '1' where an argument has no name.

  Returns:
    The graph, with all values.
  """
  leaves = jax.tree_util.tree_leaves_with_path(arguments)
  told = _argument_names(function, len(arguments))
  names = [
    '.'.join(
      [
        told[path[0].idx],
        *(jax.tree_util.keystr((part,), simple=True) for part in path[1:]),
      ]
    )
    for path, _ in leaves
  ]
  closed = jax.make_jaxpr(function)(*arguments)
  graph = Graph([], {}, {}, [], [])

  def add(value: Any) -> int:
    graph.values[len(graph.values)] = jnp.asarray(value)
    return len(graph.values) - 1

  inputs = [add(leaf) for _, leaf in leaves]
  graph.inputs.update(zip(names, inputs, strict=True))
  graph.outputs.extend(_add_nodes(graph, add, closed, inputs))
  return graph


def _argument_names(function: Callable, count: int) -> list[str]:
  """Those of a function's arguments that have one, else their numbers."""
  numbers = list(map(str, range(count)))
  try:
    # What a wrapper wraps may have other arguments than it.
    told = inspect.signature(function, follow_wrapped=False)
  except ValueError:
    return numbers
  known = [
    parameter.name
    for parameter in told.parameters.values()
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
  ]
  return (known + numbers[len(known) :])[:count]


def _add_nodes(
  graph: Graph,
  add: Callable[[Any], int],
  closed: Any,
  inputs: Sequence[int],
) -> list[int]:
  """Adds what a jaxpr computes; returns the numbers of its outputs."""
  numbers: dict[Any, int] = dict(zip(closed.jaxpr.invars, inputs, strict=True))

  def constant(value: Any) -> int:
    number = add(value)
    graph.constants.append(number)
    return number

  def number_of(atom: Any) -> int:
    # A literal has its value with it.
    return constant(atom.val) if hasattr(atom, 'val') else numbers[atom]

  for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
    numbers[var] = constant(value)
  for equation in closed.jaxpr.eqns:
    read = [number_of(atom) for atom in equation.invars]
    inner = _inner(equation)
    if inner is not None:
      made = _add_nodes(graph, add, inner, read)
      numbers.update(zip(equation.outvars, made, strict=True))
      continue
    for which, var in enumerate(equation.outvars):
      run = functools.partial(_run, equation, which)
      output = add(run(*(graph.values[number] for number in read)))
      name = equation.primitive.name
      graph.nodes.append(Node(name, tuple(read), output, run))
      numbers[var] = output
  return [number_of(atom) for atom in closed.jaxpr.outvars]


def _inner(equation: Any) -> Any:
  """The closed jaxpr that a call calls; None for an operation of its own."""
  if equation.primitive.name not in _CALLS:
    return None
  for name in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    inner = equation.params.get(name)
    if inner is not None:
      return inner
  return None


def _run(equation: Any, which: int, *values: Array) -> Array:
  """One equation of a jaxpr, of its outputs one."""
  found = equation.primitive.bind(*values, **equation.params)
  return found[which] if equation.primitive.multiple_results else found


def local_jacobians(graph: Graph, node: Node) -> list[np.ndarray | None]:
  """A node's derivatives by each of its inputs.

  Args:
    graph: that it is in.
    node: of it.

  Returns:
    For each input [size of the output, size of the input]; None where there is
    no derivative, because the input is not of floating point numbers.
  """
  values = [graph.values[number] for number in node.inputs]
  output = graph.values[node.output]
  found: list[np.ndarray | None] = []
  for which, value in enumerate(values):
    if not _is_float(value) or not _is_float(output):
      found.append(None)
      continue
    jacobian = jax.jacrev(node.function, argnums=which)(*values)
    found.append(np.asarray(jacobian).reshape(output.size, value.size))
  return found


def chain(graph: Graph, output: int) -> Mapping[int, np.ndarray]:
  """The chain rule from a value back to all that it depends on.

  Args:
    graph: any.
    output: a value's number.

  Returns:
    Number -> [size of the output, size of that value], for each value that the
    output depends on, itself included: delta, of all numbers of the output.
  """
  size = graph.values[output].size
  found = {output: np.eye(size)}
  for node in reversed(graph.nodes):
    if node.output not in found:
      continue
    delta = found[node.output]
    jacobians = local_jacobians(graph, node)
    for number, jacobian in zip(node.inputs, jacobians, strict=True):
      if jacobian is not None:
        found[number] = found.get(number, 0) + delta @ jacobian
  return found


def draw(graph: Graph, jacobians: bool = True) -> Figure:
  """The graph: values flow up, gradients down.

  Args:
    graph: any; one of more than some thirty nodes gets crowded.
    jacobians: whether each arrow bears the shape and the norm of its local
      Jacobian.
  """
  level = dict.fromkeys(graph.values, 0)
  for node in graph.nodes:
    level[node.output] = 1 + max((level[n] for n in node.inputs), default=0)
  # Constants stand just below who reads them, and so do inputs.
  made = {node.output for node in graph.nodes}
  for node in graph.nodes:
    for number in node.inputs:
      if number not in made:
        above = [level[n.output] for n in graph.nodes if number in n.inputs]
        level[number] = min(above) - 1
  used = {n for node in graph.nodes for n in (*node.inputs, node.output)}
  used |= {*graph.inputs.values(), *graph.outputs}
  rows: dict[int, list[int]] = {}
  for number in sorted(used):
    rows.setdefault(level[number], []).append(number)
  place = {
    # Staggered: an arrow over several levels does not run through boxes.
    number: ((i + 1) / (len(row) + 1) + 0.06 * (height % 3 - 1), height)
    for height, row in rows.items()
    for i, number in enumerate(row)
  }
  widest = max(map(len, rows.values()))
  figure = Figure(
    figsize=(max(5.0, 2.2 * widest), 1.0 + 0.95 * len(rows)),
    layout='constrained',
  )
  axes = figure.subplots()
  names = {number: name for name, number in graph.inputs.items()}
  names |= {node.output: node.name for node in graph.nodes}
  for node in graph.nodes:
    found = local_jacobians(graph, node) if jacobians else []
    for which, number in enumerate(node.inputs):
      start, end = place[number], place[node.output]
      axes.annotate(
        '',
        end,
        start,
        arrowprops={
          'arrowstyle': '-|>',
          'color': '0.5',
          'shrinkA': 14,
          'shrinkB': 14,
        },
      )
      if jacobians and found[which] is not None:
        matrix = found[which]
        assert matrix is not None
        axes.text(
          0.45 * start[0] + 0.55 * end[0],
          0.45 * start[1] + 0.55 * end[1],
          f'{matrix.shape[0]}x{matrix.shape[1]}, '
          f'|J| {np.linalg.norm(matrix):.2g}',
          fontsize=7,
          color='C3',
          ha='center',
        )
  for number, (x, y) in place.items():
    value = graph.values[number]
    shape = 'x'.join(map(str, value.shape)) or 'scalar'
    name = names.get(number, 'constant')
    color = 'C0' if number in made else ('C2' if number in names else '0.6')
    axes.text(
      x,
      y,
      f'{name}\n{shape}',
      ha='center',
      va='center',
      fontsize=8,
      color='w',
      bbox={'boxstyle': 'round', 'facecolor': color, 'edgecolor': 'none'},
    )
  axes.set(xlim=(0, 1), ylim=(min(rows) - 0.5, max(rows) + 0.5))
  axes.axis('off')
  return figure


def _is_float(value: Array) -> bool:
  return bool(jnp.issubdtype(value.dtype, jnp.floating))
