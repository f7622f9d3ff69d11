"""What the program does with adapters and recipes beside training and sampling."""
