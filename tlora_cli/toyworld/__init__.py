"""The built-in world: its pictures, captions, models, and a judge that reads."""
