"""Errors, files, pictures, pages, devices, bundled files: the ground of all else."""
