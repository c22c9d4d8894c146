"""What the command line says of itself, and where it takes options from."""

import json
import re
from pathlib import Path

import pytest

from denature.cli.app import _combinations, _split_lists, app, main
from denature.cli.commands import COMMANDS, GROUPS, SUBCOMMANDS
from denature.cli.environment import with_environment
from denature.cli.tree import arguments_of, path_of, paths_below
from denature.core.errors import ConfigError, unknown
from denature.core.synonyms import SYNONYMS
from denature.defenses.catalogue import DEFENSES
from denature.extract.strategies.catalogue import STRATEGIES
from denature.robust.catalogue import ATTACKS


def test_the_help_lists_each_command_under_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    listed = capsys.readouterr().out
    heads = [listed.index(f"╭─ {group} ") for group in GROUPS]
    assert heads == sorted(heads)
    for place, (head, commands) in enumerate(zip(heads, GROUPS.values(), strict=True)):
        part = listed[head : heads[place + 1]] if place + 1 < len(heads) else listed[head:]
        for name, command in commands.items():
            assert f"│ {name} " in part
            assert command.help.split()[0] in part


PATHS = [path for name in COMMANDS for path in paths_below(app, (name,))]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_each_command_has_two_examples_that_parse(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name = " ".join(path)
    examples = COMMANDS[name].examples if len(path) == 1 else SUBCOMMANDS[name]
    assert len(examples) == 2
    for example in examples:
        assert path_of(app, example.split())[: len(path)] == path
        for words in _combinations(example.split()):
            app.parse_args(_split_lists(words), exit_on_error=False, print_error=False)
    assert main(["help", *path]) == 0
    said = " ".join(capsys.readouterr().out.replace("\\ ", " ").split())
    for example in examples:
        assert f"denature {example}" in said


def test_help_for_no_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "audti"]) == 1
    assert "Did you mean audit" in capsys.readouterr().err


def test_the_environment_stands_for_options_that_are_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the command line, before a file of settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DENATURE_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("DENATURE_TRAIN_DATA", "digits")
    monkeypatch.setenv("DENATURE_TRAIN_BATCH_SIZE", "64")
    monkeypatch.setenv("DENATURE_TRAIN_QUIET", "1")
    Path("run.toml").write_text("epochs = 3\nseed = 4\n")
    words = ["train", "mlp", "--config", "run.toml", "--batch-size", "128", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    training = json.loads(out.splitlines()[-1])["config"]["training"]
    assert (training["epochs"], training["batch_size"], training["seed"]) == (1, 128, 4)
    assert not err
    for name, value, said in (
        ("EPOCHS", "many", "many"),
        (
            "EPOHCS",
            "3",
            "DENATURE_TRAIN_EPOHCS: There is no option of train 'epohcs'. Did you mean epochs",
        ),
        ("QUIET", "perhaps", "DENATURE_TRAIN_QUIET is 'perhaps'; wanted is 1 or 0."),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(f"DENATURE_TRAIN_{name}", value)
            assert main(words) in (1, 2)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("robustness r --data digits --epsilon 8/255", "Did you mean --linf or --l2 or --l0?"),
        ("train cnn --data digits --learning-rate=0.1", "'--learning-rate'. Did you mean --lr?"),
        ("train cnn --data digits --batchsize 3", "Did you mean --batch-size?"),
        ("steal r --pool digits --student cnn --buget 50", "Did you mean --budget?"),
        ("steal r --data digits --student cnn --budget 50", "Did you mean --pool or --test?"),
        ("train cnn --data digits --sed 1", "Did you mean --seed?"),
        ("audit r --data digits --max-querys 1", "Did you mean --max-queries?"),
        ("reproduce nose --label x", "of reproduce nose '--label'. Did you mean --labels?"),
        ("train --data digits --nett mlp", "Did you mean --net?"),
        ("audit r --data digits --verbos", "Did you mean --verbose?"),
        ("steal r --pool digits --student cnn --queries 9", "Did you mean --budget?"),
        ("audit r", "audit needs --data. See `denature help audit`."),
        ("audit --data digits", "audit needs MODEL."),
        ("train cnn --data digits --epochs", "--epochs stands without a value."),
        ("train cnn --data digits --config other.toml", "'learning-rate'. Did you mean lr?"),
        ("train cnn --data digits --config parts.toml", "has a section [training]; wanted are opt"),
    ],
)
def test_an_option_that_is_not_there_is_answered_with_the_next_step(
    line: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.toml").write_text("learning_rate = 0.1\n")
    Path("parts.toml").write_text("[training]\nepochs = 3\n")
    assert main(line.split()) in (1, 2)
    assert said in capsys.readouterr().err


def test_other_names_of_the_field_lead_to_names_that_exist() -> None:
    options = {
        name.removeprefix("--")
        for path in PATHS
        for argument in arguments_of(app, path)
        for name in argument.names
    }
    known = {*options, *ATTACKS, *STRATEGIES, *DEFENSES}
    assert {name for names in SYNONYMS.values() for name in names} <= known
    assert not SYNONYMS.keys() & {*ATTACKS, *STRATEGIES, *DEFENSES}
    assert "Did you mean carlini-wagner?" in str(unknown("attack", "C&W", ATTACKS))
    assert "Did you mean mad?" in str(unknown("defense", "MAD_argmax", DEFENSES))
    assert "Did you mean semi-supervised?" in str(unknown("thief", "FixMatch", STRATEGIES))


@pytest.mark.parametrize(
    ("variable", "value", "line", "wanted"),
    [
        ("STEAL_BUDGET", "100,200", "steal x", ["--budget", "100", "--budget", "200"]),
        ("ROBUSTNESS_LINF", "8/255", "robustness x", ["--linf", repr(8 / 255)]),
        ("AUDIT_MAX_QUERIES", "9", "audit x --max-queries=7", []),
        ("AUDIT_GRID", "no", "audit x", []),
        ("NETS_THREADS", "2", "nets", ["--threads=2"]),
    ],
)
def test_a_variable_is_read_as_its_option_is(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str, wanted: list[str]
) -> None:
    monkeypatch.setenv(f"DENATURE_{variable}", value)
    tokens = line.split()
    assert _split_lists(with_environment(app, tokens)) == [*_split_lists(tokens), *wanted]


@pytest.mark.parametrize(
    ("variable", "line", "wanted"),
    [
        ("NOSE_LABELS", "reproduce nose", ["--labels=smoke"]),
        ("LABELS", "reproduce nose", ["--labels=smoke"]),
        ("SCALE", "reproduce nose", ["--scale=smoke"]),
        ("NOSE_SCALE", "reproduce nose", ["--scale=smoke"]),
        ("NOSE_SCALE", "reproduce all", []),
        ("LABELS", "reproduce all", []),
        ("TAME", "reproduce nose", []),
    ],
)
def test_a_subcommand_reads_variables_of_its_own_and_of_the_command_above(
    monkeypatch: pytest.MonkeyPatch, variable: str, line: str, wanted: list[str]
) -> None:
    monkeypatch.setenv(f"DENATURE_REPRODUCE_{variable}", "smoke")
    assert with_environment(app, line.split()) == [*line.split(), *wanted]


def test_the_variable_of_a_subcommand_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENATURE_REPRODUCE_SCALE", "paper")
    monkeypatch.setenv("DENATURE_REPRODUCE_NOSE_SCALE", "smoke")
    assert with_environment(app, ["reproduce", "nose"])[2:] == ["--scale=smoke"]
    assert with_environment(app, ["reproduce", "all"])[2:] == ["--scale=paper"]


@pytest.mark.parametrize(
    ("variable", "line", "said"),
    [
        ("REST_TIMEOUT_S", "rest try a b", "option of rest 'timeout-s'. Known: config, json, qu"),
        ("REPRODUCE_NOSE_SCAEL", "reproduce", "option of reproduce nose 'scael'. Did you mean sc"),
        ("REPRODUCE_SCAEL", "reproduce nose", "option of reproduce 'scael'. Did you mean scale?"),
    ],
)
def test_a_variable_that_no_command_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, line: str, said: str
) -> None:
    monkeypatch.setenv(f"DENATURE_{variable}", "1")
    with pytest.raises(ConfigError, match=re.escape(f"There is no {said}")):
        with_environment(app, line.split())


def test_a_sweep_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENATURE_TRAIN_LR", "0.1,0.05")
    lines = _combinations(with_environment(app, ["train", "mlp"]))
    assert [line[-1] for line in lines] == ["0.1", "0.05"]


def test_a_shell_completes_commands_and_options() -> None:
    script = app.generate_completion(shell="bash")
    for word in ("audit", "--defense", "--max-queries", "robustness"):
        assert word in script


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--linf", "8/255,0.1"], ["--linf", repr(8 / 255), "--linf", "0.1"]),
        (["--epsilon=2/4"], ["--epsilon", "0.5"]),
        (["--l2", "1/0", "--lr", "1/2"], ["--l2", "1/0", "--lr", "1/2"]),
    ],
)
def test_budgets_of_attacks_may_be_fractions(words: list[str], wanted: list[str]) -> None:
    assert _split_lists(words) == wanted
