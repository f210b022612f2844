"""The Grafana dashboard asks for nothing that the server does not tell."""

import json
import os
import re

from prometheus_client.parser import text_string_to_metric_families
from scripts.write_dashboard import DASHBOARD, dashboard

from penstock.vocabulary.messages import EngineStats
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of

_WORDS = {"rate", "sum", "by", "le", "histogram_quantile", "instance"}


def test_the_file_is_what_its_script_makes():
    assert json.loads(DASHBOARD.read_text()) == dashboard()


async def test_every_metric_and_label_that_it_asks_for_exists():
    llm = ScriptedLLM()
    llm.pid = os.getpid()
    llm.stats = EngineStats(num_steps=1, limit_bytes_per_s=1.0, limit_multiply_adds_per_s=1.0)
    async with client_of(llm, api_keys=("k",)) as client:
        client.headers["authorization"] = "Bearer k"
        await client.post("/v1/completions", json={"prompt": "a"})
        told = (await client.get("/metrics")).text
    known = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(told)
        for sample in family.samples
    }
    queries = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    assert len(queries) > 30
    for query in queries:
        bare = re.sub(r"\{.*?\}|\[.*?\]|\b[\d.]+\b", "", query)
        grouped = re.search(r"by \(([\w, ]+)\)", bare)
        labels = set(grouped[1].split(", ")) if grouped else set()
        (name,) = set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - _WORDS - labels
        assert name in known, query
        assert labels <= known[name], query


def test_panels_do_not_overlap():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken
        taken |= cells
