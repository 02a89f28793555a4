"""The SVG of a board, read back as XML."""

from xml.etree import ElementTree

from dl_lectures.envs import drawing

SVG = '{http://www.w3.org/2000/svg}'


def test_a_board_of_three_by_two():
  picture = drawing.board(
    {
      (0, 2): drawing.Piece('<'),
      (1, 0): drawing.Piece('ab', fill='#fff', outline='#000', turned=True),
    },
    columns='xyz',
    rows='21',
    marked=[(0, 0), (0, 1)],
    caption=['a & b', 'to move'],
  )
  root = ElementTree.fromstring(picture)
  width, height = int(root.attrib['width']), int(root.attrib['height'])
  assert root.attrib['viewBox'] == f'0 0 {width} {height}'
  rectangles = root.findall(f'{SVG}rect')
  assert len(rectangles) == 1 + 6
  colours = [rectangle.get('fill') for rectangle in rectangles[1:]]
  # Two marked squares, light and dark, are unlike each other and the rest.
  assert colours[2] == colours[4]
  assert colours[3] == colours[5]
  assert len(set(colours)) == 4
  texts = root.findall(f'{SVG}text')
  assert [text.text for text in texts] == (
    ['<', 'ab', *'xxyyzz', *'2211', 'a & b', 'to move']
  )
  man, turned = texts[:2]
  assert 'transform' not in man.attrib
  assert turned.attrib['transform'].startswith('rotate(180 ')
  assert (turned.attrib['fill'], turned.attrib['stroke']) == ('#fff', '#000')
  # Each on its own square, and two characters smaller than one.
  for text, row, column in ((man, 0, 2), (turned, 1, 0)):
    square = rectangles[1 + 3 * row + column]
    left, size = float(square.attrib['x']), float(square.attrib['width'])
    assert float(text.attrib['x']) == left + size / 2
    top = float(square.attrib['y'])
    assert top < float(text.attrib['y']) < top + size
  assert float(turned.attrib['font-size']) < float(man.attrib['font-size'])
  for text in texts:
    assert 0 < float(text.attrib['x']) < width
    assert 0 < float(text.attrib['y']) < height


def test_a_plain_board_has_one_colour_and_no_caption():
  picture = drawing.board({}, columns='12', rows='ab', chequered=False)
  root = ElementTree.fromstring(picture)
  colours = {r.get('fill') for r in root.findall(f'{SVG}rect')[1:]}
  assert len(colours) == 1
  assert len(root.findall(f'{SVG}text')) == 8
