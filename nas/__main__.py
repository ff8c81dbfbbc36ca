"""`python -m nas`: the same as the command `nas`."""

import sys
from pathlib import Path

# `python -m` looks for modules in the current folder first; it may hold the files of a stranger.
if sys.path[0] == str(Path.cwd()) and Path.cwd() not in Path(__file__).parents:
    del sys.path[0]

from nas.commands.main import main

if __name__ == "__main__":
    main()
