"""`python -m ovos_ray` is the program `ovos-ray`; it works from a checkout without installing."""

import os
import sys

# Python puts the current folder first on the path. Unless this program lies there, nothing in it is to be imported
# before the installed packages: it may be a dataset of a stranger. Processes that are spawned have the path already.
if __name__ == "__main__" and not os.path.isfile(os.path.join(sys.path[0] or ".", "ovos_ray", "__main__.py")):
    del sys.path[0]

from ovos_ray.cli import main

if __name__ == "__main__":
    main()
