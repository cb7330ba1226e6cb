from .dataset import default_data_dir as default_data_dir
from .dataset import simulate_dataset as simulate_dataset
