"""What everything stands on: errors, files, pictures, pages, devices, bundled files."""
