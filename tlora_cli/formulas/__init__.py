"""The paper's mathematics and nothing else: rank schedules, objectives, the masked update."""
