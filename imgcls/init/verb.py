"""From a folder to an experiment file, a page about the images, and a run of kind `init`."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.files import written_aside
from imgcls.init.budget import in_words
from imgcls.init.choices import Proposal, propose
from imgcls.init.experiment_file import experiment_text, write_experiment
from imgcls.init.findings import findings, flat
from imgcls.init.first_number import FirstNumber, first_number
from imgcls.init.look import list_folder, look_through, path_as_written
from imgcls.init.page import images_page
from imgcls.init.recipe import choose_recipe
from imgcls.init.refusals import check_name, check_place, check_writable, store_that_exists
from imgcls.project import MLRUNS, Project
from imgcls.record import Artifact
from imgcls.text import duration
from imgcls.tracking.claims import CLAIMS
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

PAGES = ".init"
"""Folder in `mlruns/` with the pages about folders of images."""


@dataclass(frozen=True)
class Made:
    """What `imgcls init` made.

    Attributes:
        experiment: the file.
        page: about the images.
        run_id: of the run of kind `init`.
        found: what was found, (what, words).
        facts: the same as flat facts.
        proposal: what was chosen.
        first: a run that gives a first number before the sweep, where pretrained weights allow one.
    """

    experiment: Path
    page: Path
    run_id: str
    found: list[tuple[str, str]]
    facts: Mapping[str, object]
    proposal: Proposal
    first: FirstNumber | None


def init(name: str, folder: Path, budget: float, root: Path, *, follow_symlinks: bool = False) -> Made:
    """Looks through a folder of images and writes an experiment file; nothing is written into the folder.

    Args:
        name: of the experiment.
        folder: of images.
        budget: seconds for the whole sweep.
        root: of the project; `experiments/` is made in it where it does not exist.
        follow_symlinks: also use images that links lead to outside of the folder.

    Raises:
        ConfigError: a name that cannot be an experiment's, or one that exists.
        DataError: the folder cannot be used; every offender is listed.
        ResourceError: nothing can be written into the project.
    """
    project, path, page = Project(root), root / "experiments" / f"{name}.toml", root / MLRUNS / PAGES / f"{name}.html"
    check_name(name, path)
    check_place(folder, root)
    check_writable(root, path.parent, page.parent, root / MLRUNS / CLAIMS, root / MLRUNS / name)
    log.info("looking through %s", folder)
    data = DataConfig(path=path_as_written(folder, root), follow_symlinks=follow_symlinks)
    found = list_folder(data, project)
    tracker = store_that_exists(root, name)
    recipe = choose_recipe(found, budget)
    augment = AugmentConfig(random_resized_crop=tuple(recipe.values["augment.random_resized_crop"]))
    read = {key.removeprefix("data."): value for key, value in recipe.values.items() if key.startswith("data.")}
    look = look_through(found, data.model_copy(update=read), augment)
    proposal = propose(name, look, recipe, budget)
    rows = findings(look)
    title = f"What `imgcls init` proposes for {data.path}, for a sweep of {duration(budget)} on this machine:"
    text, html = experiment_text(proposal, rows, title), images_page(look, proposal, rows, str(folder))
    with ExitStack() as undo:
        with (tracker or Tracker(root)).start_run(name, kind="init", name=f"init {name}") as run:
            run.log_text(Artifact.PROPOSED, text)
            run.log_text(Artifact.IMAGES_PAGE, html)
            run.describe(_description(proposal, rows))
            write_experiment(path, text, proposal)
            undo.callback(path.unlink, missing_ok=True)
            undo.callback(page.unlink, missing_ok=True)
            _write_page(page, html)
        undo.pop_all()  # the run ended well, so the files stay
    first = first_number(proposal.experiment, recipe.pace, look.num_train + look.num_val, look.dataset.channels)
    return Made(path, page, run.run_id, rows, flat(look), proposal, first)


def _write_page(path: Path, html: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(html, encoding="utf-8")


def _description(proposal: Proposal, rows: list[tuple[str, str]]) -> str:
    plan = proposal.plan
    lines = [
        f"A look through a folder of images, before any training. Proposed: {in_words(plan)}, about "
        f"{duration(plan.seconds)}; see `{Artifact.IMAGES_PAGE}`.",
        *(f"{what}: {words}" for what, words in rows),
    ]
    return "\n\n".join(lines)
