"""`python -m trl_balcap` runs the `trl-balcap` command."""

import sys

from trl_balcap.cli import main

sys.exit(main())
