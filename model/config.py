"""What a GPT is and how it is trained and judged: the configuration of `model/`, light enough for `plan` to import.

A field shapes the bytes of a stage's output unless it is declared with `execution`; only fields that shape bytes
enter a key. A field's description is the docstring under it. Published shapes stand in `model.presets`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.presets import recipe, with_defaults


class TrainingError(Exception):
    """A model cannot be trained, loaded or judged; the message is one sentence: what, where, and what to do."""


class TrainingStopped(TrainingError):
    """A signal ended a training; the message says where it goes on."""


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
AttentionPattern = Literal["full", "local", "banded", "strided", "fixed"]
TaskName = Literal["hellaswag", "piqa", "arc", "winogrande", "multiple_choice", "lambada", "blimp"]

VOCAB_MULTIPLE = 64
"""Matrices with so divisible a side use all of a GPU's matrix units (nanoGPT: 50,304 in place of 50,257 ids)."""

SWIGLU_MULTIPLE = 64
"""The hidden size of SwiGLU, 8/3 x width (Shazeer 2020), is rounded up to a multiple of this for speed."""

DEFAULT_STEPS = 1000
"""Steps of a training whose config sets no budget."""


class Architecture(Config):
    """The shape of a decoder-only, pre-LN GPT."""

    layers: Count = 4
    """Number of transformer blocks."""
    heads: Count = 4
    """Attention heads in a block; must divide `width`."""
    kv_heads: Natural = 0
    """Heads of keys and values, each shared by `heads / kv_heads` heads of queries; 0 for as many as `heads`."""
    width: Count = 192
    """Size of the residual stream, in numbers per token."""
    mlp_width: Natural = 0
    """Hidden size of the MLP; 0 for 4 x `width` with GELU, and 8/3 x `width` up to a multiple of 64 with SwiGLU."""
    context: Count = 256
    """Longest stretch of tokens that the model sees at once."""
    positions: Literal["learned", "rotary"] = "rotary"
    """How a token knows its place: a learned vector for each place, or rotary embeddings in attention."""
    rotary_base: Annotated[float, Field(gt=1)] = 10_000.0
    """Longest wavelength of rotary positions over 2 pi."""
    attention: Annotated[tuple[AttentionPattern, ...], Field(min_length=1)] = ("full",)
    """What a token sees of the tokens before it, layer by layer, repeated as often as needed: `full`; `local` or
    `banded`, the last `window`; `strided`, the last `stride` and every `stride`-th before; `fixed`, its own block of
    `stride` and the last `summary` of each block before."""
    window: Count = 256
    """Tokens that `local` and `banded` attention see, the token itself among them."""
    stride: Count = 128
    """Step of `strided` and size of a block of `fixed` attention, in tokens."""
    summary: Count = 8
    """Tokens at the end of each block that `fixed` attention sees of earlier blocks."""
    within_documents: bool = False
    """Whether a token sees its own document alone, with positions that begin anew in each document."""
    scaled_attention: bool = True
    """Whether products of queries and keys are divided by the square root of their size; GPT-Neo does not."""
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    """Normalisation before attention, before the MLP, and before the head."""
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Added to the variance in a norm."""
    mlp: Literal["gelu", "gelu_erf", "swiglu"] = "swiglu"
    """The MLP: GELU in its tanh form (GPT-2), GELU as defined by the error function, or SwiGLU."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values have biases; unset, as `bias` says."""
    tied: bool = False
    """Whether the head shares its matrix with the token embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of numbers set to zero in training: of embeddings, attention weights, and what a block adds."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads: choose a multiple")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.head_width}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly: choose a divisor")
        if "fixed" in self.attention and self.summary > self.stride:
            raise ValueError(f"summary {self.summary} is longer than the blocks of {self.stride} tokens (stride)")
        return self

    @property
    def head_width(self) -> int:
        """Numbers of a query, key or value of one head."""
        return self.width // self.heads

    @property
    def hidden_width(self) -> int:
        """Numbers in the middle of an MLP; a SwiGLU of 8/3 x width has the weights of a GELU of 4 x width."""
        if self.mlp_width:
            return self.mlp_width
        if self.mlp == "swiglu":
            return -(-8 * self.width // (3 * SWIGLU_MULTIPLE)) * SWIGLU_MULTIPLE
        return 4 * self.width

    @property
    def block_weights(self) -> int:
        """Weights in the matrices of all blocks: no embedding, head, bias or norm."""
        attention = 2 * self.width * (self.width + (self.kv_heads or self.heads) * self.head_width)
        return self.layers * (attention + (3 if self.mlp == "swiglu" else 2) * self.width * self.hidden_width)

    @property
    def pattern_of_layer(self) -> tuple[AttentionPattern, ...]:
        """The attention pattern of each layer."""
        return tuple(self.attention[layer % len(self.attention)] for layer in range(self.layers))


class GPTConfig(Architecture):
    """A shape together with the size of the vocabulary: all that is needed to build a model."""

    vocab_size: Count
    """Number of ids that the tokenizer can produce, special tokens included."""

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and of the head: `vocab_size` up to a multiple of 64, as GPUs are fast with.

        The rows beyond `vocab_size` are never looked up, never scored and never returned.
        """
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class PretrainConfig(Architecture):
    """Shape, optimizer, schedule and budget of one pretraining."""

    preset: Literal[
        "",
        "gpt2-124m",
        "gpt2-355m",
        "gpt2-774m",
        "gpt2-1558m",
        "gpt3-125m",
        "gpt-neo-125m",
        "llama-124m",
        "char-cpu",
        "tiny-cpu",
    ] = execution("")
    """A shape from `model.presets` whose values stand where none are given here; not together with `depth`."""
    depth: int = execution(0, ge=0)
    """One dial: so many layers, and from them width, heads, context, learning rate, tokens and batch, where they are
    not given here (`model.presets` says how); 0 derives nothing."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the hidden matrices with AdamW for the rest, or AdamW for everything."""
    lr: Rate = 8e-3
    """Peak learning rate of AdamW."""
    muon_lr: Rate = 0.03
    """Peak learning rate of Muon; unused with `optimizer = "adamw"`."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled weight decay of matrices and embeddings; biases and norms are never decayed."""
    schedule: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    """The learning rate after warmup: a cosine, a plateau with a linear end (warmup, stable, decay), a straight line
    down, or no change."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises linearly from nothing to its peak."""
    decay: Fraction = 0.2
    """Share of the steps over which `wsd` falls at the end."""
    final_lr: Fraction = 0.05
    """Learning rate at the end, as a share of the peak; `constant` has no use for it."""
    tokens: Count | None = None
    """Tokens to train on. Training ends at the first of `tokens`, `steps` and `minutes` that is set."""
    steps: Count | None = None
    """Optimizer steps to take; 1,000 where no budget is set."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes to train for: a rehearsal of a few steps tells how many steps that is, and that number is kept."""
    batch_tokens: Count = 2048
    """Tokens in each optimizer step, over all processes; a multiple of `context`."""
    boundary_labels: bool = True
    """Whether the first token of a document is a target, predicted from the end-of-text before it."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient of all parameters together; beyond it the gradient is scaled down."""
    spike_z: Annotated[float, Field(ge=0)] = 6.0
    """Standard deviations above the mean of the last 128 losses from which a loss is a spike; 0 looks for none."""
    on_spike: Literal["log", "skip"] = "log"
    """What a spike leads to: a line in the log, or a step that leaves the weights alone."""
    val_every: Count = 250
    """Steps between validations; the last step is always followed by one over every validation token."""
    val_windows: Natural = 64
    """Windows measured in a validation on the way, spread evenly; 0 measures all."""
    result: Literal["last", "best"] = "last"
    """Which weights are the stage's result: those of the last step, or those with the lowest validation loss."""
    seed: Seed = 0
    """Seed of the initial weights, of dropout, and of the order of windows."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto takes bfloat16 where the processor has it, and is the same training wherever
    it runs. Weights are always float32."""
    micro_batch_tokens: int = execution(0, ge=0)
    """Most tokens that go through the model at once in one process, to fit memory, but one window at least; 0 takes a
    process's whole share. Without dropout, whose masks are drawn for each micro-batch, it changes rounding alone."""
    checkpoint_every: int = execution(200, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = execution(2, ge=1)
    """Checkpoints kept while training, beside the one with the lowest validation loss."""
    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    """Where to train; auto takes a CUDA device if there is one."""
    compile: Literal["auto", "yes", "no"] = execution("auto")
    """Whether to compile the model; auto does where a compiler is found and the run is long enough to pay for it."""
    threads: int = execution(0, ge=0)
    """Processor threads; 0 takes every core. Results are bit-equal only at an equal number."""
    processes: int = execution(1, ge=1)
    """Processes that train together, one a GPU; more than one are started by gptmill itself. Without dropout, whose
    masks each draws for itself, their number changes rounding alone."""
    parallel: Literal["ddp", "fsdp"] = execution("ddp")
    """How they share the work: each holds the whole model, or a part of it (FSDP2)."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = execution(())
    """Where metrics go besides `metrics.jsonl`; each is a package to install."""

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, values: Any) -> Any:
        """What is given stands; what is not comes from the preset, or from the depth."""
        if not isinstance(values, dict):
            return values
        # What has gone through Python is checked as Python is, where a list is no tuple.
        filled = with_defaults(values).items()
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in filled}
        if not known.get("depth"):
            return known
        try:
            shape = Architecture(**{name: known[name] for name in Architecture.model_fields if name in known})
        except ValidationError:
            return known  # checked again with all the fields, which says what is wrong
        return {**recipe(shape.width, shape.context, shape.block_weights, known), **known}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.preset and self.depth:
            raise ValueError(f'preset "{self.preset}" and depth {self.depth} are two models: give one of them')
        if self.batch_tokens % self.context:
            raise ValueError(f"batch_tokens {self.batch_tokens} is no multiple of the context, {self.context}")
        if self.batch_size % self.processes:
            raise ValueError(f"a batch of {self.batch_size} windows cannot be split among {self.processes} processes")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are more than all steps")
        return self

    @property
    def batch_size(self) -> int:
        """Windows of `context` tokens in each optimizer step."""
        return self.batch_tokens // self.context

    @property
    def micro_batch_size(self) -> int:
        """Windows that one process puts through the model at once: they divide its share of a batch."""
        share = self.batch_size // self.processes
        most = max(1, self.micro_batch_tokens // self.context) if self.micro_batch_tokens else share
        return next(size for size in range(min(most, share), 0, -1) if share % size == 0)

    @property
    def step_budget(self) -> int | None:
        """Steps that `tokens` and `steps` allow; None where only `minutes` says how long."""
        limits = [] if self.tokens is None else [max(1, self.tokens // self.batch_tokens)]
        limits += [] if self.steps is None else [self.steps]
        return min(limits, default=None if self.minutes else DEFAULT_STEPS)

    def gpt(self, vocab_size: int) -> GPTConfig:
        """The model's shape for a tokenizer of `vocab_size` ids."""
        return GPTConfig(vocab_size=vocab_size, **{name: getattr(self, name) for name in Architecture.model_fields})


class EvaluateConfig(Config):
    """What is measured of a trained model, and what it is asked to write."""

    sets: list[str] = execution([])
    """Evaluation-set files: a benchmark's items as .jsonl, .jsonl with a `text` field, or .txt as one document. Their
    content and name count."""
    tasks: dict[str, TaskName] = {}
    """Benchmarks by the name of their set's file, without its ending, where the items themselves do not tell; that is
    the case for LAMBADA's plain texts."""
    stride: Natural = 0
    """Tokens scored in each window, the rest being context; 0 scores whole windows side by side."""
    resamples: Count = 1000
    """Bootstrap resamples of the documents or items, for the interval of each figure."""
    ngram_tokens: Natural = 4_000_000
    """Training tokens that the 5-gram model is counted from, evenly spread; 0 for none. A million take up to 300 MB."""
    memorisation_samples: Natural = 500
    """Places in the training split, and as many in the validation split, where memorisation is looked for."""
    memorisation_prompt: Count = 50
    """Tokens of text that the model is given there (50 in Carlini et al., arXiv:2202.07646)."""
    memorisation_continuation: Count = 50
    """Tokens that it must then give back, each the likeliest (50 in the same place)."""
    samples: Natural = 2
    """Texts to write from nothing, that is from end-of-text, and again for each prompt."""
    sample_tokens: Count = 120
    """Longest sample, in tokens."""
    prompts: list[str] = []
    """Texts to continue."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts before which a sample ends."""
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
