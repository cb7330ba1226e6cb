from .checkpoint import TrainingError as TrainingError
from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import load_model as load_model
from .checkpoint import save_checkpoint as save_checkpoint
from .config import TrainingConfig as TrainingConfig
from .launcher import launch as launch
from .trainer import Trainer as Trainer
