"""Write text token by token: sampling with a key-value cache, and bytes turned into text without breaking letters.

What the model sees of a sequence is a function of its length alone (`window_start`), so a cache changes speed and
nothing else.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.checkpoint import load_model
from model.gpt import GPT

if TYPE_CHECKING:
    import tiktoken


def load(checkpoint: Path) -> GPT:
    """The model of a checkpoint folder, ready to generate; raises `TrainingError` where it is damaged."""
    return load_model(checkpoint).eval()


def window_start(length: int, context: int) -> int:
    """Where the window starts that the model sees of `length` tokens: 0, or far enough on to fit, by half contexts.

    Moving by half a context means that the cache is built anew only once in so many tokens.
    """
    half = max(1, context // 2)
    return max(0, -(-(length - context) // half) * half)


@torch.no_grad()
def generate(
    model: GPT,
    ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_id: int | None = None,
    cached: bool = True,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that follow `ids` (at least one), ending before `stop_id`.

    A temperature of 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave all tokens in play. The same seed
    gives the same ids.
    """
    if not ids:
        raise ValueError("generate needs at least one id to go on from: give it end-of-text for a fresh start")
    device = model.embedding.weight.device
    random = torch.Generator(device="cpu").manual_seed(seed)
    sequence = list(ids)
    cache = model.new_cache() if cached else None
    held = 0  # where the cache's window starts
    for _ in range(max_tokens):
        start = window_start(len(sequence), model.config.context)
        if cache is not None and start != held:
            for layer in cache:
                layer.length = 0
            held = start
        unseen = sequence[start + (cache[0].length if cache else 0) :]
        logits = model(torch.tensor([unseen], device=device), cache)[0, -1].float().cpu()
        token = choose(logits, temperature, top_k, top_p, random)
        if token == stop_id:
            return
        sequence.append(token)
        yield token


def choose(logits: Tensor, temperature: float, top_k: int, top_p: float, random: torch.Generator) -> int:
    """One id drawn from logits (V,): the top_k first, then the smallest set of mass `top_p`, then by chance."""
    if temperature == 0:
        return int(logits.argmax())
    order = torch.sort(logits / temperature, descending=True, stable=True)
    kept = order.values[:top_k] if top_k else order.values
    chances = torch.softmax(kept, dim=-1)
    # A token stays if the mass before it has not reached top_p, so at least one does.
    chances = chances * (chances.cumsum(-1) - chances < top_p)
    drawn = torch.multinomial(chances, 1, generator=random)
    return int(order.indices[drawn])


def stream_text(encoding: "tiktoken.Encoding", ids: Iterable[int]) -> Iterator[str]:
    """The text of ids as it comes, held back while a letter is incomplete; special tokens print nothing.

    Bytes that are no UTF-8 at all become U+FFFD.
    """
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in ids:
        text = "" if token in special else decoder.decode(encoding.decode_single_token_bytes(token))
        if text:
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
