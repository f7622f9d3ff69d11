"""Run the command line as `python -m tlora_cli`."""

import sys

from tlora_cli.cli.app import main

sys.exit(main())
