from dataclasses import replace

import pytest
import torch

from aixcoder_serving.engine.device import check_device, is_out_of_memory
from aixcoder_serving.engine.interface import EngineSettings, LoadFailed

CPU = EngineSettings("m", device="cpu", dtype="float32")
CUDA = EngineSettings("m", device="cuda", dtype="float16", tensor_parallel_size=2)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize(
    "settings",
    [
        CPU,
        replace(CPU, dtype="auto", tensor_parallel_size=8),
        CUDA,
        replace(CUDA, dtype="auto", tensor_parallel_size=1),
    ],
)
def test_a_device_that_is_there(settings: EngineSettings) -> None:
    check_device(settings)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(CPU, dtype="float16"), "float16 is not for cpu: ask for float32 or bfloat16"),
        (replace(CUDA, tensor_parallel_size=4), r"4 CUDA device\(s\) are asked for and 2 are visible: check the GPU"),
    ],
)
def test_a_device_that_is_not_there(settings: EngineSettings, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        check_device(settings)
    assert failed.value.reason == "DeviceNotFound"


def test_devices_that_the_driver_can_not_reach(two_devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoadFailed, match="0 are visible"):
        check_device(CUDA)


def test_memory_that_is_not_there() -> None:
    """Torch's own allocator refuses; its words are recognised."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_is_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
