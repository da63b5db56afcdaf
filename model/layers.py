"""The parts of a block besides attention: norms and MLPs.

Shapes in comments: B sequences, T tokens, C the width.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.attention import Attend, Attention, Remember
from model.config import Architecture


def norm(config: Architecture) -> nn.Module:
    """The norm that `config` names, over the width."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.width, eps=config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.bias)


class GELU(nn.Module):
    """Two linear layers with GELU between them, in its tanh form (GPT-2) or as defined by the error function."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.approximate = "none" if config.mlp == "gelu_erf" else "tanh"
        self.up = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.out = nn.Linear(config.hidden_width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        projected: Tensor = self.out(functional.gelu(self.up(x), approximate=self.approximate))
        return projected


class SwiGLU(nn.Module):
    """A linear layer gated by the SiLU of another (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.up = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.out = nn.Linear(config.hidden_width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        projected: Tensor = self.out(functional.silu(self.gate(x)) * self.up(x))
        return projected


class Block(nn.Module):
    """Attention, then the MLP, each on a normed copy of the residual stream and added back to it (pre-LN)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = SwiGLU(config) if config.mlp == "swiglu" else GELU(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, attend: Attend, rotary: tuple[Tensor, Tensor] | None, remember: Remember | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), attend, rotary, remember))
        residual: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return residual
