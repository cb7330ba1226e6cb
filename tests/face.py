"""A user's program, read by a type checker and run by nobody: what public names take and give."""

from pathlib import Path
from typing import assert_type

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

import giblet as gb


def data(folder: Path) -> gb.MultimodalDataset:
    """A data set of a folder, and one of arrays."""
    assert_type(gb.default_data_dir(), Path)
    assert_type(gb.simulate_dataset(folder, n_subjects=2, random_state=0), Path)
    assert_type(gb.DataFolder.open(folder).run_trs, tuple[int, ...])
    pictures = gb.VideoProcessor(height=45, width=80, frame_skip=4)
    dataset = gb.MultimodalDataset(folder, split="all", average=True, video_processor=pictures)
    assert_type(dataset.fmri(), np.ndarray)
    assert_type(dataset.label, str)
    assert_type(dataset.select("test"), gb.MultimodalDataset)
    arrays = gb.MultimodalDataset.from_arrays(text=np.zeros((9, 2)), fmri=np.zeros((2, 9, 3)))
    assert_type(arrays, gb.MultimodalDataset)
    assert_type(gb.lag_curve(np.zeros((9, 1)), dataset.fmri(), dataset.run, range(4)), np.ndarray)
    assert_type(gb.inter_subject_correlation(dataset.per_subject()), np.ndarray)
    return dataset


def training(folder: Path) -> gb.Prediction:
    """A run, and what its model predicts."""
    config = gb.TrainingConfig(epochs=10, precision="float32")
    run = gb.load_or_train(folder, config, context=(2, 0), width=1 / 8)
    run = gb.load_run(run.folder)
    assert_type(run.ended, str)
    assert_type(run.plot(), Figure)
    assert_type(run.data, dict[str, gb.MultimodalDataset])
    assert_type(gb.load_model(run.folder), gb.MultimodalAutoencoder)
    assert_type(gb.merge([run.model], run.data["all"]), gb.MultimodalAutoencoder)
    assert_type(gb.build_model(run.data["train"], recipe=gb.FULL_SIZE), gb.MultimodalAutoencoder)
    assert_type(gb.launch(folder, folder / "out", config, n_ranks=2), Path)
    return gb.Prediction(run.model, run.data["test"])


def prediction(found: gb.Prediction, folder: Path) -> None:
    """Scores, tables, figures and files of a prediction."""
    assert_type(found.null(2000, random_state=0), np.ndarray)
    assert_type(found.region_table(n_boot=100), pd.DataFrame)
    assert_type(found.network_table(), pd.DataFrame)
    assert_type(found.ablation_table(), pd.DataFrame)
    assert_type(found.regions.voxels("Visual"), np.ndarray)
    assert_type(found.plot(), Figure)
    assert_type(gb.plot_maps({"r": found.r}, found.whole.mask_img, 0.2, 0.6), Figure)
    assert_type(gb.plot_scores({"r": found.network_table()["r"]}, "held-out r"), Figure)
    found.save(folder)
    assert_type(gb.fitting_trs(found.whole), gb.MultimodalDataset)
    assert_type(found.comparison_table(), pd.DataFrame)
    train, test = gb.random_split(found.whole)
    assert_type(gb.ridge_predictions(train, test), np.ndarray)


def decoding(found: gb.Prediction) -> None:
    """What comes back, and what a lesion takes away."""
    model = found.model
    assert model is not None
    sources = {source: gb.Reconstruction(model, found.held_out, source) for source in gb.SOURCES}
    assert_type(sources["measured"].video, torch.Tensor)
    assert_type(sources["measured"].plot(), Figure)
    assert_type(gb.reconstruction_table(sources), pd.DataFrame)
    identified = {source: one.identify() for source, one in sources.items()}
    assert_type(gb.plot_identification(identified, "which moment is it?"), Figure)
    brain = sources["measured"].brain
    lesion = gb.Lesion(brain, mask=found.regions.voxels("Visual"), units=range(10), mode="only")
    assert_type(lesion.null(199, random_state=0), dict[str, np.ndarray])
    assert_type(lesion.table(), pd.DataFrame)
    assert_type(lesion.plot(), Figure)
    sweep = gb.region_sweep(lesion, found.regions)
    assert_type(gb.plot_sweep(sweep, "cost"), Figure)
    assert_type(gb.dose_response(lesion), pd.DataFrame)
    assert_type(gb.unit_region_map(brain, found.regions), pd.DataFrame)
    assert_type(gb.top_trs(brain, found.regions.voxels("Visual")), np.ndarray)
    gb.LesionExplorer(model, found.held_out, found.regions).close()
