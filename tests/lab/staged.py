"""A lab of one node with its pods, as a test's stage; skipped where there can be none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from enforcer.demo import prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import running
from enforcer.demo.scenes import Stage, set_stage


@contextmanager
def staged(
    settings: Mapping[str, Mapping[str, Any]] | None = None, *, starts: bool = False
) -> Iterator[Stage]:
    """The lab with its pods; ``settings`` by section are put into the node's, and ``starts`` starts it."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as lab:
        stage = set_stage(lab)
        if settings:
            written = yaml.safe_load(lab.ward.config.read_text())
            for section, values in settings.items():
                written[section].update(values)
            lab.ward.config.write_text(yaml.safe_dump(written))
        if starts:
            lab.ward.start()
        yield stage
