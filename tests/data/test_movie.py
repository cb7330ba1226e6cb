"""The stream that a player would choose, and what a file says of how its pictures are shown."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from films import FPS, HEIGHT, INTRA, WIDTH, Track, hear, picture, see, tones, write_film
from PIL import Image

from giblet.data import VideoProcessor
from giblet.data.audio import read_sound

WRONG = tones(20, 26)  # another film's
RIGHT = tones(0, 6)


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an mp4 file."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def insert(path, names: list[bytes], new: bytes, at_end: bool = True) -> None:
    """Put a box into a box of an mp4, named from the outermost one; the film's data lie before."""
    raw = bytearray(path.read_bytes())
    start = 0
    for name in names:
        while raw[start + 4 : start + 8] != name:
            start += struct.unpack(">I", raw[start : start + 4])[0]
        size = struct.unpack(">I", raw[start : start + 4])[0]
        raw[start : start + 4] = struct.pack(">I", size + len(new))
        stop = start + size
        start += 8 + {b"stsd": 8, b"avc1": 78}.get(name, 0)
    if not at_end:
        stop = start + struct.unpack(">I", raw[start : start + 4])[0]  # after the first box
    raw[stop:stop] = new
    path.write_bytes(raw)


def cover() -> bytes:
    """A cover as tag editors write it."""
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200)).save(file, "jpeg")
    handler = box(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    data = box(b"data", struct.pack(">II", 13, 0), file.getvalue())
    return box(b"udta", box(b"meta", b"\0" * 4, handler, box(b"ilst", box(b"covr", data))))


def test_cover_is_no_film(tmp_path):
    path = write_film(tmp_path / "a.mp4")
    insert(path, [b"moov"], cover(), at_end=False)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"  # FFmpeg lists it first
    seen = see(path)
    assert seen.n_trs == 3
    assert not seen.late.any()
    assert "2 picture streams: takes stream 1 (h264, default), leaves out stream 0" in seen.said[0]


def test_cover_alone_is_refused(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3", rate=44_100)
        frame = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "jpeg")
    apic = b"\0image/jpeg\0\3\0" + file.getvalue()
    frame = b"APIC" + struct.pack(">I", len(apic)) + b"\0\0" + apic
    size = len(frame)
    head = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + head + frame + path.read_bytes())
    with pytest.raises(ValueError, match=r"song\.mp3 holds nothing but stream 1 \(mjpeg.*attached"):
        see(path)


@pytest.mark.parametrize(
    ("ending", "first", "second"),
    [
        ("mkv", {"title": "Director's Commentary", "disposition": Disposition.comment}, {}),
        ("mkv", {"title": "Commentary with the cast", "disposition": 0}, {"disposition": 0}),
        ("mp4", {"title": "Narration", "disposition": Disposition.visual_impaired}, {}),
        ("mkv", {"title": "Audio description", "disposition": 0}, {"disposition": 0}),
        ("mkv", {"title": "Deutsch", "disposition": 0}, {"disposition": Disposition.default}),
        ("mkv", {"disposition": Disposition.hearing_impaired}, {}),
        ("mkv", {"sound": None}, {}),
        ("mkv", {"sound": None, "disposition": Disposition.default}, {"disposition": 0}),
    ],
)
def test_second_sound_track_is_the_films(tmp_path, ending, first, second):
    tracks = [Track(**{"sound": WRONG} | first), Track(**{"sound": RIGHT} | second)]
    path = write_film(tmp_path / f"a.{ending}", tracks=tracks)
    heard, _, said = hear(path, range(6))
    assert heard == list(range(6))
    assert len(said) == 1
    assert f"{path} has 2 sound tracks: takes stream 2 (aac" in said[0]


def test_first_of_equal_sound_tracks_is_taken(tmp_path):
    path = write_film(tmp_path / "a.mkv", tracks=[Track(RIGHT), Track(WRONG)])
    assert hear(path, range(6))[0] == list(range(6))


def undecodable(path, track: int) -> None:
    """Name the format of a sound track by one that has no decoder."""
    raw = path.read_bytes()
    at = 0
    for _ in range(track + 1):
        at = raw.index(b"soun", at + 1)
    at = raw.index(b"mp4a", at)
    raw = raw[:at] + b"apac" + raw[at + 4 :]
    at = raw.index(b"esds", at)
    path.write_bytes(raw[:at] + b"dapa" + raw[at + 4 :])


def test_sound_without_a_decoder(tmp_path):
    """The next track that can be decoded; with none, a sentence about the sound."""
    path = write_film(tmp_path / "a.mp4", tracks=[Track(WRONG), Track(RIGHT)])
    undecodable(path, 0)
    heard, _, said = hear(path, range(6))
    assert heard == list(range(6))
    assert "leaves out stream 1 (not decodable" in said[0]
    path = write_film(tmp_path / "b.mp4", tracks=[Track(WRONG)])
    undecodable(path, 0)
    with pytest.raises(ValueError, match=r"b\.mp4 has the sound tracks stream 1 \(not decodable"):
        read_sound(path)
    assert not see(path).late.any()  # the pictures are whole


def test_sound_tracks_that_hold_nothing(tmp_path):
    path = write_film(tmp_path / "a.mkv", tracks=[Track(None), Track(None)])
    assert read_sound(path) is None


def two_films(path, sizes, dispositions, empty: int | None = None) -> None:
    """Two picture streams: the first film begins with frame 500, the second with frame 0."""
    with av.open(str(path), "w") as container:
        films = []
        for (height, width), disposition in zip(sizes, dispositions, strict=True):
            film = container.add_stream("libx264", rate=FPS, options=INTRA)
            film.height, film.width, film.pix_fmt = height, width, "yuv420p"
            film.disposition = disposition
            film.codec_context.open()
            films.append(film)
        for index in range(6 * FPS):
            for film, number in zip(films, (500 + index, index), strict=True):
                if films.index(film) != empty:
                    pixels = picture(number, film.height, film.width)
                    frame = av.VideoFrame.from_ndarray(pixels, format="gray")
                    container.mux(film.encode(frame))
        for film in films:
            if films.index(film) != empty:
                container.mux(film.encode())


@pytest.mark.parametrize(
    ("sizes", "dispositions", "empty"),
    [
        ([(48, 64), (48, 64)], [0, Disposition.default], None),
        ([(32, 32), (48, 64)], [0, 0], None),
        ([(96, 128), (48, 64)], [Disposition.default, 0], 0),
    ],
)
def test_second_picture_stream_is_the_film(tmp_path, sizes, dispositions, empty):
    two_films(tmp_path / "a.mkv", sizes, dispositions, empty)
    seen = see(tmp_path / "a.mkv")
    assert not seen.late.any()
    assert "has 2 picture streams: takes stream 1 (h264" in seen.said[0]


def one_picture(path, pixels: np.ndarray, options: dict = INTRA) -> None:
    """Two seconds of one picture."""
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=FPS, options=options)
        film.height, film.width = pixels.shape
        film.pix_fmt = "yuv420p"
        for _ in range(2 * FPS):
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(film.encode())


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture whose corners all differ."""
    pixels = np.full((height, width), 130, np.uint8)
    pixels[: height // 2, : width // 2] = 220
    pixels[height // 2 :, width // 2 :] = 90
    pixels[height // 2 :, : width // 2] = 40
    return pixels


def shown(path, height: int, width: int, colour: bool = False) -> np.ndarray:
    """One picture of a film as giblet takes it."""
    processor = VideoProcessor(height, width, frame_skip=2, tr=1.5, colour=colour)
    features = np.zeros((1, processor.video_dim), np.uint8)
    assert processor.fill(path, features) == 1
    return features.reshape(-1, *processor.frame_shape)[3].astype(int)


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (-1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, 1, 0),
        (0, -1, -1, 0),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_turned_and_mirrored(tmp_path, matrix, colour):
    """All eight: a pixel of column p and row q is shown at (a p + c q, b p + d q)."""
    pixels = corners()
    one_picture(tmp_path / "a.mp4", pixels)
    raw = (tmp_path / "a.mp4").read_bytes()
    at = raw.index(b"tkhd") + 44
    a, b, c, d = (value * 2**16 for value in matrix)
    stored = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    (tmp_path / "a.mp4").write_bytes(raw[:at] + stored + raw[at + 36 :])
    q, p = np.indices(pixels.shape)
    x = matrix[0] * p + matrix[2] * q
    y = matrix[1] * p + matrix[3] * q
    expected = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1), int)
    expected[y - y.min(), x - x.min()] = pixels
    seen = shown(tmp_path / "a.mp4", *expected.shape, colour)
    seen = seen.mean(axis=2) if colour else seen
    assert np.abs(seen - expected).mean() < 5


def matroska_with(path, elements: bytes) -> None:
    """Put elements into the description of the pictures of a Matroska file."""
    raw = bytearray(path.read_bytes())
    start, end = 0, len(raw)
    parents = []
    for name in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"):
        while True:
            n_name = 9 - raw[start].bit_length()
            at = start + n_name
            n_size = 9 - raw[at].bit_length()
            size = int.from_bytes(raw[at : at + n_size], "big") & ((1 << 7 * n_size) - 1)
            if bytes(raw[start:at]) == name:
                break
            start = at + n_size + size
            assert start < end
        parents.append((at, n_size, size))
        start = at + n_size
        end = start + size
    raw[end:end] = elements
    for at, n_size, size in parents:
        longer = (size + len(elements)) | 1 << 7 * n_size
        raw[at : at + n_size] = longer.to_bytes(n_size, "big")
    path.write_bytes(raw)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_cropped(tmp_path, ending, colour):
    """Rows and columns that the container hides: 8 left, 16 right, 4 above, 12 below."""
    pixels = np.zeros((64, 96), np.uint8)
    pixels[4:-12, 8:-16] = corners(48, 72)
    path = tmp_path / f"a.{ending}"
    one_picture(path, pixels, {"preset": "ultrafast", "crf": "4"})
    if ending == "mkv":
        matroska_with(path, b"\x54\xcc\x81\x08\x54\xdd\x81\x10\x54\xbb\x81\x04\x54\xaa\x81\x0c")
    else:  # width, height and offset of the centre, as fractions
        clap = box(b"clap", struct.pack(">8i", 72, 1, 48, 1, -8, 2, -8, 2))
        insert(path, [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"], clap)
    seen = shown(path, 48, 72, colour)
    seen = seen.mean(axis=2) if colour else seen
    assert np.abs(seen - corners(48, 72)).mean() < 5


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("stated", [True, False])
def test_last_picture_lasts_as_long_as_the_file_says(tmp_path, ending, stated):
    """Stills: pictures at 0, 4, 4.5 and 5 s, and the last one until 20 s."""
    path = tmp_path / f"stills.{ending}"
    with av.open(str(path), "w") as container:
        film = container.add_stream("mjpeg", rate=FPS)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        film.codec_context.time_base = film.time_base = Fraction(1, 1000)
        for number, (start, length) in enumerate(
            [(0, 4000), (4000, 500), (4500, 500), (5000, 15_000)]
        ):
            frame = av.VideoFrame.from_ndarray(picture(number), format="gray")
            frame = frame.reformat(format="yuvj420p")
            frame.pts, frame.time_base = start, Fraction(1, 1000)
            for packet in film.encode(frame):
                packet.duration = length if stated else 0
                container.mux(packet)
    seen = see(path, 12)
    if stated:
        assert seen.n_trs == 10
        assert set(seen.numbers[63:250]) == {3}
    else:
        assert seen.n_trs in (2, 3)  # until 5 s and a little more


def test_names_and_tags_of_all_kinds(tmp_path):
    """A colon or a percent sign in a name is no protocol or pattern, nor are tags all UTF-8."""
    path = write_film(tmp_path / "a:b %03d é.mp4", 0, 2)
    insert(path, [b"moov"], box(b"udta", box(b"\xa9nam", struct.pack(">HH", 4, 0), b"caf\xe9")))
    assert see(path, 1).n_trs == 1
    assert read_sound(path) is not None
