"""``python -m learnd``: an alias of the ``learnd`` command."""

import sys

from learnd.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
