"""Training: settings, the loop, checkpoints."""

from giblet.training.checkpoint import TrainingError, load_checkpoint, load_model, save_checkpoint
from giblet.training.config import TrainingConfig
from giblet.training.launcher import launch
from giblet.training.trainer import Trainer

__all__ = ["Trainer", "TrainingConfig", "TrainingError", "launch", "load_checkpoint", "load_model", "save_checkpoint"]
