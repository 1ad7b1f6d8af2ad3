"""Errors that end reading from Kafka, with the way out."""

from kafka.errors import UnsupportedCodecError

from learnd.core.errors import DataLossError, UnreadableError
from learnd.core.types import TopicPartition
from learnd.sources.kafka_patches import BatchTooLargeError, UnreadableBatchError


def data_loss(partition: TopicPartition, offset: int, reason: str) -> DataLossError:
    """Return the error for a next *offset* that the broker no longer has, because of *reason*."""
    return DataLossError(
        f"{partition.topic}/{partition.partition}: the next offset to learn is {offset}, but {reason}. "
        "Records were deleted before they were learned (by retention, or because the topic was recreated); lengthen "
        "the retention and set source.on_data_loss: continue for one start, or start over with another data_dir"
    )


def unreadable(partition: TopicPartition, error: UnreadableBatchError) -> UnreadableError:
    """Return the error for an unreadable batch, with the way out that fits its cause."""
    cause = error.__cause__
    if isinstance(cause, UnsupportedCodecError):
        way_out = "pip install 'learnd[codecs]'"
    elif isinstance(cause, BatchTooLargeError):
        way_out = "raise that limit if the batch is legitimate"
    else:
        way_out = "restore a sound replica of the partition"
    return UnreadableError(
        f"{partition.topic}/{partition.partition}: the batch at offset {error.offset} cannot be read: {error}. "
        f"No record was skipped: {way_out}, or set source.errors: dead_letter to skip offsets {error.offset} "
        f"to {error.resume - 1}"
    )
