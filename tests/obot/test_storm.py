"""Everything at once, by chance: what Obot does, what it has as habits, and people who edit."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enforcer.kube.answers import ApiRefused
from enforcer.obot.absence import CONFIRM_S
from tests.obot.obots import Obot
from tests.obot.rig import Rig
from tests.obot.storage import Storage

pytestmark = [
    pytest.mark.cluster,
    # Python's ssl forgets to close a socket whose peer goes before the handshake, as a restart makes it go.
    pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]
SERVERS = "abcdefgh"
STEPS = 120


@pytest.fixture(autouse=True)
def _forgotten_sockets() -> Iterator[None]:
    """What ssl forgot is collected while the filter above stands, not in the midst of another test."""
    yield
    gc.collect()


class Storm:
    """Steps by chance; ``now`` is what Obot says at this moment."""

    def __init__(self, seed: int, storage: Storage, rig: Rig, obot: Obot) -> None:
        self.chance = random.Random(seed)
        self.storage, self.rig, self.obot = storage, rig, obot
        self.api = obot.api.admin
        self.now: dict[str, list[str]] = {}
        self.tokens = 1

    def step(self) -> None:
        """One of all that can happen."""
        steps = [self.write] * 5 + [self.remove] * 2 + [self.edit] * 3 + [self.delete] * 2
        steps += [self.storage.compact, self.storage.close_watches, self.rotate, self.restart]
        self.chance.choice(steps)()

    def write(self) -> None:
        """A server's domains change."""
        name = self.chance.choice(SERVERS)
        domains = [
            f"{self.chance.randrange(100)}.{name}.example.com" for _ in range(self.chance.randrange(4))
        ]
        self.storage.server(name, *domains)
        self.now[f"obot-mnp1{name}-fw"] = sorted(set(domains)) or ["*"]

    def remove(self) -> None:
        """A server goes."""
        if self.now:
            policy = self.chance.choice(sorted(self.now))
            del self.now[policy]
            self.storage.remove(policy.removeprefix("obot-").removesuffix("-fw"))

    def edit(self) -> None:
        """Somebody opens one up."""
        spec = {"webGroups": [{"name": "x", "domains": ["*"]}], "smartGroups": None}
        self._patch({"spec": spec})

    def delete(self) -> None:
        """Somebody deletes one, or takes its label off."""
        if self.chance.random() < 0.5:
            self._patch({"metadata": {"labels": {"obot.ai/managed-by": None, "x": "y"}}})
            return
        standing = sorted(self.rig.policies())
        if standing:
            name = self.chance.choice(standing)
            path = f"{self.rig.path}/{name}"
            with suppress(ApiRefused):  # it went in between
                self.api.delete(path)

    def _patch(self, patch: dict[str, object]) -> None:
        for name in sorted(self.rig.policies())[:1]:
            if name not in self.now:
                continue  # a label taken off an orphan makes it nobody's, and it stays
            with suppress(ApiRefused):  # it went or changed in between
                self.api.patch(f"{self.rig.path}/{name}", patch, "merge")

    def rotate(self) -> None:
        """A new token, and the old one ends."""
        self.tokens += 1
        token = f"osa1-{self.tokens}-next"
        self.storage.tokens = {token}
        self.rig.token_file.write_text(token)

    def restart(self) -> None:
        """Obot is away for a moment, and comes back with another certificate."""
        self.storage.stop()
        self.storage.start()


@pytest.mark.parametrize("seed", [1, 4])
def test_in_the_end_the_cluster_holds_what_obot_says(
    seed: int, tmp_path: Path, storage: Storage, obot: Obot
) -> None:
    """Whatever came between; and nobody's edit stands."""
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as rig:
        storm = Storm(seed, storage, rig, obot)
        storm.storage.server("z", "z.example.com")
        storm.now["obot-mnp1z-fw"] = ["z.example.com"]
        for _ in range(STEPS):
            storm.step()
            time.sleep(storm.chance.random() * 0.05)  # the storm's own speed
        rig.later(CONFIRM_S)

        def is_right() -> bool:
            rig.later(1.0)
            return rig.domains() == storm.now

        rig.until(is_right, json.dumps(storm.now))
        assert all(
            item["metadata"]["labels"]["obot.ai/managed-by"] == "nameward" for item in rig.policies().values()
        )
