import pytest
import torch

from model.config import PretrainConfig, TrainingError
from model.training.hardware import choose, choose_device, long_enough, on_gpu, reproducible, use_threads

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("budget", "cpu", "gpu"),
    [
        ({"steps": 10}, False, False),
        ({"tokens": 2_000_000}, True, False),
        ({"tokens": 100_000_000}, True, True),
        ({"minutes": 1.0}, False, False),
        ({"minutes": 10.0}, True, True),
        ({"minutes": 10.0, "steps": 10}, False, False),
    ],
)
def test_compiling_pays_in_long_trainings_only(budget, cpu, gpu):
    config = PretrainConfig(**budget)
    assert (long_enough(config, CPU), long_enough(config, GPU)) == (cpu, gpu)


def test_a_device_with_a_number_is_a_gpu_too():
    assert on_gpu(GPU)
    assert not on_gpu(CPU)


def test_what_is_asked_for_by_name_is_done():
    hardware = choose(PretrainConfig(device="cpu", dtype="float32", compile="no", threads=1))
    assert (hardware.device.type, hardware.bfloat16, hardware.compile, hardware.threads) == ("cpu", False, False, 1)
    assert torch.get_num_threads() == 1


def test_processes_share_the_cores():
    cores = use_threads(0)
    assert use_threads(0, processes=2) == max(1, cores // 2)
    assert use_threads(0, processes=10 * cores) == 1


def test_a_missing_gpu_is_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="torch finds none"):
        choose_device("cuda")


def test_settings_of_torch_are_put_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    with reproducible(CPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(before)


def test_memory_is_told_in_mib():
    assert 50 < choose(PretrainConfig(device="cpu", threads=1)).memory_mib() < 100_000
