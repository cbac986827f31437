import pytest


@pytest.fixture
def cache_folder(tmp_path_factory, monkeypatch):
    """A cache that no other test has written to."""
    folder = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("IMGCLS_CACHE", str(folder))
    return folder
