"""The user's photographs: find and read them, and where their subject is."""
