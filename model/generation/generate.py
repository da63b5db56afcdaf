"""Write text token by token, many texts at once: a key-value cache, sampling, and where to stop.

What the model sees of a text is a function of its length alone (`window_start`), and what a row writes depends on its
own prompt and number. So a cache, and the other rows of a batch, change speed and nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from model.cache import Cache
from model.generation.sampling import Sampling, choose
from model.gpt import GPT
from model.training.checkpoint import load_model

Ended = Callable[[list[int]], bool]
"""Whether a text ends here, judged by all ids written so far, the newest included."""


def load(checkpoint: Path) -> GPT:
    """The model of a checkpoint folder, ready to generate; raises `TrainingError` where it is damaged."""
    return load_model(checkpoint).eval()


def window_start(length: int, context: int) -> int:
    """Where the window starts that the model sees of `length` tokens: 0, or far enough on to fit, by half contexts.

    Moving by half a context means that the cache is built anew only once in so many tokens.
    """
    half = max(1, context // 2)
    return max(0, -(-(length - context) // half) * half)


def generate(
    model: GPT,
    ids: Sequence[int],
    *,
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
    seed: int = 0,
    stop_id: int | None = None,
    cached: bool = True,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that follow `ids` (at least one), as `generate_batch` does for its first row."""
    stream = generate_batch(
        model, [ids], max_tokens=max_tokens, sampling=sampling, seed=seed, stop_id=stop_id, cached=cached
    )
    for (token,) in stream:
        assert token is not None
        yield token


@torch.no_grad()
def generate_batch(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
    seed: int | Sequence[int] = 0,
    stop_id: int | None = None,
    ended: Ended | None = None,
    cached: bool = True,
) -> Iterator[list[int | None]]:
    """Yield the next id of each row, None once it has ended, up to `max_tokens` times or until all rows have ended.

    A row ends before `stop_id`, or after the id with which `ended` says so. Prompts may differ in length and have at
    least one id. Row r draws its numbers from seed + r, or from the r-th of several seeds: the same seed gives the
    same ids, in any company.
    """
    if not all(prompts):
        raise ValueError("generate needs at least one id to go on from: give it end-of-text for a fresh start")
    seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
    texts = [
        Text(list(prompt), len(prompt), torch.Generator().manual_seed(own))
        for prompt, own in zip(prompts, seeds, strict=True)
    ]
    reader = Reader(model, texts, cached)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(len(texts), model.config.vocab_size, dtype=torch.bool)
        for row, text in enumerate(texts):
            seen[row, text.ids] = True
    for _ in range(max_tokens):
        draws = torch.stack([torch.rand((), generator=text.random) for text in texts])
        tokens = choose(reader.logits(), sampling, draws, seen).tolist()
        step: list[int | None] = []
        for row, (text, token) in enumerate(zip(texts, tokens, strict=True)):
            text.over = text.over or token == stop_id
            step.append(None if text.over else token)
            text.ids.append(token)  # a row that is over goes on unheard, so that rows stay in step
            if seen is not None:
                seen[row, token] = True
            text.over = text.over or (ended is not None and ended(text.ids[text.prompt :]))
        if any(token is not None for token in step):
            yield step
        if all(text.over for text in texts):
            return


@dataclass
class Text:
    """One row: its prompt and what was written after it."""

    ids: list[int]
    prompt: int
    """How many of the ids are the prompt's."""
    random: torch.Generator
    over: bool = False


@dataclass
class Reader:
    """Reads growing texts with a model: each new token alone where the cache holds what is before it."""

    model: GPT
    texts: list[Text]
    cached: bool
    cache: Cache | None = None
    starts: list[int] = field(default_factory=list)
    """Where each text's window starts in the cache."""

    def logits(self) -> Tensor:
        """Logits (B, V) of the token that follows each text, float32 on the CPU."""
        context, device = self.model.config.context, self.model.embedding.weight.device
        starts = [window_start(len(text.ids), context) for text in self.texts]
        if self.cache is not None and starts == self.starts:
            self.cache.grow()
            newest = torch.tensor([[text.ids[-1]] for text in self.texts], device=device)
            hidden = self.model.hidden(newest, cache=self.cache)[:, 0]
        else:
            lengths = [len(text.ids) - start for text, start in zip(self.texts, starts, strict=True)]
            if self.cached:
                self.cache = Cache.empty(self.model.config, lengths, self.model.embedding.weight)
                self.starts = starts
            prompts = torch.zeros(len(self.texts), max(lengths), dtype=torch.long)
            for row, (text, start) in enumerate(zip(self.texts, starts, strict=True)):
                prompts[row, : lengths[row]] = torch.tensor(text.ids[start:])
            # What pads a row comes after its end, where causal attention never looks.
            read = self.model.hidden(prompts.to(device), cache=self.cache)
            hidden = read[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
        return self.model.logits(hidden).float().cpu()
