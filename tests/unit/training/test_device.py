import contextlib
from pathlib import Path

import pytest
import torch

from noisyknn.config import Config, Precision
from noisyknn.errors import MachineError, UsageError
from noisyknn.training import device
from noisyknn.training.device import bf16_features, find_device, thread_count, threads, wants_bf16

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU 0 is older than bf16, GPU 1 computes it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0) if gpu.index else (7, 5))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_if_there_is_one() -> None:
    assert find_device("auto") == torch.device("cuda")
    assert find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:0") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("cpu") == CPU


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert find_device("auto") == find_device("cpu") == CPU


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_without_a_gpu_none_can_be_asked_for(name: str) -> None:
    with pytest.raises(MachineError, match=rf"`device` {name}: no usable CUDA GPU .* 'noisyknn doctor'"):
        find_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="`device` cuda:2: this machine's last GPU is cuda:1"):
        find_device("cuda:2")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    "name", ["", "gpu", "mps", "CUDA", "cpu:0", "cpu:", "cuda:", "cuda:-1", "cuda:x", "cuda:01", "cuda:٣", "cuda:1 "]
)
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda, cuda:N"):
        find_device(name)


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", True), ("fp32", False)])
def test_a_precision_that_is_asked_for_is_taken(precision: Precision, wanted: bool) -> None:
    assert wants_bf16(precision, CPU) is wanted
    assert wants_bf16(precision, GPU) is wanted


@pytest.mark.usefixtures("two_gpus")
def test_auto_precision_asks_the_gpu_that_is_used() -> None:
    assert wants_bf16("auto", torch.device("cuda", 1))
    assert not wants_bf16("auto", torch.device("cuda", 0))


@pytest.mark.parametrize(("features", "wanted"), [(["amx_bf16"], True), ([], False)])
def test_auto_precision_asks_the_processor(features: list[str], wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "bf16_features", lambda: features)
    assert wants_bf16("auto", CPU) is wanted


def test_tiny_steps_take_one_thread_and_others_all() -> None:
    before = torch.get_num_threads()
    assert thread_count(Config(batch_size=64, image_size=16)) == 1
    assert thread_count(Config(batch_size=512, image_size=32)) == before
    with contextlib.suppress(ZeroDivisionError), threads(1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        ("fpu avx512f amx_tile amx_bf16 avx512_bf16", ["amx_bf16", "avx512_bf16"]),
        ("avx512_bf16 avx2", ["avx512_bf16"]),
        ("fpu avx512f avx512_bf16_not", []),
    ],
)
def test_instructions_are_read_from_the_processors_flags(
    flags: str, features: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bf16_features() == features


def test_without_a_list_of_flags_there_are_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", read_text)
    assert bf16_features() == []
