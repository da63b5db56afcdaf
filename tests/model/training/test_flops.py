import pytest

from model.training.flops import DENSE_PEAKS, dense_peak, mfu


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA L4", 121),
    ],
)
def test_devices_have_their_dense_bfloat16_peak_under_the_names_that_drivers_give(device, teraflops):
    assert dense_peak(device, bfloat16=True) == teraflops * 1e12


@pytest.mark.parametrize(
    "device",
    ["AMD EPYC", "", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"],
)
def test_a_device_that_is_unknown_or_a_part_of_one_has_no_peak(device):
    assert dense_peak(device, bfloat16=True) is None


def test_a_float32_peak_is_not_that_of_the_matrix_units():
    assert dense_peak("NVIDIA H100 80GB HBM3", bfloat16=False) == 67e12
    assert all(plain < matrix / 1.9 for matrix, plain in DENSE_PEAKS.values())


def test_mfu_is_a_share_of_the_peak_and_nothing_where_the_peak_is_unknown():
    assert mfu(3e12, seconds=2.0, peak=3e12) == 0.5
    assert mfu(3e12, seconds=2.0, peak=None) is None
