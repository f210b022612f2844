"""A ring of steps that any number of watchers read at their own pace."""

from penstock.engine.step_log import StepLog


def test_each_watcher_reads_on_from_where_it_was():
    log = StepLog(size=4)
    log.add("a")
    log.add("b")
    assert log.after(0) == ["a", "b"]
    assert log.after(1) == ["b"]
    assert log.after(log.num_added) == []


def test_whoever_reads_too_seldom_misses_the_oldest():
    log = StepLog(size=3)
    for step in "abcdef":
        log.add(step)
    assert log.after(0) == log.after(1) == ["d", "e", "f"]
    assert log.after(5) == ["f"]


def test_whoever_wants_every_step_is_told_each_as_it_comes():
    log, told = StepLog(size=2), []
    log.on_step.append(told.append)
    for step in "abcdef":
        log.add(step)
    assert told == list("abcdef")
