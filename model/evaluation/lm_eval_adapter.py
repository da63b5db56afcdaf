"""A gptmill checkpoint as a model of lm-evaluation-harness (the optional extra `lm-eval`).

The harness finds models by their import, so its command line is started from here; all else is as its manual says:

    python -m model.evaluation.lm_eval_adapter run --model gptmill --model_args checkpoint=DIR,tokenizer=DIR --tasks T

Its task decides prompts and metrics, and we only give log-likelihoods, from the same code as our own evaluation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.config import TrainingError
from model.evaluation.likelihood import Likelihood, Logits, Request, score
from pipeline.shards import Encoding, end_of_text, load_encoding

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise TrainingError("lm-evaluation-harness is not installed: install gptmill with its extra lm-eval.") from error

DEFAULT_BATCH_SIZE = 16
MOST_GENERATED = 256
"""Tokens of a generation where a task says nothing (as `HFLM` of lm-evaluation-harness)."""


class LogitsModel(TemplateLM):
    """Any causal model, given as a function from ids to logits, with the encoding of its ids."""

    def __init__(self, logits: Logits, encoding: Encoding, context: int, batch_size: int = DEFAULT_BATCH_SIZE) -> None:
        super().__init__()
        self.logits, self.encoding, self.context, self.batch_size = logits, encoding, context, batch_size

    @property
    def eot_token_id(self) -> int:
        """The id that stands for an empty context."""
        return end_of_text(self.encoding)

    @property
    def tokenizer_name(self) -> str:
        """What cached requests of the harness are told apart by."""
        return self.encoding.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_kwargs: Any) -> list[int]:  # noqa: ARG002
        """The ids of a text, none of them special."""
        return self.encoding.encode_ordinary(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        found = self._score([Request(tuple(context), tuple(continuation)) for _, context, continuation in requests])
        return [(each.log_likelihood, each.greedy == 1) for each in found]

    def loglikelihood_rolling(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Nats of whole texts after an end-of-text, every token once."""
        texts = [tuple(self.tok_encode(request.args[0])) for request in requests]
        return [each.log_likelihood for each in self._score([Request((self.eot_token_id,), text) for text in texts])]

    def _score(self, requests: Sequence[Request]) -> list[Likelihood]:
        return score(self.logits, requests, context=self.context, batch_size=self.batch_size)

    def generate_until(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The likeliest continuations, each up to its first stop string; raises `ValueError` where asked to sample."""
        return [self._generate(*request.args) for request in requests]

    @torch.inference_mode()
    def _generate(self, context: str, options: dict[str, Any]) -> str:
        if options.get("do_sample") or options.get("temperature"):
            raise ValueError("gptmill generates greedily here: take do_sample and temperature out of the task.")
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else until
        ids, text = self.tok_encode(context) or [self.eot_token_id], ""
        written: list[int] = []
        for _ in range(options.get("max_gen_toks", MOST_GENERATED)):
            seen = torch.tensor([(ids + written)[-self.context :]])
            token = int(self.logits(seen)[0, -1].argmax())
            if token == self.eot_token_id:
                break
            written.append(token)
            text = self.encoding.decode(written)
            if any(stop in text for stop in stops):
                break
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


@register_model("gptmill")
class Checkpoint(LogitsModel):
    """A checkpoint folder with the folder of its tokenizer; lm-evaluation-harness names it `gptmill`."""

    def __init__(
        self,
        checkpoint: str,
        tokenizer: str,
        batch_size: int | str = DEFAULT_BATCH_SIZE,
        device: str = "auto",
        **_kwargs: Any,
    ) -> None:
        from model.generation.generate import load
        from model.training.hardware import choose_device

        place = choose_device(device.partition(":")[0])
        model = load(Path(checkpoint)).to(place)
        encoding = load_encoding(Path(tokenizer))
        size = DEFAULT_BATCH_SIZE if isinstance(batch_size, str) and not batch_size.isdigit() else int(batch_size)
        super().__init__(lambda ids: model(ids.to(place)), encoding, model.config.context, size)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
