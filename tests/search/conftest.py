"""What several workers share: a database and a tracking server."""

import pytest

from imgcls.search.storage import VARIABLE
from tests.tracking.test_remote_client import server_in


@pytest.fixture
def shared(make_project, database, monkeypatch):
    """A project whose studies are in a new database of PostgreSQL; its tracking store is not opened in this process."""
    project = make_project()
    monkeypatch.setenv(VARIABLE, database)
    monkeypatch.chdir(project.root)
    return project


@pytest.fixture(scope="module")
def the_server(tmp_path_factory, empty_store):
    with server_in(tmp_path_factory.mktemp("server"), empty_store) as server:
        server.start()
        yield server
