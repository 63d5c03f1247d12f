"""Settings: where they come from, which wins, and that a mistake is named with key, value and rule."""

import re
from pathlib import Path
from typing import Any

import pytest

from stream.config import ENV_FILE, Settings, load
from stream.errors import ConfigError


def from_toml(tmp_path: Path, text: str | bytes) -> Settings:
    file = tmp_path / "tapewatch.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, {})


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = load(None, {})
    assert settings == Settings()
    assert settings.broker == "127.0.0.1:9092"
    assert settings.worker.host == "127.0.0.1"  # nothing listens on other addresses unasked


def test_file_sets_sections_and_keys(tmp_path: Path) -> None:
    settings = from_toml(tmp_path, 'broker = "kafka-1:9092"\n[worker]\nchunk_ticks = 2048\nwatch = ["BTCUSDT"]\n')
    assert settings.broker == "kafka-1:9092"
    assert settings.worker.chunk_ticks == 2048
    assert settings.worker.watch == ["BTCUSDT"]
    assert settings.worker.group == Settings().worker.group


def test_whole_number_is_taken_for_a_real_one(tmp_path: Path) -> None:
    assert from_toml(tmp_path, "[worker]\ncommit_interval_seconds = 2\n").worker.commit_interval_seconds == 2.0


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "value"),
    [
        ("TAPEWATCH_WORKER__PORT", "0", "worker", "port", 0),
        ("TAPEWATCH_WORKER__COMMIT_INTERVAL_SECONDS", "0.25", "worker", "commit_interval_seconds", 0.25),
        ("TAPEWATCH_WORKER__WATCH", '["BTCUSDT", "ETHUSDT"]', "worker", "watch", ["BTCUSDT", "ETHUSDT"]),
        ("TAPEWATCH_WORKER__GROUP", "true", "worker", "group", "true"),
        ("TAPEWATCH_TOPICS__TICKS", "2024", "topics", "ticks", "2024"),
        ("TAPEWATCH_ALERTS__VOLATILITY", "6", "alerts", "volatility", 6.0),
    ],
)
def test_variable_becomes_what_its_key_holds(name: str, text: str, section: str, key: str, value: Any) -> None:
    assert getattr(getattr(load(None, {name: text}), section), key) == value


def test_later_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[worker]\nport = 1\nmax_symbols = 1\nchunk_ticks = 1\n")
    environ = {"TAPEWATCH_WORKER__PORT": "2", "TAPEWATCH_WORKER__MAX_SYMBOLS": "2", "PATH": "/bin"}
    worker = load(file, environ, {"worker.port": 3, "worker.chunk_ticks": None}).worker
    assert (worker.port, worker.max_symbols, worker.chunk_ticks) == (3, 2, 1)


def test_variable_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[worker]\nport = 7\n")
    assert load(None, {ENV_FILE: str(file)}).worker.port == 7


def test_file_on_the_command_line_wins_over_the_variable(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours.toml", tmp_path / "other.toml"
    ours.write_text("[worker]\nport = 7\n")
    other.write_text("[worker]\nport = 8\n")
    assert load(ours, {ENV_FILE: str(other)}).worker.port == 7


def test_settings_of_the_process_are_read_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEWATCH_BROKER", "other:19092")
    assert load().broker == "other:19092"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[worker]\nprot = 1\n",
            "setting worker.prot = 1: no such key; did you mean worker.port? worker knows group, m",
        ),
        ("[worker]\npump_return = 1\n", "no such key; did you mean alerts.pump_return? worker knows"),
        ("[worker]\nqqqq = 1\n", "setting worker.qqqq = 1: no such key; worker knows group, models"),
        ("wroker = 1\n", "setting wroker = 1: no such key; did you mean worker? the top knows broker, format, topics"),
        ("[wroker]\nport = 1\n", "setting wroker = {'port': 1}: no such key"),
        ("[worker]\nport = 70000\n", "setting worker.port = 70000: Expected `int` <= 65535"),
        ("[worker]\nport = -1\n", "setting worker.port = -1: Expected `int` >= 0"),
        ('[worker]\nport = "x"\n', "setting worker.port = 'x': Expected `int`, got `str`"),
        ("[worker]\nport = 1.5\n", "setting worker.port = 1.5: Expected `int`, got `float`"),
        ('[worker]\ngroup = ""\n', "setting worker.group = ''"),
        ("[worker]\nwatch = [1]\n", "setting worker.watch = [1]: Expected `str`, got `int`"),
        ('format = "xml"\n', "setting format = 'xml': must be json or msgpack"),
        (
            '[worker]\ndelivery = "twice"\n',
            "setting worker.delivery = 'twice': must be at_least_once or exactly_once",
        ),
        ("[worker]\nchunk_ticks = 0\n", "setting worker.chunk_ticks = 0: Expected `int` >= 1"),
        ("worker = 3\n", "setting worker = 3: Expected `object`, got `int`"),
        ("[alerts]\nvolatility = nan\n", "setting alerts.volatility = nan: Expected `float` > 0.0"),
        ("[alerts]\nvolatility = inf\n", "setting alerts.volatility = inf: Expected `float` <= "),
        ("[alerts]\nflow = 1.0\n", "setting alerts.flow = 1.0: Expected `float` < 1.0"),
        ("[risk]\nelevated = 70\n", "settings risk: elevated < high < critical must hold: 70.0, 60.0, 80.0"),
        (
            "[risk]\nweight_volatility = 0\nweight_anomaly = 0\nweight_flow = 0\nweight_liquidity = 0\n"
            "weight_tail = 0\n",
            "settings risk: at least one weight must be positive",
        ),
        ('[topics]\nticks = "a b"\n', "setting topics.ticks = 'a b': Expected `str` matching regex"),
        ("a = [", "tapewatch.toml is not TOML"),
        (b"\xff\xfe", "tapewatch.toml is not TOML"),
    ],
)
def test_mistake_in_the_file_names_key_value_and_rule(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        from_toml(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broker", ["", "nowhere", "host:", ":9092", "host:0", "host:65536", "a:1,b", "a b:1", "a:1,"])
def test_broker_that_is_no_address_is_refused(broker: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"broker = {broker!r} must be HOST:PORT")):
        load(None, {}, {"broker": broker})


@pytest.mark.parametrize("broker", ["localhost:1", "10.0.0.1:65535", "a:9092,b:9092,c:9092"])
def test_broker_addresses_are_taken(broker: str) -> None:
    assert load(None, {"TAPEWATCH_BROKER": broker}).broker == broker


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"TAPEWATCH_WORKER__PROT": "7"},
            "TAPEWATCH_WORKER__PROT='7': no such key; did you mean TAPEWATCH_WORKER__PORT? worker knows group, models",
        ),
        (
            {"TAPEWATCH_WORKER_PORT": "6067"},
            "TAPEWATCH_WORKER_PORT='6067': no such key; did you mean TAPEWATCH_WORKER__PORT? the top knows broker, fo",
        ),
        ({"TAPEWATCH_WROKER__PORT": "7"}, "TAPEWATCH_WROKER__PORT='7': no such key; did you mean TAPEWATCH_WORKER__P"),
        ({"TAPEWATCH_PORT": "7"}, "TAPEWATCH_PORT='7': no such key; did you mean TAPEWATCH_WORKER__PORT? the top"),
        ({"TAPEWATCH_QQQQ": "7"}, "TAPEWATCH_QQQQ='7': no such key; the top knows broker"),
        ({"TAPEWATCH_WORKER__PORT": "abc"}, "TAPEWATCH_WORKER__PORT='abc': 'abc' is no whole number"),
        ({"TAPEWATCH_WORKER__PORT": ""}, "TAPEWATCH_WORKER__PORT='': '' is no whole number"),
        ({"TAPEWATCH_WORKER__PORT": "70000"}, "TAPEWATCH_WORKER__PORT='70000': Expected `int` <= 65535"),
        ({"TAPEWATCH_FORMAT": "xml"}, "TAPEWATCH_FORMAT='xml': must be json or msgpack"),
        ({"TAPEWATCH_WORKER__SNAPSHOTS": "maybe"}, "TAPEWATCH_WORKER__SNAPSHOTS='maybe': 'maybe' is no true or false"),
        ({"TAPEWATCH_WORKER__WATCH": "BTCUSDT"}, "WATCH='BTCUSDT': 'BTCUSDT' is no list such as [\"A\", \"B\"]"),
        ({"TAPEWATCH_WORKER": "7"}, "TAPEWATCH_WORKER='7': worker is a section, not a value"),
        (
            {"TAPEWATCH_BROKER": "a:1", "TAPEWATCH_BROKER__PORT": "2"},
            "TAPEWATCH_BROKER__PORT: broker is a value, not a section",
        ),
        (
            {"TAPEWATCH_WORKER__PORT": "2", "TAPEWATCH_WORKER": "a"},
            "TAPEWATCH_WORKER: worker is a section, not a value",
        ),
        ({ENV_FILE: "absent.toml"}, "cannot read settings file absent.toml: No such file or directory"),
    ],
)
def test_mistake_in_a_variable_names_it(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(None, environ)


def test_command_line_that_wins_over_a_variable_is_blamed_in_its_place() -> None:
    with pytest.raises(ConfigError, match=re.escape("setting worker.port = -1: Expected `int` >= 0")):
        load(None, {"TAPEWATCH_WORKER__PORT": "abc"}, {"worker.port": -1})


@pytest.mark.parametrize(
    "name", ["TAPEWATCH_SECURITY_PASSWORD", "TAPEWATCH_SECURTY__PASSWORD", "TAPEWATCH_SECURITY__PASWORD"]
)
def test_secret_under_a_misspelt_name_is_not_shown(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name}=***: no such key; did you mean TAPEWATCH_SECURITY__PASS")):
        load(None, {name: "hunter2"})


def test_secret_in_a_misspelt_section_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("setting securty = {'password': '***', 'username': 'u'}")):
        from_toml(tmp_path, '[securty]\npassword = "hunter2"\nusername = "u"\n')


def test_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, {})


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Settings().broker = "other:1"  # type: ignore[misc]
