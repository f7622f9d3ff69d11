"""`tlora compare`: many runs from one file, trained, evaluated and set side by side."""
