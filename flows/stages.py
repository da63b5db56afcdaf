"""The stages by name: which function does each, how it takes its inputs, and what shapes its bytes."""

from pipeline.engine.stage import UNICODE, Stage

SCRAPE = Stage(
    "scrape", "pipeline.scrape:scrape", "scrape", tools=("aiohttp", "lxml", "idna", "fastwarc", "isal"), retries=2
)
EXTRACT = Stage(
    "extract",
    "pipeline.extract:extract",
    "map",
    parts=("pages",),
    tools=("resiliparse", "trafilatura", "lxml", "justext", "fastwarc", "pyarrow", UNICODE),
    extras=("source",),
)
LANGUAGE = Stage(
    "language",
    "pipeline.language:language",
    "map",
    parts=("documents",),
    tools=("fasttext-langdetect", "fasttext-predict", "pyarrow", UNICODE),
)
TOKENIZER = Stage(
    "tokenizer",
    "pipeline.tokenizer:tokenizer",
    "whole",
    parts=("documents", "language"),
    tools=("tokenizers", "tiktoken", "sentencepiece"),
)
QUALITY = Stage(
    "quality", "pipeline.quality:quality", "map", parts=("documents", "language"), tools=("numba", "pyarrow", UNICODE)
)
SIGNATURES = Stage(
    "signatures", "pipeline.signatures:signatures", "map", parts=("documents",), tools=("numba", "pyarrow", UNICODE)
)
CONTAMINATION = Stage(
    "contamination",
    "pipeline.contamination:contamination",
    "map",
    parts=("documents",),
    tools=("numba", "pyarrow", UNICODE),
)
SELECT = Stage(
    "select",
    "pipeline.select:select",
    "whole",
    parts=("documents", "language", "quality", "contamination"),
    tools=("numba", "pyarrow", UNICODE),
)
DEDUPLICATE = Stage(
    "deduplicate",
    "pipeline.deduplicate:deduplicate",
    "whole",
    parts=("documents", "signatures", "select"),
    tools=("numba", "pyarrow", UNICODE),
    extras=("progress",),
)
TOKENIZE = Stage(
    "tokenize",
    "pipeline.tokenize:tokenize",
    "map",
    parts=("documents", "language", "quality"),
    tools=("tiktoken", "sentencepiece", "pyarrow"),
)
PACK = Stage(
    "pack",
    "pipeline.pack:pack",
    "map",
    parts=("documents", "tokens", "select", "deduplicate"),
    tools=("pyarrow",),
    brief=True,
)
PRETRAIN = Stage(
    "pretrain",
    "model.pretrain:pretrain",
    "whole",
    parts=("shards",),
    tools=("torch",),
    extras=("work", "progress"),
)
EVALUATE = Stage(
    "evaluate",
    "model.evaluate:evaluate",
    "whole",
    parts=("shards",),
    tools=("torch", "tiktoken", "sentencepiece"),
    extras=("progress",),
)
REPORT = Stage(
    "report",
    "pipeline.report:report",
    "whole",
    tools=("jinja2",),
    extras=("manifests",),
    files=("pipeline/report.html.jinja",),
)

ALL = (
    SCRAPE,
    EXTRACT,
    LANGUAGE,
    TOKENIZER,
    QUALITY,
    SIGNATURES,
    CONTAMINATION,
    SELECT,
    DEDUPLICATE,
    TOKENIZE,
    PACK,
    PRETRAIN,
    EVALUATE,
    REPORT,
)
BY_NAME = {stage.name: stage for stage in ALL}
