"""The paper's mathematics and nothing else: schedules, objectives, the masked update."""
