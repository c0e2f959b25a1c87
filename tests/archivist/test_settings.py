"""Reading the configuration: what wins, what is refused, and that no secret is ever told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from archivist.reference import as_yaml
from archivist.settings import Settings, load_settings, packaged_config
from corpus.errors import ConfigError

SECRET = "canary-4711-key"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Variables of whoever runs the tests do not count, and neither does a configuration lying about."""
    for name in list(os.environ):
        if name.startswith("ARCHIVIST_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str, folder: Path = Path()) -> Path:
    """A configuration file."""
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(text: str) -> str:
    """The message with which a configuration is refused, here or when it is used."""
    try:
        settings = load_settings(written(text))
        settings.service()
        settings.job()
    except ConfigError as error:
        return str(error)
    raise AssertionError("the configuration was accepted")


REMOTE = "llm: {default: remote, providers: {remote: {base_url: 'https://llm.example/v1', model: m%s}}}"

BAD = {
    "typo": ("serch: {candidates: 10}", "unknown key 'serch'; did you mean 'search'?"),
    "nested typo": ("search: {candidate: 10}", "unknown key 'search.candidate'; did you mean 'candidates'?"),
    "typo in a list": ("sources: [{path: x, nmae: y}]", "unknown key 'sources.0.nmae'; did you mean 'name'?"),
    "typo in a provider": (
        REMOTE % ", clearence: public",
        "unknown key 'llm.providers.remote.clearence'; did you mean 'clearance'?",
    ),
    "wrong type": ("server: {port: many}", "server.port: Input should be a valid integer"),
    "out of range": ("server: {port: 70000}", "server.port: Input should be less than or equal to 65535"),
    "not YAML": ("server: {port: [", "is not valid YAML"),
    "a key twice": (
        "server: {port: 1}\nlabels: {default: x}\nserver: {port: 2}\n",
        "a.yaml has a key for the second time at line 3",
    ),
    "a list": ("- a\n- b\n", "must be a mapping of keys"),
    "text": ("just words", "must be a mapping of keys"),
    "a section that is text": ("server: words", "server: Input should be"),
    "a key that is no text": ("1: 2", "must be a mapping of keys"),
    "host without a key": ("server: {host: 0.0.0.0}", "server.api_key must be set (ARCHIVIST_SERVER__API_KEY)"),
    "no clearance": (REMOTE % "", "llm.providers.remote.clearance is missing"),
    "unknown clearance": (REMOTE % ", clearance: top", "llm.providers.remote.clearance 'top' is not in labels.order"),
    "key variable not set": (
        REMOTE % ", clearance: public, api_key_env: NOT_SET",
        "the environment variable 'NOT_SET', which holds its key, is not set; export it",
    ),
    "key file not there": (
        REMOTE % ", clearance: public, api_key_file: keys/nowhere",
        "llm.providers.remote.api_key_file 'keys/nowhere' cannot be read (No such file or directory); it must be the path",
    ),
    "key file that may be a key": (
        REMOTE % ", clearance: public, api_key_file: nowhere",
        "llm.providers.remote.api_key_file cannot be read (No such file or directory); it must be the path of a file",
    ),
    "key file that is no path": (
        REMOTE % ', clearance: public, api_key_file: "a\\0b"',
        "llm.providers.remote.api_key_file cannot be read (ValueError); it must be the path of a file",
    ),
    "key for the name of a variable": (
        REMOTE % ", clearance: public, api_key_env: sk-1",
        "llm.providers.remote.api_key_env: must be the name of an environment variable, such as ACME_API_KEY, and not the key",
    ),
    "key that could be a variable's name": (
        REMOTE % ", clearance: public, api_key_env: gsk_abc",
        "the environment variable that api_key_env names, which holds its key, is not set",
    ),
    "a key as a key's name": ("llm: {sk-1: x}", "unknown key 'llm.(not shown: is it a key?)'; known: answer_within_s,"),
    "a long key's name": (f"{'x' * 41}: 1", "unknown key '(not shown: is it a key?)'; known: answer, chunking,"),
    "a name with sk- in it": ("desk-top: 1", "unknown key 'desk-top'"),
    "unknown provider": ("llm: {default: nobody}", "llm.default 'nobody' is not a provider; known: extractive"),
    "unknown default label": ("labels: {default: x}", "labels.default 'x' is not in labels.order"),
    "same source twice": ("sources: [{path: /a/x}, {path: /b/x}]", "two sources are called 'x'"),
    "source without a path": ("sources: [{name: x}]", "sources.0: a source has either a path, or urls (or urls_file)"),
    "a source for nobody": ("sources: [{path: x, groups: []}]", "groups must name at least one group"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_configuration_is_refused_by_name(text: str, expected: str) -> None:
    """The message names the key, the value or the next step."""
    assert expected in refused(text)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a file means that file."""
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
    monkeypatch.setenv("ARCHIVIST_CONFIG", "elsewhere.yaml")
    with pytest.raises(ConfigError, match=r"elsewhere\.yaml.*\$ARCHIVIST_CONFIG"):
        load_settings()
    (tmp_path / "b.yaml").write_bytes(b"data_dir: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"b\.yaml"):
        load_settings(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ARCHIVIST_SERVR__PORT", "1", "unknown environment variable 'ARCHIVIST_SERVR__PORT'; did you mean 'server'?"),
        ("ARCHIVIST_SERVER__PROT", "1", "unknown key 'server.prot'; did you mean 'port'?"),
        ("ARCHIVIST_SERVER__PORT", "many", "server.port"),
        ("ARCHIVIST_LABELS", "{not json", "labels"),
    ],
)
def test_a_bad_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str) -> None:
    """A typo in the environment is an error too."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings(written(""))
    assert expected in str(caught.value)


def test_flags_win_over_environment_over_file_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level overrides single keys of the one below."""
    path = written("server: {port: 1001, groups: [file]}\nsearch: {dense_weight: 1.1}\n")
    monkeypatch.setenv("ARCHIVIST_SERVER__PORT", "1002")
    monkeypatch.setenv("ARCHIVIST_SEARCH__CANDIDATES", "12")
    server = load_settings(path, {"server": {"port": 1003}}).server
    assert (server.port, server.groups, server.host) == (1003, ("file",), "127.0.0.1")
    settings = load_settings(path)
    assert (settings.server.port, settings.search.dense_weight, settings.search.candidates) == (1002, 1.1, 12)


def test_the_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged default, ./config/archivist.yaml, $ARCHIVIST_CONFIG, --config: each before the one named ahead of it."""
    assert load_settings().server.port == 8080
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "archivist.yaml").write_text("server: {port: 1}")
    assert load_settings().server.port == 1
    (tmp_path / "named.yaml").write_text("server: {port: 2}")
    monkeypatch.setenv("ARCHIVIST_CONFIG", "named.yaml")
    assert load_settings().server.port == 2
    assert load_settings(written("server: {port: 3}")).server.port == 3


def test_the_default_file_says_what_is_built_in() -> None:
    """config/archivist.yaml changes nothing but the list of providers."""
    shipped, built_in = load_settings(packaged_config() / "archivist.yaml"), load_settings(written(""))
    assert set(shipped.llm.providers) == {"ollama", "openai"}
    without = shipped.llm.model_copy(update={"providers": {}})
    assert without == built_in.llm
    assert shipped.model_dump(exclude={"llm"}) == built_in.model_dump(exclude={"llm"})
    shipped.service()
    shipped.job()


LEAKS: dict[str, tuple[str, dict[str, Any]]] = {
    "typo beside it": (f"server: {{api_key: {SECRET}, prot: 1}}", {}),
    "wrong type of it": (f"server: {{api_key: [{SECRET}]}}", {}),
    "as a key": (f"server: {{port: {SECRET}}}", {}),
    "unclosed quote": (f'server:\n  api_key: "{SECRET}\n  port: 1\n', {}),
    "bad indent": (f"server:\n  port: 1\n api_key: {SECRET}\n", {}),
    "alias": (f"server: {{api_key: *{SECRET}}}", {}),
    "whole file": (SECRET, {}),
    "bad tag": (f"server: {{api_key: !!int {SECRET}}}", {}),
    "provider without a clearance": (REMOTE % f", api_key: {SECRET}", {}),
    "as the name of a variable": (REMOTE % f", clearance: public, api_key_env: {SECRET}", {}),
    "as the name of a variable, with lines": (REMOTE % f", clearance: public, api_key_env: canary_4711_key_{'a' * 40}", {}),
    "as a file": (REMOTE % f", clearance: public, api_key_file: {SECRET}", {}),
    "as a file, with slashes": (REMOTE % f", clearance: public, api_key_file: {SECRET}/{'a/' * 50}", {}),
    "as a file, much too long": (REMOTE % f", clearance: public, api_key_file: {SECRET}{'a' * 5000}", {}),
    "as a file, OpenAI's": (REMOTE % f", clearance: public, api_key_file: sk-{SECRET}/b", {}),
    "as the name of a header": (REMOTE % f", clearance: public, api_key: x, key_header: 'Authorization: {SECRET}'", {}),
    "as the name of a header without a key": (REMOTE % f", clearance: public, key_header: {SECRET}", {}),
    "as the name of one more header": (REMOTE % f", clearance: public, headers: {{'Bearer {SECRET}': x}}", {}),
    "as the name of a header with a wrong value": (REMOTE % f", clearance: public, headers: {{sk-{SECRET}: [x]}}", {}),
    "as the name of a key": (REMOTE % f", clearance: public, sk-{SECRET}: x", {}),
    "in a body": (REMOTE % f", clearance: public, body: {{sk-{SECRET}: 2026-11-23}}", {}),
    "flag": ("", {"server": {"api_key": SECRET, "host": "0.0.0.0", "port": "x"}}),
}


@pytest.mark.parametrize(("text", "flags"), LEAKS.values(), ids=LEAKS)
def test_no_error_tells_a_secret(text: str, flags: dict[str, Any]) -> None:
    """Whatever is wrong with a configuration, its error does not hold the key that stands in it."""
    with pytest.raises(ConfigError) as caught:
        load_settings(written(text), flags).service()
    assert SECRET not in str(caught.value)
    assert SECRET.replace("-", "_") not in str(caught.value)


def test_no_error_about_a_variable_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does one about the environment."""
    monkeypatch.setenv("ARCHIVIST_SERVER", f'{{"api_key": "{SECRET}", "port": ')
    with pytest.raises(ConfigError) as caught:
        load_settings(written(""))
    assert SECRET not in str(caught.value)


def test_keys_come_from_the_variable_or_the_file_and_are_shown_as_asterisks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service gets the key; what is printed of settings never holds it."""
    (tmp_path / "key").write_text(SECRET + "\n")
    monkeypatch.setenv("MY_KEY", SECRET)
    for source in ("api_key_env: MY_KEY", "api_key_file: key", f"api_key: {SECRET}"):
        settings = load_settings(written(REMOTE % f", clearance: public, {source}" + f"\nserver: {{api_key: {SECRET}}}"))
        key = settings.service().llm.providers["remote"].api_key
        assert key is not None
        assert key.get_secret_value() == SECRET
        shown = as_yaml(settings)
        assert SECRET not in shown + repr(settings) + repr(settings.service())
        assert yaml.safe_load(shown)["server"]["api_key"] == "**********"


def test_settings_cannot_be_changed() -> None:
    """What was read once holds."""
    settings = load_settings(written(""))
    with pytest.raises(ValueError, match="frozen"):
        settings.data_dir = Path("x")  # type: ignore[misc]
    assert isinstance(settings, Settings)
