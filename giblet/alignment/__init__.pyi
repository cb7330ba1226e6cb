from .hrf import convolve_hrf as convolve_hrf
from .hrf import hrf_kernel as hrf_kernel
from .lag import lag_curve as lag_curve
from .splits import Splitting as Splitting
from .splits import gap_trs as gap_trs
from .splits import label_trs as label_trs
from .splits import split_trs as split_trs
