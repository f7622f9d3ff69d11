"""Scenes: the photo's subject, cut out and put on places that the base model drew."""
