"""Packs the protein chains that ship: dl_lectures/data/tables/proteins.npz.

Reads a directory with `structures.csv` (columns id, carrier_permissive,
suggested_split, source_repo, source_path) and `structures/ID.pdb`, keeps the
chains whose carriers allow it, and writes beside the table where each of them
comes from.

  python -m scripts.pack_proteins DIRECTORY
"""

import csv
import pathlib
import sys

import numpy as np

from dl_lectures.data import proteins

TABLES = pathlib.Path(proteins.__file__).parent / 'tables'

# What the carriers' own files say, read in each repository.
NOTICE = """\
proteins.npz: backbone and CB coordinates of {count} protein chains.

The coordinates are those of the Protein Data Bank (wwPDB), which dedicates its
data to the public domain under CC0 1.0,
https://creativecommons.org/publicdomain/zero/1.0/. wwPDB asks that the authors
of an entry be credited: each is found at https://doi.org/10.2210/pdbXXXX/pdb,
where XXXX is the first four letters of the name.

The files were carried by these repositories, all under permissive licences:

"""


def main(directory: str) -> None:
  """Reads the chains and writes the table and its notice."""
  root = pathlib.Path(directory)
  with open(root / 'structures.csv', newline='', encoding='utf-8') as file:
    rows = [r for r in csv.DictReader(file) if r['carrier_permissive'] == 'yes']
  rows.sort(key=lambda row: row['id'])
  chains = {}
  for row in rows:
    path = root / 'structures' / f'{row["id"]}.pdb'
    chain = proteins.read_structure(path)
    if chain.sequence != row['sequence']:
      raise ValueError(f'{path} is not what the table says')
    chains[row['id']] = chain
  arrays = proteins.pack(chains)
  arrays['is_test'] = np.array([r['suggested_split'] == 'test' for r in rows])
  # pyrefly: ignore[bad-argument-type]
  np.savez_compressed(TABLES / 'proteins.npz', **arrays)
  lines = [f'{r["id"]:<8}{r["source_repo"]}: {r["source_path"]}' for r in rows]
  (TABLES / 'proteins_LICENSE.txt').write_text(
    NOTICE.format(count=len(rows)) + '\n'.join(lines) + '\n'
  )
  print(f'{len(rows)} chains')


if __name__ == '__main__':
  main(*sys.argv[1:])
