"""What docs/architecture.md shows how to add to tlora, as a package of its own."""
