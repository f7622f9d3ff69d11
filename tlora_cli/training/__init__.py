"""Training: one step (pure), what resumes, and the loop."""
