"""Movies, sheets and brains in, TR-aligned tensors out, and back to files."""

from giblet.data.audio import AudioProcessor
from giblet.data.coordinates import CoordinateDataset, fit_span
from giblet.data.dataset import MultimodalDataset
from giblet.data.fmri import FMRIProcessor
from giblet.data.folder import DataFolder
from giblet.data.simulate import default_data_dir, simulate_dataset
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor

__all__ = [
    "AudioProcessor",
    "CoordinateDataset",
    "DataFolder",
    "FMRIProcessor",
    "MultimodalDataset",
    "TextProcessor",
    "VideoProcessor",
    "default_data_dir",
    "fit_span",
    "simulate_dataset",
]
