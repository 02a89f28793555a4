"""Translators that only count."""

from dl_lectures.analysis import translation


def test_the_dictionary_prefers_what_few_others_meet():
  sources = ['ein Hund', 'ein Kind', 'der Hund bellt', 'ein Hund']
  targets = ['a dog', 'a child', 'the dog barks', 'a dog']
  meanings = translation.dictionary(sources, targets)
  # By hand: Hund and dog, 2 * 3 / (3 + 3); Hund and a, 2 * 2 / (3 + 3).
  assert meanings['▁Hund'] == '▁dog'
  assert meanings['▁ein'] == '▁a'
  line = translation.word_by_word(meanings, 'ein Hund, der Kind')
  assert line == 'a dog, the child'


def test_the_most_frequent_line_is_the_first_of_those():
  assert translation.most_frequent(['b', 'a', 'a', 'b']) == 'b'
