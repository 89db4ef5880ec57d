"""A version that a `Training` publishes, as it is kept: weights and manifest in the workspace, a row in the catalog."""

import logging
import time
from pathlib import Path

import msgspec

from takeover.data.catalog import Catalog
from takeover.policies.base import LearnerError
from takeover.policies.manifest import Manifest, newest_version
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.training import Publication, Training

log = logging.getLogger("learner")


def write_version(workspace: Path, publication: Publication, training: Training) -> Manifest:
    """Returns what was written, under another number where that one holds other weights.

    Raises `LearnerError` as long as no episode was seen, `OSError`, with nothing written.
    """
    spec, config = training.spec, training.config
    if spec is None:
        raise LearnerError("nothing was recorded yet; the robot is not known")
    data = weights_bytes(publication.weights)
    fields = {
        "version": publication.version,
        "parent": publication.parent,
        "learner": config.learner,
        "swap": publication.learner.swap,
        "acts_from_train_step": publication.acts_from_train_step,
        "data": publication.data,
        "counters": publication.counters,
        "metrics": publication.metrics,
        "corrections": publication.corrections,
        "parameters": dict(config.learner_parameters),
        "task_parameters": training.task_parameters,
        "session_id": config.session_id,
        "data_session": training.session or config.session_id,
        "wall_ns": time.time_ns(),
    }
    manifest = make_manifest(publication.weights, data, spec, **fields)
    try:
        publish(workspace, manifest, data)
    except FileExistsError as error:
        manifest = msgspec.structs.replace(manifest, version=newest_version(workspace) + 1)
        log.warning("%s; published as version %d", error, manifest.version)
        publish(workspace, manifest, data)
    return manifest


def enter_version(catalog: Catalog, manifest: Manifest, publication: Publication, training: Training) -> None:
    """Raises as the catalog does."""
    catalog.add_policy(
        session_id=manifest.data_session,
        version=manifest.version,
        sha256=manifest.sha256,
        learner=manifest.learner,
        task_id=manifest.task_id,
        parent=manifest.parent,
        updates=publication.counters["updates"],
        train_step=training.finished_train_step,
        metrics=manifest.metrics,
        created_ns=manifest.wall_ns,
    )
