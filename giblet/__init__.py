"""giblet: what each piece of the brain takes from a movie."""

import os

# Gradients of hundreds of megabytes come anew at every step; on Linux, huge pages spare a third of
# the time of a step. torch reads this at its first allocation, and so it is set before anything is allocated.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
