"""Decoding movies as a player does: on one clock, and on through what is damaged."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.format import Flags
from av.packet import Packet
from av.stream import Stream

from giblet.data.movie import Say, picture_streams, sound_streams

BACKWARD = 0.1  # seconds; decoding times of a stream never go back by more
# Seconds without a packet of any stream: in recordings of broadcasts, whose clock may jump, and in
# files that were written as a whole.
LONGEST_GAP = {True: 10.0, False: 600.0}
WORTH_SAYING = 1.0  # seconds of a gap in all streams
SAME_JUMP = 1.0  # seconds by which two streams of one jump may differ
N_BEHIND = 16  # packets behind one whose time stamp is odd
MOST_BEHIND = 500  # packets of all streams among which they are looked for
STEPS = 10  # of the usual length, which a jump exceeds
PEEKED = 64  # packets that tell whether their time stamps are real
MOST_FAILURES = 100  # of reading a file, one after the other
NAMED = 3  # damaged places that a sentence names


@dataclass
class Clock:
    """One clock for the streams of a file, which goes on where theirs restart or jump.

    A stream jumps where its decoding times go back, or run ahead of all streams by more than the
    longest gap and then go on in small steps. It then goes on from where it was, together with a
    stream that has jumped alike, so that pictures and sound stay together. Stamps that are off
    while those behind them are not are made up from the running count.

    Parameters
    ----------
    path : path, for `say`
    longest_gap : float
        Seconds.
    """

    path: str | Path
    longest_gap: float
    say: Say
    _offset: dict[int, float] = field(default_factory=dict)
    _last: dict[int, float] = field(default_factory=dict)
    _next: dict[int, float] = field(default_factory=dict)
    _due: dict[int, float] = field(default_factory=dict)
    _said_stamps: bool = False

    def correct(self, packet: Packet, behind: Callable[[], list[float]]) -> None:
        """Put the time stamps of the next packet of the file on this clock, in place.

        Parameters
        ----------
        behind : callable
            The stamps of the packets behind it in its stream, in seconds.
        """
        stamp = _stamp(packet)
        later = self._offset.get(packet.stream.index, 0.0)
        tick = float(packet.time_base)
        if stamp is not None:
            later = self._follow(packet.stream.index, stamp * tick, _seconds(packet), behind)
            if packet.pts is not None and abs(packet.pts - stamp) * tick > self.longest_gap:
                packet.pts = stamp  # it is of the other side of a jump
        ticks = round(later / tick)
        if ticks and packet.pts is not None:
            packet.pts += ticks
        if ticks and packet.dts is not None:
            packet.dts += ticks

    def _follow(
        self, index: int, stamp: float, duration: float, behind: Callable[[], list[float]]
    ) -> float:
        """Seconds by which the stamp, of a packet of so many seconds, is to be later."""
        offset = self._offset.get(index, 0.0)
        seconds = stamp + offset
        latest = max(self._last.values(), default=seconds)
        expected = self._next.get(index, latest)
        is_first = index not in self._last
        if is_first or not -BACKWARD <= seconds - expected <= WORTH_SAYING:
            stamps = np.array(behind()) + offset
            if is_first and len(stamps) and seconds - stamps[0] > BACKWARD:
                expected = stamps[0] - duration
            if abs(seconds - expected) > BACKWARD and self._is_wrong(expected, duration, stamps):
                seconds = expected
            elif self._has_jumped(index, seconds, latest, stamps):
                seconds = self._go_on(index, stamp, seconds, expected)
            elif len(self._last) > 1 and seconds - latest > WORTH_SAYING:
                self.say(
                    f"{self.path} holds neither pictures nor sound from {latest:.1f} to "
                    f"{seconds:.1f} s"
                )
        length = duration if duration <= self.longest_gap else 0.0
        self._due[index] = expected + length
        self._last[index] = seconds
        self._next[index] = seconds + length
        return seconds - stamp

    def _is_wrong(self, expected: float, duration: float, stamps: np.ndarray) -> bool:
        """Whether one of the next stamps is where it would be without the present one."""
        off = stamps - (expected + duration * np.arange(1, len(stamps) + 1))
        is_wrong = bool((np.abs(off) <= BACKWARD).any())
        if is_wrong and not self._said_stamps:
            self._said_stamps = True
            self.say(
                f"{self.path} has time stamps that fit none around them, the first at "
                f"{expected:.1f} s: taken from the running count"
            )
        return is_wrong

    def _has_jumped(self, index: int, seconds: float, latest: float, stamps: np.ndarray) -> bool:
        """Whether the clock has jumped, or nothing was there for a while."""
        if self._last.get(index, seconds) - seconds > BACKWARD:
            return abs(seconds - self._due[index]) > BACKWARD  # else the last stamp was wrong
        ahead = seconds - latest
        steps = np.diff(stamps, prepend=seconds)
        return ahead > self.longest_gap and len(steps) > 0 and ahead > STEPS * np.median(steps)

    def _go_on(self, index: int, stamp: float, seconds: float, expected: float) -> float:
        offset = expected - stamp
        alike = [other for other in self._offset.values() if abs(other - offset) < SAME_JUMP]
        self._offset[index] = alike[0] if alike else offset
        if not alike:
            self.say(
                f"{self.path}: its clock jumps from {expected:.1f} to {seconds:.1f} s, as in "
                "joined recordings: taken to go on without a gap"
            )
        return stamp + self._offset[index]


def _seconds(packet: Packet) -> float:
    """How long a packet lasts, as far as the file says."""
    if packet.duration:
        return packet.duration * float(packet.time_base)
    rate = packet.stream.average_rate if packet.stream.type == "video" else None
    return float(1 / rate) if rate else 0.0


@dataclass
class Damage:
    """What of a stream is damaged.

    Attributes
    ----------
    parts : list of (start, stop) in seconds
        From the last whole frame to the next one that needs no other, a key frame.
    missing : float
        Seconds without a frame.
    """

    parts: list[tuple[float, float]] = field(default_factory=list)
    missing: float = 0.0
    last: float = 0.0
    _since: float | None = None
    _is_missing: bool = False

    def begin(self, is_missing: bool) -> None:
        """From here on frames are damaged, or missing, until `whole` says otherwise."""
        self._since = self.last if self._since is None else self._since
        self._is_missing |= is_missing

    def whole(self, start: float, length: float, is_key: bool) -> None:
        """A frame was decoded that begins at `start` and lasts `length` seconds."""
        if self._is_missing:
            self.missing += max(0.0, start - self.last)
            self._is_missing = False
        if self._since is not None and is_key:
            self.parts.append((self._since, start))
            self._since = None
        self.last = max(self.last, start + length)

    def end(self) -> None:
        """The stream ends."""
        if self._since is not None:
            self.parts.append((self._since, self.last))

    def __str__(self) -> str:
        named = [f"{start:.1f} to {stop:.1f} s" for start, stop in self.parts[:NAMED]]
        if len(self.parts) > NAMED:
            rest = len(self.parts) - NAMED
            named.append(f"{rest} more until {self.parts[-1][1]:.1f} s")
        return f"{', '.join(named)} ({self.missing:.1f} s in all cannot be decoded)"


def decoded(
    container: av.container.InputContainer,
    stream: Stream,
    path: str | Path,
    say: Say,
    until: float = math.inf,
) -> Iterator[tuple[float | None, av.VideoFrame | av.AudioFrame]]:
    """Every frame of a stream, in the order of showing, with the second at which it begins.

    Seconds count from the first frame of pictures or sound. Where the file has no time stamps, or
    made them up from the order of decoding, frames take the times of decoding, in their order;
    where there are none either, None. What cannot be decoded is left out and said. Decoding stops
    after the first frame that begins after `until`.

    Raises
    ------
    ValueError
        Where half of it or more cannot be decoded.
    """
    damage = Damage()
    together = _played_together(container, stream)
    begun = [one.start_time * one.time_base for one in together if one.start_time is not None]
    first = float(min(begun, default=0))
    packets = _packets(container, together, path, damage, say)
    ahead = list(_take(packets, stream, PEEKED))
    order = _order_of(container, stream, ahead)
    for stamp, frame in _frames(itertools.chain(ahead, packets), stream, order, damage):
        seconds = None if stamp is None else stamp - first
        start = damage.last if seconds is None else seconds
        damage.whole(start, _length(frame), frame.key_frame and not frame.is_corrupt)
        yield seconds, frame
        if start > until:
            break
    damage.end()
    if not damage.parts:
        return
    held = "pictures are" if stream.type == "video" else "sound is"
    what = f"{path}: its {held} damaged at {damage}"
    if damage.missing >= damage.last / 2:
        raise ValueError(f"{what}, expected less than half of it: copy or convert it again.")
    say(f"{what}: goes on around it")


def _played_together(container: av.container.InputContainer, stream: Stream) -> list[Stream]:
    """The stream and the one that a player shows or plays with it: they share one clock."""
    others = sound_streams if stream.type == "video" else picture_streams
    return [stream, *others(container)[:1]]


def _packets(
    container: av.container.InputContainer,
    streams: list[Stream],
    path: str | Path,
    damage: Damage,
    say: Say,
) -> Iterator[Packet]:
    """The packets of some streams, on one clock."""
    jumps = bool(Flags(container.format.flags) & Flags.ts_discont)
    clock = Clock(path, LONGEST_GAP[jumps], say)
    reader = _read(container, streams, damage)
    queue = deque()
    while (packet := queue.popleft() if queue else next(reader, None)) is not None:
        clock.correct(packet, lambda of=packet: _stamps_behind(of, queue, reader))
        yield packet


def _read(
    container: av.container.InputContainer, streams: list[Stream], damage: Damage
) -> Iterator[Packet]:
    """The packets of some streams as they are; reading goes on after an error."""
    packets = container.demux(streams)
    n_failures = 0
    while n_failures < MOST_FAILURES:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            damage.begin(is_missing=True)
            n_failures += 1
            packets = container.demux(streams)
            continue
        n_failures = 0
        yield packet


def _stamps_behind(packet: Packet, queue: deque[Packet], reader: Iterator[Packet]) -> list[float]:
    """Time stamps of the next packets of a packet's stream, which wait in the queue."""
    found = []
    for position in range(MOST_BEHIND):
        if position == len(queue):
            queue.extend(itertools.islice(reader, 1))
        if position == len(queue) or len(found) == N_BEHIND:
            break
        other = queue[position]
        stamp = _stamp(other)
        if other.stream.index == packet.stream.index and stamp is not None:
            found.append(float(stamp * other.time_base))
    return found


def _stamp(packet: Packet) -> int | None:
    """The time of decoding, or of sound that of playing."""
    if packet.dts is None and packet.stream.type == "audio":
        return packet.pts
    return packet.dts


def _take(packets: Iterator[Packet], stream: Stream, n: int) -> Iterator[Packet]:
    """Packets of all streams until `n` are of this one."""
    while n > 0 and (packet := next(packets, None)) is not None:
        n -= packet.stream.index == stream.index
        yield packet


def _order_of(
    container: av.container.InputContainer, stream: Stream, packets: list[Packet]
) -> str | None:
    """Whose sorted time stamps are those of the frames; None where each frame's own are right.

    AVI and streams without a container know the times of decoding ('dts') alone. Where pictures are
    reordered, but those of showing ('pts') follow the order of decoding, they are made up.
    """
    if stream.type == "audio":
        return None
    flags = Flags(container.format.flags)
    if flags & Flags.no_timestamps or container.format.name == "avi":
        return "dts"
    own = [packet for packet in packets if packet.stream.index == stream.index]
    delays = {one.pts - one.dts for one in own if one.pts is not None and one.dts is not None}
    is_made_up = stream.codec_context.has_b_frames and len(delays) == 1 and len(own) == PEEKED
    return "pts" if is_made_up else None


def _frames(
    packets: Iterable[Packet], stream: Stream, order: str | None, damage: Damage
) -> Iterator[tuple[float | None, av.VideoFrame | av.AudioFrame]]:
    """Frames of one stream with their time stamps in seconds, or the sorted ones of the packets."""
    stamps = []
    for packet in packets:
        is_last = packet.pts is None and packet.dts is None
        if packet.stream.index != stream.index or (packet.size == 0 and not is_last):
            continue  # an empty packet says that the picture before stays
        stamp = None if order is None else getattr(packet, order)
        if stamp is not None:
            heapq.heappush(stamps, float(stamp * packet.time_base))
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            damage.begin(is_missing=True)
            continue
        if packet.is_corrupt:
            damage.begin(is_missing=False)
        for frame in frames:
            if order is None:
                yield frame.time, frame
            else:
                yield (heapq.heappop(stamps) if stamps else None), frame


def _length(frame: av.VideoFrame | av.AudioFrame) -> float:
    """Seconds that a frame lasts, 0 where that is not known."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return float(frame.duration * frame.time_base) if frame.duration else 0.0
