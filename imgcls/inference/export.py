"""Exports the model of a run as one file that takes raw images, and proves it before the file gets its name."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from imgcls.errors import ImgclsError, InputError
from imgcls.files import output_file
from imgcls.inference.export_formats import ENDINGS, ENDINGS_IN_WORDS
from imgcls.inference.export_proof import (
    Answer,
    ExportProof,
    ValReference,
    check_named_file,
    prove_export,
    some_answers,
)
from imgcls.inference.exported_graph import ImagesToProbs
from imgcls.inference.exported_model import INSTALL, load_exported
from imgcls.inference.exporter_output import quiet
from imgcls.inference.proof import ProofError
from imgcls.inference.provenance import EXPORTERS, provenance
from imgcls.inference.run_model import RunModel
from imgcls.models.views import MeanOverViews
from imgcls.runs.rebuild import other_versions
from imgcls.text import counted
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

OPSET = 20
"""Version of ONNX's operators."""

LARGEST_ONNX = 2**31 - 2**24
"""Bytes of weights that one ONNX file can hold: protobuf ends at 2 GB, and the graph needs some of them."""

MIN_REPORTED_BYTES = 10**7
"""Fewest bytes of a buffer that are reported where the file has them and the checkpoint does not."""


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: of the file.
        num_bytes: of the file.
        metadata: that the file holds.
        proof: that it gives the run's predictions.
        reference: those predictions, and the val images that they are of.
    """

    path: Path
    num_bytes: int
    metadata: dict[str, str]
    proof: ExportProof
    reference: ValReference

    def flat(self) -> dict[str, object]:
        """As a flat JSON object."""
        return {
            "file": str(self.path),
            "megabytes": self.num_bytes / 1e6,
            "run_id": self.metadata["run_id"],
            "temperature": float(self.metadata["temperature"]),
            **self.proof.to_plain(),
        }


def export_run(model: RunModel, tracker: Tracker, path: Path) -> Exported:
    """Exports a run's model.

    Args:
        model: of the run.
        tracker: that holds its record.
        path: of the file to write; its ending, .onnx or .pt2, is the format.

    Raises:
        InputError: a package is not installed, a network that cannot be exported or is too large, or val images that
            are not at hand, without which nothing can be proved.
        ProofError: the model does not give the run's predictions; no file is written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--output {path}: an exported file ends with {ENDINGS_IN_WORDS}")
    kind = path.suffix.lower().removeprefix(".")
    _check_packages(kind)
    reference = ValReference.of(model, tracker)
    metadata = provenance(model, tracker)
    graph = inference_graph(model)
    _check_size(graph, kind)
    _tell_of_drawn_buffers(graph)
    with output_file(path, "--output") as aside:
        # Files are known by their endings.
        unproved = aside.with_name(f"{aside.name}.{kind}")
        try:
            with _timed("traced the network"):
                program = traced(graph)
            with _timed(f"written as {kind.upper()}"):
                write_file(program, unproved, metadata)
            with _timed(f"proved on {counted(len(reference.images), 'val image')}"):
                proof, answers = _proved(unproved, reference, graph)
            metadata |= {"proof": json.dumps(proof.to_plain())}
            _add_metadata(program, unproved, metadata)
            check_named_file(load_exported(unproved, is_trusted=True), answers)
            unproved.replace(aside)
        finally:
            unproved.unlink(missing_ok=True)
    return Exported(path, path.stat().st_size, metadata, proof, reference)


def inference_graph(model: RunModel) -> ImagesToProbs:
    """The graph that is exported, on the CPU, in float32."""
    network = copy.deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, MeanOverViews):
            module.at_once = True
    return ImagesToProbs(network.requires_grad_(False), model.preprocessing, model.temperature).eval()


def traced(graph: ImagesToProbs) -> ExportedProgram:
    """The exported program of a graph, for any number of images of any size, grey or RGB.

    Raises:
        InputError: torch cannot export the network.
    """
    example = torch.zeros((2, 50, 70, 3), dtype=torch.uint8)  # no length is 1: torch would fix it
    sizes = {"images": dict.fromkeys(range(4), Dim.DYNAMIC)}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(graph, (example,), dynamic_shapes=sizes, strict=False)
    except Exception as error:  # whatever a network does that the exporter does not know
        raise _cannot_export(error) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for name in ("stack_trace", "nn_module_stack", "source_fn_stack"):  # paths of this machine
                    node.meta.pop(name, None)
    return program


def write_file(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Writes an exported program as the file that the ending of the path names.

    Raises:
        InputError: torch cannot write the network in this format.
    """
    try:
        with quiet():
            if path.suffix == ".onnx":
                _write_onnx(program, path, metadata)
            else:
                _write_pt2(program, path, metadata)
    except (OSError, ImgclsError):
        raise
    except Exception as error:  # such as an operator that the format lacks
        raise _cannot_export(error) from error


def _write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    import onnx

    exported: Any = torch.onnx.export(
        program, (), dynamo=True, opset_version=OPSET, input_names=["images"], output_names=["probs"], verbose=False
    )
    model = exported.model_proto
    graphs = [model.graph, *(function for function in model.functions)]
    while graphs:
        graph = graphs.pop()
        graph.ClearField("metadata_props")
        for node in graph.node:
            node.ClearField("metadata_props")  # paths of this machine
            node.ClearField("doc_string")
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for value in graph.value_info:
            value.ClearField("metadata_props")
    _name_sizes(model.graph.input[0], "batch", "height", "width", "channels")
    _name_sizes(model.graph.output[0], "batch")
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def _name_sizes(value: Any, *names: str) -> None:
    for size, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        size.dim_param = name


def _write_pt2(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    with path.open("wb") as file:  # of a path, the file would remember the name
        torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})


def _add_metadata(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Writes the metadata again into a file whose graph stays what it is."""
    with quiet():
        if path.suffix == ".pt2":
            _write_pt2(program, path, metadata)
            return
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)


def _proved(path: Path, reference: ValReference, graph: ImagesToProbs) -> tuple[ExportProof, list[Answer]]:
    file = load_exported(path, is_trusted=True)
    try:
        return prove_export(file, reference, graph), some_answers(file, reference)
    except ProofError as error:
        others = other_versions(reference.model.record)
        hint = f". Packages that have changed since the run: {', '.join(others)}" if others else ""
        raise ProofError(f"{error}{hint}") from error


def _check_packages(kind: str) -> None:
    if kind == "onnx" and (missing := [name for name in EXPORTERS if find_spec(name) is None]):
        raise InputError(f"an ONNX file needs {missing[0]}, which is not installed: {INSTALL}")


def _check_size(graph: ImagesToProbs, kind: str) -> None:
    total = sum(_num_bytes(tensor) for tensor in (*graph.parameters(), *graph.buffers()))
    if kind == "onnx" and total > LARGEST_ONNX:
        raise InputError(
            f"the network has {total / 1e9:.2f} GB of weights, and one ONNX file holds {LARGEST_ONNX / 1e9:.2f} GB; "
            "export it with --format pt2"
        )


def _tell_of_drawn_buffers(graph: ImagesToProbs) -> None:
    """Says what makes a file larger than the checkpoint."""
    in_checkpoint = graph.state_dict(keep_vars=True)
    for name, buffer in graph.named_buffers():
        if name not in in_checkpoint and _num_bytes(buffer) >= MIN_REPORTED_BYTES:
            log.info(
                "%s takes %.0f MB of the file: it is drawn from a seed and not in the checkpoint, but a file must hold "
                "it", name, _num_bytes(buffer) / 1e6,
            )  # fmt: skip


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _cannot_export(error: Exception) -> InputError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    why = lines[0][:300] if lines else type(error).__name__
    return InputError(
        f"torch {torch.__version__} cannot export this network: {why}; use it with `imgcls predict`, or try the other "
        "format, or another version of torch"
    )


def usage(path: Path) -> str:
    """Lines of Python that use an exported file without imgcls."""
    if path.suffix.lower() == ".pt2":
        return (
            f"import torch\ngraph = torch.export.load({str(path)!r}).module()\nprobs = graph(torch.from_numpy(images))"
        )
    return (
        f"import onnxruntime\nsession = onnxruntime.InferenceSession({str(path)!r})\n"
        '(probs,) = session.run(["probs"], {"images": images})'
    )


@contextmanager
def _timed(done: str) -> Iterator[None]:
    """Says what was done, and the seconds that it took."""
    begun = time.monotonic()
    yield
    log.info("%s, %.1f s", done, time.monotonic() - begun)
