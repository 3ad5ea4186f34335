"""``python -m runnerlib``: serves the adapter, or tries it without an environment around it."""

from runnerlib.import_path import put_current_folder_last

if __name__ == "__main__":
    put_current_folder_last()

import sys

from runnerlib.commands.parser import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
