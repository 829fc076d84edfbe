"""The guide's way to catch answers of Reliable Tasking, from the command to the rule, against an emulator."""

import asyncio

from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

DETECT = {"op": "contains", "event": "RECEIPT", "path": "routing/investigation_id", "value": "version"}
RESPOND = [{"action": "output", "name": "tasks-output"}, {"action": "report", "name": "Reliable task ran"}]


async def test_the_rule_of_the_guide_finds_the_answer():
    """The command waits, runs when the sensor comes, and the rule, kept in its hive, matches what came and nothing else."""
    emulator = Emulator(Settings(port=0, rate=0, events=0))
    await emulator.start()
    try:
        ready = emulator.ready()
        section = LimaCharlieConfig(oid=ready["oid"], api_key=ready["api_key"], url=ready["url"])
        async with LimaCharlie(section, environ={}) as account:
            sid = next(iter([one.sid async for one in account.sensors.list("plat == windows")]))
            parse("presence", {"sensor": sid, "online": False}).turn(emulator.panel)
            for command, context in (("run --shell-command whoami", "version"), ("os_services", "version")):
                accepted = await account.reliable_tasking.task(command, sid=sid, context=context, ttl=3600)
                assert (accepted.total, accepted.tasked, accepted.queued) == (1, 0, 1)
            parse("presence", {"sensor": sid, "online": True}).turn(emulator.panel)

            async def answers():
                return [event async for event in account.history.events(sid, "1h", event_type="RECEIPT")]

            while not await answers():
                await asyncio.sleep(0.02)
            assert await account.reliable_tasking.list(sid=sid) == []
            await account.rules.put("task-ran", DETECT, RESPOND)
            found = await account.replay.history("task-ran", "1h", sid=sid)
            assert found.matched
            reports = [one for one in found.results if one["action"] == "report"]
            assert [one["data"]["routing"]["event_type"] for one in reports] == ["RECEIPT"]
            (answer,) = await answers()
            assert answer["event"]["STDOUT"].strip() == "nt authority\\system"
            assert answer["routing"]["investigation_id"] == "version"
    finally:
        await emulator.stop()
