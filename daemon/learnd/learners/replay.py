"""Experience replay (Robins, 1995): earlier samples in every update, against forgetting."""

from collections.abc import Mapping

import tensorflow as tf

from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.rows import read_rows, write_row
from learnd.learners.settings import ReplaySettings


class ReplayBuffer:
    """A reservoir (Vitter, 1985, algorithm R) or a ring of samples, inside the compiled update.

    All draws depend only on the seed and on the number of samples ever stored. So there is no random state, and the
    draws do not depend on how the stream was cut. Until a sample is stored, drawn rows have weight zero.

    Parameters
    ----------
    rows : number of new samples per update
    dtype : of inputs and targets
    classes : number of classes; 0: targets are numbers. A reservoir then keeps rare classes (Chrysakis and Moens,
        2020): a new row replaces one of the class with the most rows. Drawn rows are weighted by how often their class
        comes in the stream, over how often it is drawn, so that probabilities stay right.
    """

    def __init__(
        self,
        settings: ReplaySettings,
        *,
        rows: int,
        row_shape: tuple[int, ...],
        targets: int,
        seed: int,
        dtype: str = "float64",
        classes: int = 0,
    ) -> None:
        self._settings = settings
        self._rows = rows
        self.drawn = max(1, round(settings.ratio * rows))
        self._seed = seed
        size = settings.size
        self._x = tf.Variable(tf.zeros((size, *row_shape), dtype), trainable=False)
        self._y = tf.Variable(tf.zeros((size, targets), dtype), trainable=False)
        self._weights = tf.Variable(tf.zeros((size,)), trainable=False)
        self.stored: TfVariable = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Number of rows that were ever stored."""
        self._balances = classes > 0 and settings.kind == "reservoir"
        # Rows of each class: seen so far, and stored now.
        self._seen = tf.Variable(tf.zeros(classes if self._balances else 0), trainable=False)
        self._kept = tf.Variable(tf.zeros(classes if self._balances else 0), trainable=False)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw `drawn` stored samples with repetition: inputs, targets, weights (zero while nothing is stored)."""
        stored = tf.minimum(self.stored, self._settings.size)
        picks = self._random(self.drawn, tf.maximum(stored, 1), purpose=0)
        x, y, stored_weights = (read_rows(variable, picks) for variable in (self._x, self._y, self._weights))
        weights = tf.where(stored > 0, stored_weights, 0.0)
        if self._balances:
            number = tf.cast(y[:, 0], tf.int32)
            usual = tf.gather(self._seen, number) / tf.maximum(tf.reduce_sum(self._seen), 1.0)
            drawn = tf.gather(self._kept, number) / tf.maximum(tf.reduce_sum(self._kept), 1.0)
            weights *= usual / tf.maximum(drawn, 1e-9)
        return x, y, weights

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all places of the buffer: inputs, targets, weights (zero where nothing is stored)."""
        stored = tf.range(self._settings.size, dtype=tf.int64) < self.stored
        weights = tf.where(stored, tf.convert_to_tensor(self._weights), 0.0)
        return tf.convert_to_tensor(self._x), tf.convert_to_tensor(self._y), weights

    def missing(self) -> Tensor:
        """Return the number of empty rows in the result of `draw`."""
        missing: Tensor = tf.where(self.stored > 0, 0, self.drawn)
        return missing

    def store(self, x: Tensor, y: Tensor, weights: Tensor, drawn: tuple[Tensor, ...] = ()) -> None:
        """Offer the rows of one update to the buffer, in order.

        *drawn* is the result of `draw` in the same update, if there is one.
        """
        # Every later row is after the first one, which is after the draw.
        if self._rows == 1:
            self._store_row(tf.constant(0), x, y, weights, drawn)
            return
        tf.while_loop(lambda i: i < self._rows, lambda i: self._store_row(i, x, y, weights, drawn), (tf.constant(0),))

    def _store_row(self, i: Tensor, x: Tensor, y: Tensor, weights: Tensor, drawn: tuple[Tensor, ...]) -> Tensor:
        size = self._settings.size
        slot = self.stored % size
        replaces = None
        if self._settings.kind == "reservoir":
            anywhere = self._random(1, self.stored + 1, purpose=1)[0]
            full = self.stored >= size
            if self._balances:
                slot, replaces = self._balanced_slot(tf.cast(tf.gather(y, i)[0], tf.int32), slot, full)
            else:
                slot = tf.where(full, anywhere, slot)
                replaces = slot < size
                slot = tf.minimum(slot, size - 1)
        read = drawn or (None, None, None)
        pairs = zip(((self._x, x), (self._y, y), (self._weights, weights)), read, strict=True)
        for (variable, rows), after in pairs:
            if 0 in tuple(variable.shape):
                continue  # a reconstruction has no targets, and nothing can be scattered
            row, reads = tf.gather(rows, i)[None], [] if after is None else [after]
            if replaces is not None:
                reads.append(read_rows(variable, slot[None]))
                row = tf.where(replaces, row, reads[-1])
            write_row(variable, slot[None], row, *reads)
        self.stored.assign_add(1)
        return i + 1

    def _balanced_slot(self, number: Tensor, free: Tensor, full: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place for a row of class *number*, and whether it replaces what is there; count the row."""
        seen, kept = tf.convert_to_tensor(self._seen), tf.convert_to_tensor(self._kept)
        largest = tf.argmax(kept, output_type=tf.int32)
        own = tf.gather(kept, number)
        # A row of the largest class has the chance of a plain reservoir; one of any other always comes in.
        chance = tf.where(own < tf.gather(kept, largest), 1.0, own / (tf.gather(seen, number) + 1.0))
        size = self._settings.size
        start, chosen = (
            self._random(1, tf.constant(size), purpose=1)[0],
            self._random(1, tf.constant(2**20), purpose=3)[0],
        )
        # The next row of the largest class from a random place on. A random number for each row would take as long as
        # learning the sample.
        of_largest = tf.cast(tf.convert_to_tensor(self._y)[:, 0], tf.int32) == largest
        distance = tf.math.floormod(tf.range(size, dtype=tf.int64) - start, size)
        victim = tf.argmin(tf.where(of_largest, distance, size), output_type=tf.int64)
        replaces = tf.logical_not(full) | (tf.cast(chosen, tf.float32) < chance * 2.0**20)
        change = tf.where(replaces, 1.0, 0.0)
        lost = tf.where(full, change, 0.0) * tf.one_hot(largest, kept.shape[0])
        came = tf.one_hot(number, kept.shape[0])
        self._kept.assign(kept - lost + change * came)
        self._seen.assign(seen + came)
        return tf.where(full, victim, free), replaces

    def weigh(self, factor: float) -> None:
        """Multiply the weights of all stored samples by *factor*; 0 removes them. Between two compiled calls."""
        if factor > 0.0:
            self._weights.assign(factor * self._weights)
            return
        self.stored.assign(0)
        for counts in (self._seen, self._kept):
            counts.assign(tf.zeros_like(counts))

    def become(self, other: "ReplayBuffer") -> None:
        """Replace all samples by those of *other*, which is at most as large. Traced."""
        rows = tf.range(other._settings.size)[:, None]
        pairs = ((self._x, other._x), (self._y, other._y), (self._weights, other._weights))
        for mine, theirs in self._with_columns(*pairs):
            mine.scatter_nd_update(rows, tf.convert_to_tensor(theirs))
        stored = tf.minimum(other.stored, other._settings.size)
        self.stored.assign(stored)
        if self._balances:
            inside = tf.range(other._settings.size, dtype=tf.int64) < stored
            numbers = tf.cast(tf.convert_to_tensor(other._y)[:, 0], tf.int32)
            ones = tf.where(inside[:, None], tf.one_hot(numbers, self._kept.shape[0]), 0.0)
            for counts in (self._kept, self._seen):
                counts.assign(tf.reduce_sum(ones, axis=0))

    @staticmethod
    def _with_columns(*pairs: tuple[TfVariable, Tensor]) -> list[tuple[TfVariable, Tensor]]:
        """Return the *pairs* that hold any number. A reconstruction has no targets, and nothing can be scattered."""
        return [pair for pair in pairs if 0 not in tuple(pair[0].shape)]

    def _random(self, count: int, below: Tensor, *, purpose: int) -> Tensor:
        seed = tf.stack([tf.constant(self._seed * 2 + purpose, tf.int64), self.stored])
        # Scaled from 32 random bits: XLA has no stateless integers with a bound that varies.
        bits = tf.random.stateless_uniform((count,), seed, minval=None, maxval=None, dtype=tf.uint32)
        picks: Tensor = tf.cast(tf.cast(bits, tf.float64) / 2.0**32 * tf.cast(below, tf.float64), tf.int64)
        return picks

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables by name, for the checkpoint."""
        counts = {"seen": self._seen, "kept": self._kept} if self._balances else {}
        return {"x": self._x, "y": self._y, "weights": self._weights, "stored": self.stored, **counts}
