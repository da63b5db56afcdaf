"""The whole configuration: one TOML file, one section a stage, each described beside its stage.

Wrong input is told in one sentence with the key's full path, the value found and what is allowed.
"""

import difflib
import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from flows.notify import NotifyConfig, masked
from model.config import EvaluateConfig, PretrainConfig
from pipeline.config import BadInput, Config, execution
from pipeline.contamination import ContaminationConfig
from pipeline.deduplicate import DeduplicateConfig
from pipeline.engine.engines import WorkersConfig
from pipeline.extraction.page import ExtractConfig
from pipeline.language import LanguageConfig
from pipeline.pack import PackConfig
from pipeline.quality import QualityConfig
from pipeline.report import ReportConfig
from pipeline.select import PolicyConfig
from pipeline.signatures import SignaturesConfig
from pipeline.sources import CrawlSource, FileSource, ScrapeConfig
from pipeline.tokenize import TokenizeConfig
from pipeline.tokenizer import TokenizerConfig

DEFAULT_CONFIG = Path("configs/demo.toml")
DEFAULT_STORE = Path("data/store")


class RefreshConfig(Config):
    """What `gptmill refresh` does beside crawling again; nothing of it enters a key."""

    start: Literal["scratch", "continue"] = execution("scratch")
    """What training on a new corpus starts from: nothing, or the promoted model, with fresh warmup and optimizer."""
    margin: float = execution(0.02, ge=0, lt=1)
    """Share by which the new model's bits per byte may be above the promoted one's, on either validation set."""


class MillConfig(Config):
    """Everything that one corpus and one model depend on."""

    name: str = execution("", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name under which the latest artifacts of this config are kept; by default the config file's own name."""
    scrape: ScrapeConfig
    """Where pages come from."""
    extract: ExtractConfig = ExtractConfig()
    """How a page becomes a document."""
    language: LanguageConfig = LanguageConfig()
    """Language identification and the wanted languages."""
    quality: QualityConfig = QualityConfig()
    """Scores of the Gopher, C4 and FineWeb rules."""
    signatures: SignaturesConfig = SignaturesConfig()
    """MinHash signatures."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Overlap with the evaluation sets."""
    policy: PolicyConfig = PolicyConfig()
    """All cut-offs that decide which documents are kept."""
    deduplicate: DeduplicateConfig = DeduplicateConfig()
    """When two documents are the same."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The vocabulary."""
    tokenize: TokenizeConfig = TokenizeConfig()
    """How documents become ids."""
    pack: PackConfig = PackConfig()
    """Training and validation shards."""
    pretrain: PretrainConfig = PretrainConfig()
    """The model and its training."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What the model is measured on."""
    report: ReportConfig = ReportConfig()
    """The page that tells it all."""
    refresh: RefreshConfig = RefreshConfig()
    """How the corpus and the model are kept fresh."""
    workers: WorkersConfig = WorkersConfig()
    """Who does the shards; never part of a key."""
    notify: NotifyConfig = NotifyConfig()
    """Who is told of what; never part of a key."""

    @model_validator(mode="after")
    def _bands_fit(self) -> "MillConfig":
        values = self.deduplicate.bands * self.deduplicate.rows
        if values > self.signatures.num_perm:
            raise ValueError(
                f"deduplicate.bands x deduplicate.rows is {values}, more than signatures.num_perm, "
                f"{self.signatures.num_perm}"
            )
        return self


def load_config(path: Path, settings: list[str] | None = None) -> MillConfig:
    """Read a TOML file, apply "section.key=value" settings and check everything. BadInput says what is wrong where."""
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise BadInput(f"The config {path} cannot be read: {error.strerror}. Give one with -c FILE.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The config {path} is no valid TOML: {error}.") from error
    for setting in settings or []:
        _apply(values, setting)
    values.setdefault("name", "".join(c if c.isalnum() or c in "-_" else "-" for c in path.stem.lower()))
    try:
        # As JSON, so that types are strict ("10" is no number, true is no 1) and yet a list may be a tuple.
        return MillConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise BadInput(f"{path}: {_sentence(error, values)}") from error


def as_toml(config: MillConfig, without: Collection[str] = ()) -> str:
    """The resolved config as TOML that gives the same config again, each key under its description.

    Sections that are to be `without` are left out.
    """
    lines: list[str] = [f"name = {_literal(config.name)}"]
    for section in list(MillConfig.model_fields)[1:]:
        if section not in without:
            _write_table(lines, section, getattr(config, section))
    return "\n".join(lines) + "\n"


def _write_table(lines: list[str], path: str, table: BaseModel, *, array: bool = False) -> None:
    lines += ["", f"[[{path}]]" if array else f"[{path}]"]
    nested: list[tuple[str, Any]] = []
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        is_tables = isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], BaseModel)
        if isinstance(value, BaseModel) or is_tables:
            nested.append((name, value))
            continue
        comment = f"  # {' '.join((field.description or '').split())}".rstrip(" #")
        if value is None and field.default is not None:
            value = False  # a cut-off that is off; TOML has no null
        lines.append(f"# {name} is unset{comment}" if value is None else f"{name} = {_literal(value)}{comment}")
    for name, value in nested:
        for item in value if isinstance(value, (list, tuple)) else [value]:
            _write_table(lines, f"{path}.{name}", item, array=isinstance(value, (list, tuple)))


def _literal(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = [f"{_literal(name)} = {_literal(item)}" for name, item in value.items()]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)


def _apply(values: dict[str, Any], setting: str) -> None:
    """Set one "a.b.0.c=value" in the raw values; the value is read as TOML, or taken as text where it is none."""
    path, equals, text = setting.partition("=")
    (told,) = masked([setting])
    if not equals or not path.strip():
        raise BadInput(f"--set {told} is not of the form section.key=value, for example --set pretrain.lr=0.001.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.strip().split(".")
    place: Any = values
    for name in parents:
        place = _child(place, name, told)
    if isinstance(place, list):
        place[_index(place, last, told)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise BadInput(f"--set {told}: {'.'.join(parents)} is a single value and has no {last}.")


def _child(place: Any, name: str, setting: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, name, setting)]
    if isinstance(place, dict):
        return place.setdefault(name, {})
    raise BadInput(f"--set {setting}: there is no section to set {name} in.")


def _index(items: list[Any], name: str, setting: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise BadInput(f"--set {setting}: {name} is no index of that list, which has {len(items)} entries.")
    return int(name)


def _sentence(error: ValidationError, values: dict[str, Any]) -> str:
    """The first thing that is wrong, in one sentence; how many more there are stands behind it."""
    errors = error.errors(include_url=False)
    first = errors[0]
    names = [str(part) for part in first["loc"] if not _is_tag(part, values)]
    path = ".".join(names) or "the config"
    if first["type"] == "extra_forbidden":
        allowed = _allowed(first["loc"][:-1])
        close = difflib.get_close_matches(names[-1], allowed, n=1)
        hint = f"allowed here: {', '.join(allowed)}." if allowed else f"[{'.'.join(names[:-1])}] has no keys."
        hint = f"did you mean {'.'.join([*names[:-1], close[0]])}?" if close else hint
        text = f"{path} is not a known key; {hint}"
    elif first["type"] == "missing":
        text = f"{path} is missing; it has no default."
    else:
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        # What a person wrote is shown to them, but where notices go may be a secret, and others may read this too.
        hidden = isinstance(first.get("input"), dict) or names[:1] == ["notify"]
        found = "" if hidden else f", not {_literal_or_text(first.get('input'))}"
        message = message.replace("Input should", "it should").replace("String should", "it should")
        message = message.replace("valid array", "valid list")
        if first["type"] in {"model_type", "model_attributes_type"}:
            message = f"it should be a section, [{path}]"
        text = f"{path}: {message}{found}."
    more = len(errors) - 1
    return text if not more else f"{text} ({more} more {'problem' if more == 1 else 'problems'} after that.)"


def _is_tag(part: Any, values: dict[str, Any]) -> bool:
    """Whether a step of an error's path is no key of the file but the kind of a source that pydantic tried."""
    return part in {"crawl", "files"} and part not in values


def _allowed(path: tuple[Any, ...]) -> list[str]:
    """The keys that a section takes; of a list of tables, those of the kind that the path names."""
    kinds = {"crawl": CrawlSource, "files": FileSource}
    model: Any = MillConfig
    for name in path:
        fields = getattr(model, "model_fields", {})
        model = fields[name].annotation if name in fields else kinds.get(str(name), model)
    return sorted(getattr(model, "model_fields", {}))


def _literal_or_text(value: Any) -> str:
    try:
        return _literal(value)
    except TypeError:
        return repr(value)
