"""What a GPT is and how it is trained and judged: the configuration of `model/`, light enough for `plan` to import.

A field shapes the bytes of a stage's output unless it is declared with `execution`; only fields that shape bytes
enter a key. A field's description is the docstring under it. Two shapes are written out as dictionaries, to be
passed as keywords: `MODERN` (the default) and `GPT2`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingError(Exception):
    """A model cannot be trained, loaded or judged; the message is one sentence: what, where, and what to do."""


class Config(BaseModel):
    """Base of every section: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    def identity(self) -> dict[str, Any]:
        """The fields that shape bytes, as plain JSON values: all that are not marked with `execution`."""
        hidden = {name for name, field in type(self).model_fields.items() if _is_execution(field.json_schema_extra)}
        return self.model_dump(mode="json", exclude=hidden)


def execution(default: Any, **constraints: Any) -> Any:
    """A field that says how a stage runs and is no part of what it is asked to make; it never enters a key."""
    return Field(default, json_schema_extra={"execution": True}, **constraints)


def _is_execution(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("execution"))


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Architecture(Config):
    """The shape of a decoder-only, pre-LN GPT."""

    layers: Count = 4
    """Number of transformer blocks."""
    heads: Count = 4
    """Attention heads in a block; must divide `width`."""
    width: Count = 192
    """Size of the residual stream, in numbers per token."""
    context: Count = 256
    """Longest stretch of tokens that the model sees at once."""
    positions: Literal["learned", "rotary"] = "rotary"
    """How a token knows its place: a learned vector for each place, or rotary embeddings in attention."""
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    """Normalisation before attention, before the MLP, and before the head."""
    mlp: Literal["gelu", "swiglu"] = "swiglu"
    """The MLP: GELU in its tanh form at 4 x width, or SwiGLU at 8/3 x width."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""
    tied: bool = False
    """Whether the head shares its matrix with the token embedding."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads: choose a multiple")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.width // self.heads}")
        return self


class GPTConfig(Architecture):
    """A shape together with the size of the vocabulary: all that is needed to build a model."""

    vocab_size: Count
    """Number of ids that the tokenizer can produce, special tokens included."""


MODERN: dict[str, Any] = {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tied": False}
"""The shape of Llama (Touvron et al. 2023) with an untied head; the default."""

GPT2: dict[str, Any] = {"positions": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True, "tied": True}
"""The shape of GPT-2 (Radford et al. 2019); train it with `optimizer = "adamw"`."""


class PretrainConfig(Architecture):
    """Shape, optimizer, schedule and budget of one pretraining."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the hidden matrices with AdamW for the rest, or AdamW for everything."""
    lr: Rate = 8e-3
    """Peak learning rate of AdamW."""
    muon_lr: Rate = 0.03
    """Peak learning rate of Muon; unused with `optimizer = "adamw"`."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled weight decay of matrices and embeddings; biases and norms are never decayed."""
    warmup_steps: Natural = 50
    """Steps over which the learning rate rises linearly from nothing to its peak."""
    final_lr: Fraction = 0.05
    """Learning rate at the end of the cosine, as a share of the peak."""
    steps: Count = 1000
    """Optimizer steps in all."""
    batch_size: Count = 8
    """Windows of `context` tokens in each optimizer step."""
    micro_batches: Count = 1
    """Parts into which a batch is cut, to fit memory; must divide `batch_size`."""
    loss_chunk: Natural = 0
    """Tokens whose logits exist at once in the loss, to fit memory; 0 takes a whole micro-batch."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient of all parameters together; beyond it the gradient is scaled down."""
    val_every: Count = 250
    """Steps between validations; the last step is always followed by one over every validation token."""
    val_windows: Natural = 64
    """Windows measured in a validation on the way, spread evenly; 0 measures all."""
    seed: Seed = 0
    """Seed of the initial weights and of the order of windows."""
    checkpoint_every: int = execution(200, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = execution(2, ge=1)
    """Checkpoints kept while training."""
    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    """Where to train; auto takes a CUDA device if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = execution("auto")
    """Precision of matrix products; auto takes bfloat16 where the processor has it. Weights are always float32."""
    compile: Literal["auto", "yes", "no"] = execution("auto")
    """Whether to compile the model; auto does where a compiler is found and the run is long enough to pay for it."""
    threads: int = execution(0, ge=0)
    """Processor threads; 0 takes every core. Results are bit-equal only at an equal number."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(f"batch_size {self.batch_size} cannot be cut into {self.micro_batches} micro_batches")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} leaves nothing of {self.steps} steps")
        return self

    def gpt(self, vocab_size: int) -> GPTConfig:
        """The model's shape for a tokenizer of `vocab_size` ids."""
        return GPTConfig(vocab_size=vocab_size, **{name: getattr(self, name) for name in Architecture.model_fields})


class EvaluateConfig(Config):
    """What is measured of a trained model, and what it is asked to write."""

    sets: list[str] = execution([])
    """Evaluation-set files: .jsonl with a `text` field, or .txt as one document. Their content is what counts."""
    stride: Natural = 0
    """Tokens scored in each window, the rest being context; 0 scores whole windows side by side."""
    resamples: Count = 1000
    """Bootstrap resamples of the documents, for the interval of bits per byte."""
    samples: Natural = 2
    """Texts to write from nothing, that is from end-of-text, and again for each prompt."""
    sample_tokens: Count = 120
    """Longest sample, in tokens."""
    prompts: list[str] = []
    """Texts to continue."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Divides the logits before sampling; 0 always takes the likeliest token."""
    top_k: Natural = 50
    """Likeliest tokens to sample from; 0 for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest probability mass to sample from, likeliest tokens first; 1 for all."""
    seed: Seed = 0
    """Seed of the samples and of the bootstrap."""
    batch_size: int = execution(16, ge=1)
    """Windows scored at once."""
    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    """Where to evaluate; auto takes a CUDA device if there is one."""
    threads: int = execution(0, ge=0)
    """Processor threads; 0 takes every core."""
