"""The DAG: the shape that design and README draw, and stages whose code is seen whole."""

import re
import shlex
from pathlib import Path

import pytest

from flows import stages
from flows.cli import parser
from flows.config import load_config
from flows.dag import mill
from flows.plan import Mill, Pending, graph
from pipeline.config import identity
from pipeline.engine.store import Store

ROOT = Path(__file__).resolve().parents[2]
EDGES = {
    "scrape": set(),
    "extract": {"scrape"},
    "language": {"extract"},
    "quality": {"extract", "language"},
    "signatures": {"extract"},
    "contamination": {"extract"},
    "select": {"scrape", "extract", "language", "quality", "contamination"},
    "deduplicate": {"scrape", "extract", "signatures", "select"},
    "tokenizer": {"extract", "language"},
    "tokenize": {"extract", "language", "tokenizer"},
    "pack": {"extract", "tokenize", "select", "deduplicate", "tokenizer"},
    "pretrain": {"pack", "tokenizer"},
    "evaluate": {"pretrain", "pack", "tokenizer"},
}


@pytest.fixture
def drawn(tmp_path):
    return graph(Mill(Store(tmp_path), load_config(ROOT / "configs/demo.toml")))


def test_each_stage_takes_what_the_picture_shows(drawn):
    edges = {stage: set(inputs) for stage, inputs in drawn.inputs.items()}
    assert edges.pop("report") == set(EDGES)
    assert edges == EDGES


def test_every_declared_stage_is_in_the_dag_and_the_other_way_round(drawn):
    assert list(drawn.inputs) == [stage.name for stage in stages.ALL]


def test_nothing_that_policy_decides_lies_before_tokenize(drawn):
    assert not {"select", "deduplicate"} & drawn.upstream("tokenize")


def test_kept_lines_make_tokenize_depend_on_quality(tmp_path):
    config = load_config(ROOT / "configs/demo.toml", ["tokenize.c4_lines=true"])
    assert "quality" in graph(Mill(Store(tmp_path), config)).inputs["tokenize"]


def test_of_a_given_tokenizer_model_the_content_counts_and_not_the_folder(tmp_path):
    seen = {}

    def step(stage, _section, config, /, **inputs):
        seen[stage.name] = (inputs, identity(config))
        return Pending(stage.name)

    digests, sections = [], []
    for folder, content in (("a", b"1"), ("b", b"1"), ("b", b"2")):
        (path := tmp_path / folder / "given.model").parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        settings = ["tokenizer.kind=sentencepiece", f"tokenizer.model={path}"]
        config = load_config(ROOT / "configs/demo.toml", settings)
        mill(step, config, Mill(Store(tmp_path), config))
        inputs, section = seen["tokenizer"]
        assert inputs["model"].paths == (path,)
        digests.append(inputs["model"].digest)
        sections.append(section)
    assert digests[0] == digests[1] != digests[2]
    assert sections[0] == sections[1]


@pytest.mark.parametrize("stage", stages.ALL, ids=lambda stage: stage.name)
def test_a_stages_code_is_found_and_reaches_no_infrastructure(stage):
    units = stage.code()
    assert f"{stage.function.split(':')[0].replace('.', '/')}.py {stage.function.split(':')[1]}" in units
    assert not [unit for unit in units if unit.startswith(("flows/", "pipeline/engine/", "pipeline/config.py"))]


@pytest.mark.parametrize(
    ("stage", "unit"),
    [
        (stages.QUALITY, "pipeline/quality_kernels.py"),
        (stages.QUALITY, "pipeline/words/tables.py"),
        (stages.SIGNATURES, "pipeline/shingle_kernels.py sign"),
        (stages.EXTRACT, "pipeline/extraction/charset.py"),
        (stages.EXTRACT, "pipeline/documents.py doc_id"),
        (stages.SELECT, "pipeline/select.py PolicyConfig"),
        (stages.PRETRAIN, "model/layers.py"),
        (stages.PRETRAIN, "model/training/optim.py"),
        (stages.PRETRAIN, "pipeline/shards.py TokenShards"),
        (stages.TOKENIZE, "pipeline/vocabulary/sentencepiece.py SentencePieceEncoding"),
        (stages.REPORT, "pipeline/report.html.jinja"),
    ],
)
def test_helpers_and_data_files_count_as_a_stages_code(stage, unit):
    assert [each for each in stage.code() if each.startswith(unit)]


def test_tools_are_installed():
    for stage in stages.ALL:
        assert "not installed" not in stage.tool_versions().values(), stage.name


def told_commands():
    """Every gptmill command line in the code blocks of the README and of the pages in docs/."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                command = line.partition("#")[0].partition(" | ")[0].strip()
                if command.startswith(("gptmill ", ".venv/bin/gptmill ")):
                    yield command


@pytest.mark.parametrize("command", sorted(set(told_commands())))
def test_commands_that_the_pages_tell_are_commands(command):
    assert parser().parse_args(shlex.split(command)[1:]).command


def test_one_more_wanted_language_scores_only_the_parts_that_hold_it_again(copied, tmp_path):
    parts = len(copied.run(until="quality")["quality"].parts)
    assert parts > 2
    config = tmp_path / "more.toml"
    config.write_text(copied.config.read_text() + '\n[language]\nwanted = ["en", "de"]\n')
    made = copied._replace(config=config).run(until="quality")
    assert made["language"].manifest["run"]["parts_made"] == parts
    assert made["quality"].manifest["run"]["parts_made"] == 1
