import pytest
import torch

from giblet.data import MultimodalDataset, VideoProcessor
from giblet.models import MultimodalAutoencoder


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    video = VideoProcessor(height=6, width=8, frame_skip=4)
    return {
        split: MultimodalDataset(simulated, split=split, average=True, video_processor=video, progress=False)
        for split in ("test", "all")
    }


@pytest.fixture(scope="module")
def model(data) -> MultimodalAutoencoder:
    torch.manual_seed(0)
    return MultimodalAutoencoder(**data["all"].model_dims, bottleneck_dim=8, width=1 / 64)
