"""The values of one period ago, per key: experts for streams that repeat, such as a day of hourly readings."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.rows import read_rows, write_row

LARGEST = 4_000_000
"""Maximum number of stored values, 32 MB. Keys beyond it have no seasonal expert."""


class Seasons:
    """A ring of the last values of each key, as long as the longest period. Traced.

    The values are targets, or for a forecast (*horizon* > 0) readings. A period is a number of learned rows of a key.

    Parameters
    ----------
    keys : number of places for keys
    width : number of values in one row of the ring
    horizon : number of rows ahead that are predicted; 0: the target is a field of the record
    """

    def __init__(self, periods: Sequence[int], *, keys: int, width: int, horizon: int) -> None:
        self._periods = periods
        self._longest = max(periods)
        self._horizon = horizon
        self._width = width
        self._places = max(1, min(keys, LARGEST // (self._longest * width)))
        # The last row is for keys without a place. Nothing reads it.
        shape = (self._places * self._longest + 1, width)
        self._ring: TfVariable = tf.Variable(tf.zeros(shape, tf.float64), trainable=False)
        ahead = range(1, max(1, horizon) + 1)
        steps = [[(step - 1) % period + 1 if horizon else 0 for step in ahead] for period in periods]
        self._steps = np.array([[step - period for step in row] for row, period in zip(steps, periods, strict=True)])
        """From a row's number to those of its seasonal values, shape (periods, steps ahead)."""

    def values(self, slot: Tensor, rows: Tensor, newest: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of each period, shape (periods, outputs), and which of them are known, shape (periods,).

        Parameters
        ----------
        slot : (1,), int32, the place of the key
        rows : (), int64, learned rows of the key
        newest : (1, width), the newest reading of a forecast, which is not in the ring yet
        """
        numbers = rows + tf.constant(self._steps, tf.int64)
        places = tf.reshape(self._place_of(slot, numbers), (-1,))
        values = tf.reshape(read_rows(self._ring, places), (*self._steps.shape, -1))
        if self._horizon:
            values = tf.where(tf.constant(self._steps == 0)[:, :, None], tf.cast(newest, tf.float64), values)
        known = tf.reduce_all(numbers >= 0, axis=1) & (tf.gather(slot, 0) < self._places)
        return tf.reshape(values, (len(self._periods), -1)), known

    def store(self, slot: Tensor, rows: Tensor, values: Tensor, answers: Tensor) -> None:
        """Store the *values* of a row, shape (1, width), which follows *rows* earlier ones of its key.

        *answers* is the result of `values` for the same row.
        """
        write_row(self._ring, self._place_of(slot, rows)[None], tf.cast(values, tf.float64), answers)

    def _place_of(self, slot: Tensor, rows: Tensor) -> Tensor:
        """Return the places in the ring of *rows*, numbers of a key's rows."""
        own = tf.cast(tf.gather(slot, 0), tf.int64)
        place = own * self._longest + tf.math.floormod(rows, self._longest)
        places: Tensor = tf.where(own < self._places, place, tf.constant(self._places * self._longest, tf.int64))
        return places

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name."""
        return {"ring": self._ring}
