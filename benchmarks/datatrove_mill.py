"""A crawl through datatrove as its FineWeb example does it: the peer's half of `vs_datatrove.py`.

    PYTHON benchmarks/datatrove_mill.py WARC_FOLDER WORK_FOLDER LANGUAGE_MODEL TOKENIZER.json WORKERS

Run by a Python that has datatrove; imports nothing of gptmill. Everything is at datatrove's defaults, but for the
language model and the tokenizer, which are given files here where datatrove would download them.
"""

import os
import shutil
import sys
from pathlib import Path

warcs, work, model, tokenizer = map(Path, sys.argv[1:5])
workers = int(sys.argv[5])
os.environ["HF_ASSETS_CACHE"] = str(work / "assets")

from datatrove.executor import LocalPipelineExecutor  # noqa: E402
from datatrove.io import cached_asset_path_or_download  # noqa: E402
from datatrove.pipeline.dedup import (  # noqa: E402
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # noqa: E402
from datatrove.pipeline.extractors import Trafilatura  # noqa: E402
from datatrove.pipeline.filters import (  # noqa: E402
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader  # noqa: E402
from datatrove.pipeline.tokens import DocumentTokenizer  # noqa: E402
from datatrove.pipeline.writers import JsonlWriter  # noqa: E402
from datatrove.utils.lid import FT176LID  # noqa: E402


def main() -> None:
    """Run the five pipelines, one after the other; each leaves its statistics in WORK_FOLDER/logs."""
    place_language_model()
    config = MinhashConfig()
    clean = [
        WarcReader(str(warcs), glob_pattern="*.warc.gz"),
        Trafilatura(),
        LanguageFilter(["en"]),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(),
        FineWebQualityFilter(),
        JsonlWriter(str(work / "clean")),
    ]
    sign = [JsonlReader(str(work / "clean")), MinhashDedupSignature(str(work / "signatures"), config)]
    match = [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)]
    cluster = [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)]
    encode = [
        JsonlReader(str(work / "clean")),
        MinhashDedupFilter(str(work / "remove")),
        DocumentTokenizer(str(work / "tokens"), str(tokenizer), eos_token="<|endoftext|>"),
    ]
    steps = (("clean", clean, workers), ("sign", sign, workers), ("match", match, config.num_buckets))
    for name, pipeline, tasks in (*steps, ("cluster", cluster, 1), ("encode", encode, workers)):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=str(work / "logs" / name)
        ).run()


def place_language_model() -> None:
    """Put the model where datatrove looks for what it has downloaded."""

    class Found(Exception):
        pass

    import datatrove.io as io

    def place(file: str, _download: object) -> None:
        shutil.copyfile(model, file)
        Path(f"{file}.completed").touch()
        raise Found

    waiting, io.safely_create_file = io.safely_create_file, place
    try:
        cached_asset_path_or_download(FT176LID.MODEL_URL, namespace="lid", subfolder=FT176LID.MODEL_SUBFOLDER)
    except Found:
        io.safely_create_file = waiting


if __name__ == "__main__":
    main()
