"""What balancers and clients see of a server's state."""

import pytest

from penstock.server.openai.models import EMBEDDINGS
from tests.server.scripted_llm import ScriptedLLM, ScriptedReplica
from tests.server.serving import client_of


async def test_a_process_that_answers_is_live(client, llm):
    llm.is_ready = False
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


@pytest.mark.parametrize("path", ["/health/ready", "/health"])
async def test_a_server_is_ready_while_the_engine_s_heart_beats(client, llm, path):
    response = await client.get(path)
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "heartbeat_age_s": 0.1}
    llm.is_ready, llm.heartbeat_age_s = False, 42.0
    response = await client.get(path)
    assert response.status_code == 503
    assert response.json() == {
        "status": "not ready",
        "reason": "no engine is running, or its loop stands still; last heartbeat 42.0 s ago",
        "heartbeat_age_s": 42.0,
    }


async def test_of_several_engines_one_is_enough_and_it_is_told_how_many_answer(client, llm):
    llm.replicas = [ScriptedReplica(), ScriptedReplica(is_ready=False), ScriptedReplica()]
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json()["replicas"] == {"ready": 2, "of": 3}


async def test_models_are_listed_and_described(client):
    answer = (await client.get("/v1/models")).json()
    (card,) = answer["data"]
    assert answer["object"] == "list"
    assert card.pop("created") > 1_700_000_000
    assert card == {
        "id": "scripted",
        "object": "model",
        "owned_by": "penstock",
        "max_model_len": 1000,
        "embeddings": EMBEDDINGS,
        "embedding_size": 4,
    }
    one = (await client.get("/v1/models/scripted")).json()
    assert (one["id"], one["object"]) == ("scripted", "model")


async def test_a_model_s_name_may_be_a_path():
    async with client_of(ScriptedLLM(), served_model_name="org/name") as client:
        assert (await client.get("/v1/models/org/name")).json()["id"] == "org/name"
