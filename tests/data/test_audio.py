import wave
from dataclasses import replace

import av
import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import get_window

from giblet.data import AudioProcessor
from giblet.data.audio import FLOOR, N_FFT, RATE, mel_filters, mel_power, read_sound
from giblet.data.media import write_movie, write_wav


def tone(hz: float, seconds: float, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


@pytest.mark.parametrize("n_mels", [32, 64, 128])
def test_filters_are_means_over_growing_bands(n_mels):
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, N_FFT // 2 + 1)
    assert np.allclose(filters.sum(1), 1, atol=1e-6)
    assert filters.min() >= 0
    centres = filters @ (np.arange(N_FFT // 2 + 1) * RATE / N_FFT)
    assert np.all(np.diff(centres) > 0)
    assert 40 < centres[0] < 110
    assert 8500 < centres[-1] < 10_000


def test_power_against_float64(rng):
    """One window, by numpy in double precision."""
    sound = rng.standard_normal(2 * RATE).astype(np.float32)
    power = mel_power(sound, RATE, n_trs=1, tr=1.5, n_mels=64, n_frames=32)
    hann = get_window("hann", N_FFT).astype(np.float64)
    for part in (4, 17, 31):
        middle = round((part + 0.5) * 1.5 / 32 * RATE)
        window = sound[max(0, middle - N_FFT // 2) : middle + N_FFT // 2].astype(np.float64)
        spectrum = np.abs(np.fft.rfft(window * hann)) ** 2 * 4 / hann.sum() ** 2
        assert power[0, part] == pytest.approx(
            mel_filters(64).astype(np.float64) @ spectrum, rel=1e-4
        )


def test_full_scale_sine_has_power_one():
    filters = mel_filters(128)
    power = mel_power(tone(1000, 3), RATE, 2, 1.5, 128, 1)[1, 0]
    band = power.argmax()
    assert band == filters[:, round(1000 * N_FFT / RATE)].argmax()
    share = power.sum() / filters[:, round(1000 * N_FFT / RATE)].sum()
    assert share == pytest.approx(
        1.5, rel=0.1
    )  # a Hann window spreads a sine of power 1 over bins that sum to 1.5


def test_each_tr_hears_its_own_sound():
    sound = np.concatenate(
        [tone(300, 1.5), tone(3000, 1.5), np.zeros(round(1.5 * RATE), np.float32)]
    )
    features = AudioProcessor().features(sound, 5)
    centres = mel_filters(128) @ (np.arange(N_FFT // 2 + 1) * RATE / N_FFT)
    assert centres[features[0].argmax()] == pytest.approx(300, rel=0.1)
    assert centres[features[1].argmax()] == pytest.approx(3000, rel=0.1)
    assert np.allclose(features[3:], np.log(FLOOR), atol=1e-5)  # silence, and beyond the end


def test_no_sound_is_silence():
    assert np.allclose(AudioProcessor("mel").features(None, 3), np.log(FLOOR), atol=1e-5)


@pytest.mark.parametrize("tr", [1.5, 0.71, 2.0])
def test_long_sound_does_not_drift(tr):
    """A click in TR 400 is heard in TR 400, at any TR."""
    sound = np.zeros(round(402 * tr * RATE), np.float32)
    sound[round(400.5 * tr * RATE)] = 1
    assert AudioProcessor("mel_mean", tr).features(sound, 402).sum(1).argmax() == 400


def test_sound_of_a_movie(tmp_path):
    """AAC keeps a tone's place, pitch and level."""
    sound = np.concatenate(
        [np.zeros(RATE, np.float32), tone(440, 1, 0.5), np.zeros(RATE, np.float32)]
    )
    write_movie(tmp_path / "movie.mp4", np.zeros((75, 16, 16), np.uint8), 25, sound)
    heard = read_sound(tmp_path / "movie.mp4")
    assert len(heard) == pytest.approx(len(sound), abs=2048)
    middle = heard[int(1.2 * RATE) : int(1.8 * RATE)]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert np.fft.rfftfreq(len(middle), 1 / RATE)[
        np.abs(np.fft.rfft(middle)).argmax()
    ] == pytest.approx(440, abs=2)
    assert np.abs(heard[: int(0.9 * RATE)]).max() < 0.02


def test_sound_track_that_holds_nothing(tmp_path):
    """As a muted recording leaves it: a track, and no packet in it."""
    path = tmp_path / "muted.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = 16
        video.height = 16
        video.pix_fmt = "yuv420p"
        container.add_stream("aac", rate=RATE, layout="mono").codec_context.open()
        for grey in range(25):
            frame = np.full((16, 16), grey, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(video.encode())
    assert read_sound(path) is None


def test_movie_without_sound(tmp_path):
    write_movie(tmp_path / "movie.mp4", np.zeros((5, 16, 16), np.uint8), 25)
    assert read_sound(tmp_path / "movie.mp4") is None


@pytest.mark.parametrize("kind", ["mel_mean", "mel"])
def test_written_sound_sounds_alike(tmp_path, kind):
    """Out and in again: the wav has the length and the log-mel features it was made from."""
    swell = 0.1 + 0.25 * (1 + np.sin(2 * np.pi * np.arange(round(9 * RATE)) / RATE / 3)).astype(
        np.float32
    )
    sound = swell * (tone(500, 9) + 0.4 * tone(1700, 9)) / 1.4
    processor = AudioProcessor(kind)
    features = processor.features(sound, 6)
    mean = features.mean(0)
    sd = features.std(0) + 0.1
    processor = replace(processor, mean=mean, sd=sd)
    processor.features_to_audio((features - mean) / sd, tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, RATE, 9 * RATE)
    again = processor.features(read_sound(tmp_path / "a.wav"), 6)
    loud = features > features.max() - 6  # the bands within 26 dB of the loudest
    assert np.corrcoef(again[loud], features[loud])[0, 1] > 0.9
    assert np.abs(again[loud] - features[loud]).mean() < 1.0


def test_same_seed_same_sound(tmp_path, rng):
    features = rng.standard_normal((2, 2048))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        AudioProcessor("mel").features_to_audio(
            features, tmp_path / f"{name}.wav", n_iter=2, random_state=seed
        )
    a, b, c = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert a == b != c


def test_bad_arguments(tmp_path):
    with pytest.raises(
        ValueError,
        match="kind is 'fft', expected one of mel_mean, mel, encodec_latents, encodec_codes",
    ):
        AudioProcessor("fft")
    with pytest.raises(ValueError, match=r"shape \(3, 64\), expected \(n_trs, 128\)"):
        AudioProcessor().features_to_audio(np.zeros((3, 64)), tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_wav_is_clipped_not_wrapped(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([-2.0, 0, 2.0]))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [-32767, 0, 32767]


@pytest.mark.parametrize("name", ["big_buck_bunny_30s.webm", "big_buck_bunny_5s_surround.mp4"])
def test_real_sound_comes_back(real_data, tmp_path, name):
    """Vorbis stereo and AAC 5.1: the wav is as long as its TRs; its envelope follows the film's."""
    sound = read_sound(real_data / "video" / name)
    processor = AudioProcessor("mel")
    n_trs = int(len(sound) / RATE / 1.5 + 0.01)
    processor.features_to_audio(processor.features(sound, n_trs), tmp_path / "a.wav")
    back = read_sound(tmp_path / "a.wav")
    assert len(back) == n_trs * 1.5 * RATE

    def envelope(samples):  # level in pieces of a tenth of a second
        return np.log(
            np.sqrt(np.mean(samples[: n_trs * 36_000].reshape(-1, 2400) ** 2, axis=1)) + 1e-3
        )

    assert np.corrcoef(envelope(np.pad(sound, (0, len(back)))), envelope(back))[0, 1] > 0.9


def test_mono_of_any_layout_and_rate(tmp_path):
    """A tone on every channel, at any rate, is the same tone in mono."""
    for layout, rate in (("mono", 16_000), ("stereo", 44_100), ("5.1", 48_000)):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout=layout)
            time = np.arange(3 * rate) / rate
            samples = np.repeat(
                0.3 * np.sin(2 * np.pi * 440 * time, dtype=np.float32)[None],
                stream.channels,
                axis=0,
            )
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        heard = read_sound(tmp_path / "a.mp4")
        assert len(heard) == pytest.approx(3 * RATE, abs=0.1 * RATE)
        middle = heard[RATE : 2 * RATE]
        assert np.abs(np.fft.rfft(middle)).argmax() == 440
        assert np.sqrt(np.mean(middle**2)) > 0.1


def test_a_wild_model_can_be_heard():
    """Log power far above full scale is cut, not infinite."""
    sound = AudioProcessor("mel").features_to_sound(np.full((2, 2048), 500.0, np.float32))
    assert np.isfinite(sound).all()


@pytest.mark.parametrize("wild", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_sound(tmp_path, wild):
    """A few samples of no number are silent, and the rest of the sound is whole."""
    sound = tone(440, 2.0, 0.5)
    sound[24_000:24_010] = wild
    wavfile.write(tmp_path / "a.wav", 24_000, sound.astype(np.float32))
    said = []
    heard = read_sound(tmp_path / "a.wav", said.append)
    assert np.abs(heard).max() < 1
    assert np.array_equal(heard[:23_900], sound[:23_900].astype(np.float32))
    assert "samples of its sound are no numbers or too large: silent" in said[0]
