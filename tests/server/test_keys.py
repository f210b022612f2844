"""Where keys come from, and that nothing but their hashes stays."""

import gc
import hashlib
import json
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.server import serve
from penstock.server.app import app_around
from penstock.server.front import Front
from penstock.server.keys import key_ring
from penstock.server.metrics import Metrics
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of, listening, wait_until

HASH = hashlib.sha256(b"alice's key").hexdigest()


def in_file(tmp_path, text, name="keys.toml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["keys.toml", "keys.json"])
def test_a_key_file_has_hashes_or_keys_with_names_and_limits(tmp_path, name):
    entries = [
        {"name": "alice", "sha256": HASH, "max_concurrent": 4, "tokens_per_minute": 9000},
        {"name": "ops", "key": "boss", "admin": True},
    ]
    toml = "\n".join(
        "[[keys]]\n" + "\n".join(f"{field} = {json.dumps(value)}" for field, value in each.items())
        for each in entries
    )
    text = toml if name.endswith("toml") else json.dumps({"keys": entries})
    ring = key_ring((), (), in_file(tmp_path, text, name))
    alice, boss = ring.find(b"alice's key"), ring.find(b"boss")
    assert (alice.name, alice.is_admin, boss.name, boss.is_admin) == ("alice", False, "ops", True)
    assert alice.quota.limits.max_concurrent == 4
    assert alice.quota.limits.tokens_per_minute == 9000
    assert ring.find(b"alice's key ") is ring.find(HASH.encode()) is None
    assert ring.has_admin


@pytest.mark.parametrize(
    "text, why",
    [
        ("keys = []", "has no keys"),
        ("[[keys]", "is not as it should be"),
        ('[[keys]]\nname = "a"', "either sha256 or key"),
        (f'[[keys]]\nname = "a"\nkey = "k"\nsha256 = "{HASH}"', "either sha256 or key"),
        ('[[keys]]\nname = "a"\nsha256 = "abc"', "sha256"),
        ('[[keys]]\nname = "a b"\nkey = "k"', "name"),
        ('[[keys]]\nname = "a"\nkey = "k"\nmax_cuncurrent = 4', "max_cuncurrent"),
        ('[[keys]]\nname = "a"\nkey = "k"\nrequests_per_minute = 0', "requests_per_minute"),
        ('[[keys]]\nname = "a"\nkey = "k"\n[[keys]]\nname = "a"\nkey = "l"', "a and a"),
        ('[[keys]]\nname = "a"\nkey = "k"\n[[keys]]\nname = "b"\nkey = "k"', "a and b"),
    ],
)
def test_a_key_file_that_says_nothing_sensible_is_refused_and_keys_are_not_shown(
    tmp_path, text, why
):
    with pytest.raises(SettingsError, match=why) as refused:
        ServerSettings(api_key_file=in_file(tmp_path, text))
    assert '"k"' not in str(refused.value)


def test_a_key_file_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match=r"Cannot read the key file .*no such file"):
        ServerSettings(api_key_file="no such file")


def test_a_made_key_opens_with_what_was_printed_for_the_file(tmp_path):
    made = CliRunner().invoke(app, ["key", "--name", "alice", "--admin"])
    (key,) = [line for line in made.stderr.splitlines() if line.startswith("psk_")]
    assert key not in made.stdout
    found = key_ring((), (), in_file(tmp_path, made.stdout)).find(key.encode())
    assert (found.name, found.is_admin) == ("alice", True)
    again = CliRunner().invoke(app, ["key"])
    assert key not in again.stderr and "admin" not in again.stdout


def test_a_key_s_name_must_be_fit_for_logs():
    result = CliRunner().invoke(app, ["key", "--name", 'a"\nadmin = true'])
    assert isinstance(result.exception, SettingsError)


def test_keys_may_come_from_the_environment(tmp_path):
    code = (
        "import penstock.cli.serve as serve, penstock.cli.app as cli, dataclasses\n"
        "async def noted(llm, settings):\n"
        "    ring = settings.key_ring()\n"
        "    print(ring.find(b'one').name, ring.find(b'two').name, ring.find(b'boss').is_admin)\n"
        "    return 0\n"
        "serve._serve = noted\n"
        "cli.app(['serve'])"
    )
    environment = {"PENSTOCK_API_KEY": "one two", "PENSTOCK_ADMIN_KEY": "boss"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "api-key-1 api-key-2 True\n", done.stderr


def test_a_front_keeps_no_key_but_its_hash(monkeypatch):
    front = Front(
        ScriptedLLM(),
        ServerSettings(api_keys=("hush hush",), admin_keys=("boss boss",)),
        Metrics(lambda: None),
    )
    application = app_around(front)
    assert front.keys.find(b"hush hush")
    seen, pending = set(), [front, application.user_middleware]
    while pending:
        each = pending.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        assert each not in ("hush hush", "boss boss")
        is_ours = type(each).__module__.startswith(("penstock", "starlette", "builtins"))
        if is_ours and type(each).__name__ not in ("module", "function", "frame"):
            pending += gc.get_referents(each)


def test_a_server_open_to_the_network_without_a_key_says_so(caplog):
    with listening(ScriptedLLM(), host="0.0.0.0"):
        assert "no API key is set" in caplog.text
    caplog.clear()
    with listening(ScriptedLLM(), host="0.0.0.0", api_keys=("k",)):
        pass
    with listening(ScriptedLLM()):
        pass
    assert "no API key" not in caplog.text


async def test_logs_name_keys_and_never_show_them(caplog, tmp_path):
    caplog.set_level("DEBUG")
    path = in_file(tmp_path, f'[[keys]]\nname = "alice"\nsha256 = "{HASH}"')
    async with client_of(ScriptedLLM(), api_key_file=path, access_log=True) as client:
        for key in ("alice's key", "wrong key"):
            headers = {"authorization": f"Bearer {key}", "x-request-id": "r"}
            await client.post("/v1/completions", json={"prompt": "private"}, headers=headers)
    told = [record.about for record in caplog.records if record.name.startswith("penstock")]
    assert [line["key"] for line in told] == ["alice", None]
    everything = caplog.text + str(told)
    assert not [word for word in ("alice's key", "wrong key", "private") if word in everything]


# -- a key file that changes -------------------------------------------------------------------


def entries(**keys):
    return "".join(f'[[keys]]\nname = "{name}"\nkey = "{key}"\n' for name, key in keys.items())


def test_a_key_file_is_read_again_when_it_changes_and_what_was_used_stays_used(tmp_path):
    path = in_file(tmp_path, entries(alice="a", bob="b") + "requests_per_minute = 9")
    ring = key_ring(("given",), (), path)
    assert not ring.refresh()
    alice, bob = ring.find(b"a"), ring.find(b"b")
    in_file(tmp_path, entries(caroline="c", bob="b") + "requests_per_minute = 9")
    assert ring.refresh() and not ring.refresh()
    assert ring.find(b"b") is bob and ring.find(b"c") and ring.find(b"given")
    assert ring.find(b"a") is None
    in_file(tmp_path, entries(alice="a", bob="b") + "requests_per_minute = 10")
    assert ring.refresh()
    assert ring.find(b"b").quota is not bob.quota
    assert ring.find(b"a") is not alice


@pytest.mark.parametrize("wrong", ["keys = []", "[[keys]", entries(a="same", b="same"), None])
def test_a_file_that_has_become_wrong_opens_no_door_and_closes_none(tmp_path, wrong):
    path = in_file(tmp_path, entries(alice="a"))
    ring = key_ring((), (), path)
    if wrong is None:
        (tmp_path / "keys.toml").unlink()
    else:
        in_file(tmp_path, wrong)
    with pytest.raises(SettingsError):
        ring.refresh()
    assert ring and ring.find(b"a").name == "alice"
    assert not ring.refresh()
    in_file(tmp_path, entries(bob="b"))
    assert ring.refresh() and ring.find(b"b") and not ring.find(b"a")


def test_a_running_server_notices(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(serve, "TICKS_BETWEEN_LOOKS", 1)
    path = in_file(tmp_path, entries(alice="a"))
    with listening(ScriptedLLM(), api_key_file=path) as url:

        def status(key):
            headers = {"authorization": f"Bearer {key}"}
            return httpx.get(f"{url}/v1/models", headers=headers).status_code

        assert (status("a"), status("b")) == (200, 401)
        in_file(tmp_path, entries(bob="b"))
        wait_until(lambda: status("b") == 200)
        assert status("a") == 401
        in_file(tmp_path, "nonsense")
        wait_until(lambda: "stay as they were" in caplog.text)
        assert status("b") == 200
