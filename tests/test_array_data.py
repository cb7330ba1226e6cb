"""Data sets of arrays through figures, reconstructions and the explorer.

What they have is shown, and what they lack is said in a sentence.
"""

import io

import nibabel as nib
import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_brain_mask
from PIL import Image

from giblet.analysis.dissociation import intact_table
from giblet.analysis.lesion_cost import random_lesions
from giblet.analysis.lesions import Brain
from giblet.data import MultimodalDataset
from giblet.explorer import LesionExplorer
from giblet.maps import save_map
from giblet.models import MultimodalAutoencoder
from giblet.plotting.data import plot_split, plot_words
from giblet.plotting.media import plot_film_strips, text_table
from giblet.plotting.surface import plot_maps, plot_volume, view_map
from giblet.regions import regions_of, seitzman_networks, sphere
from giblet.report import write_reconstructions
from giblet.runs import Run, load_or_train, load_run
from giblet.training import TrainingConfig

N_TRS = 320
N_PARCELS = 40


def arrays(rng, kind: str) -> dict:
    """Features alone, or a film, sound features and words, and parcels in their places."""
    given = {
        "text": rng.standard_normal((N_TRS, 9)),
        "fmri": rng.standard_normal((3, N_TRS, N_PARCELS)),
    }
    if kind == "features":
        return given
    film = rng.integers(0, 256, (N_TRS, 3, 10, 12), dtype=np.uint8)
    given |= {"video": film, "audio": rng.standard_normal((N_TRS, 5))}
    centres = np.concatenate([rng.uniform((-60, -90, -30), (60, 60, 60), (N_PARCELS, 3))])
    return given | {"coordinates": centres, "regions": [f"area {n % 4}" for n in range(N_PARCELS)]}


@pytest.fixture(scope="module", params=["features", "film"])
def run(request, tmp_path_factory) -> Run:
    data = MultimodalDataset.from_arrays(
        **arrays(np.random.default_rng(0), request.param), tr=2.0, context=(1, 0)
    )
    config = TrainingConfig(epochs=2)
    folder = tmp_path_factory.mktemp("arrays") / request.param
    return load_or_train(data, config, folder, progress=False, width=1 / 64, bottleneck_dim=8)


def has_film(run: Run) -> bool:
    return run.data["test"].video_processor is not None


def test_run_is_opened_with_its_arrays_and_not_without(run):
    again = load_run(run.folder, run.data["train"])
    assert again.history == run.history
    assert load_or_train(run.data["val"], run_dir=run.folder, progress=False).history == run.history
    with pytest.raises(ValueError, match="was trained on arrays: give the data set that they make"):
        load_run(run.folder)
    other = MultimodalDataset.from_arrays(
        **arrays(np.random.default_rng(1), "features"), tr=2.0, context=(1, 0)
    )
    with pytest.raises(ValueError, match=r"other contents of .*(fmri|and 1 more)"):
        load_run(run.folder, other)


def test_arrays_need_a_folder_for_their_run(run):
    with pytest.raises(ValueError, match="arrays have no folder of their own: give run_dir"):
        load_or_train(run.data["train"], TrainingConfig(epochs=1))


def test_regions(run):
    regions = regions_of(run.data["all"])
    if has_film(run):
        assert regions.names == ("area 0", "area 1", "area 2", "area 3")
        assert regions.largest(2) == ["area 0", "area 1"]
        assert np.array_equal(regions.labels, np.arange(N_PARCELS) % 4)
    else:
        assert regions.names[:2] == ("parcel 1", "parcel 2")
        assert np.array_equal(regions.labels, np.arange(N_PARCELS))


def test_voxels_of_no_region():
    given = {
        "text": np.random.default_rng(0).random((150, 2)),
        "fmri": np.random.default_rng(0).random((150, 1001)),
    }
    with pytest.raises(
        ValueError,
        match="nothing says which regions 1001 voxels belong to: give from_arrays regions or mask",
    ):
        regions_of(MultimodalDataset.from_arrays(**given))
    named = MultimodalDataset.from_arrays(**given, regions=["V1"] * 1000 + [""])
    assert regions_of(named).labels.tolist() == [0] * 1000 + [-1]
    voxels = nib.Nifti1Image(np.ones((7, 11, 13), np.uint8), np.diag([8, 8, 8, 1]))
    networks = regions_of(MultimodalDataset.from_arrays(**given, mask_img=voxels))
    assert "Visual" in networks.names


def test_reconstructions_of_what_there_is(run, tmp_path):
    table = write_reconstructions(run.model, run.data["test"], tmp_path)
    assert table.index.unique(0).tolist() == list(run.data["test"].present)
    assert table.loc[("text", "2-way")].between(0, 1).all()
    written = {path.name for path in tmp_path.iterdir()}
    film = {"film_strips.png", "films.mp4", "measured.mp4"}
    assert {"scores.csv", "table.csv", "identification.png"} <= written
    assert film & written == (film if has_film(run) else set())
    assert not {"text.csv", "spectrograms.png", "measured.wav"} & written


def test_film_strips_where_there_is_film(run):
    test = run.data["test"]
    movie = {"movie": test.stimulus("video", test.tr_index)}
    if has_film(run):
        assert len(plot_film_strips(movie, [0, 5], test).axes) == 2
        shown = plot_film_strips(movie, [5], test).axes[0].images[0].get_array()
        middle = test.features.video[test.tr_index[5]].reshape(3, 10, 12)[1]
        assert np.array_equal(shown, middle)  # of the TR itself, and not of the one before it
        plot_words(test, test.tr_index[:2])
    else:
        for draw in (
            lambda: plot_film_strips(movie, [0], test),
            lambda: plot_words(test, test.tr_index[:2]),
        ):
            with pytest.raises(
                ValueError,
                match="the video of this data set is no film: give from_arrays uint8 frames",
            ):
                draw()


def test_what_needs_a_mask_or_sentences_says_so(run, tmp_path):
    test = run.data["test"]
    values = np.zeros(N_PARCELS)
    shown = {"threshold": 0.1, "vmax": 1.0}
    for need in (
        lambda: plot_maps({"r": values}, test.mask_img, **shown),
        lambda: plot_volume(values, test.mask_img, "r", **shown),
        lambda: view_map(values, test.mask_img, "r", **shown),
        lambda: save_map(values, test.mask_img, tmp_path / "r.nii.gz"),
        lambda: seitzman_networks(test.mask_img),
        lambda: sphere(test.mask_img, (0, 0, 0), 10),
    ):
        with pytest.raises(
            ValueError,
            match="these data have no mask_img, which says where voxels lie: give it to from",
        ):
            need()
    with pytest.raises(
        ValueError, match="the text of this data set is an array: there are no sentences"
    ):
        text_table({"text": torch.zeros(3, 9)}, [0], test)
    assert list(tmp_path.iterdir()) == []


def test_split_is_drawn(run):
    assert len(plot_split(run.data["all"]).axes) == 1


def test_maps_of_arrays_with_a_mask(rng):
    mask_img = load_mni152_brain_mask(resolution=12)
    n_voxels = int(np.asarray(mask_img.dataobj).sum())
    given = {
        "text": rng.random((150, 3)),
        "fmri": rng.random((150, n_voxels)),
        "mask_img": mask_img,
    }
    data = MultimodalDataset.from_arrays(**given)
    assert (
        len(plot_maps({"r": rng.random(n_voxels)}, data.mask_img, threshold=0.1, vmax=1.0).axes)
        == 5
    )
    assert np.array_equal(regions_of(data).labels, seitzman_networks(mask_img).labels)


def test_explorer_shows_what_there_is(run):
    test = run.data["test"]
    regions = regions_of(test)
    explorer = LesionExplorer(run.model, test, regions, n_permute=19)
    app = explorer.widget
    assert ("views" in app.facts) == app.facts["has"]["video"] == has_film(run)
    assert bool(app.lesioned) == bool(app.hurt) == has_film(run)
    table = intact_table(explorer.brains)
    better = table["measured"] > table["training mean"]
    told = " ".join(app.facts["failures"])
    for name in table.index:  # of noise, either can be
        failed = f"{name} from the measured brain is decoded no better" in told
        assert failed != better[name]
    explorer.set(regions=regions.names[:2])
    explorer.settle()
    assert app.effects["of"] == app.state
    effects = explorer.effects()
    assert set(effects) == set(test.present)
    assert all(np.isfinite(effect.p) for effect in effects.values())
    if has_film(run):
        picture = np.asarray(Image.open(io.BytesIO(app.movie)))
        middle = test.features.video[test.tr_index[0]].reshape(3, 10, 12)[1]
        assert np.array_equal(picture, middle)
    explorer.close()


def test_null_without_coordinates_is_of_parcels_at_random(run):
    test = run.data["test"]
    lesions = random_lesions(test, 7, 50, np.random.default_rng(0))
    assert lesions.shape == (50, N_PARCELS)
    assert (lesions.sum(1) == 7).all()
    spread = np.corrcoef(lesions.T.astype(float))[np.triu_indices(N_PARCELS, 1)]
    together = np.nanmax(spread) > 0.8  # neighbours are lesioned together where they are known
    assert together == has_film(run)


def test_scores_of_a_whole_data_set_are_refused(run):
    for split in ("train", "all"):
        with pytest.raises(ValueError, match=r"holds \d+ training TRs"):
            Brain(run.model, run.data[split])


def test_direct_model_of_arrays(rng):
    data = MultimodalDataset.from_arrays(**arrays(rng, "film"), average=True, split="test")
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=4, width=1 / 64)
    assert set(Brain(model, data, "predicted").intact) == {"video", "audio", "text"}
