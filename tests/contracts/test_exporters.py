"""What every export format owes: what it wrote can be read back, and answers with named outputs."""

from pathlib import Path

import numpy as np
import pytest

from learnd.exporters import EXPORTERS
from learnd.modeling import make_model
from tests.helpers import settings

CASES = ("saved_model", "tflite")


@pytest.mark.parametrize("name", CASES)
def test_written_models_answer_by_name(name: str, tmp_path: Path) -> None:
    """Weights arrive: another set of weights gives other answers, each finite, equal to the network's own."""
    network = make_model(settings(tmp_path, task={"kind": "reconstruction"}, target=None)).network
    implementation = EXPORTERS[name].load()()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    answers = []
    for value in (0.1, 0.3):
        for variable in network.averaged_weights():
            variable.assign(np.full(variable.shape, value, np.float32))
        target = tmp_path / str(value) / implementation.file_name
        target.parent.mkdir()
        implementation.write(network, target)
        answer = implementation.reader(target)(x)
        assert sorted(answer) == ["reconstruction", "score"]
        assert (answer["reconstruction"].shape, answer["score"].shape) == ((5, 3), (5,))
        for output, expected in network(x).items():
            np.testing.assert_allclose(answer[output], expected, rtol=1e-4, atol=1e-5)
        assert [path.name for path in target.parent.iterdir()] == [implementation.file_name]
        answers.append(answer["reconstruction"])
    assert np.abs(answers[0] - answers[1]).min() > 1e-3
