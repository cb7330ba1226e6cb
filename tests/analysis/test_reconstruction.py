import numpy as np
import pytest
import torch

from giblet.analysis.lesions import LesionScores
from giblet.analysis.reconstruction import (
    SOURCES,
    collect,
    decode_batches,
    reconstruct,
    shifted_rows,
    similarity,
    source_fmri,
    stimulus_batches,
)
from giblet.analysis.scores import score_trs
from giblet.analysis.tables import identify_source, reconstruction_table
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor, fit_span
from giblet.models import SpanAutoencoder
from giblet.training import TrainingConfig
from giblet.training.recipe import Recipe, load_or_train

MODALITIES = ("video", "audio", "text")


@pytest.fixture(scope="module")
def span_model(simulated, data, tmp_path_factory):
    test = data["test"]
    train = MultimodalDataset(
        simulated,
        average=True,
        video_processor=test.video_processor,
        audio_processor=test.audio_processor,
        progress=False,
    )
    torch.manual_seed(0)
    span = fit_span(train, tmp_path_factory.mktemp("bases"), progress=False)
    return SpanAutoencoder(span, **train.model_dims, bottleneck_dim=8, width=1 / 64)


def test_sources_are_what_they_are_called(data, model):
    test = data["test"]
    batch = test[list(range(test.n_trs))]
    model.eval()
    with torch.no_grad():
        predicted = model(batch["video"], batch["audio"], batch["text"])
        measured = model.decode_fmri(batch["fmri"])
    for source, outputs in (("predicted", predicted), ("measured", measured)):
        recon = collect(reconstruct(source, model, test))
        for name in MODALITIES:
            assert torch.allclose(recon[name], outputs[f"{name}_recon"], atol=1e-5)
    shifted = collect(reconstruct("shifted", model, test))
    assert torch.allclose(shifted["video"], measured["video_recon"][shifted_rows(test.run)], atol=1e-5)
    mean = collect(reconstruct("mean", model, test))
    assert torch.equal(mean["text"], test.train_mean("text").expand_as(batch["text"]))
    for name, values in collect(stimulus_batches(test, batch_trs=5)).items():
        assert torch.equal(values, batch[name])


def test_shift_stays_in_its_run_and_moves_every_tr():
    run = np.repeat([0, 1], [9, 14])
    order = shifted_rows(run)
    assert np.array_equal(np.sort(order), np.arange(23))
    assert np.array_equal(run[order], run)
    assert (np.abs(order - np.arange(23)) >= 4).all()


def test_ceiling_is_the_projection_on_the_training_film(data, span_model):
    """By least squares in float64, it cannot be beaten by any combination of training frames."""
    test = data["test"]
    ceiling = collect(reconstruct("ceiling", span_model, test))["video"].double().numpy()
    train_trs = np.flatnonzero(test.split_labels == "train")
    film = test.stimulus("video", train_trs).double().numpy()
    target = collect(stimulus_batches(test))["video"].double().numpy()
    weights = np.linalg.lstsq(film.T, target.T, rcond=None)[0]
    assert np.allclose(ceiling, (film.T @ weights).T, atol=1e-4)


def test_codes_end_to_end(simulated, codec, tmp_path):
    """Film to codes, two epochs, codes from the measured brain, and sound of the right length from them."""
    audio = AudioProcessor("encodec_codes", codec=codec)
    recipe = Recipe(VideoProcessor(6, 8, frame_skip=4), audio, {"width": 1 / 64, "bottleneck_dim": 8})
    run = load_or_train(simulated, TrainingConfig(epochs=2), tmp_path, progress=False, recipe=recipe)
    whole, test = run.data["all"], run.data["test"]
    recon = collect(reconstruct("measured", run.model, test))
    assert recon["audio"].shape == (test.n_trs, 8, 112)
    assert 0 <= recon["audio"].min() <= recon["audio"].max() < 1024
    scores = score_trs(iter([recon]), test)
    target = collect(stimulus_batches(test))["audio"]
    assert scores[("audio", "codes")].to_numpy() == pytest.approx((recon["audio"] == target).double().mean((1, 2)))
    commonest = collect(reconstruct("mean", run.model, test))["audio"]
    train = test.features.audio[test.split_labels == "train"]
    values, counts = np.unique(train[:, 0, 0], return_counts=True)
    assert counts[values == int(commonest[0, 0, 0])] == counts.max()
    assert identify_source("ceiling", run.model, whole, test, 20)["audio"].two_way.mean() > 0.6
    lesions = LesionScores(run.model, test, test.fmri())
    assert lesions.intact["audio"][0] == pytest.approx(scores[("audio", "codes")].to_numpy(), abs=1e-6)
    sound = test.audio_processor.features_to_sound(recon["audio"])
    assert sound.shape == (round(test.n_trs * 1.5 * 24_000),)
    assert np.isfinite(sound).all()


def test_one_subject_and_unknown_ones(data, model):
    test = data["test"]
    name = test.subjects[1]
    own = source_fmri("measured", model, test, subject=name)
    assert np.array_equal(own, test.features.fmri[1, test.tr_index])
    with pytest.raises(ValueError, match="subject is 'nobody', expected one of sub-01, sub-02"):
        source_fmri("measured", model, test, subject="nobody")
    with pytest.raises(ValueError, match="source is 'ceiling', expected one of predicted, measured, shifted"):
        source_fmri("ceiling", model, test)


def test_similarity_against_a_loop(data, model):
    test = data["test"]
    recon = collect(reconstruct("measured", model, test))
    alike = similarity(reconstruct("measured", model, test), test)
    for name in MODALITIES:
        mean = test.train_mean(name).double()
        target = collect(stimulus_batches(test))[name].double() - mean
        away = recon[name].double() - mean
        expected = torch.nn.functional.cosine_similarity(away[:, None], target[None], dim=2)
        assert np.allclose(alike[name], expected, atol=1e-4)


def test_the_mean_can_not_be_identified(data, model):
    """Not even by rounding: every comparison is a tie."""
    for name, found in identify_source("mean", model, data["all"], data["test"], n_permute=20).items():
        assert np.all(found.two_way == 0.5), name


def test_the_movie_itself_is_identified(data, span_model):
    found = identify_source("ceiling", span_model, data["all"], data["test"], n_permute=20)
    assert found["text"].two_way.mean() > 0.8
    assert found["video"].two_way.mean() > 0.9


def test_voxels_that_are_left_out_say_nothing(data, model):
    test = data["test"]
    silent = np.zeros(test.fmri().shape[1], bool)
    recon = collect(reconstruct("measured", model, test, voxels=silent))
    assert torch.allclose(recon["video"], recon["video"][:1].expand_as(recon["video"]), atol=1e-6)
    every = collect(reconstruct("measured", model, test, voxels=~silent))
    assert torch.equal(every["video"], collect(reconstruct("measured", model, test))["video"])


def test_batches_do_not_matter(data, model):
    fmri = data["test"].fmri()
    one, many = (collect(decode_batches(model, fmri, n)) for n in (len(fmri), 5))
    assert torch.allclose(one["text"], many["text"], atol=1e-5)


def test_table_holds_every_source(data, span_model):
    whole, test = data["all"], data["test"]
    scores = {source: score_trs(reconstruct(source, span_model, test), test) for source in SOURCES}
    identified = {source: identify_source(source, span_model, whole, test, n_permute=50) for source in SOURCES}
    table = reconstruction_table(scores, identified, test, block_trs=4)
    assert table.columns.tolist() == list(SOURCES)
    assert table.columns.name == "SIMULATED data"
    assert table.loc[("video", "mse")].idxmin() == "ceiling"
    assert table.loc[("video", "mse"), "mean"] == pytest.approx(scores["mean"][("video", "mse")].mean())
    assert table.loc[("text", "2-way"), "mean"] == 0.5
    assert (table.loc[("audio", "low")] <= table.loc[("audio", "2-way")]).all()
