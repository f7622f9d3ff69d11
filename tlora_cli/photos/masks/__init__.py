"""Masks of the subject of a photograph: found, checked, shown."""
