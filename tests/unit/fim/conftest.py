from pathlib import Path

import pytest

from aixcoder_serving.fim.vocabulary import Vocabulary

TINY = Path(__file__).parents[3] / "models" / "tiny"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)
