import numpy as np
import pytest
import torch

from giblet.analysis.lesions import Brain
from giblet.data import MultimodalDataset, VideoProcessor, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    video = VideoProcessor(height=6, width=8, frame_skip=4)
    return {
        split: MultimodalDataset(
            simulated, split=split, average=True, video_processor=video, progress=False
        )
        for split in ("test", "all")
    }


@pytest.fixture(scope="module")
def model(data) -> MultimodalAutoencoder:
    torch.manual_seed(0)
    return MultimodalAutoencoder(**data["all"].model_dims, bottleneck_dim=8, width=1 / 64)


@pytest.fixture(scope="module")
def span_model(simulated, data, tmp_path_factory):
    video = data["test"].video_processor
    train = MultimodalDataset(simulated, average=True, video_processor=video, progress=False)
    torch.manual_seed(0)
    span = fit_span(train, tmp_path_factory.mktemp("bases"), progress=False)
    return SpanAutoencoder(span, **train.model_dims, bottleneck_dim=8, width=1 / 64).eval()


@pytest.fixture(scope="module", params=["direct", "span"])
def brain(request, data, model, span_model) -> Brain:
    chosen = model if request.param == "direct" else span_model
    return Brain(chosen, data["test"], data["test"].fmri())


@pytest.fixture
def region(brain, rng) -> np.ndarray:
    return rng.random(brain.fmri.shape[1]) < 0.3
