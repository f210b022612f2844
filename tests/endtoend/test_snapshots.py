"""Snapshots and the packed cache, as a person uses them from a terminal."""

import json
import os
import shutil
from pathlib import Path

from msgspec.structs import replace

from penstock.models.location import embedded_model_dir
from penstock.models.manifest import read_manifest, write_manifest
from tests.endtoend.commands import penstock, typed
from tests.endtoend.served import eventually, penstock_serve

GREEDY = {"prompt": "def add(a, b):", "max_tokens": 12, "temperature": 0}


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_snapshot_is_made_served_and_once_spoilt_refused(tmp_path: Path) -> None:
    out = tmp_path / "snapshot"
    made = typed("snapshot", str(embedded_model_dir()), str(out), "--weights", "int8")
    assert made.returncode == 0, made.stderr
    assert "int8 weights" in made.stderr and f"penstock serve {out}" in made.stderr
    again = typed("snapshot", str(embedded_model_dir()), str(out))
    assert again.returncode == 1 and "exists" in again.stderr
    with penstock_serve(tmp_path, str(out)) as server:
        assert "as the snapshot holds them" in server.log.read_text()
        answer = server.client.post("/v1/completions", json=GREEDY).json()
        assert answer["choices"][0]["text"]
    refused_when_spoilt(out)
    refused_for_another_instruction_set(out)


def refused_when_spoilt(out: Path) -> None:
    spoilt = Path(shutil.copytree(out, out.with_name("spoilt")))
    weights = spoilt / "packed-00001.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    refused = penstock("serve", str(spoilt))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "differs from what was written" in words(refused.stderr)
    assert "The snapshot is damaged: copy it again" in words(refused.stderr)


def refused_for_another_instruction_set(out: Path) -> None:
    """As it happens when a snapshot is taken to another machine."""
    manifest = read_manifest(out)
    elsewhere = replace(manifest.origin, instruction_set="avx1024")
    write_manifest(out, replace(manifest, origin=elsewhere))
    refused = typed("generate", "--model", str(out), "x")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "was packed for avx1024" in words(refused.stderr)
    assert "Make it anew on this machine: penstock snapshot" in words(refused.stderr)


def test_a_server_caches_what_it_packs_and_the_command_lists_and_clears_it(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}
    root = tmp_path / "cache" / "penstock" / "packed"
    listed = typed("cache", env=environment)
    assert listed.returncode == 0 and "Nothing is kept" in listed.stdout
    with penstock_serve(tmp_path, "--packed-cache", environment=environment) as server:
        answer = server.client.post("/v1/completions", json=GREEDY).json()
        assert eventually(lambda: [*root.glob("[!.]*")])
    [entry] = root.glob("[!.]*")
    origin = json.loads((entry / "snapshot.json").read_text())["snapshot"]["origin"]
    with penstock_serve(tmp_path, "--packed-cache", environment=environment) as server:
        assert (
            server.client.post("/v1/completions", json=GREEDY).json()["choices"]
            == (answer["choices"])
        )
    assert [*root.iterdir()] == [entry]
    listed = typed("cache", env=environment)
    assert str(root) in words(listed.stdout) and origin["weights"] in listed.stdout
    cleared = typed("cache", "--clear", env=environment)
    assert "Nothing is kept" in cleared.stdout and not [*root.iterdir()]
