"""Registers the model of a run with MLflow: exported, proved, given a version, and an alias if it may have it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from imgcls.errors import InputError
from imgcls.evaluation.compare import evaluation_of
from imgcls.evaluation.evaluation_report import look_words
from imgcls.evaluation.selection import selection_of, story
from imgcls.inference.champion import Verdict, challenge
from imgcls.inference.export import export_run
from imgcls.inference.mlflow_model import remove_compiled, requirements, save_mlflow_model
from imgcls.inference.proof import Agreement
from imgcls.inference.run_model import load_run_model
from imgcls.inference.served_proof import prove_served
from imgcls.metrics import ACCURACY
from imgcls.record import Tag, VersionTag
from imgcls.reporting.cautions import cautions
from imgcls.reporting.run_scores import score_of, val_score
from imgcls.reporting.where_to_look import page_of
from imgcls.run_record import RunRecord
from imgcls.tracking.claims import claim
from imgcls.tracking.find_run import trained_record
from imgcls.tracking.registry import Registry, Version, check_alias, check_model_name
from imgcls.tracking.store import Tracker

PROVENANCE = (Tag.CONFIG_HASH, Tag.DATA_FINGERPRINT, Tag.TEST_FINGERPRINT, Tag.GIT_COMMIT, Tag.GIT_DIRTY)
"""Tags of a run that its registered version repeats."""

SECONDS_OF_ADDING = 600.0
"""Seconds that a process waits for another one to send the files of the same run."""


@dataclass(frozen=True)
class Registered:
    """Result of registering a run.

    Attributes:
        version: of the model; it existed already unless `proof` is set.
        run: the run.
        alias: that the version has now; "" where none was asked for.
        replaced: the version that had the alias before; None where none had, or where it was this one.
        verdict: of the challenge of that version.
        proof: of a new version.
    """

    version: Version
    run: RunRecord
    alias: str
    replaced: Version | None
    verdict: Verdict | None
    proof: Agreement | None

    @property
    def is_forced(self) -> bool:
        """Whether the registered version has its alias although its run is not better."""
        return self.verdict is not None and not self.verdict.wins

    def flat(self) -> dict[str, object]:
        """What was registered under names for programs."""
        facts: dict[str, object] = {
            "name": self.version.name, "version": self.version.number, "uri": self.uri, "run_id": self.run.run_id,
            "alias": self.alias, "is_new": self.proof is not None, "is_forced": self.is_forced,
        }  # fmt: skip
        if self.proof:
            facts |= {"num_proved": self.proof.num_images, "largest_difference": self.proof.largest}
        if self.replaced and self.verdict:
            facts |= {"replaced_version": self.replaced.number, "challenge": self.verdict.words}
        return facts

    @property
    def uri(self) -> str:
        """The registered model, as MLflow names it."""
        chosen = f"@{self.alias}" if self.alias else f"/{self.version.number}"
        return f"models:/{self.version.name}{chosen}"


def register(
    run: str, tracker: Tracker, *, name: str | None = None, alias: str | None = None, force: bool = False
) -> Registered:
    """Registers a run's model; the same run under the same name again gives the version that exists.

    Args:
        run: a completed run; a sweep stands for its winner.
        tracker: where it is, and whose registry is used.
        name: of the registered model; by default that of the run's experiment.
        alias: what the version is to be called, such as `champion`. Another version that has it keeps it unless the run
            is better than that version's run on the same val images.
        force: takes the alias anyway, and records that.

    Raises:
        InputError: an impossible name or alias, an unfinished run, or a run that is not better.
        ProofError: the model does not give the run's own predictions. Nothing was registered.
    """
    record = trained_record(run, tracker)
    name = record.experiment if name is None else name
    check_model_name(name)
    if alias is not None:
        check_alias(alias)
    elif force:
        raise InputError("--force is for --alias, which moves from one version to another; nothing else is refused")
    registry = tracker.registry()
    replaced, verdict = None, None
    if alias is not None and (holder := registry.holder(name, alias)) and holder.run_id != record.run_id:
        replaced, verdict = holder, challenge(record, holder, tracker)
        if not verdict.wins and not force:
            raise InputError(_refusal(name, alias, verdict))
    version, proof = registry.version_of(name, record.run_id), None
    if version is None:
        version, proof = _new_version(name, record, tracker, registry)
    registry.describe(version, describe(record, version, tracker))  # again, since a run may have been judged since then
    if alias is not None:
        _same_holder(registry, name, alias, replaced, record)
        registry.set_alias(version, alias, _challenge_tags(verdict))
    return Registered(version, record, alias or "", replaced, verdict, proof)


def _refusal(name: str, alias: str, verdict: Verdict) -> str:
    return (
        f"@{alias} of {name} stays where it is: {verdict.words}. A run takes the place of another only where the 95% "
        "interval of the paired difference lies above zero and p < 0.05. Nothing was registered; without --alias a "
        "version is registered that replaces none, and --force moves the alias and records these numbers"
    )


def _same_holder(registry: Registry, name: str, alias: str, replaced: Version | None, record: RunRecord) -> None:
    """Refuses to take an alias from a version that was not challenged: another process gave it meanwhile."""
    holder = registry.holder(name, alias)
    if holder and holder.run_id != record.run_id and (replaced is None or holder.number != replaced.number):
        raise InputError(
            f"@{alias} of {name} was given to version {holder.number} meanwhile; the run is registered, without it: "
            "give the command again"
        )


def _challenge_tags(verdict: Verdict | None) -> dict[str, str]:
    if verdict is None:
        return {}
    return {VersionTag.CHALLENGE if verdict.wins else VersionTag.FORCED: verdict.words}


# --- a new version ------------------------------------------------------------------------------------------------


def _new_version(
    name: str, record: RunRecord, tracker: Tracker, registry: Registry
) -> tuple[Version, Agreement | None]:
    """The version of a run, and its proof; None for it where another process registered the run meanwhile."""
    requirements()  # asked first: an export takes a while
    model = load_run_model(record, tracker)
    with tempfile.TemporaryDirectory() as temporary:
        onnx, folder = Path(temporary) / "model.onnx", Path(temporary) / "model"
        exported = export_run(model, tracker, onnx)
        save_mlflow_model(folder, onnx, exported.metadata)
        val = exported.reference
        proof = prove_served(folder, val.images, val.names, model.class_names, exported.proof.expected)
        remove_compiled(folder)
        tags = {tag: record.tags[tag] for tag in PROVENANCE if tag in record.tags}
        if record.versions:
            tags[VersionTag.VERSIONS] = json.dumps(record.versions)
        tags[VersionTag.ONNX_SHA256] = hashlib.sha256(onnx.read_bytes()).hexdigest()
        tags[VersionTag.LARGEST_DIFFERENCE] = f"{proof.largest:.2g}"
        tags[VersionTag.NUM_PROVED] = str(proof.num_images)
        what = f"the registering of run {record.run_id}"
        with claim(tracker.root, f"register-{record.run_id}", what, SECONDS_OF_ADDING):
            if there := registry.version_of(name, record.run_id):  # another process was quicker
                return there, None
            return registry.add(name, record.run_id, folder, tags), proof


def describe(record: RunRecord, version: Version, tracker: Tracker) -> str:
    """The description of a registered version: its run, its score with its interval and its look, and its proof."""
    link = f"[{record.name or record.run_id}]({page_of(record, tracker).removeprefix('/')})"
    chosen = " ".join(story(selection_of(record, tracker)))
    proof = version.tags.get(VersionTag.NUM_PROVED, ""), version.tags.get(VersionTag.LARGEST_DIFFERENCE, "")
    return "\n\n".join([
        f"Run {link} of {record.experiment}, epoch {record.best_epoch}. {chosen}",
        " ".join([_score(record, tracker), *cautions(record.tags)]),
        "{} for the {} val images: a probability differed by {} at most.".format(_what_it_gave(record), *proof),
    ])  # fmt: skip


def _what_it_gave(record: RunRecord) -> str:
    if not record.num_folds:
        return "It gave the run's own predictions"
    return (
        "The models of the single folds gave the run's own predictions, each for its fold, and this model gave the "
        f"mean of the {record.num_folds}"
    )


def _score(record: RunRecord, tracker: Tracker) -> str:
    """The accuracy on test and the look at which it was taken where the run was judged, else that on val."""
    judged = evaluation_of(record, tracker)
    if judged is None:
        return f"{ACCURACY.on_val} {val_score(record, ACCURACY.on_val)}. The test split was not opened for this run."
    return f"{score_of(judged)}. {look_words(judged)}"
