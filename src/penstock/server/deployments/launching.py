"""Starting a deployment, and finding it again: `penstock.serve` and `penstock.client`."""

import os
import secrets
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from penstock.engine.front_settings import FrontSettings
from penstock.engine.settings import EngineSettings
from penstock.server.deployments import record
from penstock.server.deployments.client import Client
from penstock.server.mii.arguments import settings_from_mii
from penstock.server.settings import ServerSettings
from penstock.vocabulary import errors
from penstock.vocabulary.errors import EngineFailed, PenstockError, SettingsError
from penstock.vocabulary.sampling_params import nearest

_LAST_WORDS = 2000  # characters of a log that an error quotes


def serve(
    model_name_or_path: str | None = None,
    deployment_name: str | None = None,
    **arguments: Any,
) -> Client:
    """Start a server that stays when this process ends, and a client of it.

        client = penstock.serve("Qwen/Qwen2.5-0.5B-Instruct", deployment_name="qwen")
        print(client.generate("DeepSpeed is", max_new_tokens=64)[0])

    It listens on a free port of this machine, for those who know its key. Without a model it serves
    the small embedded one; without a name it is called after its model, as MII does. Arguments are
    MII's where they mean something here (docs/mii.md), or settings of `penstock serve`. Raises
    `SettingsError` for others and if the name is taken, and `ModelError` if there is no such model.
    """
    name = deployment_name or f"{model_name_or_path or 'default'}-mii-deployment"
    settings = settings_from_mii(arguments)
    engine, front, server = _settings({"model": model_name_or_path, "port": 0, **settings})
    key = secrets.token_urlsafe(32)
    server["api_keys"] = (key, *server.get("api_keys", ()))
    asked = server.get("dialects", ServerSettings().dialects)
    server["dialects"] = tuple(dict.fromkeys((*asked, "mii")))  # in their order, which counts
    server["served_model_name"] = name
    launch = {
        "name": name,
        "api_key": key,
        "engine": EngineSettings(**engine),
        "front": FrontSettings(**front),
        "server": ServerSettings(**server),
    }
    with record.reserved(name):
        if there := record.named(name):
            raise SettingsError(
                f"A deployment {name!r} is running, with {there.model}.",
                remedy="penstock.client finds it, and `penstock deployments stop` ends it.",
            )
        _launch(msgspec.json.encode(launch), record.log_of(name))
        return client(name)


def client(model_or_deployment_name: str) -> Client:
    """A client of a running deployment, by its name or its model's.

    Raises `NoSuchServer` if there is none.
    """
    return Client(record.find(model_or_deployment_name))


def _settings(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Those of the engine, of its front, and of the server. Raises `SettingsError` for others."""
    kinds: tuple[Any, ...] = (EngineSettings, FrontSettings, ServerSettings)
    names = [{field.name for field in fields(kind)} for kind in kinds]
    known = sorted(set().union(*names))
    for name in given:
        if name not in known:
            raise SettingsError(f"There is no setting {name!r}.", remedy=nearest(name, known))
    engine, front, server = (
        {name: given[name] for name in given.keys() & group} for group in names
    )
    return engine, front, server


def _launch(launch: bytes, log: Path) -> None:
    """Start the process and wait until it serves. Raises what it says is wrong."""
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as report:
        try:
            with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)) as words:
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "penstock.server.deployments.process",
                        str(theirs),
                    ],
                    input=launch,
                    stdout=words,
                    stderr=words,
                    pass_fds=[theirs],
                    start_new_session=True,
                    check=True,
                )
        finally:
            os.close(theirs)
        said = report.read()
    if not said:
        last_words = log.read_text(errors="replace")[-_LAST_WORDS:]
        raise EngineFailed(f"The deployment's process ended before it could serve:\n{last_words}")
    _check(msgspec.json.decode(said))


def _check(report: dict[str, str]) -> None:
    kind = getattr(errors, report["failure"], None) if report["failure"] else None
    if kind in (errors.ModelError, errors.SettingsError):
        raise kind(report["message"], remedy=report["remedy"])
    if report["failure"]:
        raise PenstockError(report["message"], remedy=report["remedy"])
