"""Keeping up with a stream: a machine and a camera whose clocks are the test's."""

import gc
import threading

import numpy as np
import pytest

from reprism.cameras import Frame
from reprism.cameras.pace import keep_up, note_silence

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Machine:
    """A machine that takes so long for a frame, before a camera of ten a second whose clock is wrong and drifts."""

    def __init__(self, work, *, decoding=0.001, drift=0.0, burst=1):
        self.now, self.work, self.decoding, self.drift, self.burst = 0.0, work, decoding, drift, burst
        self.delays, self.dropped = [], 0

    def frames(self, count):
        for index in range(count):
            sent = (index // self.burst + 1) * self.burst / 10
            self.now = max(self.now, sent) + self.decoding
            yield Frame(IMAGE, index, index / 10 * (1 + self.drift) + 1234.5)

    def drop(self, count):
        self.dropped += count

    def watch(self, count):
        seen = []
        for frame in keep_up(self.frames(count), self.drop, lambda: self.now):
            self.delays.append(self.now - frame.index / 10)
            self.now += self.work(frame.index) if callable(self.work) else self.work
            seen.append(frame.index)
        assert len(seen) + self.dropped == count
        return seen


DRIFTS = pytest.mark.parametrize("drift", [0.0, 1e-2, -1e-2])


@DRIFTS
@pytest.mark.parametrize("burst", [1, 60])
def test_a_fast_machine_sees_every_frame_however_they_come(drift, burst):
    """Also where six seconds come at a time, and whatever the camera's clock shows."""
    machine = Machine(0.05, drift=drift, burst=burst)
    assert machine.watch(20_000) == list(range(20_000))


@DRIFTS
def test_a_slow_machine_sees_frames_evenly_and_stays_close(drift):
    machine = Machine(0.3, drift=drift)  # three times too slow
    seen = machine.watch(20_000)
    assert 0.75 < len(seen) * 0.3 / 2000 < 0.85  # the share of its time that it works
    assert max(np.diff(seen[20:])) <= 4
    assert max(machine.delays) < 2.0


def test_a_machine_that_hardly_decodes_is_caught_up_in_the_end():
    machine = Machine(0.3, decoding=0.04)
    seen = machine.watch(20_000)
    assert len(seen) > 3000
    assert max(machine.delays) < 11
    assert machine.delays[-1] < 11


def test_a_pause_is_caught_up():
    machine = Machine(lambda index: 20.0 if index == 100 else 0.01)
    seen = machine.watch(1000)
    assert 190 <= machine.dropped <= 250
    assert machine.delays[-1] < 0.2
    assert seen[-500:] == list(range(500, 1000))


def test_silence_is_told_once_and_frames_go_on():
    spoken, heard = threading.Event(), []

    def frames():
        yield Frame(IMAGE, 0, 0.0)
        spoken.wait(60)
        yield Frame(IMAGE, 1, 5.0)
        yield Frame(IMAGE, 2, 5.1)

    for one in note_silence(frames(), 0.2):
        heard.append(None if one is None else one.index)
        if one is None and heard.count(None) == 1:
            threading.Timer(1.0, spoken.set).start()  # five times as long: it is not told again
    assert [one for one in heard if one is not None] == [0, 1, 2]
    assert heard[:3] == [0, None, 1]


def test_an_error_of_the_stream_is_raised_where_frames_are_taken():
    def frames():
        yield Frame(IMAGE, 0, 0.0)
        raise OSError("the cable")

    with pytest.raises(OSError, match="the cable"):
        list(note_silence(frames(), 60))


def test_the_thread_that_reads_ends_when_the_caller_leaves():
    ended = threading.Event()

    def frames():
        try:
            for index in range(1_000_000):
                yield Frame(IMAGE, index, index / 10)
        finally:
            ended.set()

    reading = note_silence(frames(), 60)
    assert next(reading).index == 0
    reading.close()
    gc.collect()
    assert ended.wait(60)
