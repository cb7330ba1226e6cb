"""Time stamps, jumps of the clock and damage, on films whose frames say their number."""

import tracemalloc
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from films import INTRA, REORDERED, SOUND_RATE, Track, hear, picture, see, tones, write_film

from giblet.data.audio import AudioProcessor, read_sound

MPEG = {"codec": "mpeg2video", "options": {"bf": "2"}}
MP2 = {"codec": "mp2"}
# container: arguments of the film, arguments of its sound (None: no sound)
CONTAINERS = {
    "mp4": ({}, {}),
    "mov": ({}, {}),
    "3gp": ({}, {}),
    "mkv": ({}, {}),
    "nut": ({}, {}),
    "flv": ({}, {"rate": 44_100}),
    "ts": ({}, MP2),
    "m2ts": ({}, MP2),
    "avi": ({}, {"codec": "pcm_s16le"}),
    "webm": ({"codec": "libvpx", "options": {"crf": "4", "b": "1M"}}, {"codec": "libopus"}),
    "mpg": (MPEG, MP2),
    "vob": (MPEG, MP2),
    "h264": ({}, None),
    "hevc": ({"codec": "libx265", "options": {"x265-params": "bframes=3:log-level=none"}}, None),
    "m2v": (MPEG, None),
    "m4v": ({"codec": "mpeg4", "options": {"bf": "2"}}, None),
    "mjpeg": ({"codec": "mjpeg", "options": {"qmin": "2"}, "pixels": "yuvj420p"}, None),
    "gif": ({"codec": "gif", "options": {"gifflags": "0"}, "pixels": "rgb8"}, None),
}


def film_in(path, ending: str, **settings):
    """The film in a container, with pictures that are not decoded in the order of showing."""
    of_film, of_sound = CONTAINERS[ending]
    first, stop = settings.get("first", 0), settings.get("stop", 6)
    tracks = []
    if of_sound is not None:
        rate = of_sound.get("rate", SOUND_RATE)
        tracks = [Track(tones(first, stop, rate), **of_sound)]
    return write_film(path, tracks=tracks, **{"options": REORDERED} | of_film | settings)


@pytest.mark.parametrize("ending", CONTAINERS)
def test_every_container_is_on_time(tmp_path, ending):
    """Rounded stamps, those of decoding alone, made-up ones and none at all."""
    film = film_in(tmp_path / f"film.{ending}", ending)
    seen = see(film)
    assert seen.n_trs == 3
    assert seen.said == []
    # where the sound begins earlier than the pictures, by less than a frame, so does the film
    assert set(seen.late) <= {0, 1}
    if CONTAINERS[ending][1] is None:
        assert read_sound(film) is None
        return
    heard, sound, said = hear(film, range(6))
    assert heard == [0, 1, 2, 3, 4, 5]
    assert said == []
    assert len(sound) / 24_000 == pytest.approx(6, abs=0.06)


@pytest.mark.parametrize("ending", ["mkv", "flv", "webm"])
def test_sound_of_rounded_stamps_is_whole(tmp_path, ending):
    """Stamps in whole milliseconds put no silence between packets: the mp4's spectra, in nats."""
    rate = 44_100 if ending == "flv" else SOUND_RATE
    sound = 0.5 * np.sin(2 * np.pi * 440 * np.arange(12 * rate) / rate)
    of_film, of_sound = CONTAINERS[ending]
    track = Track(sound.astype(np.float32), **of_sound)
    write_film(tmp_path / "a.mp4", 0, 12, [Track(track.sound, rate=rate)])
    write_film(tmp_path / f"a.{ending}", 0, 12, [track], **of_film)
    heard = [read_sound(tmp_path / name) for name in ("a.mp4", f"a.{ending}")]
    assert (heard[1][24_000:-24_000] == 0).sum() < 20
    mel = AudioProcessor("mel", tr=2.0)
    whole, rounded = (mel.features(one, 6)[1:5] for one in heard)
    assert np.abs(whole - rounded).mean() < 0.1


def joined(tmp_path, ending: str, parts, clocks=None, **settings):
    """Recordings one after the other in one file: seconds of the film, and their clocks."""
    clocks = clocks or [0] * (len(parts) - 1)
    files = []
    for (first, stop), clock in zip(pairwise(parts), clocks, strict=True):
        file = tmp_path / f"part-{first}.{ending}"
        files.append(film_in(file, ending, first=first, stop=stop, clock=clock, **settings))
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


@pytest.mark.parametrize(
    ("ending", "parts", "clocks"),
    [
        ("ts", [0, 8, 20], None),
        ("ts", [0, 8, 14, 20], None),
        ("ts", [0, 8, 14, 20], [0, 1000, 3]),
        ("ts", [0, 8, 14, 20], [90_000, 50, 50_000]),
        ("mpg", [0, 8, 14, 20], None),
        ("vob", [0, 6, 20], [0, 40_000]),
    ],
)
def test_clock_that_jumps(tmp_path, ending, parts, clocks):
    """Frames and tones follow each other, as players show joined recordings, and it is said."""
    path = joined(tmp_path, ending, parts, clocks)
    seen = see(path, 10)
    assert seen.n_trs == 10
    assert set(seen.late) <= {-1, 0, 1}
    heard, sound, said = hear(path, range(20))
    assert heard == list(range(20))
    assert len(sound) / 24_000 == pytest.approx(20, abs=0.1)
    jumps = [sentence for sentence in said if "its clock jumps from" in sentence]
    assert len(jumps) == len(parts) - 2
    assert jumps == [sentence for sentence in seen.said if "its clock jumps from" in sentence]
    assert str(path) in jumps[0]


def test_pictures_alone_whose_clock_restarts(tmp_path):
    path = tmp_path / "joined.ts"
    parts = [write_film(tmp_path / f"{s}.ts", s, s + 4, [], options=REORDERED) for s in (0, 4)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    seen = see(path, 4)
    assert seen.n_trs == 4
    assert not seen.late.any()


def shifted(source, path, shift: dict[str, float], after: float) -> None:
    """A copy whose streams of some types are later by so many seconds, after a second."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {one.index: new.add_stream_from_template(one) for one in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            late = shift.get(packet.stream.type, 0)
            if packet.dts * packet.time_base >= after and late:
                packet.pts += round(late / packet.time_base)
                packet.dts += round(late / packet.time_base)
            packet.stream = copies[packet.stream.index]
            new.mux(packet)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_jump_takes_no_memory(tmp_path, ending):
    """An hour and more that nobody recorded is neither silence nor a frozen picture."""
    write_film(tmp_path / "film.mp4", 0, 8)
    path = tmp_path / f"jump.{ending}"
    shifted(tmp_path / "film.mp4", path, {"video": 20_000, "audio": 20_000}, 4)
    tracemalloc.start()
    heard, _, said = hear(path, range(8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard == list(range(8))
    assert peak < 20e6
    assert "its clock jumps from 4.0 to 20" in said[0]
    seen = see(path, 4)
    assert seen.n_trs == 4
    assert np.abs(seen.late).max() <= 1


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("seconds", [0.2, 3])
def test_real_gap_of_sound_stays(tmp_path, ending, seconds):
    """What is missing in the sound alone is silent, and the rest stays where it was."""
    write_film(tmp_path / "film.mp4", 0, 8)
    path = tmp_path / f"gap.{ending}"
    shifted(tmp_path / "film.mp4", path, {"audio": seconds}, 2)
    heard, sound, _ = hear(path, [0, 1])
    assert heard == [0, 1]
    silent = np.flatnonzero(sound[: 7 * 24_000] == 0)
    inside = silent[(silent > 2 * 24_000 - 2_000) & (silent < (2 + seconds) * 24_000)]
    assert len(inside) / 24_000 == pytest.approx(seconds, abs=0.06)
    assert len(sound) / 24_000 == pytest.approx(8 + seconds, abs=0.06)
    assert np.abs(see(path, 4).late).max() <= 1


def test_real_gap_in_all_streams_stays_and_is_said(tmp_path):
    write_film(tmp_path / "film.mp4", 0, 8)
    shifted(tmp_path / "film.mp4", tmp_path / "gap.mkv", {"audio": 4, "video": 4}, 4)
    seen = see(tmp_path / "gap.mkv", 6)
    assert seen.n_trs == 6
    assert np.abs(seen.late[:50]).max() <= 1  # until 4 s
    assert set(seen.numbers[52:100]) == {99}  # the last picture stays until 8 s
    assert np.abs(seen.late[101:] - 100).max() <= 1  # 100 frames later than in the film
    assert "holds neither pictures nor sound from" in seen.said[0]


def moved_stamps(path, stream: int, second: float, off: float, n: int) -> None:
    """Write other time stamps into the next `n` packets of a transport stream, from a second on."""
    raw = bytearray(path.read_bytes())
    for start in range(0, len(raw), 188):
        begins = raw[start + 1] & 0x40
        head = start + 4 + (1 + raw[start + 4] if raw[start + 3] & 0x20 else 0)
        if not begins or raw[head : head + 3] != b"\0\0\1" or raw[head + 3] & 0xF0 != stream:
            continue
        flags = raw[head + 7] >> 6
        for place in (head + 9, head + 14)[: {2: 1, 3: 2}.get(flags, 0)]:
            bits = int.from_bytes(raw[place : place + 5], "big")
            ticks = (bits >> 3 & 7 << 30) | (bits >> 2 & 0x7FFF << 15) | (bits >> 1 & 0x7FFF)
            if ticks < second * 90_000 or n == 0:
                break
            ticks += round(off * 90_000)
            marks = bits & ~(7 << 33 | 0x7FFF << 17 | 0x7FFF << 1)
            bits = marks | (ticks >> 30 & 7) << 33 | (ticks >> 15 & 0x7FFF) << 17
            bits |= (ticks & 0x7FFF) << 1
            raw[place : place + 5] = bits.to_bytes(5, "big")
        else:
            n -= flags >= 2
    assert n == 0
    path.write_bytes(raw)


@pytest.mark.parametrize("stream", [0xE0, 0xC0])  # pictures, sound
@pytest.mark.parametrize(("off", "n"), [(3, 1), (-3, 1), (20, 1), (3, 5), (-0.5, 1)])
def test_stamps_that_fit_none_around_them(tmp_path, stream, off, n):
    """What comes behind a wrong stamp stays where it was."""
    path = write_film(tmp_path / "film.ts", 0, 10, [Track(tones(0, 10), **MP2)])
    moved_stamps(path, stream, 6.4, off, n)
    seen = see(path, 5)
    heard, sound, said = hear(path, (1, 3, 7, 9))
    assert np.abs(seen.late).max() <= 2
    assert heard == [1, 3, 7, 9]
    assert len(sound) / 24_000 == pytest.approx(10, abs=0.06)
    assert "has time stamps that fit none around them, the first at" in said[0]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("seconds", [15, 700])
def test_slides_are_no_jumps(tmp_path, ending, seconds):
    """Pictures without sound that stay longer than any gap."""
    path = tmp_path / f"slides.{ending}"
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=25, options=INTRA | {"g": "1"})
        film.height, film.width, film.pix_fmt = 48, 64, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(picture(number), format="gray")
            frame.pts, frame.time_base = number * seconds, Fraction(1, 1)
            container.mux(film.encode(frame))
        container.mux(film.encode())
    seen = see(path, 2 * seconds)
    at = [seen.numbers[int((k + 0.5) * seconds * 12.5)] for k in range(3)]
    assert at == [0, 1, 2]
    assert seen.said == []


def spoil(path, parts, seed: int = 0) -> None:
    """Overwrite some parts of a file, given as shares of its length and numbers of bytes."""
    raw = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for share, n_bytes in parts:
        start = int(share * len(raw))
        raw[start : start + n_bytes] = rng.bytes(n_bytes)[: len(raw) - start]
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("ending", "parts"),
    [
        ("mp4", [(0.5, 3_000)]),
        ("mp4", [(0.25 + 0.02 * k, 300) for k in range(15)]),
        ("ts", [(0.5, 20_000)]),
        ("mkv", [(0.5, 5_000)]),
    ],
)
def test_damaged_film_goes_on(tmp_path, ending, parts):
    """All TRs are covered, what lies before and behind is right, and the seconds are said."""
    track = {"codec": "mp2"} if ending == "ts" else {}
    path = tmp_path / f"film.{ending}"
    write_film(path, 0, 20, [Track(tones(0, 20), **track)], options=INTRA | {"g": "25"})
    spoil(path, parts)
    seen = see(path, 10)
    heard, _, said = hear(path, (0, 1, 2, 3, 18, 19))
    assert seen.n_trs == 10
    late = np.abs(seen.late)
    assert late[:75].max() <= 1
    assert late[-25:].max() <= 1
    assert heard == [0, 1, 2, 3, 18, 19]
    sentences = " ".join([*seen.said, *said])
    assert f"{path}: its " in sentences
    assert " s in all cannot be decoded): goes on around it" in sentences


def test_film_that_is_mostly_lost_is_refused(tmp_path):
    path = write_film(tmp_path / "film.mp4", 0, 20)
    size = path.stat().st_size
    spoil(path, [(0.02, int(0.75 * size))])
    with pytest.raises(ValueError, match=r"film\.mp4: its pictures are damaged at .* copy or"):
        see(path, 10)
    with pytest.raises(ValueError, match=r"film\.mp4 has the sound tracks stream 1 \(aac"):
        read_sound(path)


def test_film_that_was_cut_ends_there(tmp_path):
    """Half a download: what is there is whole, and the last picture is not held to the end."""
    path = write_film(tmp_path / "film.mkv", 0, 20)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    seen = see(path, 10)
    heard, sound, _ = hear(path, range(8))
    assert 4 <= seen.n_trs <= 5
    assert not seen.late.any()
    assert heard == list(range(8))
    assert len(sound) / 24_000 < 12


@pytest.mark.parametrize(
    "after",
    [
        {"layout": "stereo"},
        {"rate": 44_100},
        {"rate": 32_000, "layout": "stereo"},
        {"size": (96, 128)},
    ],
)
def test_format_that_changes(tmp_path, after):
    """Layout, rate or size change in the middle, as between programme and advertisement."""
    size = {"size": after["size"]} if "size" in after else {}
    of_sound = {name: value for name, value in after.items() if name != "size"}
    rate = of_sound.get("rate", SOUND_RATE)
    one = write_film(tmp_path / "1.ts", 0, 3, [Track(tones(0, 3), **MP2)])
    two = write_film(
        tmp_path / "2.ts", 3, 6, [Track(tones(3, 6, rate), **MP2 | of_sound)], clock=3, **size
    )
    path = tmp_path / "film.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    seen = see(path)
    heard, sound, _ = hear(path, range(6))
    assert seen.n_trs == 3
    assert np.abs(seen.late).max() <= 1
    assert heard == list(range(6))
    assert len(sound) / 24_000 == pytest.approx(6, abs=0.06)
