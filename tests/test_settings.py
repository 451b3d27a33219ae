"""Where a setting's value comes from, and what a wrong one gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver import _settings
from gameserver._settings import SPECS, Kind, Resolved, Settings, resolve
from gameserver.errors import ConfigError

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


def merge(
    code: dict[str, Any] | None = None,
    *,
    typed: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    start: Path | None = None,
) -> Resolved:
    return resolve(code or {}, command_line=typed or {}, environ=environ or {}, start=start or Path("/"))


def wrong(*parts: str, **places: Any) -> str:
    """The error's text, which has every one of `parts`."""
    with pytest.raises(ConfigError) as caught:
        merge(**places)
    text = str(caught.value)
    for part in parts:
        assert part in text
    assert "\n" not in text
    return text


def test_defaults_are_those_of_the_class() -> None:
    resolved = merge()
    assert resolved.settings == Settings()
    assert set(resolved.sources.values()) == {"default"}
    assert resolved.file is None
    assert (resolved.settings.host, resolved.settings.port) == ("127.0.0.1", 7777)


def test_each_place_wins_over_the_ones_below(tmp_path: Path) -> None:
    code = {"port": 1, "heartbeat": 1, "spin": True, "io_threads": 1}
    (tmp_path / "gameserver.toml").write_text('port = 2\nheartbeat = 2\nio_threads = 2\nlog_level = "debug"\n')
    environ = {"GAMESERVER_PORT": "3", "GAMESERVER_HEARTBEAT": "3", "PATH": "/bin"}
    resolved = merge(code, typed={"port": "4"}, environ=environ, start=tmp_path)
    found = {name: (getattr(resolved.settings, name), source) for name, source in resolved.sources.items()}
    assert found["port"] == (4, "command line")
    assert found["heartbeat"] == (3.0, "GAMESERVER_HEARTBEAT")
    assert found["io_threads"] == (2, "gameserver.toml")
    assert found["log_level"] == ("debug", "gameserver.toml")
    assert found["spin"] == (True, "code")
    assert found["host"] == ("127.0.0.1", "default")
    assert resolved.file == tmp_path / "gameserver.toml"


def test_a_project_file_is_found_above_and_the_search_ends_there(tmp_path: Path) -> None:
    game = tmp_path / "project" / "src" / "game"
    game.mkdir(parents=True)
    (tmp_path / "gameserver.toml").write_text("port = 1")
    project = tmp_path / "project" / "pyproject.toml"
    project.write_text("[tool.other]\nport = 2")
    assert merge(start=game).settings.port == 7777  # the project's root ends the search
    project.write_text("[tool.gameserver]\nport = 3")
    resolved = merge(start=game)
    assert (resolved.settings.port, resolved.sources["port"]) == (3, "pyproject.toml [tool.gameserver]")
    (tmp_path / "project" / "src" / "gameserver.toml").write_text("port = 4")
    assert merge(start=game).settings.port == 4  # the nearest one
    project.unlink()
    (tmp_path / "project" / "src" / "gameserver.toml").unlink()
    assert merge(start=game).settings.port == 1
    (tmp_path / "project" / ".git").mkdir()
    assert merge(start=game).settings.port == 7777


def test_two_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gameserver.toml").write_text("port = 1")
    (tmp_path / "pyproject.toml").write_text("[tool.gameserver]\nport = 2")
    wrong("keep one", start=tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("port = ", "no valid TOML"),
        ("prot = 1", "'prot' is no setting; did you mean 'port'?"),
        ("[server]\nport = 1", "'server' is no setting"),
        ('port = "1"', "port='1'"),
        ("port = 1.0", "port=1.0"),
        ("port = true", "port=True"),
        ("heartbeat = nan", "heartbeat=nan"),
        ("heartbeat = inf", "heartbeat=inf"),
        ("spin = 1", "spin=1"),
        ("allowed_origins = [1]", "allowed_origins=1"),
    ],
)
def test_a_wrong_file_is_named_with_its_path(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "gameserver.toml").write_text(text)
    wrong(str(tmp_path / "gameserver.toml"), what, start=tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gameserver.toml").write_bytes(b"\xff\xfe")
    wrong("no valid TOML", start=tmp_path)
    (tmp_path / "gameserver.toml").unlink()
    (tmp_path / "pyproject.toml").write_text("tool.gameserver = 3")
    wrong("write [tool.gameserver]", start=tmp_path)


def test_unknown_names_are_refused_everywhere_with_a_suggestion() -> None:
    wrong("App(...)", "'tik_rate'", "did you mean 'tick_rate'?", code={"tik_rate": 30})
    wrong("command line", "did you mean 'heartbeat'?", typed={"hartbeat": "1"})
    wrong("GAMESERVER_HEARTBEET", "did you mean 'GAMESERVER_HEARTBEAT'?", environ={"GAMESERVER_HEARTBEET": "1"})
    wrong("GAMESERVER_XYZZY", "gameserver info", environ={"GAMESERVER_XYZZY": "1"})
    merge(environ={"GAMESERVER_BENCH_RUST_ECHO": "1", "GAMESERVER_THROUGH_BYTES": "1", "gameserver_port": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("port", -1),
        ("port", True),
        ("port", None),
        ("port", 10**400),
        ("port", 7777.0),
        ("tick_rate", -1),
        ("tick_rate", 59.94),
        ("tick_rate", float("nan")),
        ("tick_rate", float("inf")),
        ("tick_rate", 10**400),
        ("tick_rate", False),
        ("tick_rate", "30"),
        ("heartbeat", 0),
        ("handshake_timeout", 0),
        ("max_catch_up", 0),
        ("body_bytes_max", 1 << 24),
        ("queue_bytes_max", 0),
        ("io_threads", 65),
        ("on_late", "wait"),
        ("on_late", 1),
        ("serializer", "xml"),
        ("log_level", "INFO"),
        ("spin", "yes"),
        ("host", ""),
        ("host", "http://x"),
        ("host", "x:80"),
        ("host", "a b"),
        ("host", 7),
        ("unix", "/no/such/folder/x.sock"),
        ("unix", "/tmp/" + "x" * 120),
        ("unix", 3),
        ("tls_cert", "/no/such/file"),
        ("tls_cert", "/"),
        ("tls_cert", "a\0b"),
        ("tls_cert", "~nobody-of-this-name/x"),
        ("unix", "\ud800"),
        ("allowed_origins", 5),
        ("allowed_origins", "*"),
        ("allowed_origins", ["null"]),
        ("allowed_origins", ["example.com"]),
        ("allowed_origins", ["https://example.com/"]),
        ("allowed_origins", ["https://example.com/game"]),
        ("allowed_origins", ["https://u@example.com"]),
        ("allowed_origins", ["https://example.com:0"]),
        ("allowed_origins", ["https://example.com:65536"]),
        ("allowed_origins", ["https://*.example.com"]),
    ],
)
def test_values_that_cannot_stand_are_refused(name: str, value: Any) -> None:
    wrong(name, "(code)", code={name: value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", " 8080 ", 8080),
        ("body_bytes_max", "1_000", 1000),
        ("tick_rate", "60", 60),
        ("heartbeat", "10", 10.0),
        ("spin", "yes", True),
        ("spin", "0", False),
        ("log_level", "DEBUG", "debug"),
        ("host", "[::1]", "::1"),
        ("host", "fe80::1%eth0", "fe80::1%eth0"),
        ("unix", "", None),
        ("allowed_origins", "", ()),
        (
            "allowed_origins",
            "HTTPS://Example.com:443, http://192.168.1.5:7777,https://example.com",
            ("https://example.com", "http://192.168.1.5:7777"),
        ),
        ("allowed_origins", "http://[::1]:80", ("http://[::1]",)),
    ],
)
def test_text_of_the_environment_becomes_the_settings_type(name: str, text: str, value: object) -> None:
    got = getattr(merge(environ={f"GAMESERVER_{name.upper()}": text}).settings, name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["x", "", "1.5", "0x10", "--1", "1" * 5000, "१२x"])
def test_text_that_is_no_number_is_refused(text: str) -> None:
    wrong("port=", "GAMESERVER_PORT", "a whole number from 0 to 65535", environ={"GAMESERVER_PORT": text})
    wrong("command line --port", typed={"port": text})


def test_a_wrong_value_is_found_even_when_another_place_overrides_it() -> None:
    wrong("port=70000 (code)", code={"port": 70000}, environ={"GAMESERVER_PORT": "1"})


def test_tls_needs_both_files_and_the_right_ones(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("-----BEGIN CERTIFICATE-----\n")
    key.write_text("-----BEGIN EC PRIVATE KEY-----\n")
    wrong("tls_key is missing", code={"tls_cert": str(cert)})
    wrong("tls_cert is missing", environ={"GAMESERVER_TLS_KEY": str(key)})
    wrong("the other one", code={"tls_cert": str(key), "tls_key": str(cert)})
    (tmp_path / "gameserver.toml").write_text('tls_cert = "cert.pem"\ntls_key = "key.pem"')
    settings = merge(start=tmp_path).settings  # relative to the file, wherever the command was typed
    assert (settings.tls_cert, settings.tls_key) == (str(cert), str(key))
    key.write_bytes(b"\x30\x82")
    wrong("convert it to PEM", start=tmp_path)


def test_a_session_may_not_drop_between_two_heartbeats() -> None:
    wrong("stale_after=37.5 (default)", "heartbeat=40 (code)", "set stale_after=100", code={"heartbeat": 40})
    merge({"heartbeat": 40, "stale_after": 80})


def test_settings_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        merge().settings.port = 1  # type: ignore[misc]


def test_every_setting_is_documented() -> None:
    for spec in SPECS.values():
        assert spec.doc.endswith(".")
        assert spec.unit or spec.kind is not Kind.NUMBER
        getattr(Settings(), spec.name)
    assert _settings.markdown() in DOCS.read_text()


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(sorted(SPECS)), st.text(max_size=8)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text(), max_size=3)),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_values_at_all_give_settings_or_a_config_error(values: dict[str, Any], as_code: bool) -> None:
    try:
        resolved = merge(values if as_code else None, typed=None if as_code else values)
    except ConfigError:
        pass
    else:
        for name in values:
            assert resolved.sources[name] == ("code" if as_code else "command line")
