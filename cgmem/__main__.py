"""`python -m cgmem` is `cgmem`."""

import sys

from cgmem.cli import main

if __name__ == "__main__":
    sys.exit(main())
