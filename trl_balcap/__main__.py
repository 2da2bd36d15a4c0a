"""`python -m trl_balcap` is the command `trl-balcap`."""

import sys

from trl_balcap.cli import main

sys.exit(main())
