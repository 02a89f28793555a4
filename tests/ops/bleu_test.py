"""BLEU by hand, and against sacrebleu."""

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.ops import bleu
from dl_lectures.types import UsageError


def test_the_papers_example():
  # Papineni et al., section 2.1: 'the' stands twice in the reference.
  counts = bleu.count(['the ' * 7], ['The cat is on the mat and the dog'])
  assert counts[0].tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 9]


def test_a_score_by_hand():
  # 5 of 6 words, 3 of 5 pairs, 2 of 4, 1 of 3; as long as the reference.
  counts = bleu.count(['the cat sat on the mat'], ['the cat sat on a mat'])
  found = bleu.score(counts.sum(0))
  np.testing.assert_allclose(found.precisions, [5 / 6, 3 / 5, 2 / 4, 1 / 3])
  np.testing.assert_allclose(found.value, 100 * (5 / 6 * 3 / 5 / 2 / 3) ** 0.25)
  assert found.brevity_penalty == 1
  shorter = bleu.score(bleu.count(['a b c d'], ['a b c d e f']).sum(0))
  np.testing.assert_allclose(shorter.value, 100 * math.exp(-0.5))


WORDS = st.text('ab.,-3 "\'&;(ltamp)é', max_size=24)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_it_is_sacrebleus(pairs):
  ours, theirs = map(list, zip(*pairs, strict=True))
  found = bleu.score(bleu.count(ours, theirs).sum(0))
  wanted = sacrebleu.corpus_bleu(ours, [theirs])
  np.testing.assert_allclose(found.value, wanted.score, atol=1e-8)


def test_it_is_sacrebleus_on_sentences():
  references = [
    'A group of men are loading cotton onto a truck.',
    'A boy wearing "headphones" sits on a woman\'s shoulders, at 3.5 m.',
    'Two dogs play in the snow',
  ]
  ours = [
    'A group of men is loading cotton onto a truck.',
    'A boy with headphones sits on the shoulders of a woman.',
    'Two dogs are playing in the snow.',
  ]
  found = bleu.score(bleu.count(ours, references).sum(0))
  wanted = sacrebleu.corpus_bleu(ours, [references])
  np.testing.assert_allclose(found.value, wanted.score, rtol=1e-10)
  np.testing.assert_allclose(
    100 * np.array(found.precisions), wanted.precisions, rtol=1e-10
  )
  np.testing.assert_allclose(found.brevity_penalty, wanted.bp, rtol=1e-10)


@pytest.mark.parametrize(('ours', 'theirs'), [([], []), (['a'], [])])
def test_what_is_refused(ours, theirs):
  with pytest.raises(UsageError, match='translations and 0 references'):
    bleu.count(ours, theirs)
