"""Look through a folder of images and write an experiment file."""

from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson
from imgcls.cli.output import print_json, write


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the experiment: experiments/NAME.toml is written.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The images: FOLDER/CLASS/IMAGE, or with splits.")],
    budget: Annotated[str, typer.Option(help="Time for the whole sweep, such as 30m, 2h or 90s.")] = "30m",
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Also use images that links lead to outside of FOLDER.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look through a folder of images, and write an experiment that suits them and this machine.

    It says what it found, and writes experiments/NAME.toml, in which every value has its reason, and a page with
    samples of the images. Pretrained weights are used where they are on this machine; nothing is downloaded. A few
    steps are timed, so that the sweep fits into --budget. Nothing is written into the folder, and no experiment is
    overwritten.

    Example: imgcls init pets photographs --budget 1h
    """
    from imgcls.init.budget import in_words
    from imgcls.init.refusals import named_folder
    from imgcls.init.verb import init as look_and_write
    from imgcls.project import Project
    from imgcls.search.budget import parse_budget

    seconds, root = parse_budget(budget), Project.around(Path.cwd()).root
    made = look_and_write(name, named_folder(folder), seconds, root, follow_symlinks=follow_symlinks)

    from imgcls.reporting.tables import terminal_table
    from imgcls.text import duration

    plan, shown = made.proposal.plan, made.proposal.experiment
    files = {"experiment_file": str(made.experiment), "page": str(made.page), "run_id": made.run_id}
    if as_json:
        chosen = {choice.key: choice.value for choice in made.proposal.choices if not choice.is_question}
        first = {"first_command": made.first.command, "first_seconds": made.first.seconds} if made.first else {}
        print_json({**files, **made.facts, "sweep_seconds": plan.seconds, **first, **chosen})
        return
    write(terminal_table(made.found))
    model = shown.model.name + (f" with {shown.model.weights}" if shown.model.weights else " from random weights")
    rows = [
        ("Chosen", f"{model}, {shown.data.image_size} px, {shown.search.metric}"),
        ("Sweep", f"{in_words(plan)}, about {duration(plan.seconds)}"),
        ("Written", f"{_near(made.experiment)}  (every value with its reason)"),
        ("See", f"{_near(made.page)}  (samples, extremes, duplicates)"),
    ]
    if made.first:
        about = f"a first number in about {duration(made.first.seconds)}: the last layer on pretrained features"
        rows += [("First", f"{made.first.command}  # {about}")]
    rows += [("Next", f"imgcls sweep {name}")]
    write(f"\n{terminal_table(rows)}")
    if not made.proposal.fits:
        write(
            f"One trial of one epoch takes about {duration(plan.seconds)}, more than the budget of "
            f"{duration(seconds)}; raise --budget, or use fewer images"
        )


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
