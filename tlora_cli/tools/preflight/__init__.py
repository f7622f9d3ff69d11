"""A look ahead: at the machine, at a recipe before it runs, at a picture before there is one."""
