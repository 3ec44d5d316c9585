"""`python3 -m cgmem_guest`."""

import sys

from .cli import main

sys.exit(main())
