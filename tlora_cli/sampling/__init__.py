"""Draw pictures: prompts and seeds through the stock pipeline of a base model."""
