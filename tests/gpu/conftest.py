"""Data and a model for the tests on a GPU."""

from dataclasses import replace

import pytest
from device import BF16

from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.recipe import build_model, open_data
from giblet.training import Trainer, load_model


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    return open_data(simulated, progress=False)


@pytest.fixture(scope="module")
def models(data, tmp_path_factory) -> tuple[MultimodalAutoencoder, MultimodalAutoencoder]:
    """A model of 120 updates in bf16 on the device, and its checkpoint on the CPU.

    Validated on the training TRs, it keeps a late epoch, which lesions hurt more than rounding.
    """
    folder = tmp_path_factory.mktemp("model")
    config = replace(BF16, epochs=60, patience=60, checkpoint_every=60)
    model = build_model(data["train"], progress=False)
    Trainer(model, data["train"], data["train"], config).fit(folder, progress=False)
    return model, load_model(folder / "best.pt")
