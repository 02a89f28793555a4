"""Packs the designed alignments that ship: dl_lectures/data/tables/designs.npz.

Reads a directory with `msa.csv` (columns file, structure, kind, source) and
`msa/FILE`, keeps the designs that have as many columns as the chain of their
structure that ships has residues, and writes beside the table where each comes
from, with the licence.

  python -m scripts.pack_designs DIRECTORY
"""

import csv
import pathlib
import sys

import numpy as np

from dl_lectures.data import proteins

TABLES = pathlib.Path(proteins.__file__).parent / 'tables'

NOTICE = """\
designs.npz: {count} alignments of sequences designed by Rosetta.

They were made for Ollikainen & Kortemme, "Computational protein design
quantifies structural constraints on amino acid covariation", PLoS Computational
Biology 9 (2013), with flexible backbones (backrub, kT .9), and are published at
https://github.com/Kortemme-Lab/covariation under the licence below.

{lines}

The MIT License (MIT)

Copyright (c) 2015 Noah Ollikainen

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in
all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN
THE SOFTWARE.
"""


def main(directory: str) -> None:
  """Reads the alignments and writes the table and its notice."""
  root = pathlib.Path(directory)
  with open(root / 'msa.csv', newline='', encoding='utf-8') as file:
    rows = [r for r in csv.DictReader(file) if 'designs' in r['kind']]
  rows.sort(key=lambda row: row['structure'])
  chains = proteins.load()
  arrays, lines = {}, []
  for row in rows:
    name = row['structure']
    made = proteins.read_alignment(root / 'msa' / row['file'])
    if name in chains and len(chains[name].sequence) == made.rows.shape[1]:
      arrays[name] = made.rows
      lines.append(f'{name}  {row["source"]}')
  np.savez_compressed(TABLES / 'designs.npz', **arrays)
  (TABLES / 'designs_LICENSE.txt').write_text(
    NOTICE.format(count=len(arrays), lines='\n'.join(lines))
  )
  print(f'{len(arrays)} alignments')


if __name__ == '__main__':
  main(*sys.argv[1:])
