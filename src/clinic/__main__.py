"""`python -m clinic` is the `clinic` command."""

import sys

from clinic.entrypoints.cli import main

sys.exit(main())
