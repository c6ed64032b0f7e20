"""Batches on a Ray cluster: one actor for each GPU or CPU slot. The only file that imports ray."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

from attrib.errors import MissingExtra, ReportError
from attrib.reports.batches import Batch
from attrib.reports.packing import Packed
from attrib.reports.spec import Spec
from attrib.reports.workers import Worker

LOCAL = "local"  # instead of an address: start Ray on this machine


def on_ray(spec: Spec, address: str, number: int | None, todo: Iterator[Batch]) -> Generator[list[Packed]]:
    """Results as they come, from `number` actors (default: as many as the cluster has GPUs, or CPUs, for).

    A lost actor is started again by Ray and its batch repeated. Each actor has one batch under way and one waiting,
    so that the source is read no faster than the actors answer. The cluster's machines need attrib installed.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise MissingExtra("--ray needs Ray: pip install 'attrib[ray]'") from error
    started = not ray.is_initialized()
    try:
        if started:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
            ray.init(address=None if address == LOCAL else address, include_dashboard=False, log_to_driver=False)
        slots = _slots(spec, ray.cluster_resources(), number)
        pool = ActorPool(_actors(ray, spec, slots))
        running = 0
        for batch in todo:
            pool.submit(lambda actor, value: actor.answer.remote(value), ray.put(batch))
            running += 1
            if running >= 2 * slots:
                yield pool.get_next_unordered()
                running -= 1
        while pool.has_next():
            yield pool.get_next_unordered()
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise ReportError(
            f"Ray at {address!r} failed: {' '.join(str(error).split())[:300]}; what is finished is kept: run the same "
            "command again"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _slots(spec: Spec, resources: dict[str, float], number: int | None) -> int:
    kind = "GPU" if _wants_gpu(spec) else "CPU"
    there = int(resources.get(kind, 0))
    if there < 1:
        raise ReportError(f"the Ray cluster has no free {kind}; its resources are {resources}")
    return there if number is None else min(number, there)


def _wants_gpu(spec: Spec) -> bool:
    return (spec.device or "cpu").startswith("cuda")


def _actors(ray: Any, spec: Spec, number: int) -> list[Any]:
    slot = {"num_gpus": 1} if _wants_gpu(spec) else {"num_cpus": 1}
    actor = ray.remote(**slot, max_restarts=3, max_task_retries=3)(Worker)
    return [actor.remote(spec, None if _wants_gpu(spec) else 1) for _ in range(number)]
