"""giblet: what each piece of the brain takes from a movie."""

import os

# Gradients of hundreds of megabytes come anew at every step; on Linux, huge pages spare a third of
# the time of a step. torch reads this at its first allocation, and so it is set before anything is allocated.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# On Linux (libgomp) a thread that waits for work spins, on a core that another process's threads
# could use: on two busy cores, two trainings at once took fifteen times as long. Asleep, it gives
# its core up. OpenMP reads this when it is loaded, at `import torch`: who imports torch before
# giblet keeps its default, and who has set a policy keeps that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
