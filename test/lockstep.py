"""A model over a bag in lockstep, as `deer replay` runs it."""

from __future__ import annotations

from pathlib import Path

from deer_ros.data.bag_topics import Names, find_topics
from deer_ros.data.new_bag import new_bag
from deer_ros.data.recording import Recording
from deer_ros.policy import DeerPolicy
from deer_ros.replay.one_run import Asked
from deer_ros.replay.output import Output, labelled
from deer_ros.replay.results import BagResult
from deer_ros.replay.run import Lockstep
from deer_ros.stepping.settings import Settings

AS_DELIVERED = Settings()


def lockstep(model: Path, bag: Path, out: Path, settings=(AS_DELIVERED,), table=None,
           instruction: str | None = None) -> BagResult:
    runner = Lockstep(DeerPolicy.from_pretrained(model, device="cpu"), table)
    with Recording(bag) as recording, new_bag(out) as writer:
        topics = find_topics(recording, Names(), None)
        asked = [
            Asked(f"run{number}" if number else "", chosen,
                  labelled(topics, f"run{number}" if number else ""))
            for number, chosen in enumerate(settings)
        ]
        output = Output(writer, recording, [run.topics for run in asked])
        return runner.replay(recording, topics, asked, output, instruction)
