"""Fixtures of the tests with a broker."""

from collections.abc import Iterator

import pytest

from learnd.testing.kafka import KafkaBroker, KafkaCluster
from tests.support.certificates import Files
from tests.support.faults import Proxy, own_broker
from tests.support.secure_kafka import make_secure_broker


@pytest.fixture
def proxy(kafka_broker: KafkaCluster) -> Iterator[Proxy]:
    """Up, in front of the shared broker."""
    made = Proxy(own_broker(kafka_broker))
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="session")
def secure_broker(access_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One that wants TLS and a login; never that of ``KAFKA_BOOTSTRAP``, whose secrets we do not know."""
    try:
        made = make_secure_broker(tmp_path_factory.mktemp("secure-kafka"), access_files)
    except ImportError as error:
        pytest.skip(f"no Kafka: {error}; pip install 'learnd[testing]'")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def secure_cluster(secure_broker: KafkaBroker) -> KafkaCluster:
    """The same broker by its open listener, for the test's own work."""
    return KafkaCluster(secure_broker.bootstrap, secure_broker)
