"""Byte pair encoding: words cut into pieces that are frequent in the training text, so that no word is unknown.

Rico Sennrich, Barry Haddow, Alexandra Birch, *Neural Machine Translation of Rare Words with Subword Units*, ACL 2016:
every word begins as its characters, the last one marked as the end; then, again and again, the pair of neighbours that
is most frequent in the text becomes one piece.
"""

import dataclasses
import functools
import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from seqjax.errors import InputError

END = "</w>"
"""Stands at the end of a word's last piece. A word that has it in writing has a backslash before it, and twice the
backslashes that stood before it or at the word's end."""
_WRITTEN = re.compile(rf"(\\*)({END}|\Z)")
_READ = re.compile(rf"(\\*){END}")

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Subwords:
    """What was learned."""

    merges: tuple[Pair, ...]
    """Pairs that become one piece, in the order in which they do."""

    def cut(self, words: Iterable[str]) -> list[str]:
        """The pieces of words, one after the other; a character that the training text did not have stands alone, and
        an empty word has no pieces."""
        return [piece for word in words for piece in self._pieces(word)]

    @staticmethod
    def words(pieces: Iterable[str]) -> list[str]:
        """Pieces put together, as they were cut; one that was not ended is a word too."""
        joined, found, word, place = "".join(pieces), [], "", 0
        for match in _READ.finditer(joined):
            pairs, literal = divmod(len(match[1]), 2)
            word += joined[place : match.start()] + "\\" * pairs + END * literal
            place = match.end()
            if not literal:
                found.append(word)
                word = ""
        return [text for text in (*found, word + joined[place:]) if text]

    @functools.cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @functools.cached_property
    def _known(self) -> dict[str, list[str]]:
        return {}

    def _pieces(self, word: str) -> list[str]:
        if word not in self._known:
            pieces = _letters(word)
            while len(pieces) > 1:
                pairs = list(itertools.pairwise(pieces))
                first = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
                if first not in self._ranks:
                    break
                pieces = _merged(pieces, first)
            self._known[word] = pieces
        return self._known[word]


def learn_subwords(words: Mapping[str, int], merges: int) -> Subwords:
    """The ``merges`` most frequent pairs, each counted after those before it were merged; even ones by alphabet.

    Args:
      words: of the training text, and how often each stands there.
      merges: how many pairs; fewer where no pair is left.

    Raises:
      InputError: a negative number.
    """
    if merges < 0:
        raise InputError(f"learn_subwords: merges is {merges}; expected 0 or more.")
    spelt, counts = [_letters(word) for word in words], list(words.values())
    totals: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = defaultdict(set)
    for i, pieces in enumerate(spelt):
        for pair in itertools.pairwise(pieces):
            totals[pair] += counts[i]
            places[pair].add(i)
    queue = [(-count, pair) for pair, count in totals.items()]
    heapq.heapify(queue)
    found: list[Pair] = []
    while queue and len(found) < merges:
        count, best = heapq.heappop(queue)
        if not totals[best] or -count != totals[best]:  # of before a merge that changed it
            continue
        found.append(best)
        changed = set()
        for i in places.pop(best):
            before, spelt[i] = spelt[i], _merged(spelt[i], best)
            changed |= _recount(totals, places, i, before, spelt[i], counts[i])
        for pair in changed - {best}:
            if totals[pair]:
                heapq.heappush(queue, (-totals[pair], pair))
    return Subwords(tuple(found))


def _recount(
    totals: Counter[Pair],
    places: dict[Pair, set[int]],
    word: int,
    before: Sequence[str],
    after: Sequence[str],
    count: int,
) -> set[Pair]:
    """The totals after a word is spelt anew; which of them changed."""
    old, new = (Counter(itertools.pairwise(pieces)) for pieces in (before, after))
    changed = {pair for pair in old | new if old[pair] != new[pair]}
    for pair in changed:
        totals[pair] += (new[pair] - old[pair]) * count
        if new[pair]:
            places[pair].add(word)
    return changed


def _letters(word: str) -> list[str]:
    letters = list(_WRITTEN.sub(lambda found: 2 * found[1] + (f"\\{END}" if found[2] else ""), word))
    return [*letters[:-1], letters[-1] + END] if letters else []


def _merged(pieces: Sequence[str], pair: Pair) -> list[str]:
    found: list[str] = []
    for piece in pieces:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return found
