"""Captions of photographs: said by a model, and cut down to what should not be learned."""

CHECKPOINT = "HuggingFaceTB/SmolVLM-500M-Instruct"
"""The model that says them by default: its authors' own checkpoint, under the Apache license 2.0;
about 1 GB."""
