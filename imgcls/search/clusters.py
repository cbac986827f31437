"""Opens the cluster that a sweep asks for; a library that runs one is imported only then."""

from contextlib import AbstractContextManager, nullcontext

from imgcls.config.keys import Experiment
from imgcls.search.engines import Cluster
from imgcls.search.ray_request import RayRequest
from imgcls.tracking.store import Tracker


def cluster_for(
    experiment: Experiment, tracker: Tracker, on_ray: RayRequest | None
) -> AbstractContextManager[Cluster | None]:
    """The cluster that trains an experiment's trials, for the length of a block; None where this machine trains them.

    Raises:
        InputError: what is asked for does not fit the experiment; as the block begins, no cluster answers, or no
            machine of it has what a trial needs.
    """
    if on_ray is None:
        return nullcontext()
    on_ray.need(experiment)
    from imgcls.search.ray_engine import ray_cluster

    return ray_cluster(on_ray, experiment, tracker)
