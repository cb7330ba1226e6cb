import os
from pathlib import Path

import numpy as np
import pytest
import torch

from giblet.data import VideoProcessor, default_data_dir, simulate_dataset


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """A small simulated data set: two subjects, runs of 64 and 62 TRs, 12 mm."""
    path = tmp_path_factory.mktemp("data") / "simulated"
    return simulate_dataset(path, n_subjects=2, run_trs=(64, 62), resolution_mm=12, progress=False)


@pytest.fixture(scope="session")
def full_simulated() -> Path:
    """The simulated data set that the notebooks work on."""
    return default_data_dir(progress=False)


@pytest.fixture(scope="session")
def codec(tmp_path_factory) -> str:
    """Folder of a small EnCodec model of random weights; its codebooks spread over its latents."""
    transformers = pytest.importorskip("transformers", reason="needs the extra encodec")
    torch.manual_seed(0)
    model = transformers.EncodecModel(
        transformers.EncodecConfig(num_filters=4, hidden_size=128, num_lstm_layers=1)
    )
    with torch.no_grad():
        latents = model.eval().encoder(0.1 * torch.randn(1, 1, 48_000))[0]
    for index, layer in enumerate(model.quantizer.layers):
        spread = torch.randn_like(layer.codebook.embed) * latents.std(1)
        layer.codebook.embed.copy_(spread + latents.mean(1) * (index == 0))
    path = tmp_path_factory.mktemp("codec")
    model.save_pretrained(path)
    return str(path)


@pytest.fixture
def tiny_video() -> VideoProcessor:
    return VideoProcessor(height=6, width=8, frame_skip=4)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real measurements, which the project does not ship."""
    if "GIBLET_REAL_DATA" not in os.environ:
        pytest.skip("GIBLET_REAL_DATA does not name a folder of real measurements")
    return Path(os.environ["GIBLET_REAL_DATA"])
