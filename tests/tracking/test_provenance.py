"""What is recorded of real repositories, sound and damaged; git itself is the oracle."""

import logging
import os
import shutil
import subprocess

import pytest

from imgcls.record import UNKNOWN
from imgcls.tracking import provenance
from imgcls.tracking.provenance import git_tags


def git(folder, *arguments):
    """As a user would call it, whatever the environment of the tests says."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), check=True, capture_output=True, text=True)
    return done.stdout.strip()


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def repository(folder):
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("one\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "--quiet", "--message", f"one of {folder}")
    return folder


@pytest.fixture
def repo(tmp_path):
    provenance._told.cache_clear()
    return repository(tmp_path / "repo")


def recorded(folder):
    tags = git_tags(folder.resolve())
    commit = tags.get("imgcls.git_commit")
    assert tags.get("mlflow.source.git.commit") == (None if commit == UNKNOWN else commit)
    return commit, tags.get("imgcls.git_dirty"), tags.get("imgcls.git_unknown", "")


def test_a_clean_a_changed_and_no_repository(repo, tmp_path):
    head = git(repo, "rev-parse", "HEAD")
    assert recorded(repo) == (head, "false", "")
    (repo / "code.py").write_text("two\n")
    assert recorded(repo) == (head, "true", "")
    assert git_tags(repo)["imgcls.git_changed"] == "code.py"
    assert recorded(tmp_path) == (None, None, "")


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("experiments/mine.toml", None),
        ("images/cat/one.png", None),
        ("mlflow.db", None),
        ("notes.txt", None),
        ("scripts/plot.py", None),  # nothing beside it is known to git
        ("new.py", "new.py"),
        ("package/__init__.py", "package/"),
        ("fast.so", "fast.so"),
    ],
)
def test_of_the_files_that_git_does_not_know_code_alone_is_a_change(repo, path, changed):
    (repo / path).parent.mkdir(exist_ok=True, parents=True)
    (repo / path).write_text("")
    tags = git_tags(repo.resolve())
    assert (tags["imgcls.git_dirty"], tags.get("imgcls.git_changed")) == ("true" if changed else "false", changed)


def test_the_first_of_many_changes_are_named(repo):
    names = [f"number {number:03}.py" for number in range(30)]
    for name in [*names, "\udcff.py"]:
        (repo / name).write_text("")
    git(repo, "add", "--all")
    listed = git_tags(repo.resolve())["imgcls.git_changed"]
    assert listed == ", ".join(names[:20]) + " and 11 more"


def damaged_index(repo, _):
    (repo / ".git" / "index").write_bytes(b"garbage")


def index_cut_short(repo, _):
    index = repo / ".git" / "index"
    index.write_bytes(index.read_bytes()[:40])


def lost_objects(repo, _):
    for folder in (repo / ".git" / "objects").glob("??"):
        shutil.rmtree(folder)


def bare(repo, _):
    git(repo, "config", "core.bare", "true")


def damaged_head(repo, _):
    (repo / ".git" / "HEAD").write_bytes(b"")


def damaged_branch(repo, _):
    (repo / ".git" / git(repo, "symbolic-ref", "HEAD")).write_bytes(b"")


def of_somebody_else(_, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


def without_git(_, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


def slow_status(repo, monkeypatch):
    """A repository on a slow disk: `git status` never comes back, and the other commands do."""
    slow = repo.parent / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *status*) exec sleep 600;; esac\nexec {shutil.which("git")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 1.0)


@pytest.mark.parametrize(
    ("bring_about", "knows_commit", "reason"),
    [
        (damaged_index, True, "index file smaller than expected"),
        (index_cut_short, True, "the index is damaged"),
        (lost_objects, True, "bad object HEAD"),
        (bare, False, "must be run in a work tree"),
        (damaged_head, False, "not a git repository"),
        (damaged_branch, False, "HEAD names no commit"),
        (of_somebody_else, False, "git config --global --add safe.directory"),
        (without_git, False, "git is not installed"),
        (slow_status, True, "`git status` took longer than 1 s"),
    ],
)
def test_what_git_does_not_tell_is_unknown_and_said_once(repo, bring_about, knows_commit, reason, monkeypatch, caplog):
    head = git(repo, "rev-parse", "HEAD")
    bring_about(repo, monkeypatch)
    with caplog.at_level(logging.WARNING):
        commit, dirty, why = recorded(repo)
        recorded(repo)
    assert (commit, dirty) == (head if knows_commit else UNKNOWN, UNKNOWN)
    assert reason in why
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert reason in caplog.text


def test_before_its_first_commit_a_repository_has_none(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert recorded(tmp_path)[:2] == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    "name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"]
)
def test_a_variable_that_names_another_repository_is_not_followed(repo, tmp_path, name, monkeypatch):
    other = repository(tmp_path / "other")
    places = {
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_OBJECT_DIRECTORY": other / ".git/objects",
    }
    monkeypatch.setenv(name, str(places.get(name, other / ".git")))
    assert recorded(repo) == (git(repo, "rev-parse", "HEAD"), "false", "")
    monkeypatch.setenv(name, "/nowhere")
    assert recorded(repo) == (git(repo, "rev-parse", "HEAD"), "false", "")


def test_the_users_settings_hide_no_change(repo):
    git(repo, "config", "status.showUntrackedFiles", "no")
    (repo / "new.py").write_text("")
    assert recorded(repo)[1] == "true"


def test_a_setting_in_the_environment_is_kept(repo, monkeypatch):
    """As continuous integration lets git read a checkout of another user."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert recorded(repo) == (git(repo, "rev-parse", "HEAD"), "false", "")


def test_a_work_tree_a_submodule_and_a_part_of_a_repository(repo, tmp_path):
    git(repo, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "tree"))
    (tmp_path / "tree" / "part").mkdir()
    (tmp_path / "tree" / "part" / "code.py").write_text("")
    git(tmp_path / "tree", "add", ".")
    git(tmp_path / "tree", "commit", "--quiet", "--message", "two")
    head = git(tmp_path / "tree", "rev-parse", "HEAD")
    assert head != git(repo, "rev-parse", "HEAD")
    assert recorded(tmp_path / "tree") == recorded(tmp_path / "tree" / "part") == (head, "false", "")
    above = repository(tmp_path / "above")
    git(above, "submodule", "--quiet", "add", str(repo), "below")
    assert recorded(above / "below") == (git(repo, "rev-parse", "HEAD"), "false", "")


def test_a_repository_around_a_project_that_it_does_not_hold_is_not_its_own(repo):
    """Such as a home folder whose settings are under version control."""
    (repo / "project").mkdir()
    assert recorded(repo / "project") == (None, None, "")
    provenance._told.cache_clear()
    (repo / "project" / ".git").mkdir()  # git passes over what is not a repository
    assert recorded(repo / "project")[0] == UNKNOWN
    assert "does not take" in recorded(repo / "project")[2]


def test_a_look_changes_nothing_in_the_repository(repo):
    os.utime(repo / "code.py", (0, 0))  # an ordinary `git status` would now write the index anew
    before = {path: path.stat().st_mtime_ns for path in repo.rglob("*")}
    assert recorded(repo)[1] == "false"
    assert {path: path.stat().st_mtime_ns for path in repo.rglob("*")} == before
