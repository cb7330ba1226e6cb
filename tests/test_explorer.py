import io
import threading
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from giblet import explorer as live
from giblet.analysis.lesions import Lesion, lesion_units, lesion_voxels
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.data.media import decode_media
from giblet.explorer import clips
from giblet.explorer.clips import CLIP_TRS, ClipMaker
from giblet.models import MultimodalAutoencoder
from giblet.regions import presets_of, regions_of

SIZE = (12, 16)


@pytest.fixture(scope="module")
def data(simulated) -> MultimodalDataset:
    processors = {
        "video_processor": VideoProcessor(*SIZE, frame_skip=4, colour=True),
        "audio_processor": AudioProcessor("mel"),
    }
    return MultimodalDataset(simulated, split="test", average=True, **processors, progress=False)


@pytest.fixture(scope="module")
def model(data) -> MultimodalAutoencoder:
    """An untrained model whose pictures vary over half the range."""
    torch.manual_seed(0)
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=16, width=1 / 32).eval()
    with torch.no_grad():
        model.encoder.to_bottleneck.weight.mul_(10)
        head = model.decoder.video_decoder[2]
        head.weight.mul_(
            0.15 / model.decode_fmri(torch.from_numpy(data.fmri()))["video_recon"].std(0).mean()
        )
        head.bias.fill_(0.5)
    return model


@pytest.fixture(scope="module")
def opened(model, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "SETTLE_SECONDS", 1e4)
        patch.setattr(clips, "N_ITER", 1)
        explorer = live.LesionExplorer(model, data, n_permute=19)
        yield explorer
        explorer.close()


@pytest.fixture
def explorer(opened):
    """As it opens."""
    opened.set(**asdict(live.Controls()))
    return opened


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(int)


@pytest.mark.parametrize(
    "change",
    [
        {"units": (0, 8)},
        {"regions": ("Visual",)},
        {"preset": "left Visual"},
        {"tr": 3},
        {"source": "predicted"},
    ],
)
def test_every_control_changes_the_picture(explorer, change):
    before = explorer.widget.lesioned
    explorer.set(**change)
    assert explorer.widget.lesioned != before


def test_what_modifies_a_lesion_changes_it(explorer):
    explorer.set(regions=("Visual", "DefaultMode"))
    for change in ({"mode": "only"}, {"strength": 0.5}, {"fill": "mean"}):
        before = explorer.bottleneck([2])
        explorer.set(**change)
        assert not torch.equal(explorer.bottleneck([2]), before), change


@pytest.mark.parametrize("source", ["measured", "predicted"])
@pytest.mark.parametrize("fill", ["mean", "resample"])
@pytest.mark.parametrize("preset", ["", "right Visual", "left Visual"])
def test_bottleneck_is_that_of_the_pure_functions(explorer, model, source, fill, preset):
    """Also where preset and regions overlap: no voxel is lesioned twice."""
    regions = ("Visual", "Auditory")
    how = {"fill": fill, "strength": 0.5}
    explorer.set(source=source, regions=regions, preset=preset, units=(2, 7), **how)
    brain = explorer.brains[source]
    mask = np.logical_or.reduce([explorer.regions.voxels(name) for name in regions])
    mask |= explorer.presets.get(preset, False)
    drawn = [torch.Generator().manual_seed(0) for _ in range(2)]
    fmri = lesion_voxels(brain.fmri, mask, **how, generator=drawn[0])
    with torch.no_grad():
        expected = lesion_units(
            model.fmri_to_bottleneck(fmri), slice(2, 7), **how, reference=brain.bottleneck,
            generator=drawn[1],
        )  # fmt: skip
    assert torch.allclose(explorer.bottleneck(range(len(fmri))), expected, atol=1e-3)


def test_pictures_show_the_movie_and_the_difference(explorer, model, data):
    explorer.set(tr=4, units=(0, 8))
    app = explorer.widget
    movie, intact, lesioned, difference = map(
        pixels, (app.movie, app.intact, app.lesioned, app.difference)
    )
    frames = data.features.video[data.tr_index[4]].reshape(-1, *SIZE, 3)
    assert np.array_equal(movie, frames[len(frames) // 2])
    with torch.no_grad():
        video = model.decoder(explorer.brains["measured"].bottleneck)[0][4]
    expected = video.reshape(-1, *SIZE, 3)[len(frames) // 2].clamp(0, 1).numpy()
    assert np.abs(intact - 255 * expected).max() <= 1
    shown = np.stack([intact, lesioned, difference])
    inside = ((shown > 0) & (shown < 255)).all(0)
    assert inside.any()
    assert np.abs(difference - 127.5 - lesioned + intact)[inside].max() <= 2


def test_only_what_changed_is_sent(explorer, monkeypatch):
    sent = set()

    def send_state(key):
        sent.update([key] if isinstance(key, str) else key)

    monkeypatch.setattr(explorer.widget, "send_state", send_state)
    explorer.set(regions=("Visual",))
    assert sent == {"state", "lesioned", "difference", "hurt", "summary"}


def test_lesion_is_painted_where_it_is(explorer):
    def painted() -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(explorer.widget.hurt, np.uint8))
        return bits.reshape(explorer.cortex.voxel.shape).astype(bool)

    assert not painted().any()
    explorer.set(preset="left Visual")
    mask = explorer.presets["left Visual"]
    voxel = explorer.cortex.voxel
    assert np.array_equal(painted(), (voxel >= 0) & mask[voxel])
    assert explorer.widget.summary == f"lesioned: {mask.sum():,} of {len(mask):,} voxels"
    explorer.set(mode="only")
    assert np.array_equal(painted(), (voxel >= 0) & ~mask[voxel])


def test_clip_is_the_movie_with_and_without_the_lesion(explorer, data):
    explorer.set(tr=4, preset="left Visual")
    explorer.settle()
    before, after = explorer.widget.clip_before, explorer.widget.clip_after
    assert after["of"] == explorer.controls.state
    n_trs = len(explorer.clips.rows(4))
    for sound in [*before["sounds"].values(), *after["sounds"].values()]:
        played = decode_media(sound)
        assert played.seconds == pytest.approx(n_trs * data.tr, abs=0.1)
        assert played.loudness > -60
    assert before["sounds"]["intact"] != after["sounds"]["lesioned"]
    height, width = before["frame"]
    middle = round(before["fps"] * data.tr) // 2
    for clip in (before, after):
        for name, strip in clip["strips"].items():
            frames = pixels(strip).reshape(-1, before["pitch"], width, 3)[:, :height]
            assert len(frames) == n_trs * round(before["fps"] * data.tr)
            still = pixels(getattr(explorer.widget, name))
            assert np.abs(frames[middle] - still).mean() < 10, name  # JPEG


def test_clip_ends_where_held_out_trs_do(data, model):
    maker = ClipMaker(model, data)
    for row in range(data.n_trs):
        rows = maker.rows(row)
        steps = np.diff(data.tr_index[rows])
        assert rows[0] == row
        assert len(rows) <= CLIP_TRS
        assert (steps == 1).all()
        assert len(set(data.run[rows])) == 1
    assert len(maker.rows(data.n_trs - 1)) == 1


def test_intact_clip_is_kept(explorer):
    explorer.settle()
    before = explorer.widget.clip_before
    explorer.set(regions=("Visual",))
    explorer.settle()
    assert explorer.widget.clip_before is before


def test_sentences_and_effects_follow(explorer):
    app = explorer.widget
    explorer.set(tr=5, regions=("Visual",))
    assert app.sentences["of"] != app.state
    explorer.settle()
    assert app.sentences["of"] == app.effects["of"] == app.state
    assert [row["name"] for row in app.sentences["rows"]] == ["movie", "intact", "lesioned"]
    for row in app.effects["rows"]:
        effect = explorer.effects()[row["name"]]
        assert row["lost"] == effect.effect
        assert row["p"] == effect.p
        assert np.mean((effect.null >= row["low"]) & (effect.null <= row["high"])) >= 0.85
    explorer.set(regions=())
    explorer.settle()
    assert {row["p"] for row in app.effects["rows"]} == {None}  # no lesion has no null


def test_effects_are_those_of_the_split(explorer):
    explorer.set(regions=("Visual",))
    brain = explorer.brains["measured"]
    lesioned = Lesion(brain, explorer.regions.voxels("Visual")).scores
    for name, effect in explorer.effects().items():
        assert effect.effect == pytest.approx(
            np.nanmean(brain.intact[name] - lesioned[name]), abs=1e-4
        )
        assert len(effect.null) == 19


def test_what_is_superseded_is_dropped(explorer, monkeypatch):
    """What was made for controls that have changed meanwhile is not shown."""
    shown = explorer.widget.clip_after
    calls = []

    def make_clip(controls):
        calls.append(controls.tr)
        explorer.set(tr=7)
        return {"clip_after": {"of": controls.state}}

    monkeypatch.setattr(explorer, "_make_clip", make_clip)
    monkeypatch.setattr(explorer, "_make_effects", calls.append)
    explorer.set(tr=2)
    explorer.settle()
    assert calls == [2]
    assert explorer.widget.clip_after == shown


def test_a_picture_does_not_wait_for_what_is_slow(explorer, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(
        explorer, "_make_clip", lambda controls: (begun.set(), go_on.wait(20), {})[2]
    )
    slow = threading.Thread(target=explorer.settle)
    slow.start()
    assert begun.wait(20)
    start = time.perf_counter()
    explorer.set(tr=3)
    assert time.perf_counter() - start < 5
    assert slow.is_alive()
    go_on.set()
    slow.join(20)


def test_changes_settle_by_themselves(model, data, monkeypatch):
    monkeypatch.setattr(live, "SETTLE_SECONDS", 0.01)
    explorer = live.LesionExplorer(model, data, n_permute=9)
    told = threading.Event()
    explorer.widget.observe(lambda change: told.set(), "effects")
    assert told.wait(30)
    explorer.close()


def test_closed_is_closed(model, data):
    explorer = live.LesionExplorer(model, data, n_permute=9)
    explorer.set(units=(0, 3))
    timer = explorer._timer
    explorer.close()
    timer.join(20)
    before = explorer.widget.lesioned
    explorer.set(units=(0, 9))
    explorer.settle()
    assert explorer.widget.lesioned == before
    assert explorer.widget.comm is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mode": "sometimes"}, r"mode is 'sometimes', expected one of without, only\."),
        (
            {"preset": "Nose"},
            r"preset is 'Nose', expected one of , left Visual, right Visual, .*\.",
        ),
        ({"regions": ("Nose",)}, r"region is 'Nose', expected one of .*Visual.*\."),
        ({"tr": 99}, r"tr is 99, expected 0 to \d+\."),
        ({"units": (3, 99)}, r"units are \(3, 99\), expected \(first, last\) from 0 to 16\."),
    ],
)
def test_what_is_not_there_is_refused(explorer, change, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        explorer.set(**change)


def test_presets_are_regions_and_their_halves(data):
    regions = regions_of(data)
    other_data = SimpleNamespace(truth={}, coordinates=data.coordinates)
    presets = presets_of(other_data, regions)
    names = regions.largest(3)
    assert list(presets) == [f"{half}{name}" for name in names for half in ("", "left ", "right ")]
    for name in names:
        left, right = presets[f"left {name}"], presets[f"right {name}"]
        assert np.array_equal(presets[name], regions.voxels(name))
        assert np.array_equal(presets[name], left ^ right)
        assert data.coordinates[left, 0].max() < 0 <= data.coordinates[right, 0].min()


def test_presets_of_simulated_data_are_planted_parts(data):
    regions = regions_of(data)
    presets = presets_of(data, regions)
    for name in ("Visual", "Auditory", "DefaultMode"):
        assert np.array_equal(presets[name], regions.voxels(name))
    left, right = presets["left Visual"], presets["right Visual"]
    assert np.array_equal(presets["Visual"], left ^ right)
    assert data.coordinates[left, 0].max() < 0 <= data.coordinates[right, 0].min()
    height = {bank: data.coordinates[presets[f"{bank} bank"], 2] for bank in ("lower", "upper")}
    assert height["lower"].mean() < height["upper"].mean() - 5
    depth = {name: data.coordinates[presets[f"{name} frequencies"], 1] for name in ("low", "high")}
    assert depth["high"].mean() < depth["low"].mean() - 5
    assert not (presets["low frequencies"] & presets["high frequencies"]).any()
