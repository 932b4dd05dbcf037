from lorakit_cli.sources.cache_folder import cache_folder
from lorakit_cli.sources.header_cache import HeaderCache


def test_it_is_the_users_unless_another_is_named(tmp_path, monkeypatch):
    default = cache_folder()
    assert (default.name, default.is_absolute()) == ("lorakit", True)
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    HeaderCache("owner/name", "commit").put("a", b"text")
    assert HeaderCache("owner/name", "commit").get("a") == b"text"
    (kept,) = [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert kept.read_bytes() == b"text"
    monkeypatch.setenv("LORAKIT_CACHE", "")
    assert cache_folder() == default


def test_a_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LORAKIT_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
