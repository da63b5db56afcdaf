"""How much arithmetic a device could do, and the share of it that a training uses (MFU).

Dense peaks, never those with structured sparsity, which are twice as high. A device that is not in the table has no
MFU: a wrong figure is worse than none.
"""

import re

TERA = 1e12

DENSE_PEAKS: dict[str, tuple[float, float]] = {
    "GB200": (2500, 80),
    "B200": (2250, 75),
    "GH200": (989, 67),
    "H200": (989, 67),
    "H200 NVL": (835, 60),
    "H100": (989, 67),
    "H100 NVL": (835, 60),
    "H100 PCIE": (756, 51),
    "A100": (312, 19.5),
    "A100 PCIE": (312, 19.5),
    "A40": (149.7, 37.4),
    "A30": (165, 10.3),
    "A10": (125, 31.2),
    "L40S": (362, 91.6),
    "L40": (181, 90.5),
    "L4": (121, 30.3),
    "RTX A6000": (154.8, 38.7),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165.2, 82.6),
}
"""Dense bfloat16 (matrix units, float32 sums) and float32 (no TF32) TFLOP/s by device: NVIDIA's data sheets of each,
for the GeForce cards the GA102 and Ada whitepapers."""

_SPELLINGS = re.compile(r"\b(NVIDIA|GEFORCE|SXM\d?|HBM\w*|\d+GB)\b")
"""Words in a device's name that make no difference to its speed, beside those that do (PCIE, NVL, LAPTOP, MIG)."""


def dense_peak(device: str, bfloat16: bool) -> float | None:
    """FLOP/s that the named device does at best in bfloat16 or float32; None where we have no figure."""
    name = " ".join(_SPELLINGS.sub(" ", device.upper().replace("-", " ")).split())
    peaks = DENSE_PEAKS.get(name)
    return None if peaks is None else (peaks[0] if bfloat16 else peaks[1]) * TERA


def mfu(flops: float, seconds: float, peak: float | None) -> float | None:
    """Share of the `peak` FLOP/s that so much arithmetic in so many seconds is; None where the peak is unknown.

    The arithmetic is `GPT.flops_per_token`: what the model needs, not what recomputing adds.
    """
    return None if peak is None else flops / (seconds * peak)
