import math

import pytest
import torch

from model.config import Architecture
from model.layers import GELU, SwiGLU, norm


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_a_norm_divides_by_the_root_of_variance_and_eps(kind):
    x = torch.tensor([1.0, -1.0, 1.0, -1.0])  # of mean 0 and variance 1
    normed = norm(Architecture(width=4, heads=1, norm=kind, norm_eps=0.5))(x)
    torch.testing.assert_close(normed, x / math.sqrt(1.5))


@pytest.mark.parametrize(("bias", "names"), [(True, {"weight", "bias"}), (False, {"weight"})])
def test_a_layer_norm_has_a_bias_where_the_shape_says_so(bias, names):
    assert set(norm(Architecture(norm="layernorm", bias=bias)).state_dict()) == names


@pytest.mark.parametrize(
    ("changes", "width"), [({}, 512), ({"width": 768}, 2048), ({"mlp": "gelu"}, 768), ({"mlp_width": 100}, 100)]
)
def test_the_mlp_is_as_wide_as_its_kind_or_its_field_says(changes, width):
    assert Architecture(**changes).hidden_width == width


def through(kind, **values):
    """What an MLP of unit matrices makes of numbers."""
    layer = kind(Architecture(width=4, heads=1, mlp_width=4, **values)).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.eye(4) if weight.ndim == 2 else torch.zeros(4))
        return layer(torch.tensor([-2.0, -0.5, 1.0, 3.0], dtype=torch.float64)).tolist()


def test_gelu_is_the_tanh_form_or_that_of_the_error_function():
    tanh = [x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in (-2, -0.5, 1, 3)]
    erf = [x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in (-2, -0.5, 1, 3)]
    assert through(GELU, mlp="gelu") == pytest.approx(tanh, abs=1e-12)
    assert through(GELU, mlp="gelu_erf") == pytest.approx(erf, abs=1e-12)
    assert tanh != pytest.approx(erf, abs=1e-5)


def test_swiglu_gates_a_layer_with_the_silu_of_another():
    assert through(SwiGLU) == pytest.approx([x * x / (1 + math.exp(-x)) for x in (-2, -0.5, 1, 3)], abs=1e-12)
