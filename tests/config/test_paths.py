from __future__ import annotations

from pathlib import Path

import pytest

from codexlb_cli.config.paths import EXAMPLE, Places, example_config, find_places
from tests.support.cli import ROOT


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_the_default_lies_in_the_users_folders(tmp_path: Path) -> None:
    default = tmp_path / "config" / "codexlb" / "config.toml"
    state = tmp_path / "data" / "codexlb"
    assert find_places({}) == Places(default, state)
    assert find_places({"CODEXLB_CONFIG": ""}) == Places(default, state)
    assert find_places({}, config=default) == Places(default, state, chosen=True)


def test_the_option_wins_over_the_variable(tmp_path: Path) -> None:
    environ = {"CODEXLB_CONFIG": "one.toml"}
    assert find_places(environ).config_file == tmp_path / "one.toml"
    assert find_places(environ, config=Path("two.toml")).config_file == tmp_path / "two.toml"


def test_another_file_has_a_state_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to("one.toml")
    (tmp_path / "other").mkdir()
    one = find_places({}, config=Path("one.toml"))
    assert one.state_folder.is_relative_to(tmp_path / "data" / "codexlb" / "configs")
    for same in ("other/../one.toml", "link.toml", tmp_path / "one.toml"):
        assert find_places({}, config=Path(same)).state_folder == one.state_folder
    assert find_places({}, config=Path("link.toml")).config_file == tmp_path / "link.toml"
    two = find_places({}, config=Path("two.toml"))
    assert two.state_folder != one.state_folder


def test_a_loop_of_links_has_a_place_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert find_places({}, config=Path("loop.toml")).config_file == tmp_path / "loop.toml"


def test_the_demo_has_no_file_and_a_state_folder_of_its_own(tmp_path: Path) -> None:
    places = find_places({"CODEXLB_CONFIG": "one.toml"}, demo=True)
    assert places == Places(None, tmp_path / "data" / "codexlb" / "demo")
    assert places.demo
    assert not find_places({}).demo


def test_the_example_is_the_one_of_the_repository() -> None:
    assert example_config() == (ROOT / EXAMPLE).read_bytes()
