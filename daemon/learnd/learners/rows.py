"""Rows of large variables, read and written inside the compiled loop over samples without copying the variable.

XLA writes a row in place only if everything that reads the variable surely comes before. It fuses a read into each of
its uses, so it cannot tell, and copies the whole variable twice per sample: 33 us for the 262 KB that the default
learner remembers of 4096 keys, where learning the sample takes 14 us.
"""

import tensorflow as tf

from learnd.core.tensors import Tensor, TfVariable


def read_rows(variable: TfVariable, places: Tensor) -> Tensor:
    """Return the rows of *variable* at *places*, shape (n,), read once, whatever they are used for. Traced.

    Numbers that are not finite become 0.
    """
    rows: Tensor = tf.gather(variable, places)
    if 0 in tuple(rows.shape):
        return rows
    flat = tf.reshape(rows, (rows.shape[0], -1))
    count, width = flat.shape
    # A product with the identity changes nothing, and XLA does not fuse products, except for those of single numbers.
    if width == 1:
        flat = tf.tile(flat, (1, 2))
    if 1 < count < width:  # the smaller identity is faster
        flat = tf.matmul(tf.eye(count, dtype=flat.dtype), flat)
    else:
        flat = tf.matmul(flat, tf.eye(flat.shape[1], dtype=flat.dtype))
    flat = flat[:, :width]
    finite = tf.where(tf.math.is_finite(flat), flat, tf.zeros_like(flat))
    read: Tensor = tf.reshape(finite, rows.shape)
    return read


def write_row(variable: TfVariable, place: Tensor, row: Tensor, *read: Tensor) -> None:
    """Write *row*, shape (1, ...), to *variable* at *place*, shape (1,), after all its *read* rows. Traced."""
    # Adding nothing makes the write depend on them.
    for rows in read:
        row += tf.cast(0.0 * tf.reduce_sum(rows), row.dtype)
    variable.scatter_nd_update(place[:, None], row)
