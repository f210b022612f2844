"""What a deployment's process does: serve, and be found."""

import asyncio
import contextlib
import logging
import os
from typing import Any, BinaryIO

import msgspec
import uvloop

from penstock.engine.async_llm import AsyncLLM
from penstock.engine.front_settings import FrontSettings
from penstock.engine.log_format import set_up_logging
from penstock.engine.settings import EngineSettings
from penstock.server.deployments import record
from penstock.server.deployments.record import Deployment
from penstock.server.serve import serve
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import PenstockError

log = logging.getLogger(__name__)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and under which name."""

    name: str
    api_key: str
    engine: EngineSettings
    front: FrontSettings
    server: ServerSettings


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the process tells whoever started it: nothing but that it is up, or what is wrong."""

    failure: str = ""
    message: str = ""
    remedy: str = ""


def serve_deployment(launch: bytes, report: BinaryIO) -> int:
    """Serve until somebody ends the deployment; the process's exit status."""
    try:
        asked = msgspec.json.decode(launch, type=Launch)
        set_up_logging(asked.front.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(asked, report))
    except PenstockError as error:
        log.error("%s", error)
        _tell(
            report,
            Report(failure=type(error).__name__, message=error.message, remedy=error.remedy),
        )
        return 1


async def _serve(launch: Launch, report: BinaryIO) -> int:
    settings: dict[str, Any] = {
        name: getattr(launch.engine, name) for name in launch.engine.__dataclass_fields__
    }
    llm = AsyncLLM(**settings, front=launch.front)
    written: list[Deployment] = []

    def be_found(url: str) -> None:
        written.append(_deployment(launch, llm, url))
        record.write(written[0])
        _tell(report, Report())

    try:
        await llm.start()
        return await serve(llm, launch.server, on_ready=be_found)
    finally:
        for deployment in written:
            record.remove(deployment)
        await llm.close()


def _deployment(launch: Launch, llm: AsyncLLM, url: str) -> Deployment:
    return Deployment(
        name=launch.name,
        model=llm.model_name,
        pid=os.getpid(),
        started=record.start_of(os.getpid()) or 0,
        url=url,
        api_key=launch.api_key,
        log=str(record.log_of(launch.name)),
    )


def _tell(report: BinaryIO, what: Report) -> None:
    """Whoever started us may have left meanwhile, which changes nothing."""
    with contextlib.suppress(BrokenPipeError):
        if not report.closed:
            report.write(msgspec.json.encode(what))
            report.close()
