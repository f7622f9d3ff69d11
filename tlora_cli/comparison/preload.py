"""Imported once by the server that the cells' processes come from: the model libraries, quietly."""

import logging

logging.disable(logging.WARNING)
import tlora_cli.comparison.run_cell  # noqa: E402, F401

logging.disable(logging.NOTSET)
