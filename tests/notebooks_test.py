"""Every notebook runs from top to bottom, in this environment."""

import pathlib
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
CELL_SECONDS = 300
# Minutes of compiling: these run with the slow tests.
SLOW = (
  'alphafold',
  'capture_the_flag',
  'foundations',
  'games',
  'molecules',
  'rudder',
  'sequences',
)


def is_installation(cell: nbformat.NotebookNode) -> bool:
  return cell.cell_type == 'code' and 'pip install' in cell.source


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(
      path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)
    )
    for path in NOTEBOOKS
  ],
)
def test_notebook_runs(
  path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  # Its type covers formats older than 4, which this one is not.
  notebook: Any = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  # Colab has to install the library first; here it is installed.
  assert [cell for cell in code if is_installation(cell)] == code[:1]
  notebook.cells.remove(code[0])

  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  client = nbclient.NotebookClient(
    notebook,
    timeout=CELL_SECONDS,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  )
  client.execute()  # raises the error of a cell that fails

  images = [
    output
    for cell in code[1:]
    for output in cell.outputs
    if 'image/png' in output.get('data', {})
  ]
  assert images, 'a lecture without a picture'
