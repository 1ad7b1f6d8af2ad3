"""Fixtures of the tests with a broker."""

from collections.abc import Iterator

import pytest

from learnd.testing.kafka import KafkaCluster
from tests.faults import Proxy, own_broker


@pytest.fixture
def proxy(kafka_broker: KafkaCluster) -> Iterator[Proxy]:
    """Up, in front of the shared broker."""
    made = Proxy(own_broker(kafka_broker))
    made.up()
    yield made
    made.down()
