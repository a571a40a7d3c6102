"""The resolver's log records: one line each, whatever is in them."""

from __future__ import annotations

import json
import re

import pytest

from resolver.log import StderrLog

NASTY = "a\nb\x1b[31m\x00\u202e\x9b"


def test_a_record_is_one_json_line(capsys):
    """event, at, level and node are always there; control characters are escaped."""
    StderrLog("node-a").tell("authority.lost", "warning", reason=NASTY)
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert {name: record[name] for name in ("event", "level", "node", "reason")} == {
        "event": "authority.lost",
        "level": "warning",
        "node": "node-a",
        "reason": NASTY,
    }
    assert re.fullmatch(r"[ -~]+", line)


def test_text_for_people_is_as_safe(capsys):
    """The console format escapes too."""
    StderrLog("node-a", form="console").tell("authority.lost", reason=NASTY)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"[ -~]+", line)
    assert "authority.lost" in line


@pytest.mark.parametrize(("level", "written"), [("debug", 2), ("info", 1), ("error", 0)])
def test_levels(capsys, level, written):
    """What is under the least level is not written."""
    log = StderrLog("node-a", level)
    log.tell("one", "debug")
    log.tell("two", "info")
    assert len(capsys.readouterr().err.splitlines()) == written
