import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Other programs are on the cores, too: two threads then wait for each other."""
    torch.set_num_threads(1)
