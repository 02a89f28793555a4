/* An exact solver of Connect Four (seven columns, six rows).

   Reads positions from standard input, one a line, as the columns played
   (1-7, possibly none at all) and answers each with a line of seven integers:
   the score of dropping a stone in each column, seen by the player to move.

   Scores are those of Pons (http://blog.gamesolver.org): 0 is a draw, +k a win
   with the winner's k-th stone from his last (each player has 21, so a win
   with the very last one is +1), negative the same for a loss; a full column
   is -100. A position followed by "?" is answered with its own score alone, the
   greatest of the seven, found much sooner. A line that is illegal or over is
   answered with "error: ...".

   How it solves: null-window alpha-beta over bitboards. A move that lets the
   opponent win at once is never searched; moves are tried in the order of the
   threats they make, then from the centre outwards; a transposition table
   keeps a lower and an upper bound of each position, and is asked about every
   reply before the first is searched; a position in which answering each stone
   by the square above it (Allis's claimeven) is enough for the second player
   not to lose is not searched for a win of the first. The exact score comes
   from narrowing its interval by null windows.

   Build: cc -O3 -march=native -o solver connect_four_solver.c
   Use:   echo 44444 | ./solver [log2 of the number of table entries, 24] */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 7, HEIGHT = 6, CELLS = WIDTH * HEIGHT, ILLEGAL = -100 };

typedef uint64_t Board;

/* Square (column, row) is bit 7 * column + row; each column's seventh bit
   stays empty, so that a shifted line never runs into the next column. */
#define STRIDE (HEIGHT + 1)
#define BOTTOM (UINT64_C(0x0040810204081)) /* row 0 of every column */
#define ALL (BOTTOM * ((1 << HEIGHT) - 1))
#define ODD_ROWS (BOTTOM * 0x15) /* the first, third and fifth row */
#define COLUMN(c) ((Board)((1 << HEIGHT) - 1) << ((c) * STRIDE))

static int has_four(Board stones) {
  static const int shifts[4] = {1, STRIDE - 1, STRIDE, STRIDE + 1};
  for (int i = 0; i < 4; ++i) {
    const Board pairs = stones & (stones >> shifts[i]);
    if (pairs & (pairs >> (2 * shifts[i]))) return 1;
  }
  return 0;
}

/* The empty squares that would complete four of `stones`. */
static inline Board winning_squares(Board stones, Board mask) {
  Board found = (stones << 1) & (stones << 2) & (stones << 3);
  for (int shift = STRIDE - 1; shift <= STRIDE + 1; ++shift) {
    const Board up = (stones << shift) & (stones << 2 * shift);
    const Board down = (stones >> shift) & (stones >> 2 * shift);
    found |= up & (stones << 3 * shift);  /* xxx_ */
    found |= up & (stones >> shift);      /* xx_x */
    found |= down & (stones << shift);    /* x_xx */
    found |= down & (stones >> 3 * shift);  /* _xxx */
  }
  return found & (ALL & ~mask);
}

static inline Board playable(Board mask) { return (mask + BOTTOM) & ALL; }

static Board mirrored(Board key) {
  Board result = 0;
  for (int column = 0; column < WIDTH; ++column) {
    result = (result << STRIDE) | (key & ((1 << STRIDE) - 1));
    key >>= STRIDE;
  }
  return result;
}

/* The transposition table: two entries a bucket, each a key (49 bits) above
   its bounds (6 bits each, from -21). The first of a bucket keeps the position
   with the fewer stones, whose search was dearer; the second takes the rest. */
typedef struct {
  Board entry[2];
} Bucket;

static Bucket *table;
static uint64_t table_mask;
static uint64_t nodes;

#define PACK(key, low, high) \
  ((key) << 12 | (Board)((low) + 21) << 6 | (Board)((high) + 21))
#define LOW(entry) ((int)((entry) >> 6 & 63) - 21)
#define HIGH(entry) ((int)((entry) & 63) - 21)

static inline Bucket *bucket_of(Board key) {
  return &table[(key * UINT64_C(0x9E3779B97F4A7C15)) >> 20 & table_mask];
}

/* Mover's stones plus all stones name a position uniquely, because a column's
   stones are below its height. Late positions skip the mirror: it costs more
   than the few transpositions it finds. */
static inline Board key_of(Board mover, Board mask, int ply) {
  const Board key = mover + mask;
  if (ply > 14) return key;
  const Board other = mirrored(key);
  return other < key ? other : key;
}

static inline int stones_in_key(Board entry) {
  /* A column of height h adds to a key a number in [2^h - 1, 2^(h+1) - 2]. */
  int stones = 0;
  for (Board key = (entry >> 12) + BOTTOM; key; key >>= STRIDE) {
    stones += 31 - __builtin_clz((unsigned)(key & ((1 << STRIDE) - 1)) | 1);
  }
  return stones;
}

static inline void remember(Bucket *bucket, Board key, int ply, Board entry) {
  Board *place = &bucket->entry[1];
  if (bucket->entry[0] >> 12 == key || !bucket->entry[0] ||
      stones_in_key(bucket->entry[0]) >= ply) {
    place = &bucket->entry[0];
  }
  if (place == &bucket->entry[0] && *place >> 12 != key) {
    bucket->entry[1] = *place;
  }
  *place = entry;
}

/* With the second player to reply, squares pair up: each odd-row square with
   the one above it. Answering in the pair, he keeps every even-row square but
   those already playable (an even number of them, which he answers among
   themselves). If even with all of these the first player has no four, he
   cannot win. */
static inline int first_cannot_win(Board first, Board mask) {
  const Board singles = playable(mask) & ~ODD_ROWS;
  return !has_four(first | (ALL & ~mask & ODD_ROWS) | singles);
}

/* Is the score above alpha? Returns a lower bound above alpha, or an upper
   bound not above it. The mover must have no win at once. */
static int search(Board mover, Board mask, int ply, int alpha) {
  ++nodes;
  const Board opponent = mover ^ mask;
  Board moves = playable(mask);
  const Board threats = winning_squares(opponent, mask);
  const Board forced = moves & threats;
  if (forced) {
    if (forced & (forced - 1)) return -(CELLS - ply) / 2;
    moves = forced;
  }
  moves &= ~(threats >> 1); /* never below a square the opponent wins on */
  if (!moves) return -(CELLS - ply) / 2;
  if (ply >= CELLS - 2) return 0;

  int low = -(CELLS - 2 - ply) / 2;
  int high = (CELLS - 1 - ply) / 2;
  if (low > alpha) return low;
  if (high <= alpha) return high;
  const Board key = key_of(mover, mask, ply);
  Bucket *const bucket = bucket_of(key);
  for (int i = 0; i < 2; ++i) {
    const Board entry = bucket->entry[i];
    if (entry >> 12 != key) continue;
    if (LOW(entry) > alpha) return LOW(entry);
    if (HIGH(entry) <= alpha) return HIGH(entry);
    low = LOW(entry);
    high = HIGH(entry);
    break;
  }
  if (alpha >= 0 && ply % 2 == 0 && first_cannot_win(mover, mask)) return 0;

  /* Many squares from the end, a stored refutation is worth looking for. */
  if (ply < 32) {
    for (Board left = moves; left; left &= left - 1) {
      const Board after = mask | (left & -left);
      const Board reply_key = key_of(opponent, after, ply + 1);
      const Bucket *const stored = bucket_of(reply_key);
      for (int i = 0; i < 2; ++i) {
        const Board entry = stored->entry[i];
        if (entry >> 12 == reply_key && -HIGH(entry) > alpha) {
          return -HIGH(entry);
        }
      }
    }
  }

  Board order[WIDTH];
  int weight[WIDTH];
  int count = 0;
  for (Board left = moves; left; left &= left - 1) {
    const Board move = left & -left;
    const int square = __builtin_ctzll(move);
    const Board wins = winning_squares(mover | move, mask | move);
    const int value = 64 * __builtin_popcountll(wins) -
                      8 * abs(square / STRIDE - WIDTH / 2) + square % STRIDE;
    int at = count++;
    for (; at && weight[at - 1] < value; --at) {
      weight[at] = weight[at - 1];
      order[at] = order[at - 1];
    }
    weight[at] = value;
    order[at] = move;
  }
  int best = -(CELLS - ply) / 2;
  for (int i = 0; i < count && best <= alpha; ++i) {
    const int value = -search(opponent, mask | order[i], ply + 1, -alpha - 1);
    if (value > best) best = value;
  }
  if (best > alpha) {
    low = best;
  } else {
    high = best;
  }
  remember(bucket, key, ply, PACK(key, low, high));
  return best;
}

/* The exact score for the player to move; the opponent has no four. */
static int solve(Board mover, Board mask, int ply) {
  if (ply == CELLS) return 0;
  if (winning_squares(mover, mask) & playable(mask)) {
    return (CELLS + 1 - ply) / 2;
  }
  int low = -(CELLS - ply) / 2;
  int high = (CELLS + 1 - ply) / 2;
  while (low < high) {
    /* Windows near 0 first: they are the cheapest, and prune the rest. */
    int middle = low + (high - low) / 2;
    if (middle <= 0 && low / 2 < middle) middle = low / 2;
    if (middle >= 0 && high / 2 > middle) middle = high / 2;
    const int value = search(mover, mask, ply, middle);
    if (value > middle) {
      low = value;
    } else {
      high = value;
    }
  }
  return low;
}

/* Plays `text`; an error message, or NULL. */
static const char *play(const char *text, Board *mover, Board *mask,
                        int *ply) {
  *mover = *mask = 0;
  *ply = 0;
  for (; *text; ++text, ++*ply) {
    const int column = *text - '1';
    if (column < 0 || column >= WIDTH) return "a move is not in 1-7";
    if (has_four(*mover ^ *mask)) return "a move after the end";
    const Board move = (*mask + BOTTOM) & COLUMN(column);
    if (!move) return "the column is full";
    *mover ^= *mask; /* the opponent is to move next, without this stone */
    *mask |= move;
  }
  if (has_four(*mover ^ *mask) || *ply == CELLS) return "the game is over";
  return NULL;
}

int main(int argc, char **argv) {
  const int bits = argc > 1 ? atoi(argv[1]) : 24;
  if (argc > 2 || bits < 10 || bits > 36) {
    fprintf(stderr, "usage: %s [log2 of table entries, 10 to 36] <positions\n",
            argv[0]);
    return 2;
  }
  table_mask = (UINT64_C(1) << (bits - 1)) - 1;
  table = calloc(table_mask + 1, sizeof *table);
  if (!table) {
    fprintf(stderr, "no memory for a table of 2^%d entries\n", bits);
    return 2;
  }
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    char *const question = strchr(line, '?');
    if (question) *question = 0;
    Board mover, mask;
    int ply;
    const char *const error = play(line, &mover, &mask, &ply);
    if (error) {
      printf("error: %s\n", error);
      fflush(stdout);
      continue;
    }
    if (question) {
      printf("%d\n", solve(mover, mask, ply));
      fflush(stdout);
      continue;
    }
    for (int column = 0; column < WIDTH; ++column) {
      const Board move = (mask + BOTTOM) & COLUMN(column);
      int score = ILLEGAL;
      if (move) {
        score = has_four(mover | move)
                    ? (CELLS + 1 - ply) / 2
                    : -solve(mover ^ mask, mask | move, ply + 1);
      }
      printf(column ? " %d" : "%d", score);
    }
    printf("\n");
    fflush(stdout);
  }
  fprintf(stderr, "%llu nodes\n", (unsigned long long)nodes);
  return 0;
}
