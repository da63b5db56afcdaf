"""The configuration: what is wrong is told in one sentence, and what is printed gives the same config again."""

import pytest

from flows.config import as_toml, load_config
from pipeline.config import BadInput

MINIMAL = '[[scrape.sources]]\nname = "site"\nseeds = ["http://site.localhost/"]\n'


@pytest.fixture
def write(tmp_path):
    def of(text):
        path = tmp_path / "my config.toml"
        path.write_text(text)
        return path

    return of


def test_a_few_lines_are_a_whole_config(write):
    config = load_config(write(MINIMAL))
    assert config.name == "my-config"
    assert config.scrape.sources[0].seeds == ["http://site.localhost/"]
    assert config.policy.min_gopher_words == 50


@pytest.mark.parametrize("path", ["configs/demo.toml", "configs/web.toml", "configs/gpt2-124m.toml"])
def test_the_printed_config_gives_the_same_config_again(path, write):
    from pathlib import Path

    config = load_config(Path(path))
    assert load_config(write(as_toml(config))) == config


def test_a_cut_off_that_is_off_is_printed_as_such(write):
    config = load_config(write(MINIMAL + "[policy]\nmin_gopher_words = false\n"))
    assert config.policy.min_gopher_words is None
    assert "\nmin_gopher_words = false" in as_toml(config)
    assert load_config(write(as_toml(config))) == config


def test_a_table_of_names_is_printed_so_that_it_gives_the_same_table_again(write):
    config = load_config(write(MINIMAL + '[evaluate.tasks]\nwords = "lambada"\n"a b" = "piqa"\n'))
    assert config.evaluate.tasks == {"words": "lambada", "a b": "piqa"}
    assert 'tasks = { "words" = "lambada", "a b" = "piqa" }' in as_toml(config)
    assert load_config(write(as_toml(config))) == config
    assert "tasks = {}" in as_toml(load_config(write(MINIMAL)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[pretrain]\nlearning_rate = 1", "pretrain.learning_rate is not a known key"),
        ("[pretrain]\nstep = 1", "pretrain.step is not a known key; did you mean pretrain.steps?"),
        ("[pretrian]\nlr = 1", "pretrian is not a known key; did you mean pretrain?"),
        ('[pretrain]\nlr = "fast"', "pretrain.lr: it should be a valid number"),
        ("[pretrain]\nlr = -1", "pretrain.lr: it should be greater than"),
        ("[pretrain]\nsteps = '10'", "pretrain.steps: it should be a valid integer"),
        ("[pretrain]\nclip = inf", "pretrain.clip: it should be a finite number"),
        ("[quality]\nfoo = 1", "quality.foo is not a known key; [quality] has no keys."),
        ("pretrain = 1", "scrape.sources.0.pretrain is not a known key"),
        (
            "[deduplicate]\nbands = 20",
            "deduplicate.bands x deduplicate.rows is 160, more than signatures.num_perm, 128",
        ),
        ("[pretrain]\nheads = 5\nwidth = 192", "pretrain"),
        ('[evaluate.tasks]\na = "lamb"', "evaluate.tasks.a: it should be 'hellaswag', 'piqa', 'arc'"),
        ("[deduplicate]\nthreshold = 2.0", "deduplicate.threshold: it should be less than or equal to 1"),
        ('[tokenizer]\nkind = "words"', "tokenizer.kind: it should be 'bpe', 'gpt2', 'sentencepiece' or 'bytes'"),
        (
            "[[scrape.sources]]\nname = 'x'\nseeds = ['http://x.localhost/']\nmax_page = 3",
            "did you mean scrape.sources.1.max_pages?",
        ),
        ("[[scrape.sources]]\nname = 'x'\nseeds = 3", "scrape.sources.1.seeds: it should be a valid list, not 3"),
        ("[[scrape.sources]]\nname = 'x'", "scrape.sources.1"),
        ('name = "No Name"\n', "name"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_full_path_of_the_key(write, text, sentence):
    text = f"{text}\n{MINIMAL}" if text.startswith("name") else f"{MINIMAL}{text}\n"
    with pytest.raises(BadInput) as error:
        load_config(write(text))
    message = str(error.value)
    assert sentence in message
    assert "my config.toml" in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_a_missing_section_is_named(write):
    with pytest.raises(BadInput, match="scrape is missing"):
        load_config(write(""))


def test_an_unreadable_or_broken_file_is_one_sentence(write, tmp_path):
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(BadInput, match="is no valid TOML"):
        load_config(write("[pretrain\n"))


def test_settings_override_the_file(write):
    settings = [
        "pretrain.lr=0.5",
        "scrape.sources.0.max_pages=7",
        "language.wanted=['de', 'en']",
        "pretrain.norm=layernorm",
    ]
    config = load_config(write(MINIMAL), settings)
    assert config.pretrain.lr == 0.5
    assert config.scrape.sources[0].max_pages == 7
    assert config.language.wanted == ["de", "en"]
    assert config.pretrain.norm == "layernorm"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("pretrain.lr", "is not of the form section.key=value"),
        ("scrape.sources.4.name=x", "4 is no index of that list, which has 1 entries"),
        ("scrape.sources.0.name.x=1", "there is no section to set x in|is a single value and has no x"),
        ("pretrain.speed=1", "pretrain.speed is not a known key"),
    ],
)
def test_a_bad_setting_is_one_sentence(write, setting, sentence):
    with pytest.raises(BadInput, match=sentence):
        load_config(write(MINIMAL), [setting])


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('[notify]\nwebhook = "hooks.example.org/SECRET"', []),
        ('[notify]\nwebhook = "https://hooks.example.org/ SECRET"', []),
        ('[notify]\nwebhook = ["https://hooks.example.org/SECRET"]', []),
        ('[notify]\non = ["https://hooks.example.org/SECRET"]', []),
        ('[[notify]]\nwebhook = "https://hooks.example.org/SECRET"', []),
        ("[notify]\nwebhook = https://hooks.example.org/SECRET", []),
        ("", ["notify=https://hooks.example.org/SECRET"]),
        ("", ["notify.webhook=hooks.example.org/SECRET"]),
        ("", ["notify.webhook:https://hooks.example.org/SECRET"]),
        ("", ["notify.webhook.url=https://hooks.example.org/SECRET"]),
        ('[notify]\nwebhook = ""', ["notify.webhook.url=https://hooks.example.org/SECRET"]),
    ],
)
def test_what_is_wrong_with_a_webhook_is_told_without_it(write, text, settings):
    with pytest.raises(BadInput, match=r"notify|TOML") as caught:
        load_config(write(f"{MINIMAL}{text}\n"), settings)
    assert "SECRET" not in str(caught.value)
