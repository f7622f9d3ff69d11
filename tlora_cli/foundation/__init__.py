"""The ground that everything stands on: errors, files, pictures, pages, devices, bundled files."""
