"""`tlora studio`: a local page to learn from one photo, and to draw with what was learned."""
