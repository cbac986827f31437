"""A saved view of MLflow's UI: some runs of an experiment in order, with the columns that matter; and its address.

MLflow does not document how its pages save a view, so a test in a browser guards this. Without a view the page of an
experiment opens on traces of language models, and its table shows neither metrics nor params.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

TAG = "mlflow.sharedViewState."
"""How the tag of an experiment begins that holds a saved view; its key follows."""


@dataclass(frozen=True)
class SavedView:
    """A saved view of the runs of an experiment.

    Attributes:
        key: in the address of the view: letters, digits, dots, underscores and hyphens.
        name: by which MLflow's list of views calls it.
        tags: every run that it shows has these.
        metrics: columns of metrics as stored; the first sorts.
        params: columns of params.
        ascending: whether the lowest value of the first metric comes first.
    """

    key: str
    name: str
    tags: Mapping[str, str]
    metrics: Sequence[str]
    params: Sequence[str]
    ascending: bool

    def tag(self, now: int) -> dict[str, str]:
        """The tag of the experiment that holds the view; `now` is in milliseconds since 1970."""
        envelope = {"name": self.name, "createdAt": now, "updatedAt": now, "state": _packed(self._state())}
        return {f"{TAG}{self.key}": json.dumps(envelope)}

    def _state(self) -> dict[str, object]:
        metrics = [f"metrics.`{name}`" for name in self.metrics]
        columns = [*metrics, *(f"params.`{key}`" for key in self.params), "attributes.`Duration`"]
        return {
            "searchFilter": " and ".join(f"tags.`{name}` = '{value}'" for name, value in self.tags.items()),
            "orderByKey": metrics[0],
            "orderByAsc": self.ascending,
            "selectedColumns": columns,
        }


def _packed(state: Mapping[str, object]) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def view_address(experiment_id: str, key: str) -> str:
    """The address of a saved view below that of MLflow's UI."""
    return f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={quote(key)}"


def run_address(experiment_id: str, run_id: str) -> str:
    """The address of the page of a run below that of MLflow's UI; a saved view does not belong to it."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
