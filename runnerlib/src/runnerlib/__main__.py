"""``python -m runnerlib``: serves the adapter, or tries it without an environment around it."""

import sys

from runnerlib.commands.parser import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
