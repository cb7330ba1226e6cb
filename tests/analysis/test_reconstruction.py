import numpy as np
import pandas as pd
import pytest
import torch

from giblet.analysis.identification import pairwise_accuracy
from giblet.analysis.lesions import Brain
from giblet.analysis.reconstruction import (
    SOURCES,
    Reconstruction,
    collect,
    compare_with_ridge,
    decode_batches,
    reconstruct,
    reconstruction_table,
    similarity,
)
from giblet.analysis.scores import score_trs
from giblet.analysis.sources import shifted_rows, source_fmri
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.recipe import Recipe, build_model
from giblet.runs import load_or_train
from giblet.training import TrainingConfig

MODALITIES = ("video", "audio", "text")


def test_sources_are_what_they_are_called(data, model):
    test = data["test"]
    batch = test[list(range(test.n_trs))]
    model.eval()
    with torch.no_grad():
        predicted = model(batch["video"], batch["audio"], batch["text"])
        measured = model.decode_fmri(batch["fmri"])
    for source, outputs in (("raw", predicted), ("measured", measured)):
        recon = collect(reconstruct(model, test, source))
        for name in MODALITIES:
            assert torch.allclose(recon[name], outputs[f"{name}_recon"], atol=1e-5)
    shifted = collect(reconstruct(model, test, "shifted"))
    assert torch.allclose(
        shifted["video"], measured["video_recon"][shifted_rows(test.run)], atol=1e-5
    )
    mean = collect(reconstruct(model, test, "mean"))
    assert torch.equal(mean["text"], test.train_mean("text").expand_as(batch["text"]))
    for name, values in collect(reconstruct(model, test, "movie")).items():
        assert torch.equal(values, batch[name])


def test_ceiling_is_the_projection_on_the_training_film(data, span_model):
    """By least squares in float64, it cannot be beaten by any combination of training frames."""
    test = data["test"]
    ceiling = collect(reconstruct(span_model, test, "ceiling"))["video"].double().numpy()
    train_trs = np.flatnonzero(test.split_labels == "train")
    film = test.stimulus("video", train_trs).double().numpy()
    target = collect(reconstruct(span_model, test, "movie"))["video"].double().numpy()
    weights = np.linalg.lstsq(film.T, target.T, rcond=None)[0]
    assert np.allclose(ceiling, (film.T @ weights).T, atol=1e-4)


def test_codes_end_to_end(simulated, codec, tmp_path):
    """Film to codes, two epochs, codes from the measured brain, and sound of the right length."""
    audio = AudioProcessor("encodec_codes", codec=codec)
    recipe = Recipe(
        VideoProcessor(6, 8, frame_skip=4), audio, {"width": 1 / 64, "bottleneck_dim": 8}
    )
    run = load_or_train(
        simulated, TrainingConfig(epochs=2), tmp_path, progress=False, recipe=recipe
    )
    test = run.data["test"]
    recon = collect(reconstruct(run.model, test, "measured"))
    assert recon["audio"].shape == (test.n_trs, 8, 112)
    assert 0 <= recon["audio"].min() <= recon["audio"].max() < 1024
    scores = score_trs(iter([recon]), test)
    target = collect(reconstruct(run.model, test, "movie"))["audio"]
    assert scores[("audio", "codes")].to_numpy() == pytest.approx(
        (recon["audio"] == target).double().mean((1, 2))
    )
    commonest = collect(reconstruct(run.model, test, "mean"))["audio"]
    train = test.features.audio[test.split_labels == "train"]
    values, counts = np.unique(train[:, 0, 0], return_counts=True)
    assert counts[values == int(commonest[0, 0, 0])] == counts.max()
    assert Reconstruction(run.model, test, "ceiling").identify(20)["audio"].two_way.mean() > 0.6
    lesions = Brain(run.model, test, test.fmri())
    assert lesions.intact["audio"][0] == pytest.approx(
        scores[("audio", "codes")].to_numpy(), abs=1e-6
    )
    sound = test.audio_processor.features_to_sound(recon["audio"])
    assert sound.shape == (round(test.n_trs * 1.5 * 24_000),)
    assert np.isfinite(sound).all()


def test_similarity_against_a_loop(data, model):
    test = data["test"]
    recon = collect(reconstruct(model, test, "measured"))
    alike = similarity(reconstruct(model, test, "measured"), test)
    for name in MODALITIES:
        mean = test.train_mean(name).double()
        target = collect(reconstruct(model, test, "movie"))[name].double() - mean
        away = recon[name].double() - mean
        expected = torch.nn.functional.cosine_similarity(away[:, None], target[None], dim=2)
        assert np.allclose(alike[name], expected, atol=1e-4)


def test_the_mean_can_not_be_identified(data, model):
    """Not even by rounding: every comparison is a tie."""
    for name, found in Reconstruction(model, data["test"], "mean").identify(20).items():
        assert np.all(found.two_way == 0.5), name


def test_the_movie_itself_is_identified(data, span_model):
    found = Reconstruction(span_model, data["test"], "ceiling").identify(20)
    assert found["text"].two_way.mean() > 0.8
    assert found["video"].two_way.mean() > 0.9


def test_voxels_that_are_left_out_say_nothing(data, model):
    test = data["test"]
    silent = np.zeros(test.fmri().shape[1], bool)
    recon = collect(reconstruct(model, test, "measured", mask=silent))
    assert torch.allclose(recon["video"], recon["video"][:1].expand_as(recon["video"]), atol=1e-6)
    every = collect(reconstruct(model, test, "measured", mask=~silent))
    assert torch.equal(every["video"], collect(reconstruct(model, test, "measured"))["video"])


def test_batches_do_not_matter(data, model):
    fmri = data["test"].fmri()
    one, many = (collect(decode_batches(model, fmri, n)) for n in (len(fmri), 5))
    assert torch.allclose(one["text"], many["text"], atol=1e-5)


def test_table_holds_every_source(data, span_model):
    test = data["test"]
    recon = {source: Reconstruction(span_model, test, source) for source in SOURCES}
    table = reconstruction_table(recon, n_permute=50, block_trs=4)
    assert table.columns.tolist() == list(SOURCES)
    assert table.columns.name == "SIMULATED data"
    assert table.loc[("video", "mse")].idxmin() == "ceiling"
    scores = score_trs(reconstruct(span_model, test, "mean"), test)
    assert table.loc[("video", "mse"), "mean"] == pytest.approx(scores[("video", "mse")].mean())
    assert table.loc["video"].index[0] == "R2"
    assert table.loc[("audio", "R2"), "mean"] == pytest.approx(0, abs=1e-6)
    for source in ("predicted", "measured"):
        for name in ("video", "audio"):
            expected = recon[source].brain.intact[name].mean()
            assert table.loc[(name, "R2"), source] == pytest.approx(expected, abs=1e-4)
    assert table.loc[("text", "2-way"), "mean"] == 0.5
    assert (table.loc[("audio", "low")] <= table.loc[("audio", "2-way")]).all()


def test_decoder_beside_ridge_in_words():
    index = [("video", "R2"), ("video", "2-way"), ("text", "cosine"), ("text", "2-way")]
    table = pd.DataFrame(
        {"measured": [0.5, 0.9, 0.25, 0.7], "ridge": [0.625, 0.8, 0.25, 0.5]},
        index=pd.MultiIndex.from_tuples(index),
    )
    assert compare_with_ridge(table) == {
        "video": "video: R2 0.50 is 0.12 below ridge regression (0.62), "
        "2-way 0.90 is 0.10 above ridge regression (0.80)",
        "text": "text: cosine 0.25 is 0.00 above ridge regression (0.25), "
        "2-way 0.70 is 0.20 above ridge regression (0.50)",
    }


def test_unknown_source(data, model):
    with pytest.raises(ValueError, match="source is 'nothing', expected one of movie, ceiling"):
        next(reconstruct(model, data["test"], "nothing"))


@pytest.mark.parametrize("source", ["movie", "noisy", *SOURCES])
def test_noun_holds_what_the_function_gives(data, span_model, source):
    test = data["test"]
    one = Reconstruction(span_model, test, source)
    expected = collect(reconstruct(span_model, test, source))
    for name in MODALITIES:
        assert torch.equal(one.decoded[name], expected[name])
        assert torch.equal(getattr(one, name), expected[name])
    assert one.scores.equals(score_trs(iter([expected]), test))


def test_shifted_brain_is_identified_at_the_wrong_times(data, span_model):
    """The null of the right brain is kept; only the held-out rows are those of other times."""
    test = data["test"]
    right = Reconstruction(span_model, test).identify(20)
    wrong = Reconstruction(span_model, test, "shifted").identify(20)
    shifted = collect(reconstruct(span_model, test, "shifted"))
    alike = similarity(iter([shifted]), test)
    for name in MODALITIES:
        accuracy, _ = pairwise_accuracy(alike[name], test.tr_index, test.run, test.gap)
        assert np.allclose(wrong[name].two_way, np.diag(accuracy), atol=1e-6)
        assert np.array_equal(wrong[name].tr_index, right[name].tr_index)


def test_brain_of_a_reconstruction_is_the_one_that_was_decoded(data, span_model):
    test = data["test"]
    mask = np.arange(test.fmri().shape[1]) < 40
    one = Reconstruction(span_model, test, subject=test.subjects[0], mask=mask)
    fmri = source_fmri(span_model, test, subject=test.subjects[0]) * mask
    assert np.array_equal(one.brain.fmri.numpy(), fmri)
    with torch.no_grad():
        decoded = span_model.eval().decode_fmri(torch.from_numpy(fmri))
    assert torch.allclose(one.video, decoded["video_recon"], atol=1e-5)


def test_picture_of_a_reconstruction(data, span_model):
    figure = Reconstruction(span_model, data["test"]).plot(n_stills=3)
    assert len(figure.axes) == 2 * 3
    assert figure.get_suptitle().startswith("SIMULATED data")


def test_nothing_to_draw_without_pictures(rng):
    data = MultimodalDataset.from_arrays(
        text=rng.standard_normal((200, 4)),
        fmri=rng.standard_normal((2, 200, 6)),
        runs=[100, 100],
        split="test",
        average=True,
    )
    model = build_model(data.select("train"), direct=True)
    with pytest.raises(ValueError, match="the data have no pictures to draw: take `scores`"):
        Reconstruction(model, data, "measured").plot()
