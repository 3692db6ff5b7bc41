"""``python -m reprism``."""

import sys

from reprism.cli import main

sys.exit(main())
