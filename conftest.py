import os
import tempfile

import giblet  # noqa: F401  (before torch: its threads then sleep while they wait)


def pytest_configure(config):
    """Tests and notebooks simulate and train anew, whatever the user's cache holds."""
    os.environ.pop("GIBLET_DATA", None)
    cache = tempfile.TemporaryDirectory(prefix="giblet-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name
